"""The negative control: on models that never saw the forgotten records, the attack must find nothing (gate G2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.statistics.fleet import FleetScores

__all__ = ["NegativeControl", "negative_control", "negative_controls", "permute_sides"]


@dataclass(frozen=True)
class NegativeControl:
    """Outcome of the max-T permutation test.

    Attributes:
        p_value: of the largest standardised deviation among AUC and both tails' TPR.
        observed: AUC, residual TPR, over-forgotten TPR on the control fleet.
        permutations: number of permutations drawn.
    """

    p_value: float
    observed: tuple[float, float, float]
    permutations: int


def permute_sides(side: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int8]:
    """Permute IN and OUT within each record, left-out cells staying where they are.

    For models that never saw the record under either role the two are exchangeable given the rest.
    """
    rows = np.ascontiguousarray(side.T)  # one record a row: sorting along memory is several times faster
    key = rng.random(rows.shape)
    key[rows < 0] = 2.0  # left-out cells come last in every record
    order = np.argsort(key, axis=1)
    count_in = (rows == 1).sum(axis=1, keepdims=True)
    count = count_in + (rows == 0).sum(axis=1, keepdims=True)
    rank = np.arange(rows.shape[1])
    drawn = np.where(rank < count_in, 1, np.where(rank < count, 0, -1)).astype(side.dtype)
    permuted = np.empty_like(rows)
    np.put_along_axis(permuted, order, drawn, axis=1)
    return np.ascontiguousarray(permuted.T)


def negative_control(
    scorer: Callable[[NDArray[np.int8]], NDArray[np.float64]],
    side: NDArray[np.int8],
    fold: NDArray[np.integer],
    alpha: float,
    *,
    permutations: int,
    rng: np.random.Generator,
) -> NegativeControl:
    """Test the primary attack on a retrained fleet by permuting FORGOTTEN and NEVER given KEPT.

    The statistic is the largest of |T - mean| / sd over AUC and TPR at alpha in both tails, mean and sd over the
    observed and permuted values together, which keeps the test exact (single-step max-T of Westfall and Young).

    Args:
        scorer: maps an assignment of sides (m, n) to scores (m, n), each model left out of its own reference.
        side: the true assignment, 1 forgotten, 0 never seen, -1 kept.
        fold: (m,) folds of models.
        alpha: the endpoint's FPR.
        permutations: number of random permutations, e.g. 1,999.
        rng: generator of the permutations.
    """
    return negative_controls(scorer, side, fold, [alpha], permutations=permutations, rng=rng)[alpha]


def negative_controls(
    scorer: Callable[[NDArray[np.int8]], NDArray[np.float64]],
    side: NDArray[np.int8],
    fold: NDArray[np.integer],
    alphas: Sequence[float],
    *,
    permutations: int,
    rng: np.random.Generator,
) -> dict[float, NegativeControl]:
    """``negative_control`` at several alphas over the same permutations: each is what it would be alone.

    Scoring takes nearly all of the time, and an alpha more costs a few per cent.
    """
    values = np.empty((len(alphas), permutations + 1, 3))
    drawn = side
    for b in range(permutations + 1):
        fleet = FleetScores(scorer(drawn), drawn, fold)
        area = fleet.auc_value()
        for i, shares in enumerate(fleet.hit_shares_at(alphas)):
            values[i, b] = area, *shares
        if b < permutations:
            drawn = permute_sides(side, rng)
    return {alpha: _judged(values[i]) for i, alpha in enumerate(alphas)}


def _judged(values: NDArray[np.float64]) -> NegativeControl:
    """The max-T test of the first row (observed) among all rows."""
    spread = values.std(axis=0)
    deviation = np.abs(values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    largest = deviation.max(axis=1)
    p = float((largest >= largest[0] - 1e-12).mean())
    return NegativeControl(p, (float(values[0, 0]), float(values[0, 1]), float(values[0, 2])), int(values.shape[0]) - 1)
