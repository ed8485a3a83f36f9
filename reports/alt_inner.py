"""Text alternatives of the figures behind a word: what a look at each would say, from its numbers."""

from collections.abc import Sequence

from mnemoscope.audit.verdict.class_rows import ClassRow
from mnemoscope.audit.verdict.record_map import RecordMap
from mnemoscope.audit.verdict.sensitivity_rows import SensitivityRow
from mnemoscope.reports.figures.compositions import SetBar
from mnemoscope.reports.figures.equivalences import EquivalenceRow
from mnemoscope.reports.figures.lineages import Arrow, Node
from mnemoscope.reports.figures.trade_offs import ParetoPoint, UtilityPoint
from mnemoscope.reports.phrases import amount, percent, plain

__all__ = [
    "by_class_alt",
    "composition_alt",
    "cost_alt",
    "equivalence_alt",
    "lineage_alt",
    "record_map_alt",
    "sensitivity_alt",
    "utility_alt",
]

SAID = 12
"""Items that a text alternative names one by one; a page has them all in a table under the figure."""


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - SAID
    return "; ".join(parts[:SAID]) + (f"; and {more} more" if more > 0 else "") + "."


def equivalence_alt(rows: Sequence[EquivalenceRow]) -> str:
    """Every difference with the part of its margin that its interval fills."""
    parts = [
        f"{row.label}: {row.text}, interval {row.low / row.margin:+.2f} to {row.high / row.margin:+.2f} margins"
        for row in rows
    ]
    return "Differences from retrained models with a zone of equivalence. " + _listed(parts)


def record_map_alt(table: RecordMap) -> str:
    """Where the middle of the records lies before, after, and in retrained models."""
    before = [sum(row) for row in table.counts]
    after = [sum(row[j] for row in table.counts) for j in range(len(table.counts))]
    parts = [f"before {_middle(table.edges, before)}", f"after {_middle(table.edges, after)}"]
    if any(table.retrained):
        parts.append(f"in retrained models {_middle(table.edges, table.retrained)}")
    return (
        f"Map of {table.n_records:,} records by their place among never-seen scores before and after deletion. Half of "
        f"them lie at or below: {', '.join(parts)}."
    )


def _middle(edges: Sequence[float], counts: Sequence[int]) -> str:
    half, seen = sum(counts) / 2, 0
    for i, count in enumerate(counts):
        seen += count
        if count and seen >= half:
            return f"{edges[i + 1]:.2f}"
    return "nowhere"


def by_class_alt(rows: Sequence[ClassRow], bound: float | None) -> str:
    """Every class with both rates, the highest first."""
    parts = []
    for row in rows:
        if row.after.value is None:
            parts.append(f"{plain(row.label, 40)} too few records")
            continue
        twin = "" if row.retrained.value is None else f", retrained {percent(row.retrained.value)}"
        parts.append(f"{plain(row.label, 40)} {percent(row.after.value)}{twin}")
    limit = "" if bound is None else f" The bound is {percent(bound)}."
    return "True positive rates by class, dots with intervals. " + _listed(parts) + limit


def sensitivity_alt(rows: Sequence[SensitivityRow], word: str) -> str:
    """Which choices turn the word, and to what."""
    turned = [f"{row.varied} {plain(row.value, 40)} gives {row.word}" for row in rows if row.word != word]
    start = f"Marks for the word at {len(rows)} choices; as planned it is {word}. "
    return start + (_listed(turned) if turned else "No choice shown turns it.")


def lineage_alt(nodes: Sequence[Node], arrows: Sequence[Arrow]) -> str:
    """Every arrow as a sentence."""
    names = {node.key: f"{node.title} ({', '.join(node.lines)})" for node in nodes}
    return "Diagram of models. " + _listed([f"from {names[a.start]} to {names[a.end]}: {a.text}" for a in arrows])


def composition_alt(sets: Sequence[SetBar]) -> str:
    """Every set with its size."""
    return "Bars of record sets. " + _listed([f"{one.label} {one.count:,}" for one in sets])


def cost_alt(points: Sequence[ParetoPoint], best: Sequence[str]) -> str:
    """Every way with cost and rate."""
    parts = [f"{p.label} costs {percent(p.cost)} of retraining and leaves {percent(p.value)}" for p in points]
    return f"Leakage against cost, both logarithmic; on the frontier: {', '.join(best) or 'none'}. " + _listed(parts)


def utility_alt(points: Sequence[UtilityPoint], best: Sequence[str]) -> str:
    """Every way with accuracy and rate."""
    parts = [f"{p.label} {amount(p.utility, 'difference')}, {percent(p.value)}" for p in points]
    return f"Leakage against accuracy beside retrained; on the frontier: {', '.join(best) or 'none'}. " + _listed(parts)
