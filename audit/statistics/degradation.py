"""DegCount and DegRate: how much more the holder of both versions knows than the holder of the first.

Source: Chen et al. 2021, "When Machine Unlearning Jeopardizes Privacy", arXiv 2005.02205. Two attacks, one on the
original model alone and one on the original and the unlearned model, each give a probability that a record was deleted.
Their confidence in a record's true status is that probability for deleted records and one minus it for the others.
DegCount is the share of records for which it rose, DegRate its mean rise. Both are about attacks as well as about
models: an attack whose probabilities are badly calibrated moves them without any leak.

Added to the paper's definition: ties counted for themselves, because a strict "rose" makes 0 % of two equal attacks,
where one half is what says nothing; and intervals clustered by model and record.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.clustered import Influence, rate_influence
from mnemoscope.audit.statistics.trials import Estimate, Trials

__all__ = ["ROUNDING", "Degradation", "degradation"]

ROUNDING = 1e-12
"""Probabilities that differ by no more are the same: sums of the same numbers in another order differ by this."""


@dataclass(frozen=True)
class Degradation:
    """What the unlearned version adds to an attacker's confidence in the truth.

    Attributes:
        count: DegCount, the share of trials whose confidence in the true status rose; k and n are whole counts.
        ties: the share where it stayed the same.
        balanced: DegCount with ties counted half: one half where the second version adds nothing.
        rate: DegRate, the mean rise, in -1..1; zero where the second version adds nothing.
    """

    count: Estimate
    ties: Estimate
    balanced: Estimate
    rate: Estimate


def degradation(classical: Trials, unlearning: Trials, *, level: float = 0.95) -> Degradation:
    """Compare two attacks' probabilities of "in" on the same trials.

    Args:
        classical: probabilities of the attack on the original model alone, in [0, 1], with the truth.
        unlearning: probabilities of the attack that holds both versions; the same models, records and truth, in the
            same order. Pairs that share an original have its number as their model id: they are one cluster.
        level: confidence of the two-sided intervals.

    Returns:
        Counts as rates with effective counts, never tighter than Clopper-Pearson; means with t limits. Clustered by
        model and record; with one model by record alone, which then speaks of this model only.

    Raises:
        InvalidInput: other trials on both sides, scores that are no probabilities, fewer than two records.
    """
    for name in ("is_in", "record_id", "model_id"):
        if not np.array_equal(getattr(classical, name), getattr(unlearning, name)):
            raise InvalidInput(
                f"degradation: {name} of the two attacks differs; score the same models and records in the same order"
            )
    rise = confidence_in_truth(unlearning, "unlearning") - confidence_in_truth(classical, "classical")
    rise[np.abs(rise) <= ROUNDING] = 0.0
    return Degradation(
        count=_share(rise > 0.0, unlearning, level),
        ties=_share(rise == 0.0, unlearning, level),
        balanced=_mean((np.sign(rise) + 1.0) / 2.0, unlearning, level),
        rate=_mean(rise, unlearning, level),
    )


def confidence_in_truth(trials: Trials, name: str = "scores") -> NDArray[np.float64]:
    """Return (t,) float64: the probability of "in" for in trials, one minus it for out trials.

    Raises:
        InvalidInput: a score outside [0, 1].
    """
    wrong = (trials.score < 0.0) | (trials.score > 1.0)
    if wrong.any():
        raise InvalidInput(
            f"degradation: {int(wrong.sum())} {name} scores lie outside [0, 1], the first is "
            f"{float(trials.score[wrong][0])!r}; give probabilities, e.g. scipy.special.expit of log odds"
        )
    return np.where(trials.is_in, trials.score, 1.0 - trials.score)


def _share(hit: NDArray[np.bool_], trials: Trials, level: float) -> Estimate:
    return rate_influence(hit, trials.model_id, trials.record_id).estimate(level)


def _mean(values: NDArray[np.float64], trials: Trials, level: float) -> Estimate:
    n = int(values.size)
    value = float(values.mean())
    contribution = (values - value) / n
    influence = Influence(value, contribution, trials.model_id, trials.record_id, "difference", None, n, 0)
    return influence.estimate(level)
