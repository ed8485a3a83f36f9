"""Figures as pure functions on plain arrays: numbers in, Matplotlib axes out, no global state.

``draw_roc(result)`` and its like draw from an audit's result, ``save`` writes reproducible files; the functions under
them take plain numbers. Drawing happens on a ``Figure`` object, never through pyplot; Matplotlib is imported when the
first figure is drawn.
"""

from mnemoscope.reports.figures.audits import (
    draw_by_class,
    draw_composition,
    draw_cost,
    draw_distributions,
    draw_endpoints,
    draw_equivalence,
    draw_lineage,
    draw_rates,
    draw_record_map,
    draw_roc,
    draw_sensitivity,
    draw_utility,
)
from mnemoscope.reports.figures.classes import ClassBar, by_class
from mnemoscope.reports.figures.compositions import SetBar, composition
from mnemoscope.reports.figures.endpoints import BoundRow, against_bounds
from mnemoscope.reports.figures.equivalences import EquivalenceRow, equivalence
from mnemoscope.reports.figures.files import save
from mnemoscope.reports.figures.grids import WORD_MARKS, GridCell, sensitivity
from mnemoscope.reports.figures.histograms import ScorePanel, distributions
from mnemoscope.reports.figures.intervals import RateRow, rates
from mnemoscope.reports.figures.lineages import Arrow, Node, lineage
from mnemoscope.reports.figures.record_maps import record_map
from mnemoscope.reports.figures.rocs import RocLine, roc
from mnemoscope.reports.figures.styles import (
    BOUND,
    DELETION,
    FACE,
    GRID,
    INK,
    MUTED,
    STYLES,
    UNSUPPORTED,
    Groups,
    Style,
)
from mnemoscope.reports.figures.trade_offs import (
    ParetoPoint,
    UtilityPoint,
    frontier,
    pareto,
    useful_frontier,
    utility,
)

__all__ = [
    "BOUND",
    "DELETION",
    "FACE",
    "GRID",
    "INK",
    "MUTED",
    "STYLES",
    "UNSUPPORTED",
    "WORD_MARKS",
    "Arrow",
    "BoundRow",
    "ClassBar",
    "EquivalenceRow",
    "GridCell",
    "Groups",
    "Node",
    "ParetoPoint",
    "RateRow",
    "RocLine",
    "ScorePanel",
    "SetBar",
    "Style",
    "UtilityPoint",
    "against_bounds",
    "by_class",
    "composition",
    "distributions",
    "draw_by_class",
    "draw_composition",
    "draw_cost",
    "draw_distributions",
    "draw_endpoints",
    "draw_equivalence",
    "draw_lineage",
    "draw_rates",
    "draw_record_map",
    "draw_roc",
    "draw_sensitivity",
    "draw_utility",
    "equivalence",
    "frontier",
    "lineage",
    "pareto",
    "rates",
    "record_map",
    "roc",
    "save",
    "sensitivity",
    "useful_frontier",
    "utility",
]
