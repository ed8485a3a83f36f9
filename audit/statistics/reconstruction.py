"""What reconstruction attacks reached over several pairs of versions, beside chance and beside pairs without a leak."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mnemoscope.audit.answers.protocols import check_needs
from mnemoscope.audit.answers.reconstruction import Case, Reconstruction, attack_case, offered_by_case
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["ReconstructionFinding", "run_reconstruction"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReconstructionFinding:
    """One row of a report.

    Attributes:
        name: of the attack.
        success: mean over trials, with its interval.
        chance: the same question answered without the models.
        advantage: success minus chance, trial by trial.
        control: success on pairs that never held the records, or None.
        control_advantage: their advantage, or None.
        excess: advantage minus the controls' advantage: what is owed to the records having been there; or None.
        unit: what success counts.
        n: trials.
        n_models: pairs.
        note: what was tried.
        details: further numbers by name.
        executed: always true; what could not run has no finding.
    """

    name: str
    success: Estimate
    chance: Estimate
    advantage: Estimate
    control: Estimate | None
    control_advantage: Estimate | None
    excess: Estimate | None
    unit: str
    n: int
    n_models: int
    note: str
    details: Mapping[str, float]
    executed: bool = True


def run_reconstruction(
    attack: Reconstruction,
    cases: Sequence[Case],
    controls: Sequence[Case] = (),
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> ReconstructionFinding:
    """Attack every pair, judge it against its secret, and repeat on the controls.

    Args:
        attack: what is tried.
        cases: pairs whose before-model was trained on the secret records.
        controls: pairs of two models that were both trained without them, with the same secrets. Another choice is
            the same pairs with never-seen records as secrets; say which.
        rng: generator; each case gets a child of its own, so that a further case changes no earlier one.
        level: confidence of the intervals.

    Raises:
        InvalidInput: no case, or one the attack cannot work on.
        MissingNeed: oracles without the access that the attack needs.
    """
    if not cases:
        raise InvalidInput(f"{attack.name}: no pair of versions was given; give at least one case")
    everything = (*cases, *controls)
    for case in everything:
        check_needs([(attack.name, attack.needs)], offered_by_case(case))
    children = rng.spawn(len(everything))
    judged = [attack_case(attack, case, child) for case, child in zip(everything, children, strict=True)]
    ours, theirs = judged[: len(cases)], judged[len(cases) :]
    advantage = [one.value - one.chance for one in ours]
    control, control_advantage, excess = None, None, None
    if theirs:
        other = [one.value - one.chance for one in theirs]
        control, control_advantage = _mean([one.value for one in theirs], level), _mean(other, level)
        excess = _difference(advantage, other, level)
    names = {name for one in ours for name in one.details}
    return ReconstructionFinding(
        attack.name,
        _mean([one.value for one in ours], level),
        _mean([one.chance for one in ours], level),
        _mean(advantage, level),
        control,
        control_advantage,
        excess,
        attack.unit,
        sum(one.value.size for one in ours),
        len(cases),
        attack.note,
        {n: float(np.mean([one.details[n] for one in ours if n in one.details])) for n in sorted(names)},
    )


def _mean(trials: Sequence[Floats], level: float) -> Estimate:
    """Mean over all trials; the interval is over models where there are several, else over the trials of the one."""
    values = np.concatenate(list(trials))
    mean = float(values.mean())
    several = len(trials) > 1
    reason = None if several else "one model: the interval says nothing about other models"
    yes_or_no = bool(np.isin(values, (0.0, 1.0)).all())
    if yes_or_no and (not several or all(one.size == 1 for one in trials)):
        k = int(values.sum())
        return Estimate(mean, clopper_pearson(k, values.size, level), k=k, n=values.size, reason=reason)
    units = np.array([one.sum() - one.size * mean for one in trials]) if several else values - mean
    if yes_or_no and not units.any():  # all models alike: as many trials as models, no more
        k = round(mean * units.size)
        return Estimate(mean, clopper_pearson(k, units.size, level), k=int(values.sum()), n=values.size)
    if units.size < 2 or np.abs(units).max() <= 1e-12:
        return Estimate(mean, n=values.size, reason="no spread between trials to take an interval from")
    # Models are the unit; with unequal numbers of trials this is the ratio estimator's linearised error.
    error = math.sqrt(units.size / (units.size - 1) * float((units**2).sum())) / values.size
    half = _t(units.size, level) * error
    method = f"Student t over {units.size} {'models' if several else 'trials of one model'}"
    return Estimate(mean, Interval(mean - half, mean + half, level, "two", method), n=values.size, reason=reason)


def _difference(ours: Sequence[Floats], theirs: Sequence[Floats], level: float) -> Estimate:
    """Difference of means: model by model where both have the same number of them, else as independent."""
    a, b = _mean(ours, level), _mean(theirs, level)
    assert a.value is not None
    assert b.value is not None
    n = sum(one.size for one in ours)
    value = a.value - b.value
    if len(ours) == len(theirs) > 1:
        apart = np.array([x.mean() - y.mean() for x, y in zip(ours, theirs, strict=True)])
        half = _t(apart.size, level) * float(apart.std(ddof=1)) / math.sqrt(apart.size)
        method = "Student t, paired models"
    elif a.ci is None or b.ci is None:
        return Estimate(value, n=n, reason="too few trials for an interval")
    else:
        half, method = math.hypot(_half(a.ci), _half(b.ci)), "root of both half widths squared"
    return Estimate(value, Interval(value - half, value + half, level, "two", method), n=n)


def _half(ci: Interval) -> float:
    return (ci.upper - ci.lower) / 2


def _t(n: int, level: float) -> float:
    """Student's quantile for n units."""
    return float(stdtrit(n - 1, 0.5 + level / 2))
