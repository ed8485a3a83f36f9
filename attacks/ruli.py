"""RULI, auditing unlearning record by record in three worlds (Naderloui et al. 2025, arXiv 2506.13009).

For every record some models kept it, some unlearned it, some never saw it. *Privacy*, this attack: can a record that
was unlearned be told from one that was never seen? The score compares two kernel densities of the record's margin,
under models that unlearned it and under models that never saw it, after deletion. *Efficacy* is the measure in
``ruli_efficacy``; which records to audit is answered by ``ruli_records``.

Deviations from the released code: margins from float64 logits (there: a float32 softmax clipped at 1e-6); log ratios
in place of ratios of densities, which are 0/0 far from every model; Silverman's bandwidth with a floor of 0.1 in place
of a fixed 1.0, which is wide for most records (``bandwidth=1.0`` is the release's); the target's own kernel is left
out. Left out, a model's own side has one kernel fewer and a worse fit: where nothing leaks, the AUC is 0.46, 0.39,
0.45, 0.48, 0.49 with 2, 3, 4, 6, 8 models a side (2: one bandwidth for all), as the retrained row shows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.kernels import kernel_log_density, shared_bandwidth
from mnemoscope.attacks.lira import LEAST_FOR_OWN, variance_flags
from mnemoscope.attacks.moments import left_out_moments, moments
from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput

__all__ = ["Ruli", "RuliScorer", "ruli_scores"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ruli:
    """Log ratio of two kernel densities per record, unlearned against never seen.

    Attributes:
        bandwidth: of the kernels, in units of the signal; 0 is Silverman's for each record and side, at least 0.1. As
            soon as a record has a single model on a side, the target left out, all records share one bandwidth, and
            ``flags`` says so.
        signal: key of ``SIGNALS``; several queries are scored each by itself and averaged.
    """

    bandwidth: float = 0.0
    signal: str = "margin"
    name = "ruli"
    needs = Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        if not 0 <= self.bandwidth < np.inf:
            raise InvalidInput(f"bandwidth={self.bandwidth!r} must be positive, or 0 for Silverman's rule")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "RuliScorer":
        """Keep the reference's signals, which are the densities; nothing is drawn from ``rng``."""
        require_models(reference.side, 1, True, reference.ids)
        return RuliScorer(self, reference, 0.0, self.flags(reference))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        phi = reference.signal(self.signal)
        return ruli_scores(phi, reference.side, bandwidth=self.bandwidth, ids=reference.ids)

    def flags(self, reference: Reference, *, left_out: bool = False) -> tuple[str, ...]:
        """Say where bandwidths are shared because of too few models; empty where they are each record's own.

        Args:
            reference: what ``fit`` would read.
            left_out: whether each model is left out of it in turn, as ``score_fleet`` does.
        """
        return () if self.bandwidth else variance_flags(reference, online=True, left_out=left_out)


@dataclass(frozen=True, eq=False)
class RuliScorer:
    """Fitted RULI; ``threshold`` is even odds, the published decision; ``flags`` as of the attack."""

    attack: Ruli
    reference: Reference
    threshold: float
    flags: tuple[str, ...] = ()

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        at = self.reference.positions(view.ids)
        known = self.reference.signal(self.attack.signal)
        phi, masks = known[:, at], [self.reference.side == side for side in (Side.IN, Side.OUT)]
        width: float | Floats = self.attack.bandwidth
        total = np.zeros(view.n_records)
        for query, x in enumerate(view.signal(self.attack.signal).T):
            sample, side = phi[..., query], self.reference.side[:, at]
            if not self.attack.bandwidth:  # over the whole reference, whichever of its records are scored
                width = shared_bandwidth(*(moments(known[..., query], mask) for mask in masks))[None]
            total += kernel_log_density(x[None], sample, side == Side.IN, width)[0]
            total -= kernel_log_density(x[None], sample, side == Side.OUT, width)[0]
        total /= phi.shape[-1]
        return total


def ruli_scores(
    phi: Floats, side: NDArray[np.int8], *, bandwidth: float = 0.0, ids: NDArray[np.int64] | None = None
) -> Floats:
    """Score every model of a fleet with its own kernel left out; O(m^2 n).

    Args:
        phi: (m, n) or (m, n, q) float64 signals of m models.
        side: (m, n) int8 of ``Side``; the answer for model k never depends on ``side[k]``.
        bandwidth: see ``Ruli``.
        ids: (n,) int64, to name records in errors; positions are named without it.

    Returns:
        (m, n) float64, finite.

    Raises:
        InvalidInput: a record that is left without models on a side once its target is taken out.
    """
    require_models(side, 2, True, ids)
    queries = phi[..., None] if phi.ndim == 2 else phi
    total, models = np.zeros(side.shape), np.arange(side.shape[0])
    width: float | Floats | None = bandwidth
    few = min(int((mask.sum(axis=0) - mask).min()) for mask in (side == Side.IN, side == Side.OUT)) < LEAST_FOR_OWN
    for query in np.moveaxis(queries, -1, 0):
        if not bandwidth:
            masks = (side == wanted for wanted in (Side.IN, Side.OUT))
            width = shared_bandwidth(*(left_out_moments(query, mask) for mask in masks)) if few else None
        for wanted, sign in ((Side.IN, 1.0), (Side.OUT, -1.0)):
            total += sign * kernel_log_density(query, query, side == wanted, width, left_out=models)
    total /= queries.shape[-1]
    return total
