"""Fleets with known truth: scores that share models and records, to check intervals by repetition.

A record's latent value in a model is the sum of a record effect, a model effect and noise, of unit variance in all.
"raw" scores are the latent values, shifted where the record is in. "leave-one-out" scores are per-record likelihood
ratios as an online attack computes them, each cell left out of the moments it is compared with: the dependence that
fleets really have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.rng import generator
from mnemoscope.audit.statistics.clustered import Influence, auc_influence, density_ratio, tpr_influence
from mnemoscope.audit.statistics.counts import tpr_at_fpr
from mnemoscope.audit.statistics.trials import Trials

__all__ = ["Coverage", "FleetTruth", "FleetWorld", "fleet_coverage", "fleet_truth", "simulate_fleet"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FleetWorld:
    """What to simulate.

    Attributes:
        models: number of models, divisible by 3: each record is in, out and left out in a third of them.
        records: number of records.
        shift: mean shift of a cell that is in, in standard deviations; 0 leaks nothing.
        shift_spread: standard deviation of the shift over records.
        record_effect: standard deviation of the record effect.
        model_effect: standard deviation of the model effect; squares of both sum to less than 1.
        scored: "raw" or "leave-one-out".
    """

    models: int
    records: int
    shift: float = 0.0
    shift_spread: float = 0.0
    record_effect: float = 0.6
    model_effect: float = 0.3
    scored: Literal["raw", "leave-one-out"] = "raw"

    def __post_init__(self) -> None:
        if self.models % 3 or self.models < 12 or self.records < 2:
            raise InvalidInput(
                f"models={self.models} must be a multiple of 3 from 12 on, records={self.records} at least 2"
            )
        if not self.record_effect**2 + self.model_effect**2 < 1.0:
            raise InvalidInput(
                f"record_effect={self.record_effect} and model_effect={self.model_effect}: squares must sum below 1"
            )


@dataclass(frozen=True)
class FleetTruth:
    """AUC, and (fpr, TPR) pairs, of the law of scores."""

    auc: float
    tpr: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth.

    Attributes:
        statistic: e.g. "tpr@0.01", "auc".
        truth: the true value.
        covered: runs whose interval held it.
        too_high: runs whose lower limit lay above it.
        too_low: runs whose upper limit lay below it.
        runs: all runs.
        se_ratio: root mean square of the standard errors over the standard deviation of the estimates.
    """

    statistic: str
    truth: float
    covered: int
    too_high: int
    too_low: int
    runs: int
    se_ratio: float


