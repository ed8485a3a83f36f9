"""Rates with intervals, a line each, against the bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import FACE, GRID, INK, STYLES, bare, inside, new_axes, percent_tick
from mnemoscope.reports.phrases import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RateRow", "rates"]


@dataclass(frozen=True)
class RateRow:
    """One rate with its interval, drawn as a point on a line.

    Attributes:
        label: text at the left.
        role: set of models, a key of ``STYLES``.
        value, low, high: in [0, 1]; None where there is none.
        text: the number in words, at the right.
        group: rows of one group stand together under one label.
        hollow: draw an open marker (the over-forgotten tail).
    """

    label: str
    role: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    group: str = ""
    hollow: bool = False


def rates(rows: Sequence[RateRow], *, bound: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw rates with intervals, a line a row, against the bound (hatched beyond it).

    Args:
        rows: from top to bottom; a new ``group`` starts a heading.
        bound: largest rate that the policy allows; None draws none.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    lines: list[RateRow | str] = []
    for i, row in enumerate(rows):
        if row.group and (i == 0 or rows[i - 1].group != row.group):
            lines.append(row.group)
        lines.append(row)
    ax = new_axes(ax, 0.36 * len(lines) + 0.85)
    top = max([v for row in rows for v in (row.value, row.high if row.value is not None else None) if v is not None]
              + [1.6 * bound if bound else 0.0, 1e-4])  # fmt: skip
    ax.set_xlim(0, top * 1.04)
    ax.set_ylim(len(lines) - 0.4, -0.75)
    if bound is not None:
        ax.axvspan(bound, top * 1.04, facecolor="none", edgecolor=GRID, hatch="////", lw=0, zorder=0)
        ax.axvline(bound, color=INK, lw=1.0, zorder=1)
        ax.text(bound, 1.01, f"bound {percent(bound)}", fontsize=8, color=INK, ha="center", va="bottom",
                transform=ax.get_xaxis_transform())  # fmt: skip
    boxed = {"facecolor": FACE, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    for y, line in enumerate(lines):
        if isinstance(line, str):
            ax.text(0.0, y + 0.12, line, fontsize=9.5, fontweight="bold", color=INK, va="center", bbox=boxed, zorder=6,
                    transform=ax.get_yaxis_transform())  # fmt: skip
            continue
        style = STYLES[line.role]
        ax.text(0.0, y - 0.22, line.label, fontsize=8, color=INK, va="center", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.text(1.0, y - 0.22, line.text, fontsize=8, color=INK, va="center", ha="right", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        if line.value is None:
            continue
        low, high = line.low if line.low is not None else line.value, line.high if line.high is not None else line.value
        ax.plot([low, high], [y + 0.2] * 2, color=style.colour, lw=2.2, zorder=3, solid_capstyle="butt")
        ax.plot([line.value], [y + 0.2], marker=style.marker, ms=6.5, color=style.colour, zorder=5,
                mfc=FACE if line.hollow else style.colour, mec=style.colour, mew=1.4, clip_on=False)  # fmt: skip
    ax.set_yticks([])
    ax.xaxis.set_major_formatter(percent_tick)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("Records picked out (true positive rate)")
    bare(ax, "bottom")
    return inside(ax)
