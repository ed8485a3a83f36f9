"""Leakage class by class, after deletion beside retrained models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import (
    BOXED,
    FACE,
    GRID,
    INK,
    MUTED,
    STYLES,
    bare,
    inside,
    new_axes,
    percent_tick,
)
from mnemoscope.reports.phrases import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ClassBar", "Measure", "by_class"]

Measure = tuple[float, float, float]
"""Value, lower and upper limit, in [0, 1]."""


@dataclass(frozen=True)
class ClassBar:
    """The rates of one class.

    Attributes:
        label: the class.
        after: after deletion; None where the class is suppressed.
        over_forgotten: the same in the other tail, drawn open; None leaves it out.
        retrained: of retrained models; None where there are none.
        text: the number in words, or why there is none.
        stands_out: whether the class's rate is above the bound after correction for the number of classes.
    """

    label: str
    after: Measure | None
    over_forgotten: Measure | None
    retrained: Measure | None
    text: str
    stands_out: bool = False


def by_class(bars: Sequence[ClassBar], *, bound: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw one line a class: squares after deletion (open: the over-forgotten tail), triangles retrained.

    Args:
        bars: from top to bottom.
        bound: largest rate that the policy allows for all records together; None draws none.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = new_axes(ax, 0.44 * max(len(bars), 1) + 0.9)
    drawn = [m for bar in bars for m in (bar.after, bar.over_forgotten, bar.retrained) if m is not None]
    right = min(1.0, max([m[2] for m in drawn] + [1.6 * bound if bound else 0.0, 1e-4]) * 1.04)
    ax.set_xlim(0, right)
    ax.set_ylim(max(len(bars), 1) - 0.35, -0.75)
    if bound is not None:
        ax.axvspan(bound, max(right, bound), facecolor="none", edgecolor=GRID, hatch="////", lw=0, zorder=0)
        ax.axvline(bound, color=INK, lw=1.0, zorder=1)
        ax.text(bound, 1.0, f"bound {percent(bound)}", fontsize=8, color=INK, ha="center", va="bottom",
                transform=ax.get_xaxis_transform())  # fmt: skip
    for y, bar in enumerate(bars):
        weight = "bold" if bar.stands_out else "normal"
        ax.text(0.0, y - 0.24, bar.label, fontsize=8, color=INK, va="center", bbox=BOXED, zorder=6, fontweight=weight,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.text(1.0, y - 0.24, bar.text, fontsize=8, color=INK if bar.after else MUTED, va="center", ha="right",
                bbox=BOXED, zorder=6, transform=ax.get_yaxis_transform())  # fmt: skip
        for measure, role, offset, hollow in (
            (bar.after, "after", 0.12, False),
            (bar.over_forgotten, "after", 0.12, True),
            (bar.retrained, "retrained", 0.36, False),
        ):
            if measure is not None:
                _dot(ax, measure, role, y + offset, hollow=hollow)
    ax.set_yticks([])
    ax.xaxis.set_major_formatter(percent_tick)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("Records picked out (true positive rate)")
    bare(ax, "bottom")
    return inside(ax)


def _dot(ax: "Axes", measure: Measure, role: str, y: float, *, hollow: bool) -> None:
    value, low, high = measure
    style = STYLES[role]
    ax.plot([low, high], [y, y], color=style.colour, lw=1.0 if hollow else 2.0, zorder=3, solid_capstyle="butt")
    ax.plot([value], [y], marker=style.marker, ms=5.5, color=style.colour, zorder=4 if hollow else 5,
            mfc=FACE if hollow else style.colour, mec=style.colour, mew=1.2, clip_on=False)  # fmt: skip