def _sides(world: FleetWorld, rng: np.random.Generator) -> NDArray[np.int8]:
    column = np.repeat(np.array([1, 0, -1], np.int8), world.models // 3)
    return rng.permuted(np.broadcast_to(column[:, None], (world.models, world.records)), axis=0)


def _likelihood_ratio(x: Floats, side: NDArray[np.int8]) -> Floats:
    """Log ratio of Gaussians with the record's in and out means and common variance, the cell itself left out."""

    def moments(mask: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        kept = np.where(mask, x, 0.0)
        count = mask.sum(axis=0) - mask
        mean = (kept.sum(axis=0) - kept) / count
        squares = (kept * kept).sum(axis=0) - kept * kept - count * mean * mean
        return count.astype(np.float64), mean, squares

    count_in, mean_in, squares_in = moments(side == 1)
    count_out, mean_out, squares_out = moments(side == 0)
    variance = (squares_in + squares_out) / (count_in + count_out - 2)
    return ((x - mean_out) ** 2 - (x - mean_in) ** 2) / (2 * variance)


def simulate_fleet(
    world: FleetWorld, rng: np.random.Generator, fleets: int = 1
) -> tuple[list[Floats], NDArray[np.int8]]:
    """Draw scores of one or more fleets of the same design and the same records, their models trained anew.

    Returns:
        A list of (models, records) scores, one a fleet, and the common (models, records) sides: 1, 0 or -1.
    """
    m, n = world.models, world.records
    side = _sides(world, rng)
    noise = np.sqrt(1.0 - world.record_effect**2 - world.model_effect**2)
    record = world.record_effect * rng.standard_normal(n)
    lift = world.shift + world.shift_spread * rng.standard_normal(n)
    scores = []
    for _ in range(fleets):
        model = world.model_effect * rng.standard_normal((m, 1))
        x = record + model + noise * rng.standard_normal((m, n)) + np.where(side == 1, lift, 0.0)
        scores.append(x if world.scored == "raw" else _likelihood_ratio(x, side))
    return scores, side


def fleet_truth(world: FleetWorld, fprs: Sequence[float], *, fleets: int = 400, seed: int = 0) -> FleetTruth:
    """AUC and TPR of the law of scores, from many pooled fleets (its own error is far below one fleet's)."""
    rng = generator(seed, "fleet truth")
    ins, outs = [], []
    for _ in range(fleets):
        (score,), side = simulate_fleet(world, rng)
        ins.append(score[side == 1].astype(np.float32))
        outs.append(score[side == 0].astype(np.float32))
    s1, s0 = np.sort(np.concatenate(ins)), np.sort(np.concatenate(outs))
    auc = float(np.searchsorted(s0, s1, "left").mean() / s0.size)
    tpr = []
    for fpr in fprs:
        cut = s0[s0.size - 1 - int(fpr * s0.size)]
        tpr.append((fpr, float((s1.size - np.searchsorted(s1, cut, "right")) / s1.size)))
    return FleetTruth(auc, tuple(tpr))


def _tpr(trials: Trials, fpr: float) -> Influence:
    s1, s0 = trials.in_scores, trials.out_scores
    _, _, cut = tpr_at_fpr(s1, s0, fpr)
    return tpr_influence(trials, trials.score >= cut, ratio=density_ratio(s1, s0, fpr))


def _estimates(score: Floats, side: NDArray[np.int8], fprs: Sequence[float]) -> list[Influence]:
    trials = Trials.from_fleet(score, side, np.arange(score.shape[1]))
    return [auc_influence(trials), *(_tpr(trials, fpr) for fpr in fprs)]


def fleet_coverage(
    world: FleetWorld,
    fprs: Sequence[float],
    *,
    runs: int,
    level: float = 0.95,
    paired: bool = False,
    seed: int = 0,
) -> list[Coverage]:
    """Measure how often clustered intervals hold the truth, thresholds found on the scores they are for.

    Args:
        world: what to simulate.
        fprs: target FPRs of the TPRs.
        runs: repetitions.
        level: confidence of the two-sided intervals.
        paired: differences of two fleets of one design (the truth is 0) in place of the values themselves.
        seed: root seed.

    Returns:
        The AUC's coverage, then each FPR's.
    """
    truth = fleet_truth(world, fprs, seed=seed)
    names = ["auc", *(f"tpr@{fpr:g}" for fpr in fprs)]
    true = [0.0] * len(names) if paired else [truth.auc, *(tpr for _, tpr in truth.tpr)]
    values, errors = np.empty((runs, len(names))), np.empty((runs, len(names)))
    high, low = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for run in range(runs):
        scores, side = simulate_fleet(world, generator(seed, "coverage", run), 2 if paired else 1)
        found = [_estimates(score, side, fprs) for score in scores]
        parts = [a - b for a, b in zip(*found, strict=True)] if paired else found[0]
        for j, part in enumerate(parts):
            ci = part.interval(level)
            values[run, j], errors[run, j] = part.value, part.variance
            high[j] += ci.lower > true[j]
            low[j] += ci.upper < true[j]
    ratio = np.sqrt(errors.mean(axis=0)) / values.std(axis=0, ddof=1)
    return [
        Coverage(name, float(true[j]), int(runs - high[j] - low[j]), int(high[j]), int(low[j]), runs, float(ratio[j]))
        for j, name in enumerate(names)
    ]
