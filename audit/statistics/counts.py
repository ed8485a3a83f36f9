"""ROC curves from counts: equal scores move together, curves start at (0, 0) and end at (n_in, n_out).

A point inside a block of equal scores cannot be reached by any threshold, so rates at a false-positive rate are the
conservative ones: the most true positives among thresholds with at most floor(fpr x n_out) false positives.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.delong import finite_scores

__all__ = ["RocCounts", "allowed_false_positives", "auc", "roc_counts", "threshold_at", "tpr_at_fpr"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RocCounts:
    """Cumulative counts at every threshold that separates two different scores.

    Attributes:
        threshold: (b + 1,) float64, +inf, then the b distinct scores, descending; a record is flagged at
            score >= threshold.
        tp: (b + 1,) int64 in records flagged, from 0 to n_in.
        fp: (b + 1,) int64 out records flagged, from 0 to n_out.
        n_in: in records.
        n_out: out records.
    """

    threshold: Floats
    tp: Ints
    fp: Ints
    n_in: int
    n_out: int

    @property
    def tpr(self) -> Floats:
        """True-positive rates, (b + 1,)."""
        return self.tp / self.n_in

    @property
    def fpr(self) -> Floats:
        """False-positive rates, (b + 1,)."""
        return self.fp / self.n_out


def _two_sides(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    s1, s0 = finite_scores("in_scores", in_scores), finite_scores("out_scores", out_scores)
    if s1.size == 0 or s0.size == 0:
        raise InvalidInput(f"a ROC needs scores on both sides, given {s1.size} in and {s0.size} out")
    return s1, s0


def roc_counts(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating]) -> RocCounts:
    """Count flagged records at every distinct score.

    Args:
        in_scores: (n_in,) finite scores, higher = more likely in.
        out_scores: (n_out,) finite scores.

    Raises:
        InvalidInput: an empty side or scores that are not finite.

    >>> counts = roc_counts(np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0]))
    >>> counts.tp.tolist(), counts.fp.tolist()
    ([0, 2, 3], [0, 1, 2])
    """
    s1, s0 = _two_sides(in_scores, out_scores)
    pooled = np.concatenate([s1, s0])
    order = np.argsort(-pooled, kind="stable")
    ranked = pooled[order]
    is_in = order < s1.size
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    tp = np.cumsum(is_in, dtype=np.int64)[ends]
    return RocCounts(
        np.concatenate([[np.inf], ranked[ends]]),
        np.concatenate([[0], tp]),
        np.concatenate([[0], ends + 1 - tp]),
        int(s1.size),
        int(s0.size),
    )


def auc(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating]) -> float:
    """P(in > out) + P(in = out)/2, exact in integers before the one division.

    >>> auc(np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    0.75
    """
    s1, s0 = _two_sides(in_scores, out_scores)
    base = np.sort(s0)
    queries = np.sort(s1)
    twice = int(np.searchsorted(base, queries, "left").sum()) + int(np.searchsorted(base, queries, "right").sum())
    return twice / (2 * s1.size * s0.size)


def allowed_false_positives(fpr: float, n_out: int) -> int:
    """Return floor(fpr x n_out), robust to rounding of the product."""
    if not 0.0 <= fpr <= 1.0:
        raise InvalidInput(f"fpr={fpr!r} must lie in [0, 1], e.g. 0.01 for one per cent")
    return math.floor(fpr * n_out + 1e-9)


def threshold_at(out_scores: NDArray[np.floating], fpr: float) -> float:
    """Smallest out score reached by at most floor(fpr x n_out) out scores; +inf where there is none.

    Flagging score >= threshold on fresh records then has an expected FPR of at most fpr (n + 1 records of one kind
    are exchangeable). With tied scores or fewer than 1/fpr records this may be far below fpr, never above.

    >>> threshold_at(np.arange(100.0), 0.05)
    95.0
    """
    s0 = finite_scores("out_scores", out_scores)
    if s0.size == 0:
        raise InvalidInput("threshold_at needs out scores, given none")
    allowed = allowed_false_positives(fpr, s0.size)
    if allowed >= s0.size:
        return float(s0.min())
    cut = np.partition(s0, s0.size - 1 - allowed)[s0.size - 1 - allowed]
    above = s0[s0 > cut]
    return float(above.min()) if above.size else math.inf


def tpr_at_fpr(in_scores: NDArray[np.floating], out_scores: NDArray[np.floating], fpr: float) -> tuple[int, int, float]:
    """Most true positives among thresholds with at most floor(fpr x n_out) false positives.

    Returns:
        (tp, fp, threshold): counts at score >= threshold. With floor(fpr x n_out) = 0 it is the count at zero
        false positives; report it as such.
    """
    s1, s0 = _two_sides(in_scores, out_scores)
    allowed = allowed_false_positives(fpr, s0.size)
    if allowed >= s0.size:
        return int(s1.size), int(s0.size), float(min(s1.min(), s0.min()))
    cut = np.partition(s0, s0.size - 1 - allowed)[s0.size - 1 - allowed]
    above_in, above_out = s1[s1 > cut], s0[s0 > cut]
    levels = [float(part.min()) for part in (above_in, above_out) if part.size]
    return int(above_in.size), int(above_out.size), min(levels, default=math.inf)
