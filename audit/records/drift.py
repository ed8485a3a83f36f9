"""The blind baseline: can two groups of records be told apart without any model?

If they can, an attack may "work" by recognising the group instead of what the model remembers (Duan et al. 2024,
arXiv 2402.07841, show this for records split by date).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["DriftReport", "blind_baseline"]

Floats = NDArray[np.float64]

FOLDS = 5
PENALTIES = (0.3, 3.0)
"""Ridge penalties, as multiples of the mean eigenvalue of the kernel; the scores of both are added up."""


@dataclass(frozen=True)
class DriftReport:
    """How well a classifier that never saw a model tells group a from group b.

    Attributes:
        auc: area under the ROC curve of cross-fitted scores; about one half without drift.
        p_value: exact permutation p-value of "no drift", one-sided.
        n_a: records of group a that were used.
        n_b: records of group b that were used.
    """

    auc: Estimate
    p_value: float
    n_a: int
    n_b: int


def blind_baseline(
    values_a: NDArray[np.generic],
    values_b: NDArray[np.generic],
    *,
    rng: np.random.Generator,
    labels_a: ArrayLike | None = None,
    labels_b: ArrayLike | None = None,
    permutations: int = 999,
    level: float = 0.95,
    max_records: int = 1000,
) -> DriftReport:
    """Tell two groups of records apart by their values (and labels) alone, cross-fitted by record.

    The classifier is ridge regression on +-1 in four kernels: linear and Gaussian on standardised values (shifts,
    other shapes), Gaussian on a few summaries of each record (brightness, contrast, sharpness), and the classes, where
    labels are given. For fixed folds its scores are *linear* in the group memberships, so one matrix serves the data
    and every permutation: the p-value, learning included, is exact under exchangeability, whatever the sample size.

    Args:
        values_a: (n_a, ...) records, any numeric type; at least 10.
        values_b: (n_b, ...) records of the same shape; at least 10.
        rng: draws folds, permutations and, above ``max_records``, the records used.
        labels_a: (n_a,) classes; give both or neither.
        labels_b: (n_b,) classes.
        permutations: number of random permutations; the smallest p-value is 1 / (permutations + 1).
        level: confidence of the interval.
        max_records: records of each group that are used at most (time and memory grow with the square).

    Returns:
        AUC and p-value. The interval is two-sided: Hanley and McNeil (1982), or the spread over permutations where
        that is larger, because cross-fitted scores are not independent.

    Raises:
        InvalidInput: too few records, different shapes, values that are not finite.

    >>> rng = np.random.default_rng(0)
    >>> blind_baseline(rng.normal(size=(80, 5)), rng.normal(1.0, size=(80, 5)), rng=rng).p_value
    0.001
    """
    if (labels_a is None) != (labels_b is None):
        raise InvalidInput("blind baseline: give labels for both groups or for neither")
    if values_a.shape[1:] != values_b.shape[1:]:
        raise InvalidInput(f"blind baseline: records differ in shape, {values_a.shape[1:]} and {values_b.shape[1:]}")
    if min(len(values_a), len(values_b)) < 10 or permutations < 19:
        raise InvalidInput(
            f"blind baseline: {len(values_a)} and {len(values_b)} records, {permutations} permutations; "
            "at least 10 records a group and 19 permutations are needed"
        )
    rows_a, rows_b = (_subset(len(v), max_records, rng) for v in (values_a, values_b))
    values = np.concatenate([values_a[rows_a], values_b[rows_b]]).astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput("blind baseline: values must be finite")
    labels = None
    if labels_a is not None and labels_b is not None:
        labels = np.concatenate([np.asarray(labels_a)[rows_a], np.asarray(labels_b)[rows_b]])
    is_a = np.arange(len(values)) < rows_a.size
    smoother = _cross_fitted(_kernels(values, labels), rng)
    group = np.where(is_a, 1.0, -1.0)
    groups = np.column_stack([group, *(rng.permutation(group) for _ in range(permutations))])
    scores = smoother @ groups
    areas = np.array([_auc(score, column > 0) for score, column in zip(scores.T, groups.T, strict=True)])
    # The rounding tolerance counts equal areas that differ by the order of floating-point additions as equal.
    p_value = float((1 + (areas[1:] >= areas[0] - 1e-12).sum()) / (permutations + 1))
    n_a, n_b = int(rows_a.size), int(rows_b.size)
    estimate = _estimate(float(areas[0]), float(areas[1:].std()), n_a, n_b, level)
    return DriftReport(estimate, p_value, n_a, n_b)


def _subset(n: int, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rows = np.arange(n) if n <= limit else rng.choice(n, limit, replace=False)
    return np.sort(rows).astype(np.int64)


def _standardised(x: Floats) -> Floats:
    spread = x.std(axis=0)
    used = spread > 1e-12 * np.maximum(1.0, np.abs(x).max(axis=0))
    scaled: Floats = (x[:, used] - x[:, used].mean(axis=0)) / spread[used]
    return scaled


def _summaries(values: Floats) -> Floats:
    """Mean, spread, extremes and sharpness of each record: what a change of source or of compression moves."""
    flat = values.reshape(len(values), -1)
    parts = [flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1)]
    if values.ndim >= 3:
        for axis in (1, 2):
            if values.shape[axis] > 1:
                parts.append(np.abs(np.diff(values, axis=axis)).reshape(len(values), -1).mean(axis=1))
    return np.column_stack(parts)


def _kernels(values: Floats, labels: NDArray[np.generic] | None) -> list[Floats]:
    flat = _standardised(values.reshape(len(values), -1))
    kernels = [flat @ flat.T, _gaussian(flat), _gaussian(_standardised(_summaries(values)))]
    if labels is not None:
        one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
        kernels.append(one_hot @ one_hot.T)
    # A constant kernel (all records alike in this respect) tells nothing.
    return [kernel for kernel in kernels if np.ptp(kernel) > 1e-9]


def _gaussian(x: Floats) -> Floats:
    square = np.einsum("ij,ij->i", x, x)
    distance = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
    width = np.median(distance)
    return np.exp(-distance / width) if width > 0 else np.ones_like(distance)


def _cross_fitted(kernels: list[Floats], rng: np.random.Generator) -> Floats:
    """Return the (n, n) matrix that maps group memberships to scores of records left out of their own fit."""
    # Imported here: SciPy takes longer to load than the commands that need no drift check.
    from scipy.linalg import cho_factor, cho_solve

    n = len(kernels[0]) if kernels else 0
    if not n:
        raise InvalidInput("blind baseline: all records are equal; there is nothing to tell groups apart by")
    fold = rng.permutation(n) % FOLDS
    smoother = np.zeros((n, n))
    for kernel in kernels:
        for part in range(FOLDS):
            held, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
            # Centred on the fitting records, memberships too: without an intercept a score cannot betray the share of
            # group a in the other folds, which is low exactly where it is high in this one.
            inner = kernel[np.ix_(rest, rest)]
            mean = inner.mean(axis=0)
            centred = inner - mean - mean[:, None] + mean.mean()
            across = kernel[np.ix_(held, rest)]
            across = across - mean - across.mean(axis=1, keepdims=True) + mean.mean()
            mean_eigenvalue = np.trace(centred) / rest.size
            for penalty in PENALTIES:
                ridged = centred + penalty * mean_eigenvalue * np.eye(rest.size)
                weight = cho_solve(cho_factor(ridged, overwrite_a=True, check_finite=False), across.T).T
                weight -= weight.mean(axis=1, keepdims=True)
                # Equal spread under random memberships: every kernel and penalty has the same say.
                smoother[np.ix_(held, rest)] += weight / np.linalg.norm(weight) * np.sqrt(held.size)
    return smoother


def _auc(scores: Floats, is_a: NDArray[np.bool_]) -> float:
    """Share of (a, b) pairs with the higher score in a; equal scores count one half."""
    low = np.sort(scores[~is_a])
    high = np.sort(scores[is_a])
    twice = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(twice.sum() / (2 * high.size * low.size))


def _estimate(area: float, null_spread: float, n_a: int, n_b: int, level: float) -> Estimate:
    from scipy.special import ndtri

    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n_a - 1) * (q1 - area**2) + (n_b - 1) * (q2 - area**2)) / (n_a * n_b)
    half = float(ndtri(0.5 + level / 2)) * max(np.sqrt(max(variance, 0)), null_spread)
    method = "Hanley-McNeil, at least the spread over permutations"
    interval = Interval(max(0.0, area - half), min(1.0, area + half), level, "two", method)
    return Estimate(area, interval, n=n_a + n_b)
