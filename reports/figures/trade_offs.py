"""What a method leaves behind against what it costs, and against how good the model stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures.styles import (
    BOUND,
    BOXED,
    FACE,
    GRID,
    INK,
    MUTED,
    STYLES,
    bare,
    new_axes,
    percent_tick,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ParetoPoint", "UtilityPoint", "frontier", "pareto", "useful_frontier", "utility"]


@dataclass(frozen=True)
class ParetoPoint:
    """One method: what it costs and what it leaves behind.

    Attributes:
        label: its name.
        cost: as a share of retraining, positive.
        value: rate of the strongest attack.
        low: lower limit, or None.
        high: upper limit, or None.
        fit: False where the model is not fit for use.
    """

    label: str
    cost: float
    value: float
    low: float | None
    high: float | None
    fit: bool = True


def frontier(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Return the methods fit for use that no other such method beats in both cost and leakage, cheapest first.

    >>> [p.label for p in frontier([ParetoPoint("a", 0.1, 0.5, None, None), ParetoPoint("b", 0.2, 0.6, None, None)])]
    ['a']
    """
    best: list[ParetoPoint] = []
    for point in sorted((p for p in points if p.fit), key=lambda p: (p.cost, p.value)):
        if not best or point.value < best[-1].value:
            best.append(point)
    return best


@dataclass(frozen=True)
class UtilityPoint:
    """One method: how good it leaves the model and what it leaves behind.

    Attributes:
        label: its name.
        utility: accuracy minus that of retrained models.
        value: rate of the attack.
        low: lower limit, or None.
        high: upper limit, or None.
        fit: False where the model is not fit for use.
        role: set of models, a key of ``STYLES``; retrained models are a point of reference, no method.
    """

    label: str
    utility: float
    value: float
    low: float | None
    high: float | None
    fit: bool = True
    role: str = "after"


def useful_frontier(points: Sequence[UtilityPoint]) -> list[UtilityPoint]:
    """Return the methods fit for use that no other such method beats in both utility and leakage, most useful first.

    >>> a, b = UtilityPoint("a", 0.0, 0.5, None, None), UtilityPoint("b", -0.1, 0.6, None, None)
    >>> [p.label for p in useful_frontier([b, a])]
    ['a']
    """
    best: list[UtilityPoint] = []
    for point in sorted((p for p in points if p.fit and p.role == "after"), key=lambda p: (-p.utility, p.value)):
        if not best or point.value < best[-1].value:
            best.append(point)
    return best


LEAST_SHOWN = 1e-3
"""Rates below it are drawn at it: a logarithmic axis has no zero."""


