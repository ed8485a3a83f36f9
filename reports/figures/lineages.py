"""Where models come from: data, the models before, what was done to them, and those trained anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import BOUND, BOXED, FACE, INK, MUTED, STYLES, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Arrow", "Node", "lineage"]

BOX_WIDTH, GAP = 0.47, 0.5
"""Of a box, in shares of the width; between two boxes, in inches, where an arrow's words stand."""

FIRST_LINE, LINE, LAST_LINE = 0.27, 0.17, 0.08
"""Heights within a box, in inches."""


@dataclass(frozen=True)
class Node:
    """A box.

    Attributes:
        key: what arrows name it by.
        title: first line.
        lines: further lines, such as a number of models and a digest.
        column: 0 left, 1 right; 0.5 in the middle.
        row: 0 at the top; boxes of one column follow each other downwards.
        role: set of models, a key of ``STYLES``; "" for what is no model.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    column: float
    row: int
    role: str = ""


@dataclass(frozen=True)
class Arrow:
    """From one box to another, with words on the way."""

    start: str
    end: str
    text: str = ""


def lineage(nodes: Sequence[Node], arrows: Sequence[Arrow], *, ax: "Axes | None" = None) -> "Axes":
    """Draw boxes and arrows from the top down.

    Args:
        nodes: boxes; keys are unique.
        arrows: from upper to lower boxes.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes; one unit is the width across, an inch downwards.
    """
    at = _places(nodes)
    height = max((at[node.key][1] + _height(node) for node in nodes), default=0.1)
    ax = new_axes(ax, height + 0.1)
    ax.set_xlim(0, 1)
    ax.set_ylim(height + 0.02, -0.02)
    ax.set_axis_off()
    named = {node.key: node for node in nodes}
    for arrow in arrows:
        y0, (x1, y1) = at[arrow.start][1], at[arrow.end]
        # The second box under the same one is reached past the first, not through its middle.
        passed = sum(1 for n in nodes if n.column == named[arrow.end].column and y0 < at[n.key][1] < y1)
        x = x1 + 0.16 * passed
        look = {"arrowstyle": "-|>", "color": MUTED, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (x, y1), (x, y0 + _height(named[arrow.start])), arrowprops=look)
        if arrow.text:
            ax.text(x1, y1 - GAP / 2, arrow.text, fontsize=7.5, color=INK, ha="center", va="center",
                    bbox=BOXED, zorder=6)  # fmt: skip
    for node in nodes:
        _box(ax, node, *at[node.key])
    return ax


def _width(node: Node) -> float:
    """A box in the middle stands above both columns."""
    return 0.98 if node.column == 0.5 else BOX_WIDTH


def _height(node: Node) -> float:
    return FIRST_LINE + LINE * len(node.lines) + LAST_LINE


def _places(nodes: Sequence[Node]) -> dict[str, tuple[float, float]]:
    """Centre across and top of each box; columns are filled from below the boxes in the middle."""
    found: dict[str, tuple[float, float]] = {}
    below: dict[float, float] = {}
    start = 0.0
    for node in sorted(nodes, key=lambda n: n.row):
        y = below.get(node.column, start)
        found[node.key] = (_centre(node), y)
        below[node.column] = y + _height(node) + GAP
        if node.column == 0.5:
            start = below[node.column]
    return found


def _centre(node: Node) -> float:
    return BOX_WIDTH / 2 + 0.01 + node.column * (1 - BOX_WIDTH - 0.02)


def _box(ax: "Axes", node: Node, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    colour = STYLES[node.role].colour if node.role in STYLES else BOUND
    width = _width(node)
    left = x - width / 2
    ax.add_patch(
        Rectangle((left, y), width, _height(node), facecolor=FACE, edgecolor=colour, lw=1.4, zorder=3, clip_on=False)
    )
    if node.role in STYLES:
        ax.plot([left + 0.03], [y + 0.13], marker=STYLES[node.role].marker, ms=6, color=colour, zorder=5)
    ax.text(left + (0.06 if node.role in STYLES else 0.02), y + 0.14, node.title, fontsize=8.5, fontweight="bold",
            color=INK, va="center", zorder=5)  # fmt: skip
    for i, line in enumerate(node.lines):
        ax.text(left + 0.02, y + FIRST_LINE + LINE * (i + 0.4), line, fontsize=7.5, color=MUTED, va="center", zorder=5)
