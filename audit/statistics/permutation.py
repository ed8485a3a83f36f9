"""Paired before-and-after tests on the same records; none of them shows that unlearning worked (see ``equivalence``).

Sources: Fisher 1935 for sign flips; McNemar 1947 (Psychometrika 12:153), exact form; Phipson and Smyth 2010
(arXiv 1603.05766) for p-values that are never zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import tail_share
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["PermutationTest", "difference_in_differences", "mcnemar_exact", "sign_flip_test", "swap_test"]

Floats = NDArray[np.float64]
BLOCK_VALUES = 4_000_000
"""Random signs drawn at a time: bounds the memory of a test at a few tens of MB."""


@dataclass(frozen=True)
class PermutationTest:
    """Observed statistic with its two-sided permutation p-value (1 + #{|T*| >= |T|}) / (b + 1)."""

    statistic: float
    p_value: float
    permutations: int


def _checked(name: str, values: NDArray[np.floating]) -> Floats:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise InvalidInput(f"{name} must be a one-dimensional array of finite values, given shape {array.shape}")
    return array


def _check_permutations(permutations: int) -> None:
    if permutations < 19:
        raise InvalidInput(
            f"permutations={permutations!r}: at least 19 are needed for a p-value of 0.05, 9999 are usual"
        )


def sign_flip_test(
    differences: NDArray[np.floating], *, permutations: int = 9999, rng: np.random.Generator
) -> PermutationTest:
    """Test whether paired differences are symmetric about zero, by flipping their signs.

    Args:
        differences: (n,) after minus before, one a record (several queries of one record averaged first).
        permutations: random sign vectors.
        rng: generator of the signs.

    Returns:
        Mean difference and two-sided p-value.
    """
    _check_permutations(permutations)
    d = _checked("differences", differences)
    observed = float(d.mean())
    # Sums that agree in exact arithmetic must count as "at least as large", whatever the order of addition.
    limit = abs(float(d.sum())) - 1e-12 * float(np.abs(d).sum())
    block = max(1, BLOCK_VALUES // d.size)
    reached = 0
    for start in range(0, permutations, block):
        signs = rng.integers(0, 2, (min(block, permutations - start), d.size), dtype=np.int8)
        reached += int(np.count_nonzero(np.abs((2.0 * signs - 1.0) @ d) >= limit))
    return PermutationTest(observed, (1 + reached) / (permutations + 1), permutations)


def swap_test(
    statistic: Callable[[Floats, Floats], float],
    in_before: NDArray[np.floating],
    out_before: NDArray[np.floating],
    in_after: NDArray[np.floating],
    out_after: NDArray[np.floating],
    *,
    permutations: int = 999,
    rng: np.random.Generator,
) -> PermutationTest:
    """Test whether a metric of (in, out) scores changed, by swapping before and after within records.

    Args:
        statistic: maps (in scores, out scores) to a number, e.g. ``roc.auc``.
        in_before: (n_in,) scores of in records before.
        out_before: (n_out,) scores of out records before.
        in_after: (n_in,) the same records after.
        out_after: (n_out,) the same records after.
        permutations: random swaps.
        rng: generator of the swaps.

    Returns:
        Metric after minus before, and its two-sided p-value. Scores must be on one scale: convert each column to
        normal scores of ranks among out records first if unlearning shifted all of them.
    """
    _check_permutations(permutations)
    b1, b0 = _checked("in_before", in_before), _checked("out_before", out_before)
    a1, a0 = _checked("in_after", in_after), _checked("out_after", out_after)
    if a1.shape != b1.shape or a0.shape != b0.shape:
        raise InvalidInput(
            f"swap_test: same records before and after, given {b1.shape}/{a1.shape}, {b0.shape}/{a0.shape}"
        )
    observed = statistic(a1, a0) - statistic(b1, b0)
    reached = 0
    for _ in range(permutations):
        w1, w0 = rng.random(a1.size) < 0.5, rng.random(a0.size) < 0.5
        after = statistic(np.where(w1, b1, a1), np.where(w0, b0, a0))
        before = statistic(np.where(w1, a1, b1), np.where(w0, a0, b0))
        reached += abs(after - before) >= abs(observed) - 1e-12
    return PermutationTest(float(observed), (1 + reached) / (permutations + 1), permutations)


def mcnemar_exact(only_before: int, only_after: int) -> float:
    """Two-sided exact p-value that as many records are flagged only before as only after.

    Args:
        only_before: records flagged before and not after, at thresholds fixed beforehand.
        only_after: records flagged after and not before.

    >>> mcnemar_exact(8, 1)
    0.0390625
    """
    if min(only_before, only_after) < 0:
        raise InvalidInput(f"only_before={only_before!r} and only_after={only_after!r} must not be negative")
    discordant = only_before + only_after
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_before, only_after), discordant, 0.5)))


def difference_in_differences(
    forget_before: NDArray[np.floating],
    forget_after: NDArray[np.floating],
    holdout_before: NDArray[np.floating],
    holdout_after: NDArray[np.floating],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> Estimate:
    """Mean change of forget records minus mean change of records never seen: forgetting apart from global drift.

    Args:
        forget_before: (n_f,) scores of the forget records before.
        forget_after: (n_f,) the same records after.
        holdout_before: (n_h,) scores of never-seen records before.
        holdout_after: (n_h,) the same records after.
        level: confidence of the two-sided percentile interval.
        resamples: bootstrap resamples of records, forget and holdout separately.
        rng: generator of the resamples.

    Returns:
        The difference in score units with its interval; n = records of both groups.
    """
    tail = tail_share(level, "two")
    if resamples < 200:
        raise InvalidInput(f"resamples={resamples!r}: at least 200 are needed for percentile limits")
    pairs = []
    for name, before, after in (
        ("forget", forget_before, forget_after),
        ("holdout", holdout_before, holdout_after),
    ):
        first, second = _checked(f"{name}_before", before), _checked(f"{name}_after", after)
        if first.shape != second.shape:
            raise InvalidInput(f"{name}: same records before and after, given {first.shape} and {second.shape}")
        pairs.append(second - first)
    forget, holdout = pairs
    value = float(forget.mean() - holdout.mean())

    def resampled_means(d: Floats) -> Floats:
        means = np.empty(resamples)
        block = max(1, BLOCK_VALUES // d.size)
        for start in range(0, resamples, block):
            stop = min(resamples, start + block)
            means[start:stop] = d[rng.integers(0, d.size, (stop - start, d.size))].mean(axis=1)
        return means

    low, high = np.quantile(resampled_means(forget) - resampled_means(holdout), [tail, 1.0 - tail])
    method = f"bootstrap by record, {resamples} resamples"
    return Estimate(value, Interval(float(low), float(high), level, "two", method), n=forget.size + holdout.size)
