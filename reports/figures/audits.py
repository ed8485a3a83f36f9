"""Draw the figures of an audit from its result, for papers: each takes ``ax=`` as Matplotlib users expect.

Each function takes a result, or the path of a ``result.json`` or of its folder, and the subject by its name or position
(the first if left out). Where a result holds nothing to draw, what is missing is said.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.figures.classes import by_class
from mnemoscope.reports.figures.compositions import composition
from mnemoscope.reports.figures.endpoints import against_bounds
from mnemoscope.reports.figures.equivalences import equivalence
from mnemoscope.reports.figures.grids import sensitivity
from mnemoscope.reports.figures.histograms import distributions
from mnemoscope.reports.figures.intervals import rates
from mnemoscope.reports.figures.lineages import lineage
from mnemoscope.reports.figures.record_maps import record_map
from mnemoscope.reports.figures.rocs import roc
from mnemoscope.reports.figures.trade_offs import pareto, utility

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mnemoscope.audit.verdict.result import AuditResult, Subject

__all__ = [
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
]


def _result(given: "AuditResult | str | Path") -> "AuditResult":
    if isinstance(given, str | Path):
        from mnemoscope.reports.schema import read_result

        return read_result(given)
    return given


def _subject(result: "AuditResult", wanted: str | int | None) -> "Subject":
    names = [s.name for s in result.subjects]
    if not names:
        raise InvalidInput("this result holds no subject, so there is nothing to draw")
    if wanted is None:
        return result.subjects[0]
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if not -len(names) <= wanted < len(names):
            raise InvalidInput(f"subject={wanted}: the result holds {len(names)}, numbered from 0")
        return result.subjects[wanted]
    if wanted not in names:
        raise InvalidInput(f"subject={wanted!r}: the result holds {', '.join(repr(name) for name in names)}")
    return result.subjects[names.index(wanted)]


def _drawn(rows: Sequence[object], what: str, draw: "Callable[[], Axes]", ax: "Axes | None") -> "Axes":
    """Draw in our own type on axes of our own, in the user's on theirs."""
    if not rows:
        raise InvalidInput(f"this result holds no {what} of this subject, so there is nothing to draw")
    if ax is not None:
        return draw()
    from mnemoscope.reports.svg import house_style

    with house_style():
        return draw()


def draw_roc(
    result: "AuditResult | str | Path",
    subject: str | int | None = None,
    *,
    attack: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the log-log ROC of one attack (the primary one if left out) on every set of models, with bands."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    lines = figure_rows.roc_lines(found, _subject(found, subject), attack)
    groups = figure_rows.groups_of(found)
    return _drawn(lines, "ROC curve", lambda: roc(lines, alpha=found.plan.alpha, groups=groups, ax=ax), ax)


def draw_rates(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the primary attack's rates on every set of models against the bound."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    one = _subject(found, subject)
    rows = figure_rows.rate_rows(found, one)
    return _drawn(rows, "rate", lambda: rates(rows, bound=figure_rows.primary_bound(one), ax=ax), ax)


def draw_endpoints(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw every endpoint of the primary attack in units of its bound."""
    from mnemoscope.reports import figure_rows

    rows = figure_rows.bound_rows(_subject(_result(result), subject))
    return _drawn(rows, "endpoint with a bound", lambda: against_bounds(rows, ax=ax), ax)


def draw_equivalence(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the differences from retrained models with intervals and margins; of all subjects if none is named."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    chosen = found.subjects if subject is None else (_subject(found, subject),)
    rows = [
        row for one in chosen for row in figure_rows.equivalence_rows(one, group=one.name if len(chosen) > 1 else "")
    ]
    return _drawn(rows, "difference from retrained models", lambda: equivalence(rows, ax=ax), ax)


def draw_distributions(
    result: "AuditResult | str | Path",
    subject: str | int | None = None,
    *,
    attack: str | None = None,
    axes: "Sequence[Axes] | None" = None,
) -> "Sequence[Axes]":
    """Draw the score histograms of one attack, a panel for each set of models; ``axes`` holds one for each."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    panels = figure_rows.score_panels(found, _subject(found, subject), attack)
    if axes is not None and len(axes) != len(panels):
        raise InvalidInput(f"axes: {len(axes)} given for {len(panels)} panels; give one for each")
    groups = figure_rows.groups_of(found)
    kept: list[Axes] = []

    def draw() -> "Axes":
        kept.extend(distributions(panels, groups=groups, axes=axes))
        return kept[0]

    _drawn(panels, "score distribution", draw, None if axes is None else axes[0])
    return kept


def draw_record_map(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw each record's place among never-seen scores, before against after deletion."""
    table = _subject(_result(result), subject).record_map
    rows = () if table is None else table.counts

    def draw() -> "Axes":
        assert table is not None
        return record_map(table.edges, table.counts, retrained=table.retrained, ax=ax)

    return _drawn(rows, "map of records", draw, ax)


def draw_by_class(
    result: "AuditResult | str | Path",
    subject: str | int | None = None,
    *,
    most: int = 40,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw leakage class by class, the highest first, at most so many classes."""
    from mnemoscope.reports import figure_rows

    one = _subject(_result(result), subject)
    bars = figure_rows.class_bars(one, most=most)
    return _drawn(bars, "rates by class", lambda: by_class(bars, bound=figure_rows.primary_bound(one), ax=ax), ax)


def draw_lineage(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw data, models and what made each of them, with digests."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    nodes, arrows = figure_rows.lineage_boxes(found, _subject(found, subject))
    return _drawn(arrows, "model", lambda: lineage(nodes, arrows, ax=ax), ax)


def draw_sensitivity(
    result: "AuditResult | str | Path", subject: str | int | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Draw the word under other rules."""
    from mnemoscope.reports import figure_rows

    cells = figure_rows.grid_cells(_subject(_result(result), subject))
    return _drawn(cells, "sensitivity table", lambda: sensitivity(cells, ax=ax), ax)


def draw_composition(result: "AuditResult | str | Path", *, ax: "Axes | None" = None) -> "Axes":
    """Draw how many records play which role."""
    from mnemoscope.reports import figure_rows

    sets = figure_rows.set_bars(_result(result))
    return _drawn(sets, "record set", lambda: composition(sets, ax=ax), ax)


def draw_cost(result: "AuditResult | str | Path", *, ax: "Axes | None" = None) -> "Axes":
    """Draw leakage against the time of a deletion, a point for each subject."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    points = figure_rows.cost_points(found)
    return _drawn(points, "cost of a deletion", lambda: pareto(points, chance=found.plan.alpha, ax=ax), ax)


def draw_utility(result: "AuditResult | str | Path", *, ax: "Axes | None" = None) -> "Axes":
    """Draw leakage against test accuracy, a point for each subject."""
    from mnemoscope.reports import figure_rows

    found = _result(result)
    points, lost = figure_rows.utility_points(found), found.plan.policy.get("utility_margin")
    margin = float(lost) if isinstance(lost, int | float) and not isinstance(lost, bool) else None
    return _drawn(
        points, "accuracy against retrained models",
        lambda: utility(points, margin=margin, chance=found.plan.alpha, ax=ax), ax,
    )  # fmt: skip
