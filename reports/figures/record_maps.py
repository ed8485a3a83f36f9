"""Where each record stood before deletion and where it stands after, drawn from counts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.reports.figures.styles import BOXED, GRID, INK, MUTED, STYLES, bare, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["record_map"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LARGEST_DOT = 0.9
"""Diameter of the fullest cell's dot, as a share of the cell."""

AXES_POINTS = 190.0
"""Side of the square of new axes, in points: what the dots are sized by."""


def record_map(
    edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    *,
    retrained: Sequence[int] = (),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw records by their place among never-seen scores, before against after deletion.

    A dot's area is its cell's number of records. On the diagonal deletion changed nothing; along the dashed line
    records look like never-seen ones. At the right: how all records spread after deletion (filled), and in retrained
    models (outline), which is what exact retraining would give.

    Args:
        edges: (b + 1,) ascending, 0 to 1, of both axes.
        counts: b rows of b counts: ``counts[i][j]`` records in bin i before and bin j after.
        retrained: (b,) records by their place in retrained models; () leaves the outline out.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes of the map.
    """
    new = ax is None
    ax = new_axes(ax, 4.1)
    table, bounds = np.asarray(counts, np.int64), np.asarray(edges, np.float64)
    middle = (bounds[:-1] + bounds[1:]) / 2
    i, j = np.nonzero(table)
    number = table[i, j]
    bins = max(1, table.shape[0])
    side = AXES_POINTS if new else _side_in_points(ax)
    style = STYLES["after"]
    ax.grid(True, color=GRID, lw=0.6, zorder=0)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.9, ls=(0, (7, 3, 1, 3)), zorder=1)
    ax.axhline(0.5, color=MUTED, lw=1.0, ls=(0, (5, 3)), zorder=1)
    low, high = _range(bounds, table, np.asarray(retrained, np.int64))
    span = high - low
    ax.text(high - 0.03 * span, high - 0.09 * span, "nothing changed", fontsize=7.5, color=INK, rotation=45,
            rotation_mode="anchor", ha="right", bbox=BOXED, zorder=4)  # fmt: skip
    ax.text(low + 0.015 * span, 0.5, "like never-seen records", fontsize=7.5, color=MUTED, va="center", bbox=BOXED,
            zorder=4)  # fmt: skip
    largest = (LARGEST_DOT * side / max(1.0, span * bins)) ** 2
    ax.scatter(middle[i], middle[j], s=number / max(1, int(number.max(initial=1))) * largest, color=style.colour,
               alpha=0.75, lw=0, zorder=3)  # fmt: skip
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal", adjustable="box")
    ax.locator_params(nbins=5)
    ax.set_xlabel("Place among never-seen scores, before")
    ax.set_ylabel("... after deletion (0.5 is their middle)")
    bare(ax, "left", "bottom")
    _margin(ax, bounds, table.sum(axis=0), np.asarray(retrained, np.int64))
    return ax


def _margin(ax: "Axes", bounds: Floats, after: Ints, twin: Ints) -> None:
    """The spread after deletion and in retrained models, as shares, beside the map."""
    strip = ax.inset_axes((1.03, 0.0, 0.2, 1.0))
    style, other = STYLES["after"], STYLES["retrained"]
    shares = []
    for values in (np.asarray(after, np.float64), np.asarray(twin, np.float64)):
        shares.append(values / max(1.0, float(values.sum())))
    strip.stairs(shares[0], bounds, orientation="horizontal", fill=True, color=style.colour, alpha=0.45, lw=0)
    if shares[1].size:
        strip.stairs(shares[1], bounds, orientation="horizontal", color=other.colour, lw=1.6, ls=other.line)
    strip.set_ylim(*ax.get_ylim())
    strip.set_xlim(0, max([float(s.max()) for s in shares if s.size] + [1e-9]) * 1.08)
    strip.set_xticks([])
    strip.set_yticks([])
    strip.axhline(0.5, color=MUTED, lw=1.0, ls=(0, (5, 3)), zorder=1)
    bare(strip, "left")
    said = "after\ndeletion" if not shares[1].size else "after, and\nretrained\n(outline)"
    strip.text(0.0, 1.01, said, fontsize=7.5, color=INK, transform=strip.transAxes, va="bottom")


def _range(bounds: Floats, table: Ints, twin: Ints) -> tuple[float, float]:
    """What both axes show: all that is there, and the middle."""
    used = table.sum(axis=0) + table.sum(axis=1)
    if twin.size:
        used = used + twin
    filled = np.flatnonzero(used)
    if not filled.size:
        return 0.0, 1.0
    low, high = float(bounds[filled[0]]), float(bounds[filled[-1] + 1])
    return min(low, 0.45), max(high, 0.55)


def _side_in_points(ax: "Axes") -> float:
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_position()
    width, height = figure.get_size_inches()
    return float(min(box.width * width, box.height * height)) * 72.0
