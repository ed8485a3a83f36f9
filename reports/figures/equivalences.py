"""Differences from retrained models with their intervals, and the margin within which they count as equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.reports.figures.styles import (
    BOUND,
    BOXED,
    INK,
    MUTED,
    STYLES,
    UNSUPPORTED,
    WITHIN,
    bare,
    inside,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["OUTCOME_MARKS", "EquivalenceRow", "equivalence"]

OUTCOME_MARKS = {"within": ("o", WITHIN), "beyond": ("^", STYLES["after"].colour), "undecided": ("s", MUTED)}
"""Marker and colour of an outcome, the shapes of the words."""

FURTHEST = 3.0
"""Margins that the axis shows at most; what lies further is an arrow at its edge, and its text has the number."""


@dataclass(frozen=True)
class EquivalenceRow:
    """One difference from retrained models.

    Attributes:
        label: what differs.
        value, low, high: the difference and its two-sided interval, in its own unit.
        margin: half the width of the zone of equivalence, above 0, in the same unit.
        outcome: within | beyond | undecided.
        text: number and outcome in words, at the right.
        group: rows of one group stand together under one heading.
    """

    label: str
    value: float
    low: float
    high: float
    margin: float
    outcome: str
    text: str
    group: str = ""


def equivalence(rows: Sequence[EquivalenceRow], *, ax: "Axes | None" = None) -> "Axes":
    """Draw differences in units of their margins: equal where the whole interval lies in the shaded zone.

    Args:
        rows: from top to bottom; a new ``group`` starts a heading.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes; one unit is the margin of each row.
    """
    lines: list[EquivalenceRow | str] = []
    for i, row in enumerate(rows):
        if row.group and (i == 0 or rows[i - 1].group != row.group):
            lines.append(row.group)
        lines.append(row)
    ax = new_axes(ax, 0.42 * max(len(lines), 1) + 0.95)
    reach = min(FURTHEST, max([1.6, *(abs(v) / r.margin * 1.05 for r in rows for v in (r.low, r.high))]))
    ax.set_xlim(-reach, reach)
    ax.set_ylim(max(len(lines), 1) - 0.4, -0.75)
    ax.axvspan(-1, 1, color=UNSUPPORTED, lw=0, zorder=0)
    for edge in (-1, 1):
        ax.axvline(edge, color=BOUND, lw=1.2, zorder=1)
    ax.axvline(0, color=MUTED, lw=0.7, ls=(0, (2, 2)), zorder=1)
    for y, line in enumerate(lines):
        if isinstance(line, str):
            ax.text(0.0, y + 0.12, line, fontsize=9.5, fontweight="bold", color=INK, va="center", bbox=BOXED, zorder=6,
                    transform=ax.get_yaxis_transform())  # fmt: skip
            continue
        for x, text, side in ((0.0, line.label, "left"), (1.0, line.text, "right")):
            ax.text(x, y - 0.22, text, fontsize=8, color=INK, va="center", ha=side, bbox=BOXED, zorder=6,
                    transform=ax.get_yaxis_transform())  # fmt: skip
        marker, colour = OUTCOME_MARKS.get(line.outcome, OUTCOME_MARKS["undecided"])
        point, ends = line.value / line.margin, np.array([line.low, line.high]) / line.margin
        ax.plot(np.clip(ends, -reach, reach), [y + 0.2] * 2, color=colour, lw=2.2, zorder=3, solid_capstyle="butt")
        for end in ends[np.abs(ends) <= reach]:
            ax.plot([end] * 2, [y + 0.1, y + 0.3], color=colour, lw=1.6, zorder=3, solid_capstyle="butt")
        if abs(point) <= reach:
            ax.plot([point], [y + 0.2], marker=marker, ms=6.5, color=colour, zorder=5)
        else:
            ax.plot([reach if point > 0 else -reach], [y + 0.2], marker=">" if point > 0 else "<", ms=8, color=colour,
                    zorder=5, clip_on=False)  # fmt: skip
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=7, integer=True)
    ax.set_xlabel("After deletion minus retrained, in units of the margin")
    bare(ax, "bottom")
    inside(ax)
    ax.text(0, 1.01, "equal within the margin", fontsize=8, color=INK, ha="center", va="bottom",
            transform=ax.get_xaxis_transform())  # fmt: skip
    return ax
