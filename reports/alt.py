"""Text alternatives and captions made from the numbers of a figure: they say what a look at it would."""

from collections.abc import Sequence

from mnemoscope.reports.figures import DELETION, BoundRow, Groups, RateRow, RocLine, ScorePanel
from mnemoscope.reports.phrases import percent

__all__ = ["bounds_alt", "distributions_alt", "rates_alt", "roc_alt"]


def roc_alt(lines: Sequence[RocLine], alpha: float | None) -> str:
    """Kind, axes, counts and the main reading of a ROC figure."""
    if not lines:
        return "ROC curves: none were recorded."
    at = alpha if alpha is not None else max(8 / max(line.n_out for line in lines), 1e-5)
    readings = "; ".join(f"{line.role} {percent(line.at(at))}" for line in lines)
    counts = f"{lines[0].n_in:,} in and {lines[0].n_out:,} out trials"
    return (
        f"Log-log ROC, true against false positive rate, {counts}. At a false positive rate of {percent(at)} the true "
        f"positive rate is: {readings}. Chance would be {percent(at)}."
    )


def _middle(edges: Sequence[float], counts: Sequence[int]) -> float:
    half, seen = sum(counts) / 2, 0
    for i, count in enumerate(counts):
        seen += count
        if seen >= half:
            return (edges[i] + edges[i + 1]) / 2
    return edges[-1]


def distributions_alt(panels: Sequence[ScorePanel], groups: Groups = DELETION) -> str:
    """The middle score of both groups in every panel."""
    parts = [
        f"{p.role}: middle score {_middle(p.edges, p.in_counts):.2f} of {sum(p.in_counts):,} {groups[0]} and "
        f"{_middle(p.edges, p.out_counts):.2f} of {sum(p.out_counts):,} {groups[1]} trials"
        for p in panels
    ]
    return "Histograms of attack scores. " + "; ".join(parts) + "."


def rates_alt(rows: Sequence[RateRow], bound: float | None) -> str:
    """Every rate in words, and the bound."""
    parts = [f"{row.group + ', ' if row.group else ''}{row.label}: {row.text}" for row in rows]
    limit = "" if bound is None else f" The bound is {percent(bound)}."
    return "True positive rates with intervals. " + "; ".join(parts) + "." + limit


def bounds_alt(rows: Sequence[BoundRow]) -> str:
    """Every endpoint with its number and outcome."""
    return "Endpoints against their bounds. " + "; ".join(f"{row.label}: {row.text}" for row in rows) + "."