def pareto(points: Sequence[ParetoPoint], *, chance: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw leakage against cost on logarithmic axes, with the frontier of methods that none beats in both.

    Args:
        points: one a method.
        chance: rate of an attack that finds nothing.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = new_axes(ax, 4.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    style = STYLES["after"]
    best = frontier(points)
    ax.plot([p.cost for p in best], [max(p.value, LEAST_SHOWN) for p in best], color=BOUND, lw=1.2, zorder=1)
    if chance is not None:
        ax.axhline(chance, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
    for p in points:
        y = max(p.value, LEAST_SHOWN)
        if p.low is not None and p.high is not None:
            limits = [max(p.low, LEAST_SHOWN), max(p.high, LEAST_SHOWN)]
            ax.plot([p.cost] * 2, limits, color=style.colour, lw=0.8, alpha=0.5, zorder=2)
        ax.plot([p.cost], [y], marker=style.marker, ms=5, color=style.colour, mfc=style.colour if p.fit else FACE,
                mec=style.colour, zorder=3)  # fmt: skip
    _name(ax, [(p.label, p.cost, p.value) for p in points if p in best or len(points) <= FEW])
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        # Three labels a decade run into each other where there are many decades.
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < MANY else (1.0,)))
        axis.set_major_formatter(percent_tick)
        axis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("Time of a deletion, share of retraining")
    ax.set_ylabel("Strongest attack after deletion (TPR)")
    bare(ax, "bottom", "left")
    return ax


def utility(
    points: Sequence[UtilityPoint],
    *,
    margin: float | None = None,
    chance: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw leakage (logarithmic) against accuracy, with the frontier of methods that none beats in both.

    Args:
        points: one a method, and retrained models where there are any.
        margin: accuracy that may be lost against retrained models; left of it a model is not fit for use.
        chance: rate of an attack that finds nothing.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = new_axes(ax, 4.3)
    ax.set_yscale("log")
    best = useful_frontier(points)
    ax.plot([p.utility for p in best], [max(p.value, LEAST_SHOWN) for p in best], color=BOUND, lw=1.2, zorder=1)
    if chance is not None:
        ax.axhline(chance, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
    ax.axvline(0.0, color=MUTED, lw=0.7, ls=(0, (2, 2)), zorder=1)
    for p in points:
        y, style = max(p.value, LEAST_SHOWN), STYLES[p.role]
        if p.low is not None and p.high is not None:
            limits = [max(p.low, LEAST_SHOWN), max(p.high, LEAST_SHOWN)]
            ax.plot([p.utility] * 2, limits, color=style.colour, lw=0.9, alpha=0.6, zorder=2)
        ax.plot([p.utility], [y], marker=style.marker, ms=5.5, color=style.colour, mfc=style.colour if p.fit else FACE,
                mec=style.colour, zorder=3)  # fmt: skip
    low, high = ax.get_xlim()
    pad = 0.12 * max(high - low, 0.01)
    ax.set_xlim(low - pad, high + pad)
    if margin is not None and ax.get_xlim()[0] < -margin:
        ax.axvspan(ax.get_xlim()[0], -margin, facecolor="none", edgecolor=GRID, hatch="////", lw=0, zorder=0)
        ax.axvline(-margin, color=INK, lw=1.0, zorder=1)
        ax.text(-margin, 1.01, f"margin {-100 * margin:g}", fontsize=8, color=INK, ha="center", va="bottom",
                transform=ax.get_xaxis_transform())  # fmt: skip
        ax.set_xlim(low - pad, high + pad)
    named = [p for p in points if p in best or p.role != "after" or len(points) <= FEW]
    _name(ax, [(p.label, p.utility, p.value) for p in named])
    from matplotlib.ticker import LogLocator, NullFormatter

    bottom, top = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top / bottom < MANY else (1.0,)))
    ax.yaxis.set_major_formatter(percent_tick)
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(lambda value, _position: f"{100 * value:+g}" if value else "0")
    ax.locator_params(axis="x", nbins=6)
    ax.grid(True, which="major", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("Test accuracy minus retrained, percentage points")
    ax.set_ylabel("Attack after deletion (TPR)")
    bare(ax, "bottom", "left")
    return ax


def _name(ax: "Axes", points: Sequence[tuple[str, float, float]]) -> None:
    """Write names (label, x, y) beside their points, on the side with more room, none on another."""
    ax.get_xlim(), ax.get_ylim()  # settles the limits that the places are shares of
    across, down = ax.transLimits, ax.transScale
    at = [tuple(across.transform(down.transform((x, max(y, LEAST_SHOWN)))).tolist()) for _, x, y in points]
    # Each has a line of its own: names of both sides meet in the middle.
    for (label, _, _), (fx, fy), line in zip(points, at, spread([y - 0.03 for _, y in at], LINE, 0.97), strict=True):
        right = fx <= 0.55
        look = {"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
        ax.annotate(label, (fx, fy), (fx + (0.02 if right else -0.02), line),
                    xycoords="axes fraction", textcoords="axes fraction", fontsize=7.5, color=INK, zorder=6,
                    ha="left" if right else "right", va="center", arrowprops=look, bbox=BOXED)  # fmt: skip


LINE = 0.042
"""Height of a name, as a share of the axes."""

FEW = 8
"""Points up to which all have their name beside them."""

MANY = 300.0
"""Ratio of the ends of a logarithmic axis from which on it has one label a decade."""
