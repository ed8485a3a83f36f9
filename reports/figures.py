"""Figures as pure functions on plain arrays: numbers in, one Matplotlib axes out, no global state.

Colours are those of Okabe and Ito that keep at least 3:1 on white; line style and marker repeat what colour says.
Drawing happens on a ``Figure`` object, never through pyplot; Matplotlib is imported when the first figure is drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnemoscope.reports.phrases import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BOUND",
    "FACE",
    "GRID",
    "INK",
    "MUTED",
    "STYLES",
    "BoundRow",
    "RateRow",
    "RocLine",
    "ScorePanel",
    "Style",
    "against_bounds",
    "ParetoPoint",
    "distributions",
    "frontier",
    "pareto",
    "rates",
    "roc",
]

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


@dataclass(frozen=True)
class ScorePanel:
    """Histograms of in and out scores of one set of models: (b + 1,) edges, (b,) counts each."""

    role: str
    edges: Sequence[float]
    in_counts: Sequence[int]
    out_counts: Sequence[int]


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


@dataclass(frozen=True)
class BoundRow:
    """One endpoint: estimate and interval in its own unit, and the bound that it is measured in.

    Attributes:
        label: what is measured.
        value, low, high: the estimate; None where there is none or the limit is on the other side.
        bound: size of the bound, above 0.
        sides: which side the bound limits: both, only large values, or only very negative ones.
        outcome: within | beyond | undecided | not computed.
        text: the number in words.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    bound: float
    sides: Literal["both", "upper", "lower"]
    outcome: str
    text: str


def _new(ax: "Axes | None", height: float) -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure.add_subplot()


def _bare(ax: "Axes", *spines: str) -> None:
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(side in spines)
        ax.spines[side].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK)


def _tick(value: float, _position: float = 0) -> str:
    return f"{100 * value:g} %"


def _inside(ax: "Axes") -> "Axes":
    """Keep row texts from claiming room outside of the axes; only the label of the bound stands above them."""
    for text in ax.texts:
        text.set_in_layout(text.get_text().startswith("bound"))
    return ax


def _spread(positions: Sequence[float], least: float, top: float) -> list[float]:
    """Move label positions apart to at least ``least``, keeping their order, none above ``top``."""
    order = sorted(range(len(positions)), key=lambda i: -positions[i])
    placed = [0.0] * len(positions)
    ceiling = top
    for i in order:
        placed[i] = min(positions[i], ceiling)
        ceiling = placed[i] - least
    return placed


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
    ax = _new(ax, 4.3)
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
        axis.set_major_formatter(_tick)
        axis.set_minor_formatter(lambda _v, _pos: "")
    _bare(ax, "left", "bottom")
    return ax


