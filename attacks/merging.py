"""Rules that merge several attacks' p-values for one record, valid whatever the attacks have in common.

Attacks on the same answers are correlated, so that rules for independent tests (Fisher's) are not to be used.
"""

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["cauchy_merge", "union_rule"]

Floats = NDArray[np.float64]


def cauchy_merge(p: Floats) -> Floats:
    """Merge p-values by the Cauchy combination test (Liu and Xie 2020, JASA 115:393).

    Under the null the mean of tan(pi (1/2 - p)) has nearly a Cauchy tail whatever the dependence: the merged p-value
    is accurate for small levels, not exact for large ones.

    Args:
        p: (k, n) float64 in (0, 1], k attacks on n records. Attacks that give a p-value of 1 for certain (discrete
            ones) make it conservative.

    Returns:
        (n,) float64 in (0, 1].

    Raises:
        InvalidInput: values outside (0, 1], or no attack.

    >>> cauchy_merge(np.array([[0.01], [0.01]])).round(6).item()
    0.01
    """
    _check(p)
    # tan(pi (1/2 - p)) = 1 / tan(pi p), which keeps its digits at small p; at p = 1 the sum is minus infinity.
    with np.errstate(divide="ignore"):
        mean = np.where(p < 1.0, 1.0 / np.tan(np.pi * np.minimum(p, 1.0)), -np.inf).mean(axis=0)
        merged = np.where(mean > 0, np.arctan(1.0 / np.abs(mean)) / np.pi, 0.5 - np.arctan(mean) / np.pi)
    return np.asarray(np.minimum(merged, 1.0), np.float64)


def union_rule(p: Floats, alpha: float) -> NDArray[np.bool_]:
    """Flag a record when any of k attacks does at level alpha / k: at most alpha false alarms, under any dependence.

    Args:
        p: (k, n) float64 in (0, 1], each valid by itself.
        alpha: level of the union, in (0, 1).

    Returns:
        (n,) bool.

    >>> union_rule(np.array([[0.02, 0.04], [0.5, 0.03]]), 0.05).tolist()
    [True, False]
    """
    _check(p)
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha={alpha!r} must lie strictly between 0 and 1")
    flagged: NDArray[np.bool_] = p.min(axis=0) <= alpha / p.shape[0]
    return flagged


def _check(p: Floats) -> None:
    if p.ndim != 2 or not p.shape[0] or not ((p > 0) & (p <= 1)).all():
        raise InvalidInput(f"p-values {p.shape} must be (attacks, records), each above 0 and at most 1")
