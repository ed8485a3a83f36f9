"""Whole-rule power in one-model mode: how often would the rule say WITHIN BOUND if nothing leaked, by counts alone?

The rule's parts are simulated from the laws that their counts and differences follow when no record leaks (Beta
thresholds, binomial hits, normal differences), so that a million records cost no more than a thousand: P1 and P3 in
both tails, P2 in both tails and in AUC, P4 with an assumed retained level, G3, and G2's own error. The positive control
is taken as passed. ``benchmarks/onemodel_rates.py`` holds the printed power against whole simulated audits.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.power import Power

__all__ = ["Counts", "OneModelPower", "one_model_power"]

Floats = NDArray[np.float64]
RUNS_FACTOR = 10
"""Simulated audits for each of the policy's ``power_runs``: one costs microseconds here."""
RETAINED_AT_MOST = 0.5
LAW_RECORDS = 40_000
LONGEST_RACE = 400


@dataclass(frozen=True)
class Counts:
    """What the power depends on.

    Attributes:
        forget, holdout, calibration, retain: records; without calibration the holdout is dealt crosswise.
        retrained: retrained models.
        per_record: P3 is required (records have enough OUT models).
        paired: the primary attack reads the reference models, which makes its differences less noisy.
    """

    forget: int
    holdout: int
    calibration: int = 0
    retain: int = 0
    retrained: int = 0
    per_record: bool = False
    paired: bool = False


@dataclass(frozen=True)
class OneModelPower(Power):
    """Simulated probability of WITHIN BOUND at one alpha when nothing leaks; ``parts`` by endpoint."""

    parts: tuple[tuple[str, float], ...]


def one_model_power(
    counts: Counts, policy: Policy, *, alphas: Sequence[float] | None = None, seed: int = 0
) -> list[OneModelPower]:
    """Simulate null audits with these counts at each alpha.

    Args:
        counts: records and models.
        policy: bounds and levels; ``power_runs`` x 10 audits are simulated.
        alphas: candidates; None takes the policy's.
        seed: of the simulation, not of the audit: the chosen alpha depends on counts and policy alone.
    """
    return [_at(counts, policy, alpha, seed) for alpha in (policy.candidates() if alphas is None else alphas)]


@functools.lru_cache(maxsize=256)
def _at(counts: Counts, policy: Policy, alpha: float, seed: int) -> OneModelPower:
    rng = generator(seed, "one-model power", repr(alpha))
    runs = RUNS_FACTOR * policy.power_runs
    passed: dict[str, NDArray[np.bool_]] = {}

    def also(name: str, ok: NDArray[np.bool_]) -> None:
        passed[name] = passed.get(name, np.ones(runs, np.bool_)) & ok

    folds = [counts.calibration] if counts.calibration else [counts.holdout - counts.holdout // 2, counts.holdout // 2]
    allowed = [int(np.floor(alpha * n + 1e-9)) for n in folds]
    if min(allowed) == 0 or counts.forget < 1:
        return OneModelPower(alpha, 0, runs, policy.control_level, (("threshold", 0.0),))
    n_set, n, bound = sum(folds), counts.forget, policy.tpr_bound(alpha)
    z = float(ndtri(policy.level))
    z2 = float(ndtri(0.5 + policy.equivalence_level / 2))
    decides = counts.retrained >= policy.min_references
    law = _pair_law(alpha, counts.retrained, counts.paired) if decides else None
    for _ in range(2):
        true_fpr = [rng.beta(m, size + 1 - m, runs) for m, size in zip(allowed, folds, strict=True)]
        halves = [n] if len(folds) == 1 else [n - n // 2, n // 2]
        k = np.sum([rng.binomial(h, f) for h, f in zip(halves, true_fpr, strict=True)], axis=0)
        also("P1", _upper(k, n, policy.level) <= bound)
        also(
            "G3",
            _upper(_false_positives(allowed, folds, counts, true_fpr, runs, rng), counts.holdout, policy.level)
            <= bound,
        )
        if law is not None:
            own = alpha * (1 - alpha) * (1 / n + 1 / n_set)
            total = law.tail * alpha * (1 - alpha) * (1 / n + 1 / n_set)
            common = law.tail_common
            rest = np.sqrt(max(0.0, total - common**2 * own))
            d = common * (k / n - alpha) + rest * rng.standard_normal(runs)
            also("P2 TPR", np.abs(d) + z2 * np.sqrt(total) < policy.tpr_margin_at(alpha))
        if counts.per_record:
            p1 = rng.binomial(n, alpha, runs) / n
            p0 = rng.binomial(counts.holdout, alpha, runs) / counts.holdout
            spread = np.sqrt(p1 * (1 - p1) / n + p0 * (1 - p0) / counts.holdout)
            also("P3", p1 - p0 + z * spread <= policy.exposure_bound_at(alpha))
    if law is not None:
        se = np.sqrt(law.auc / 12 * (1 / n + 1 / counts.holdout))
        also("P2 AUC", np.abs(se * rng.standard_normal(runs)) + z2 * se < policy.auc_margin)
        if counts.retain:
            caught = max(alpha, min(RETAINED_AT_MOST, policy.power_retained_factor * alpha))
            slope = np.exp((ndtri(alpha) ** 2 - ndtri(caught) ** 2) / 2)
            variance = caught * (1 - caught) / counts.retain + slope**2 * alpha * (1 - alpha) / n_set
            se = np.sqrt(variance * (1 + 1 / counts.retrained))
            also("P4", se * rng.standard_normal(runs) + z * se <= policy.retained_bound_at(alpha))
    together = np.logical_and.reduce(list(passed.values()))
    parts = tuple((name, float(ok.mean())) for name, ok in passed.items())
    return OneModelPower(alpha, int(together.sum()), runs, policy.control_level, parts)


def _upper(k: NDArray[np.int64], n: int, level: float) -> Floats:
    limit: Floats = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1e-9), level), 1.0)
    return limit


