"""Several tests at once: adjusted p-values for families, and the permutation distribution of the largest statistic.

Sources: Holm 1979 (Scandinavian Journal of Statistics 6:65); Benjamini and Hochberg 1995 (JRSS B 57:289); Benjamini and
Yekutieli 2001 (Annals of Statistics 29:1165); Westfall and Young 1993 for max-T; Phipson and Smyth 2010 for the "+ 1".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["MaxT", "benjamini_hochberg", "benjamini_yekutieli", "bonferroni", "holm", "max_t"]

Floats = NDArray[np.float64]


def _checked(p: ArrayLike) -> Floats:
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0.0) & (values <= 1.0)).all():
        raise InvalidInput(f"p-values must be one-dimensional and lie in [0, 1], given shape {values.shape}")
    return values


def bonferroni(p: ArrayLike) -> Floats:
    """Return min(1, k p) for k p-values: family-wise error under any dependence."""
    values = _checked(p)
    return np.minimum(1.0, values * values.size)


def holm(p: ArrayLike) -> Floats:
    """Return Holm's step-down adjusted p-values, (k,): family-wise error under any dependence, never above Bonferroni.

    >>> holm([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    values = _checked(p)
    order = np.argsort(values, kind="stable")
    adjusted = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(1.0, adjusted)
    return result


def _step_up(p: ArrayLike, factor: float) -> Floats:
    values = _checked(p)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * values.size * factor / np.arange(1, values.size + 1)
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1]
    result = np.empty_like(values)
    result[order] = np.minimum(1.0, adjusted)
    return result


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return step-up adjusted p-values, (k,): those at most q form a list with false-discovery rate at most q.

    Valid for independent and for positively dependent tests, such as records under common models.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(6).tolist()
    [0.03, 0.04, 0.04]
    """
    return _step_up(p, 1.0)


def benjamini_yekutieli(p: ArrayLike) -> Floats:
    """Return Benjamini-Hochberg's values times 1 + 1/2 + ... + 1/k: false-discovery rate under any dependence."""
    return _step_up(p, float((1.0 / np.arange(1, _checked(p).size + 1)).sum()))


@dataclass(frozen=True, eq=False)
class MaxT:
    """Single-step max-T.

    Attributes:
        adjusted: (k,) float64 p-value of each statistic, adjusted for the family.
        p_value: of the largest observed statistic, the test of the global null.
        permutations: number of permutations behind them.
    """

    adjusted: Floats
    p_value: float
    permutations: int


def max_t(observed: ArrayLike, permuted: ArrayLike) -> MaxT:
    """Compare each observed statistic with the permutation distribution of the largest one.

    Args:
        observed: (k,) statistics, larger = more against the null, on comparable scales (standardise them by the
            mean and spread over observed and permuted values together).
        permuted: (b, k) the same statistics, each row one permutation applied to all of them jointly.

    Returns:
        p-values (1 + #{max of row >= observed}) / (b + 1), never zero.

    Raises:
        InvalidInput: shapes that do not fit, no permutation, or values that are not finite.
    """
    first, rows = np.asarray(observed, np.float64), np.asarray(permuted, np.float64)
    if first.ndim != 1 or rows.ndim != 2 or rows.shape[1] != first.size or min(rows.shape) == 0:
        raise InvalidInput(f"max_t: observed (k,) and permuted (b, k) with b, k > 0, given {first.shape}, {rows.shape}")
    if not (np.isfinite(first).all() and np.isfinite(rows).all()):
        raise InvalidInput("max_t: all statistics must be finite")
    largest = np.sort(rows.max(axis=1))
    at_least = largest.size - np.searchsorted(largest, first, "left")
    adjusted = np.asarray((1.0 + at_least) / (largest.size + 1.0), np.float64)
    return MaxT(adjusted, float(adjusted.min()), int(largest.size))
