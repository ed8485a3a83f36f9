"""The leakage of one subject from audit to audit, as a figure; only audits that asked the same way are joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnemoscope.reports.figures import FACE, GRID, INK, MUTED, STYLES
from mnemoscope.reports.phrases import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TrendPoint", "trend", "trend_alt"]

TICKS = 7
"""Labels that fit side by side under the figure."""
SPOKEN = 12
"""Points that a text alternative names one by one; the table beside the figure has them all."""


@dataclass(frozen=True)
class TrendPoint:
    """One audit.

    Attributes:
        day: its date, as text.
        model: the first digits of the digest of the models judged.
        value, low, high: rate in the residual tail with its interval, in [0, 1]; a missing limit is None.
        over, over_low, over_high: the same in the over-forgotten tail.
        group: points of one group were measured in the same way; neighbours of one group are joined.
        bound: the policy's bound on the rate, or None.
    """

    day: str
    model: str
    value: float
    low: float | None
    high: float | None
    over: float | None
    over_low: float | None
    over_high: float | None
    group: str
    bound: float | None


def trend(points: Sequence[TrendPoint], *, role: str = "after", ax: "Axes | None" = None) -> "Axes":
    """Draw rates with intervals in the order of the audits, evenly spaced; neighbours of one group are joined.

    Args:
        points: oldest first; at least one.
        role: set of models, a key of ``figures.STYLES``.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.6, 2.9), layout="constrained").add_subplot()
    style, n = STYLES[role], len(points)
    top = 1.1 * max(
        [v for p in points for v in (p.value, p.high, p.over, p.over_high) if v is not None]
        + [1.5 * p.bound for p in points if p.bound is not None]
        + [1e-4]
    )
    ax.set_xlim(-0.6, n - 0.4)
    ax.set_ylim(0, top)
    _bounds(ax, points, top)
    groups = {p.group for p in points}
    for at in _stretches([p.group for p in points]):
        # A line across an audit of another group would look as if it ran through it.
        ax.plot(at, [points[i].value for i in at], color=style.colour, ls=style.line, lw=1.4 if n <= 60 else 0.6,
                zorder=3)  # fmt: skip
    _marks(ax, points, role)
    if len(groups) > 1:
        for i, p in enumerate(points):
            ax.text(i, 0.985, p.group, fontsize=8 if n <= 20 else 5, color=INK, ha="center", va="top", zorder=6,
                    transform=ax.get_xaxis_transform(), parse_math=False)  # fmt: skip
    step = -(-n // TICKS)
    shown = range((n - 1) % step, n, step)
    ax.set_xticks(list(shown), [f"{points[i].day}\n{points[i].model}" for i in shown], fontsize=7)
    for label in ax.get_xticklabels():
        label.set_parse_math(False)
        if n > 3:
            label.set_rotation(30)
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    ax.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:g} %")
    ax.locator_params(axis="y", nbins=5)
    ax.grid(True, axis="y", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    ax.set_ylabel("Records picked out")
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(side in ("left", "bottom"))
        ax.spines[side].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK)
    return ax


def _marks(ax: "Axes", points: Sequence[TrendPoint], role: str) -> None:
    """Both tails with their intervals: filled for residual, open and a little to the right for over-forgotten."""
    style, size = STYLES[role], max(1.2, min(6.0, 150 / len(points)))
    thin = max(0.25, min(1.0, 60 / len(points)))
    over = [(i + 0.16, p.over, p.over_low, p.over_high) for i, p in enumerate(points) if p.over is not None]
    residual = [(float(i), p.value, p.low, p.high) for i, p in enumerate(points)]
    for rows, width, ms, fill in ((over, 1.0 * thin, 0.75 * size, FACE), (residual, 1.8 * thin, size, style.colour)):
        x, values = [row[0] for row in rows], [row[1] for row in rows]
        low = [value if low is None else low for _, value, low, _ in rows]
        high = [value if high is None else high for _, value, _, high in rows]
        ax.vlines(x, low, high, colors=style.colour, lw=width, zorder=2)
        ax.plot(x, values, ls="", marker=style.marker, ms=ms, color=style.colour, mfc=fill, mec=style.colour, zorder=4)


def _bounds(ax: "Axes", points: Sequence[TrendPoint], top: float) -> None:
    """Hatch what lies beyond the bound, for each stretch of audits with the same one."""
    named = None
    for at in _stretches([(p.bound, p.group) for p in points]):
        bound, span = points[at[0]].bound, [at[0] - 0.5, at[-1] + 0.5]
        if bound is not None:
            ax.fill_between(span, bound, top, facecolor="none", edgecolor=GRID, hatch="////", lw=0, zorder=0)
            ax.plot(span, [bound] * 2, color=INK, lw=1.0, zorder=1)
            if bound != named:
                ax.annotate(f"bound {percent(bound)}", (span[0], bound), xytext=(2, 2), textcoords="offset points",
                            fontsize=7.5, color=INK, zorder=6,
                            bbox={"facecolor": FACE, "edgecolor": "none", "pad": 0.5, "alpha": 0.85})  # fmt: skip
        named = bound


def _stretches(keys: Sequence[object]) -> list[list[int]]:
    """Positions, cut wherever a key differs from the one before it."""
    cut: list[list[int]] = []
    for i, key in enumerate(keys):
        if i and key == keys[i - 1]:
            cut[-1].append(i)
        else:
            cut.append([i])
    return cut


def trend_alt(points: Sequence[TrendPoint]) -> str:
    """Every audit with its rate, interval and group; of many, the first, the last, the least and the most."""

    def said(p: TrendPoint) -> str:
        ends = [f"{percent(v)}" for v in (p.low, p.high) if v is not None]
        inner = f" ({' to '.join(ends)})" if len(ends) == 2 else ""
        over = "" if p.over is None else f", over-forgotten {percent(p.over)}"
        return f"{p.day}, model {p.model}, plan {p.group}: {percent(p.value)}{inner}{over}"

    if len(points) <= SPOKEN:
        parts = [said(p) for p in points]
    else:
        least, most = min(points, key=lambda p: p.value), max(points, key=lambda p: p.value)
        parts = [f"first {said(points[0])}", f"last {said(points[-1])}", f"least {said(least)}", f"most {said(most)}"]
    bounds = sorted({p.bound for p in points if p.bound is not None})
    limit = "" if not bounds else f" Bound: {', '.join(percent(b) for b in bounds)}."
    return f"True positive rate in {len(points)} audits. {'; '.join(parts)}.{limit}"
