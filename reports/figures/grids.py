"""The word under other rules: one mark for each choice, by shape and colour, never by colour alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import FACE, INK, MUTED, STYLES, WITHIN, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["WORD_MARKS", "GridCell", "sensitivity"]

WORD_MARKS: dict[str, tuple[str, str]] = {
    "WITHIN BOUND": ("o", WITHIN),
    "OUTSIDE BOUND": ("^", STYLES["after"].colour),
    "INCONCLUSIVE": ("s", MUTED),
    "NOT ASSESSED": ("o", FACE),
}
"""Marker and fill of each word: filled circle, triangle, square, ring."""

COLUMNS, WIDER = 3, 2
"""Marks side by side, and where a group has long labels."""

LONG = 17
"""Characters from which on a label is long."""


@dataclass(frozen=True)
class GridCell:
    """The word at one choice.

    Attributes:
        group: what is varied; cells of one group stand together under it.
        label: what was chosen.
        word: one of the four words.
        actual: whether this is the audit as it was planned; it is framed.
        note: a sign behind the label for rows that cannot know all, or "".
    """

    group: str
    label: str
    word: str
    actual: bool = False
    note: str = ""


def sensitivity(cells: Sequence[GridCell], *, ax: "Axes | None" = None) -> "Axes":
    """Draw the word at every choice; where all marks of a group are alike, that choice does not matter.

    Args:
        cells: in order; a new ``group`` starts a heading.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes; one unit is a third of the width across, a line downwards.
    """
    placed: list[tuple[float, float, float, GridCell]] = []
    headings: list[tuple[float, str]] = []
    y = -1.15
    for group in dict.fromkeys(cell.group for cell in cells):
        mine = [cell for cell in cells if cell.group == group]
        columns = WIDER if any(len(cell.label + cell.note) >= LONG for cell in mine) else COLUMNS
        y += 1.15
        headings.append((y, group))
        y += 0.85
        for i, cell in enumerate(mine):
            y += 1.0 if i and i % columns == 0 else 0.0
            placed.append((COLUMNS / columns * (i % columns), y, COLUMNS / columns, cell))
    ax = new_axes(ax, 0.33 * (y + 1.2) + 0.1)
    ax.set_xlim(0, COLUMNS)
    ax.set_ylim(y + 0.75, -0.6)
    ax.set_axis_off()
    for at, text in headings:
        ax.text(0.0, at, text, fontsize=8.5, fontweight="bold", color=INK, va="center")
    for across, at, width, cell in placed:
        _mark(ax, across, at, width, cell)
    return ax


def _mark(ax: "Axes", across: float, y: float, width: float, cell: GridCell) -> None:
    marker, fill = WORD_MARKS.get(cell.word, WORD_MARKS["NOT ASSESSED"])
    edge = MUTED if fill == FACE else fill
    ax.plot([across + 0.09], [y], marker=marker, ms=8, mfc=fill, mec=edge, mew=1.6, ls="none", zorder=4)
    if cell.actual:
        from matplotlib.patches import Rectangle

        frame = Rectangle((across + 0.005, y - 0.46), width - 0.015, 0.92, fill=False, edgecolor=INK, lw=1.0, zorder=2)
        ax.add_patch(frame)
    ax.text(across + 0.19, y - 0.17, cell.label + cell.note, fontsize=7.5, color=INK, va="center")
    ax.text(across + 0.19, y + 0.21, cell.word.lower(), fontsize=7.5, color=MUTED, va="center")
