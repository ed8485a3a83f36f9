"""The numbers that tables of unlearning papers print, with exact definitions, counts, and noise floors.

Accuracies are shares of records in [0, 1]; gaps are in percentage points, as the tables print them. None of them is
better when higher or lower: the value to reach is that of models retrained without the records, and two retrained
models differ too. So every distance from retraining comes with its floor, the same distance between retrained models.

- UA: share of forget records answered wrongly; others print the accuracy itself, never mix (arXiv 2304.04934).
- RA, TA: accuracy on retained and on test records; TA of a class deletion leaves out that class (arXiv 2304.04934).
- Average gap, or average disparity: mean of abs(value - mean of retrained models) over UA, RA, TA and MIA-efficacy
  (arXiv 2310.12508, 2402.06864).
- FR', a substitute for the forgetting rate of arXiv 2401.04385: accuracy lost on the forget records over that which
  retraining loses. MRR', a substitute for its memory-retention rate: share of the accuracy on retained records that is
  kept. The paper's own definitions are not known to us; these are ours, hence the prime.
- ToW, tug-of-war: product over forget, retained and test records of 1 - abs(accuracy - retrained accuracy)
  (arXiv 2406.01257).
- AUS: (1 - test accuracy lost) / (1 + abs(test accuracy - forget accuracy)); for a class the forget accuracy is
  compared with 0, a form not checked against the paper (arXiv 2312.02052).
- AIN, anamnesis index: relearn time over relearn time of retrained models (arXiv 2201.05629).

Divergences and ZRF are in ``output_distances``, MIA-efficacy is in the attack ``svm``, relearn times are in the measure
``relearn_time``.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.means import mean_estimate, paired_ratio, unpaired_ratio
from mnemoscope.audit.statistics.output_distances import predictions
from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.statistics.trials import Estimate

__all__ = [
    "Gap",
    "accuracy",
    "adaptive_unlearning_score",
    "anamnesis_index",
    "average_gap",
    "forgetting_rate",
    "retention_rate",
    "tug_of_war",
    "unlearning_accuracy",
]

Floats = NDArray[np.float64]
POINTS = 100.0
"""Percentage points of a share of one."""


@dataclass(frozen=True)
class Gap:
    """A distance from retrained models over several metrics, in percentage points.

    Attributes:
        value: mean over models after deletion of the mean distance from the retrained models' mean.
        floor: the same for each retrained model against the others.
        excess: value minus floor where both are measured against as many retrained models; zero on average where the
            models after deletion are retrained ones.
        printed: what tables print: the metrics are averaged over models first, and distances taken then.
        signed: for each metric, mean after deletion minus mean of retrained models.
    """

    value: Estimate
    floor: Estimate
    excess: Estimate
    printed: float
    signed: Mapping[str, float]


def accuracy(answers: Answers, *, without: int | None = None, level: float = 0.95) -> Estimate:
    """Return the share of records whose arg-max for the first query is the label, with Clopper and Pearson's interval.

    Args:
        answers: of one model.
        without: a class whose records are left out, e.g. the forgotten one of a test set.
        level: confidence.
    """
    right = _right(answers, without)
    return rate(int(right.sum()), int(right.size), level)


def unlearning_accuracy(forget: Answers, *, level: float = 0.95) -> Estimate:
    """Return UA, the share of forget records answered wrongly, with Clopper and Pearson's interval."""
    wrong = ~_right(forget)
    return rate(int(wrong.sum()), int(wrong.size), level)


