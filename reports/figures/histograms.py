"""Score distributions, a panel for each set of models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.reports.figures.styles import DELETION, INK, MUTED, OURS, STYLES, WIDTH, Groups, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ScorePanel", "distributions"]


@dataclass(frozen=True)
class ScorePanel:
    """Histograms of in and out scores of one set of models: (b + 1,) edges, (b,) counts each."""

    role: str
    edges: Sequence[float]
    in_counts: Sequence[int]
    out_counts: Sequence[int]


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

        figure = Figure(figsize=(WIDTH, 1.15 * len(panels) + 0.75), layout="constrained", label=OURS)
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
        bare(ax, "bottom")
    if len(axes):
        legend = axes[0].legend(loc="upper left", fontsize=8, frameon=False, handlelength=1.6, borderaxespad=0.1)
        for text in legend.get_texts():
            text.set_color(INK)
        axes[-1].set_xlabel("Attack score: further right = more likely trained on")
    return axes
