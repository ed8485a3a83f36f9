"""What all figures share: colours with line style and marker, axes of their own, and small helpers.

Colours are those of Okabe and Ito that keep at least 3:1 on white; line style and marker repeat what colour says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BOUND", "BOXED", "DELETION", "FACE", "GRID", "INK", "MUTED", "OURS", "STYLES", "UNSUPPORTED", "WIDTH", "WITHIN",
    "Groups", "Style", "bare", "inside", "new_axes", "percent_tick", "spread",
]  # fmt: skip

INK, MUTED, GRID, BOUND, FACE = "#1b1f24", "#59636e", "#dfe3e7", "#b6bdc4", "#fefefe"
UNSUPPORTED = "#eef0f2"


@dataclass(frozen=True)
class Style:
    """Colour, line and marker of one set of models, the same in every figure."""

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


STYLES: dict[str, Style] = {
    "before": Style("#0072b2", "-", "o"),
    "after": Style("#d55e00", (0, (5, 2)), "s"),
    "retrained": Style("#009e73", (0, (1, 1.4)), "^"),
    "no-op": Style("#bb5f94", (0, (6, 2, 1, 2)), "D"),
}
"""The reddish purple is a shade darker than the palette's, to keep 3:1 on white with thin lines."""

Groups = tuple[str, str]
DELETION: Groups = ("forgotten", "never-seen")

WIDTH = 4.1
"""Inches; with type of 9 points it can still be read on a phone, where the page is about as wide."""

OURS = "mnemoscope"
"""Label of figures that were made here and not given: they are saved with the type they were drawn with."""

WITHIN = "#00684d"
"""Colour of what lies within its bound."""

BOXED: dict[str, object] = {"facecolor": FACE, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
"""A patch behind text that may lie on a line."""


def new_axes(ax: "Axes | None", height: float) -> "Axes":
    """Return the given axes, or those of a new figure as wide as a column and this many inches high."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", label=OURS)
    return figure.add_subplot()


def bare(ax: "Axes", *spines: str) -> None:
    """Leave the named spines alone visible, in a quiet colour."""
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(side in spines)
        ax.spines[side].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK)


def percent_tick(value: float, _position: float = 0) -> str:
    """Format a rate for an axis."""
    return f"{100 * value:g} %"


def inside(ax: "Axes") -> "Axes":
    """Keep row texts from claiming room outside of the axes; only the label of the bound stands above them."""
    for text in ax.texts:
        text.set_in_layout(text.get_text().startswith("bound"))
    return ax


def spread(positions: Sequence[float], least: float, top: float) -> list[float]:
    """Move label positions apart to at least ``least``, keeping their order, none above ``top``."""
    order = sorted(range(len(positions)), key=lambda i: -positions[i])
    placed = [0.0] * len(positions)
    ceiling = top
    for i in order:
        placed[i] = min(positions[i], ceiling)
        ceiling = placed[i] - least
    return placed
