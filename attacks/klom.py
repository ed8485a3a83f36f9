"""KLoM, the divergence of margins over models (Georgiev et al. 2024, arXiv 2410.23232).

For each record: KL(unlearned || retrained) between its margins under models that unlearned it and under models that
never saw it, in nats. The histogram is the benchmark's (arXiv 2602.16400), whose release drops the largest margin
because its last bin is open on the right; here it is closed. The plug-in of two Gaussians needs far fewer models.

Perfect forgetting does not score zero: identical margins read 3.07 with 20 models a side, 0.90 with 50, 0.355 with 100
(3.01, 0.88 and 0.337 where the largest is dropped). Deviation: by default a record's retrained margins come from all
models that never saw it, not only from the twins of those that unlearned it, because the empty bins of the second
sample make the bias.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.signals import SIGNALS
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.contrasts import Oracles, contrast
from mnemoscope.audit.statistics.measures import Measurement, Worlds

__all__ = ["Estimator", "Klom", "gaussian_divergence", "histogram_divergence"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Estimator = Literal["histogram", "gaussian"]

BINS = 20
CLIP = 100.0
FLOOR = 1e-5
"""Least share of retrained models in a bin where there are unlearned ones."""
VARIANCE_FLOOR = 1e-6
"""In squared logits, as in LiRA."""


@dataclass(frozen=True)
class Klom:
    """Divergence of a record's margins after deletion from those of retrained models, mean over forgotten records.

    Attributes:
        estimator: "histogram", 20 equal bins over the joint range, as published; or "gaussian", the plug-in of two
            normal distributions.
        oracles: "unseen", all retrained models that never saw the record, or "forgotten", the twins alone.
        signal: key of ``SIGNALS``; several queries are averaged first.
    """

    estimator: Estimator = "histogram"
    oracles: Oracles = "unseen"
    signal: str = "margin"
    needs = Need.SCORES

    def __post_init__(self) -> None:
        if self.estimator not in get_args(Estimator):
            raise InvalidInput(f"estimator={self.estimator!r} is unknown; allowed: {', '.join(get_args(Estimator))}")
        if self.oracles not in get_args(Oracles):
            raise InvalidInput(f"oracles={self.oracles!r} is unknown; allowed: {', '.join(get_args(Oracles))}")
        if self.signal not in SIGNALS:
            raise InvalidInput(f"signal={self.signal!r} is unknown; known signals: {', '.join(sorted(SIGNALS))}")

    @property
    def name(self) -> str:
        """``klom`` or ``klom_gaussian``."""
        return "klom" if self.estimator == "histogram" else "klom_gaussian"

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return mean divergence and floor in nats; nothing is drawn from ``rng``."""
        statistic = histogram_divergence if self.estimator == "histogram" else gaussian_divergence
        found = contrast(worlds, statistic, signal=self.signal, oracles=self.oracles)
        high, high_floor = np.quantile(found.per_record, 0.95), np.quantile(found.floor_per_record, 0.95)
        return Measurement(
            self.name,
            found.value,
            found.floor,
            unit="nats",
            direction="larger is farther from retrained models",
            per_record=found.per_record,
            ids=found.ids,
            note=f"95th percentile over records {high:.3g}, of retrained models {high_floor:.3g}; "
            f"KL(unlearned || retrained) of {found.models[0]} against {found.models[1]} models a record"
            + ("; its ceiling is near 11.5" if self.estimator == "histogram" else ""),
            excess=found.excess,
            no_op=found.no_op,
        )


def histogram_divergence(p: Floats, p_counts: Mask, q: Floats, q_counts: Mask) -> Floats:
    """KL(p || q) of two histograms for every record, in nats.

    Args:
        p: (m, n) float64 signals of unlearned models, clipped to +-100.
        p_counts: (m, n) bool, the cells that count.
        q: (m', n) of retrained models.
        q_counts: (m', n) bool.

    Returns:
        (n,) float64, between 0 and about 11.5: the share of q is raised to 1e-5 where p has models.
    """
    p, q = np.clip(p, -CLIP, CLIP), np.clip(q, -CLIP, CLIP)
    low = np.minimum(np.where(p_counts, p, CLIP).min(axis=0), np.where(q_counts, q, CLIP).min(axis=0))
    high = np.maximum(np.where(p_counts, p, -CLIP).max(axis=0), np.where(q_counts, q, -CLIP).max(axis=0))
    share = _shares(p, p_counts, low, high)
    other = _shares(q, q_counts, low, high)
    other = np.where(share > 0, np.maximum(other, FLOOR), other)
    other /= other.sum(axis=1, keepdims=True)
    ratio = np.log(np.where(share > 0, share, 1.0)) - np.log(np.where(share > 0, other, 1.0))
    divergence: Floats = (share * ratio).sum(axis=1)
    return divergence


def _shares(x: Floats, counts: Mask, low: Floats, high: Floats) -> Floats:
    """Shares (n, bins) of the counted values in equal bins from low to high, the last one closed on the right."""
    width = np.where(high > low, high - low, 1.0)
    bins = np.clip(np.floor((x - low) / width * BINS), 0, BINS - 1).astype(np.int64)
    model, record = np.nonzero(counts)
    flat = np.bincount(record * BINS + bins[model, record], minlength=x.shape[1] * BINS)
    tallies = flat.reshape(x.shape[1], BINS).astype(np.float64)
    tallies /= tallies.sum(axis=1, keepdims=True)
    return tallies


def gaussian_divergence(p: Floats, p_counts: Mask, q: Floats, q_counts: Mask) -> Floats:
    """KL(p || q) of the Gaussians fitted to both samples: log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2.

    Args:
        p: (m, n) float64 signals of unlearned models.
        p_counts: (m, n) bool, the cells that count, at least two a record.
        q: (m', n) of retrained models.
        q_counts: (m', n) bool.

    Returns:
        (n,) float64, at least 0.
    """
    mean_p, variance_p = _moments(p, p_counts)
    mean_q, variance_q = _moments(q, q_counts)
    gap = mean_p - mean_q
    divergence: Floats = 0.5 * (np.log(variance_q / variance_p) + (variance_p + gap * gap) / variance_q - 1.0)
    return divergence


def _moments(x: Floats, counts: Mask) -> tuple[Floats, Floats]:
    number = counts.sum(axis=0)
    mean = np.where(counts, x, 0.0).sum(axis=0) / number
    deviation = np.where(counts, x - mean, 0.0)
    variance = np.einsum("ij,ij->j", deviation, deviation) / (number - 1)
    return mean, np.maximum(variance, VARIANCE_FLOOR)
