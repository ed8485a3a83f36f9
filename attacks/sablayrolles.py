"""The offset attack of Sablayrolles et al. 2019 (arXiv 1908.11229; MALT with one threshold for each record).

The paper's threshold of a record is the midpoint of its mean losses with and without it: LiRA with one variance for
all records, up to the scale of each record. Losses are capped as in difficulty calibration.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.difficulty import OffsetScorer, check_limit, limited
from mnemoscope.attacks.moments import left_out_mean, mean_over, record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models

__all__ = ["Sablayrolles"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sablayrolles:
    """Midpoint of the record's mean IN and mean OUT loss, minus the target's loss.

    Attributes:
        signal: key of ``SIGNALS``; several queries are averaged.
        limit: signals are brought into [-limit, limit] first, of target and references alike; in the signal's unit.
    """

    signal: str = "negative_loss"
    limit: float = 30.0
    name = "sablayrolles"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        check_limit(self.signal, self.limit)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "MidpointScorer":
        """Average over both sides of each record; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, True, reference.ids)
        phi = limited(reference, self.signal, self.limit)
        means = [mean_over(phi, reference.side == side) for side in (Side.IN, Side.OUT)]
        return MidpointScorer(OffsetScorer(reference, self.signal, self.limit, (means[0] + means[1]) / 2.0))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, True, reference.ids)
        phi = limited(reference, self.signal, self.limit)

        def work(records: slice) -> None:
            own, sides = phi[:, records], reference.side[:, records]
            means = [left_out_mean(own, sides == side) for side in (Side.IN, Side.OUT)]
            own -= (means[0] + means[1]) / 2.0

        over_blocks(work, record_blocks(*phi.shape), values=phi.size)
        return phi


@dataclass(frozen=True, eq=False)
class MidpointScorer:
    """Fitted offsets; from ``threshold`` on the target is nearer to the IN models."""

    offset: OffsetScorer
    threshold: float = 0.0

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        return self.offset.score(view)
