"""Difficulty calibration (Watson et al. 2022, arXiv 2111.08440): the target's signal minus what strangers say.

As in the paper, the loss is averaged over models that never saw the record; losses are capped, because one reference
that is badly wrong would decide the mean. The same recipe calibrates any signal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.moments import left_out_mean, mean_over, record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Difficulty", "OffsetScorer", "check_limit", "limited"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difficulty:
    """Mean loss of models that never saw the record, minus the target's loss; one reference is already useful.

    Attributes:
        signal: key of ``SIGNALS``; several queries are averaged.
        limit: signals are brought into [-limit, limit] first, of target and references alike; in the signal's unit.
    """

    signal: str = "negative_loss"
    limit: float = 30.0
    name = "difficulty"
    needs = Need.SCORES | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        check_limit(self.signal, self.limit)

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "OffsetScorer":
        """Average over the OUT models of each record; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, False, reference.ids)
        offset = mean_over(limited(reference, self.signal, self.limit), reference.side == Side.OUT)
        return OffsetScorer(reference, self.signal, self.limit, offset)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, False, reference.ids)
        phi = limited(reference, self.signal, self.limit)

        def work(records: slice) -> None:
            phi[:, records] -= left_out_mean(phi[:, records], reference.side[:, records] == Side.OUT)

        over_blocks(work, record_blocks(*phi.shape), values=phi.size)
        return phi


@dataclass(frozen=True, eq=False)
class OffsetScorer:
    """A signal minus an offset (n,) for each record of the reference."""

    reference: Reference
    signal: str
    limit: float
    offset: Floats

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        return limited(view, self.signal, self.limit) - self.offset[self.reference.positions(view.ids)]


def limited(answers: View | Reference, signal: str, limit: float) -> Floats:
    """Return the signal brought into [-limit, limit], averaged over queries: (n,) or (m, n) float64."""
    phi = answers.signal(signal)
    single = phi.shape[-1] == 1
    clipped = np.clip(phi[..., 0] if single else phi, -limit, limit)
    mean: Floats = clipped if single else clipped.mean(axis=-1)
    return mean


def check_limit(signal: str, limit: float) -> None:
    """Refuse an unknown signal and a limit that is not positive.

    Raises:
        InvalidInput: what was given, and what is allowed.
    """
    if signal not in SIGNALS:
        raise InvalidInput(f"signal={signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")
    if not 0 < limit < np.inf:
        raise InvalidInput(f"limit={limit!r} must be positive and finite")