def _label_lines(ax: "Axes", lines: Sequence[RocLine], anchor: float, left: float) -> None:
    heights = [max(line.at(anchor), left) for line in lines]
    decades = -math.log10(left)
    placed = _spread([math.log10(h) - 0.035 * decades for h in heights], 0.055 * decades, -0.02 * decades)
    for line, height, at in zip(lines, heights, placed, strict=True):
        style = STYLES[line.role]
        ax.plot([anchor], [height], marker=style.marker, ms=6, color=style.colour, mec=FACE, mew=0.8, zorder=5)
        label_x = anchor * 10 ** (0.055 * decades)
        ax.plot([anchor, label_x * 0.94], [height, 10**at], color=style.colour, lw=0.7, zorder=4)
        ax.text(
            label_x, 10**at, f"{line.role} {percent(line.at(anchor))}", fontsize=8.5, color=INK, va="center", zorder=6,
            bbox={"facecolor": FACE, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )  # fmt: skip


def distributions(
    panels: Sequence[ScorePanel], *, groups: Groups = DELETION, axes: "Sequence[Axes] | None" = None
) -> "Sequence[Axes]":
    """Draw in and out score histograms, one panel a set of models, on one common score axis.

    Args:
        panels: at least one; shares of each group are drawn, so that unequal group sizes compare.
        groups: what the in and out records are called.
        axes: one for each panel; None makes new ones.

    Returns:
        The axes.
    """
    if axes is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.15 * len(panels) + 0.75), layout="constrained")
        made = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        axes = [row[0] for row in made]
    for i, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        style = STYLES[panel.role]
        edges = np.asarray(panel.edges, np.float64)
        shares = [np.asarray(c, np.float64) / max(sum(c), 1) for c in (panel.in_counts, panel.out_counts)]
        ax.stairs(shares[0], edges, fill=True, color=style.colour, alpha=0.35, lw=0)
        ax.stairs(shares[0], edges, color=style.colour, lw=1.4, label=groups[0] if i == 0 else None)
        ax.stairs(shares[1], edges, color=INK, lw=1.1, ls=(0, (3, 1.5)), label=groups[1] if i == 0 else None)
        ax.set_ylim(0, max(float(s.max()) for s in shares) * 1.12 or 1.0)
        ax.set_yticks([])
        counts = f"{sum(panel.in_counts):,} in, {sum(panel.out_counts):,} out"
        ax.set_title(panel.role, loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=3)
        ax.set_title(counts, loc="right", fontsize=8, color=MUTED, pad=3)
        _bare(ax, "bottom")
    if len(axes):
        legend = axes[0].legend(loc="upper left", fontsize=8, frameon=False, handlelength=1.6, borderaxespad=0.1)
        for text in legend.get_texts():
            text.set_color(INK)
        axes[-1].set_xlabel("Attack score: further right = more likely trained on")
    return axes


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
    ax = _new(ax, 0.36 * len(lines) + 0.85)
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
                mfc=FACE if line.hollow else style.colour, mec=style.colour, mew=1.4)  # fmt: skip
    ax.set_yticks([])
    ax.xaxis.set_major_formatter(_tick)
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("Records picked out (true positive rate)")
    _bare(ax, "bottom")
    return _inside(ax)


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
    ax = _new(ax, 4.6)
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
        if p in best:
            ax.annotate(p.label, (p.cost, y), xytext=(5, -9), textcoords="offset points", fontsize=7.5, color=INK,
                        annotation_clip=True)  # fmt: skip
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        # Three labels a decade run into each other where there are many decades.
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < MANY else (1.0,)))
        axis.set_major_formatter(_tick)
        axis.set_minor_formatter(NullFormatter())
    ax.grid(True, which="major", color=GRID, lw=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("Time of a deletion, share of retraining")
    ax.set_ylabel("Strongest attack after deletion (TPR)")
    _bare(ax, "bottom", "left")
    return ax


MANY = 300.0
"""Ratio of the ends of a logarithmic axis from which on it has one label a decade."""


FURTHEST = 4.0
"""Endpoints further than this many bounds away are drawn as an arrow at the edge; their text has the number."""


def against_bounds(rows: Sequence[BoundRow], *, ax: "Axes | None" = None) -> "Axes":
    """Draw every endpoint in units of its own bound: this one figure carries the verdict.

    Args:
        rows: from top to bottom.
        ax: axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = _new(ax, 0.42 * max(len(rows), 1) + 0.95)
    scaled = [v / row.bound for row in rows for v in (row.value, row.low, row.high) if v is not None]
    right = min(FURTHEST, max([1.8, *scaled]))
    left = max(-FURTHEST, min([-1.8, *scaled])) if any(row.sides != "upper" for row in rows) else -0.4
    ax.set_xlim(left, right)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.75)
    for x, ha in ((-1, "center"), (1, "center")):
        if left < x:
            ax.axvline(x, color=INK, lw=1.0, zorder=1)
            ax.text(x, 1.01, "bound", fontsize=8, color=INK, ha=ha, va="bottom", transform=ax.get_xaxis_transform())
    ax.axvline(0, color=MUTED, lw=0.7, ls=(0, (2, 2)), zorder=1)
    boxed = {"facecolor": FACE, "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    markers = {"within": ("o", "#00684d"), "beyond": ("^", "#d55e00"), "undecided": ("s", MUTED)}
    for y, row in enumerate(rows):
        if row.sides in ("both", "upper"):
            ax.fill_betweenx(
                [y + 0.02, y + 0.38], 1, right, facecolor="none", edgecolor=BOUND, hatch="////", lw=0, zorder=0
            )
        if row.sides in ("both", "lower"):
            ax.fill_betweenx(
                [y + 0.02, y + 0.38], left, -1, facecolor="none", edgecolor=BOUND, hatch="////", lw=0, zorder=0
            )
        ax.text(0.0, y - 0.22, row.label, fontsize=8, color=INK, va="center", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        ax.text(1.0, y - 0.22, row.text, fontsize=8, color=INK, va="center", ha="right", bbox=boxed, zorder=6,
                transform=ax.get_yaxis_transform())  # fmt: skip
        if row.value is None:
            continue
        marker, colour = markers.get(row.outcome, ("s", MUTED))
        point = row.value / row.bound
        ends = [point if v is None else v / row.bound for v in (row.low, row.high)]
        ax.plot(np.clip(ends, left, right), [y + 0.2] * 2, color=colour, lw=2.2, zorder=3, solid_capstyle="butt")
        if left <= point <= right:
            ax.plot([point], [y + 0.2], marker=marker, ms=6.5, color=colour, zorder=5)
        else:
            ax.plot([right if point > 0 else left], [y + 0.2], marker=">" if point > 0 else "<", ms=8, color=colour,
                    zorder=5, clip_on=False)  # fmt: skip
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=7, integer=True)
    ax.set_xlabel("Estimate and interval, in units of each endpoint's bound")
    _bare(ax, "bottom")
    return _inside(ax)