def average_gap(
    unlearned: Sequence[Mapping[str, float]], retrained: Sequence[Mapping[str, float]], *, level: float = 0.95
) -> Gap:
    """Return the average gap ("average disparity") from retrained models, and what such models score themselves.

    Args:
        unlearned: metrics by name in [0, 1] of one model a seed, at least one; all name the same metrics.
        retrained: of models retrained with other seeds, at least one.
        level: of t intervals over models.

    Raises:
        InvalidInput: no model on a side, other metrics, or values outside [0, 1].

    >>> gap = average_gap([{"ua": 0.10, "ta": 0.90}], [{"ua": 0.05, "ta": 0.91}, {"ua": 0.07, "ta": 0.93}])
    >>> round(gap.value.value, 6), round(gap.floor.value, 6), round(gap.excess.value, 6)
    (3.0, 2.0, 1.0)
    """
    names = sorted(unlearned[0]) if unlearned else []
    u, r = (
        POINTS * _table(side, names, what) for side, what in ((unlearned, "after deletion"), (retrained, "retrained"))
    )
    each = np.abs(u - r.mean(axis=0)).mean(axis=1)
    value = mean_estimate(each, of="models after deletion", level=level, low=0.0, high=POINTS)
    signed = dict(zip(names, (u.mean(axis=0) - r.mean(axis=0)).tolist(), strict=True))
    printed = float(np.abs(u.mean(axis=0) - r.mean(axis=0)).mean())
    if len(r) < 2:
        none = Estimate(None, n=len(r), reason="a noise floor needs two retrained models at least")
        return Gap(value, none, none, printed, signed)
    others = _others(r)
    floors = np.abs(r - others).mean(axis=1)
    floor = mean_estimate(floors, of="retrained models", level=level, low=0.0, high=POINTS)
    # Against the same means of all but one, so that the noise of few retrained models is in both.
    same = np.abs(u[:, None] - others).mean(axis=(1, 2))
    excess = mean_estimate(same - floors.mean(), of="models after deletion", level=level)
    return Gap(value, floor, excess, printed, signed)


def forgetting_rate(
    original: Answers, unlearned: Answers, retrained: Sequence[Answers], *, level: float = 0.95
) -> Estimate:
    """Return FR': accuracy lost on the forget records over that which retraining loses. Ours, see above.

    1 is retraining, 0 nothing done, above 1 over-forgetting; it is not cut to any range.

    Args:
        original: of the model before deletion on the forget records.
        unlearned: after deletion.
        retrained: of retrained models, whose accuracies are averaged.
        level: of Fieller's interval over records, given the models.

    Returns:
        No value where retraining loses nothing; no interval where it could lose nothing.

    Raises:
        InvalidInput: other records.
    """
    before, after = _right(original), _right(_aligned(original, unlearned))
    again = np.mean([_right(_aligned(original, other)) for other in _some(retrained)], axis=0)
    lost = paired_ratio(before.astype(float) - after, before - again, of="records", level=level)
    if lost.value is None:
        return dataclasses.replace(lost, reason="retraining loses no accuracy on these records: no rate")
    return lost


def retention_rate(original: Answers, unlearned: Answers, *, level: float = 0.95) -> Estimate:
    """Return MRR': accuracy after deletion over accuracy before it, on retained (or test) records. Ours, see above."""
    after = _right(_aligned(original, unlearned)).astype(float)
    return paired_ratio(after, _right(original).astype(float), of="records", level=level)


