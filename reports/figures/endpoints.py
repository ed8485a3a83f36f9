"""All endpoints of one subject, each in units of its own bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnemoscope.reports.figures.styles import BOUND, FACE, INK, MUTED, WITHIN, bare, inside, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BoundRow", "against_bounds"]


@dataclass(frozen=True)
class BoundRow:
    """One endpoint: estimate and interval in its own unit, and the bound that it is measured in.

    Attributes:
        label: what is measured.
        value, low, high: the estimate; None where there is none or the limit is on the other side.
        bound: size of the bound, above 0.
        sides: which side the bound limits: both, only large values, or only very negative ones.
        outcome: within | beyond | undecided | not computed.
        text: the number in words.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    bound: float
    sides: Literal["both", "upper", "lower"]
    outcome: str
    text: str


FURTHEST = 4.0
"""Endpoints further than this many bounds away are drawn as an arrow at the edge; their text has the number."""


def against_bounds(rows: Sequence[BoundRow], *, ax: "Axes | None" = None) -> "Axes":
    """Draw every endpoint in units of its own bound: this one figure carries the verdict.

    Args:
        rows: from top to bottom.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = new_axes(ax, 0.42 * max(len(rows), 1) + 0.95)
    scaled = [v / row.bound for row in rows for v in (row.value, row.low, row.high) if v is not None]
    right = min(FURTHEST, max([1.8, *scaled]))
    left = max(-FURTHEST, min([-1.8, *scaled])) if any(row.sides != "upper" for row in rows) else -0.4
    ax.set_xlim(left, right)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.75)
    for x, ha in ((-1, "center"), (1, "center")):
        if left < x:
            ax.axvline(x, color=INK, lw=1.0, zorder=1)
            ax.text(x, 1.01, "bound", fontsize=8, color=INK, ha=ha, va="bottom", transform=ax.get_xaxis_transform())
    ax.axvline(0, color=MUTED, lw=0.7, ls=(0, (2, 2)), zorder=1)
    boxed = {"facecolor": FACE, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    markers = {"within": ("o", WITHIN), "beyond": ("^", "#d55e00"), "undecided": ("s", MUTED)}
    for y, row in enumerate(rows):
        if row.sides in ("both", "upper"):
            ax.fill_betweenx(
                [y + 0.02, y + 0.38], 1, right, facecolor="none", edgecolor=BOUND, hatch="////", lw=0, zorder=0
            )
        if row.sides in ("both", "lower"):
            ax.fill_betweenx(
                [y + 0.02, y + 0.38], left, -1, facecolor="none", edgecolor=BOUND, hatch="////", lw=0, zorder=0
            )
        ax.text(0.0, y - 0.22, row.label, fontsize=8, color=INK, va="center", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.text(1.0, y - 0.22, row.text, fontsize=8, color=INK, va="center", ha="right", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        if row.value is None:
            continue
        marker, colour = markers.get(row.outcome, ("s", MUTED))
        point = row.value / row.bound
        ends = [point if v is None else v / row.bound for v in (row.low, row.high)]
        ax.plot(np.clip(ends, left, right), [y + 0.2] * 2, color=colour, lw=2.2, zorder=3, solid_capstyle="butt")
        if left <= point <= right:
            ax.plot([point], [y + 0.2], marker=marker, ms=6.5, color=colour, zorder=5)
        else:
            ax.plot([right if point > 0 else left], [y + 0.2], marker=">" if point > 0 else "<", ms=8, color=colour,
                    zorder=5, clip_on=False)  # fmt: skip
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=7, integer=True)
    ax.set_xlabel("Estimate and interval, in units of each endpoint's bound")
    bare(ax, "bottom")
    return inside(ax)
