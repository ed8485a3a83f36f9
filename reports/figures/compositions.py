"""How many records play which role."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import BOXED, GRID, INK, STYLES, bare, inside, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SetBar", "composition"]


@dataclass(frozen=True)
class SetBar:
    """One set of records: what it is called, how many there are, and what is to be said of it."""

    label: str
    count: int
    text: str = ""


def composition(sets: Sequence[SetBar], *, ax: "Axes | None" = None) -> "Axes":
    """Draw the sizes of record sets as bars from zero.

    Args:
        sets: from top to bottom.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes; the axis counts records.
    """
    ax = new_axes(ax, 0.42 * max(len(sets), 1) + 0.65)
    ax.set_xlim(0, max([one.count for one in sets] + [1]) * 1.03)
    ax.set_ylim(max(len(sets), 1) - 0.4, -0.6)
    ax.grid(True, axis="x", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    for y, one in enumerate(sets):
        ax.barh(y + 0.18, one.count, height=0.3, color=STYLES["before"].colour, zorder=3)
        for x, text, side in ((0.0, one.label, "left"), (1.0, one.text or f"{one.count:,}", "right")):
            ax.text(x, y - 0.2, text, fontsize=8, color=INK, va="center", ha=side, bbox=BOXED, zorder=6,
                    transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set_yticks([])
    ax.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    ax.locator_params(axis="x", nbins=5, integer=True)
    ax.set_xlabel("Records")
    bare(ax, "bottom")
    return inside(ax)