def tug_of_war(
    unlearned: Sequence[Mapping[str, float]], retrained: Sequence[Mapping[str, float]], *, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """Return ToW and its floor: the product over sets of 1 - abs(accuracy - mean accuracy of retrained models).

    Args:
        unlearned: accuracies by set ("forget", "retain", "test") in [0, 1] of one model a seed.
        retrained: of models retrained with other seeds.
        level: of t intervals over models.

    Returns:
        (mean over models after deletion, mean over retrained models of each against the others); 1 is ideal.

    Raises:
        InvalidInput: no model on a side, other sets, or values outside [0, 1].
    """
    names = sorted(unlearned[0]) if unlearned else []
    u, r = (_table(side, names, what) for side, what in ((unlearned, "after deletion"), (retrained, "retrained")))
    products = np.prod(1 - np.abs(u - r.mean(axis=0)), axis=1)
    value = mean_estimate(products, of="models after deletion", level=level, low=0.0, high=1.0)
    if len(r) < 2:
        return value, Estimate(None, n=len(r), reason="a noise floor needs two retrained models at least")
    floors = np.prod(1 - np.abs(r - _others(r)), axis=1)
    return value, mean_estimate(floors, of="retrained models", level=level, low=0.0, high=1.0)


def adaptive_unlearning_score(
    test_before: float, test_after: float, forget_after: float, *, of_class: bool = False
) -> float:
    """Return AUS of accuracies in [0, 1].

    Args:
        test_before: test accuracy of the model before deletion.
        test_after: after it; for a class without that class, as before.
        forget_after: accuracy on the forget records after deletion.
        of_class: whether a class was forgotten: its accuracy is then compared with 0 and not with that on test records.

    >>> adaptive_unlearning_score(0.9, 0.9, 0.9), adaptive_unlearning_score(0.9, 0.8, 0.0, of_class=True)
    (1.0, 0.9)
    """
    for name, value in (("test_before", test_before), ("test_after", test_after), ("forget_after", forget_after)):
        if not 0 <= value <= 1:
            raise InvalidInput(f"{name}={value!r} must be an accuracy in [0, 1]; divide percentages by 100")
    aim = 0.0 if of_class else test_after
    return (1 - (test_before - test_after)) / (1 + abs(aim - forget_after))


def anamnesis_index(
    unlearned: Sequence[float], retrained: Sequence[float], *, cap: float = math.inf, level: float = 0.95
) -> Estimate:
    """Return AIN, mean relearn time of models after deletion over that of retrained models.

    1 is ideal; below it something is left, above it more was forgotten than by retraining.

    Args:
        unlearned: times of m models in any unit.
        retrained: times of retrained models in the same unit, measured alike.
        cap: times above it count with it; how many do is said.
        level: of Fieller's interval over models.

    Returns:
        No value where retrained models are there at once, or where all times are capped.

    Raises:
        InvalidInput: negative times or none.
    """
    times = [np.asarray(side, np.float64) for side in (unlearned, retrained)]
    if any(side.size == 0 or np.isnan(side).any() or side.min() < 0 for side in times):
        raise InvalidInput("relearn times must be numbers of at least 0, one for each model, on both sides")
    late = [int((side > cap).sum()) for side in times]
    if late[0] == times[0].size and late[1] == times[1].size:
        return Estimate(None, n=sum(late), reason=f"no model of either kind is there within {cap:g}: no index")
    found = unpaired_ratio(np.minimum(times[0], cap), np.minimum(times[1], cap), of="models", level=level)
    if found.value is None:
        return dataclasses.replace(found, reason="retrained models relearn at once: no index")
    if sum(late):
        said = f"{late[0]} of {times[0].size} models and {late[1]} of {times[1].size} retrained ones count with the cap"
        return dataclasses.replace(found, reason="; ".join(filter(None, [found.reason, said])))
    return found


def _right(answers: Answers, without: int | None = None) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = predictions(answers) == answers.labels
    return right if without is None else right[answers.labels != without]


def _some(models: Sequence[Answers]) -> Sequence[Answers]:
    if not models:
        raise InvalidInput("no retrained model to compare with; give the answers of one at least")
    return models


def _aligned(first: Answers, second: Answers) -> Answers:
    if not np.array_equal(first.ids, second.ids) or not np.array_equal(first.labels, second.labels):
        raise InvalidInput(
            f"models must answer for the same records in one order; {first.ids.size} and {second.ids.size} records "
            "differ in ids, labels or order"
        )
    return second


def _table(models: Sequence[Mapping[str, float]], names: Sequence[str], what: str) -> Floats:
    """Return the metrics (models, metrics), refused unless all name the same ones."""
    if not models or not names:
        raise InvalidInput(f"no models {what}, or no metrics of them: give one of each at least")
    for model in models:
        if sorted(model) != list(names):
            raise InvalidInput(f"all models must have the metrics {', '.join(names)}; one {what} has {sorted(model)}")
    table = np.array([[model[name] for name in names] for model in models], np.float64)
    if not ((table >= 0) & (table <= 1)).all():
        raise InvalidInput(f"metrics {what} must lie in [0, 1]; divide percentages by 100")
    return table


def _others(table: Floats) -> Floats:
    """For each row the mean of all other rows."""
    others: Floats = (table.sum(axis=0) - table) / (len(table) - 1)
    return others