def _false_positives(
    allowed: list[int], folds: list[int], counts: Counts, true_fpr: list[Floats], runs: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flagged holdout records; dealt crosswise, both halves' counts come from one race down the joint ranking."""
    if len(folds) == 1:
        return rng.binomial(counts.holdout, true_fpr[0])
    m = max(allowed)
    if m > LONGEST_RACE:
        return np.full(runs, sum(allowed), np.int64)
    length = 2 * m + int(12 * np.sqrt(2 * m)) + 40
    first = rng.random((runs, length)) < 0.5
    a, b = np.cumsum(first, axis=1), np.cumsum(~first, axis=1)
    of_b = np.take_along_axis(b, (a >= allowed[0]).argmax(axis=1)[:, None], axis=1)[:, 0]
    of_a = np.take_along_axis(a, (b >= allowed[1]).argmax(axis=1)[:, None], axis=1)[:, 0]
    return (of_a + of_b).astype(np.int64)


@dataclass(frozen=True)
class _PairLaw:
    """Variance of a difference in units of one model's, and the slope of the difference on this model's own rate."""

    tail: float
    auc: float
    tail_common: float


@functools.cache
def _pair_law(alpha: float, retrained: int, paired: bool) -> _PairLaw:
    """Null law of P2's differences, from one large simulated world: r + 1 exchangeable models, Gaussian margins."""
    r = retrained
    if not paired:
        return _PairLaw(1 + 1 / r, 1 + 1 / r, 1.0)
    rng = generator(0, "pair law", r)
    ours, theirs = rng.standard_normal(LAW_RECORDS), rng.standard_normal((r, LAW_RECORDS))
    total = theirs.sum(axis=0)
    full = ours - total / r
    gap_tail, gap_rank = np.zeros(LAW_RECORDS), np.zeros(LAW_RECORDS)
    cut = float(ndtri(1 - alpha)) * np.sqrt(1 + 1 / (r - 1))
    for j in range(r):
        centre = (total - theirs[j]) / (r - 1)
        a, b = ours - centre, theirs[j] - centre
        gap_tail += ((a > cut).astype(np.float64) - (b > cut)) / r
        ranks = np.argsort(np.argsort(np.concatenate([a, b]))) / (2.0 * LAW_RECORDS)
        gap_rank += (ranks[:LAW_RECORDS] - ranks[LAW_RECORDS:]) / r
    own = full > float(ndtri(1 - alpha)) * np.sqrt(1 + 1 / r)
    common = float(np.cov(gap_tail, own)[0, 1] / own.var())
    return _PairLaw(float(gap_tail.var() / (alpha * (1 - alpha))), float(gap_rank.var() * 12), common)
