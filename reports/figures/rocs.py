"""ROC curves on logarithmic axes, where the few false alarms are that matter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.reports.figures.styles import (
    DELETION,
    FACE,
    GRID,
    INK,
    MUTED,
    STYLES,
    UNSUPPORTED,
    Groups,
    bare,
    new_axes,
    percent_tick,
    spread,
)
from mnemoscope.reports.phrases import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RocLine", "roc"]


@dataclass(frozen=True)
class RocLine:
    """One ROC curve.

    Attributes:
        role: set of models, a key of ``STYLES``.
        fpr, tpr, low, high: (p,) points in [0, 1] with a pointwise band, FPR ascending.
        n_in, n_out: trials behind it.
        marked: exact TPR at the marked FPR, which a thinned curve may not hold; None reads it off the curve.
    """

    role: str
    fpr: Sequence[float]
    tpr: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    n_in: int
    n_out: int
    marked: float | None = None

    def at(self, fpr: float) -> float:
        """The TPR at the marked FPR: the exact one, else that of the largest point with at most this FPR."""
        if self.marked is not None:
            return self.marked
        below = [t for f, t in zip(self.fpr, self.tpr, strict=True) if f <= fpr * (1 + 1e-9)]
        return max(below, default=0.0)


def roc(
    lines: Sequence[RocLine], *, alpha: float | None = None, groups: Groups = DELETION, ax: "Axes | None" = None
) -> "Axes":
    """Draw a log-log ROC with bands, chance, the FPR of the endpoints, and the region that the counts cannot carry.

    Args:
        lines: curves; drawn in the given order.
        alpha: FPR of the endpoints, marked by a vertical line; None leaves it out.
        groups: what the in and out records are called.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes; ``ax.figure`` is the figure.
    """
    ax = new_axes(ax, 4.3)
    n_out = max((line.n_out for line in lines), default=1)
    left = max(1 / max(n_out, 2), 1e-5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(left, 1)
    ax.set_ylim(left, 1.15)
    smallest = min((line.n_out for line in lines), default=1)
    grey = min(8 / max(smallest, 1), 1.0)
    if grey > left:
        ax.axvspan(left, grey, color=UNSUPPORTED, lw=0, zorder=0)
        ax.text(
            left * 1.08,
            0.97,
            f"too few\n{groups[1]}",
            fontsize=7.5,
            color=MUTED,
            va="top",
            transform=ax.get_xaxis_transform(),
        )
    ax.grid(True, which="major", color=GRID, lw=0.6, zorder=0.5)
    ax.plot([left, 1], [left, 1], color=INK, lw=0.9, ls=(0, (7, 3, 1, 3)), zorder=1)
    ax.text(0.45, 0.30, "chance", fontsize=8, color=INK, rotation=45, rotation_mode="anchor", ha="right", va="top")
    for line in lines:
        style = STYLES[line.role]
        x, y, low, high = (
            np.clip(np.asarray(v, np.float64), left, 1) for v in (line.fpr, line.tpr, line.low, line.high)
        )
        ax.fill_between(x, low, high, color=style.colour, alpha=0.13, lw=0, zorder=2)
        ax.plot(x, y, color=style.colour, ls=style.line, lw=1.9, zorder=3, solid_capstyle="round")
    anchor = alpha if alpha is not None and left <= alpha < 1 else math.sqrt(left)
    if alpha is not None and left <= alpha <= 1:
        ax.axvline(alpha, color=INK, lw=0.8, zorder=1.5)
        ax.text(alpha, 1.02, f"FPR {percent(alpha)}", fontsize=8, color=INK, ha="center", va="bottom",
                transform=ax.get_xaxis_transform())  # fmt: skip
    _label_lines(ax, lines, anchor, left)
    ax.set_xlabel(f"False positive rate: {groups[1]} records called {groups[0]}")
    ax.set_ylabel("True positive rate")
    ax.set_aspect("equal", adjustable="box")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(percent_tick)
        axis.set_minor_formatter(lambda _v, _pos: "")
    bare(ax, "left", "bottom")
    return ax


def _label_lines(ax: "Axes", lines: Sequence[RocLine], anchor: float, left: float) -> None:
    heights = [max(line.at(anchor), left) for line in lines]
    decades = -math.log10(left)
    placed = spread([math.log10(h) - 0.035 * decades for h in heights], 0.055 * decades, -0.02 * decades)
    for line, height, at in zip(lines, heights, placed, strict=True):
        style = STYLES[line.role]
        ax.plot([anchor], [height], marker=style.marker, ms=6, color=style.colour, mec=FACE, mew=0.8, zorder=5)
        label_x = anchor * 10 ** (0.055 * decades)
        ax.plot([anchor, label_x * 0.94], [height, 10**at], color=style.colour, lw=0.7, zorder=4)
        ax.text(
            label_x, 10**at, f"{line.role} {percent(line.at(anchor))}", fontsize=8.5, color=INK, va="center", zorder=6,
            bbox={"facecolor": FACE, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip
