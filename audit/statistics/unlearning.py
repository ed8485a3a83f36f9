"""One row of a table of unlearning methods, from recorded answers of original, unlearned and retrained models.

The numbers are defined in ``unlearning_scores`` and ``output_distances``. Each that could be mistaken for a score has
beside it what retrained models reach. There is no attack among them but the MIA-efficacy that is handed in, the weakest
of attacks: a row says nothing of what an adversary learns.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnemoscope.audit.answers.checks import check_logits
from mnemoscope.audit.answers.views import Answers
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.means import mean_estimate, unpaired_ratio
from mnemoscope.audit.statistics.output_distances import (
    activation_distance,
    between_each_other,
    completeness,
    js_divergence,
    zrf,
    zrf_as_published,
)
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.statistics.unlearning_scores import (
    Gap,
    accuracy,
    adaptive_unlearning_score,
    anamnesis_index,
    average_gap,
    forgetting_rate,
    retention_rate,
    tug_of_war,
    unlearning_accuracy,
)

__all__ = ["Compared", "ModelAnswers", "UnlearningMetrics", "unlearning_metrics"]

AFTER, RETRAINED = "models after deletion", "retrained models"

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(frozen=True, eq=False)
class ModelAnswers:
    """One model's answers on the three sets of the literature, to inputs as they are (no augmentation).

    Attributes:
        forget: on the records to forget.
        retain: on retained training records.
        test: on records that no model was trained on.
        mia: its MIA-efficacy, a share of the forget records as ``mia_efficacy`` of the SVM attack gives it, or None.
    """

    forget: Answers
    retain: Answers
    test: Answers
    mia: Estimate | None = None

    def __post_init__(self) -> None:
        sets = {"forget": self.forget, "retain": self.retain, "test": self.test}
        for name, answers in sets.items():
            if answers.logits.ndim != 3:
                raise InvalidInput(f"{name}: answers must be of one model, (n, q, c); given {answers.logits.shape}")
            if not answers.n_records:
                raise InvalidInput(f"{name}: no records; every set needs some")
            if not answers.labels_only:
                check_logits(name, answers.logits)
        for first, second in (("forget", "retain"), ("forget", "test"), ("retain", "test")):
            sets[first].require_disjoint(sets[second], second)
        if self.mia is not None and not (self.mia.value is not None and 0 <= self.mia.value <= 1):
            raise InvalidInput(f"mia={self.mia.value!r} must be a share in [0, 1], or None for the whole estimate")


@dataclass(frozen=True)
class Compared:
    """A metric after deletion beside that of retrained models, which is the value to reach.

    Attributes:
        after: of the models after deletion.
        retrained: of retrained models in their place; where the metric is a distance from retrained models, of each
            against the others: the noise floor.
    """

    after: Estimate
    retrained: Estimate


@dataclass(frozen=True)
class UnlearningMetrics:
    """One row of a table of unlearning methods; what was not measured is an estimate without a value, with the reason.

    Shares in [0, 1] but for ``gap`` (percentage points), ``js`` (nats) and ``minutes``. Of several models after
    deletion, each value is a mean with an interval over models; of a single one, the interval is over its records.

    Attributes:
        ua: share of forget records answered wrongly.
        ra: accuracy on retained records.
        ta: accuracy on test records, without the class that was forgotten.
        mia: MIA-efficacy.
        gap: average gap to retrained models.
        gap_of: the metrics behind it.
        completeness: share of forget records on which retrained models' predictions are met.
        js: Jensen-Shannon divergence from retrained models on the forget records.
        activation_distance: from retrained models on the forget records, L2.
        zrf: against untrained models, in bits.
        zrf_published: as its release computes it.
        tow: tug-of-war.
        aus: adaptive unlearning score.
        forgetting_rate: FR', 1 is retraining.
        retention_rate: MRR' on retained records.
        retention_rate_test: MRR' on test records.
        ain: anamnesis index, 1 is retraining.
        minutes: RTE, wall-clock of a deletion.
        cost: as a share of retraining.
        unlearned_models: how many.
        retrained_models: how many.
    """

    ua: Compared
    ra: Compared
    ta: Compared
    mia: Compared
    gap: Gap
    gap_of: tuple[str, ...]
    completeness: Compared
    js: Compared
    activation_distance: Compared
    zrf: Compared
    zrf_published: Compared
    tow: Compared
    aus: Compared
    forgetting_rate: Estimate
    retention_rate: Estimate
    retention_rate_test: Estimate
    ain: Estimate
    minutes: Estimate
    cost: Estimate
    unlearned_models: int
    retrained_models: int

    def as_json(self) -> dict[str, Json]:
        """Return the row as JSON values: an estimate is its value, interval, counts and reason."""
        row = _plain(dataclasses.asdict(self))
        assert isinstance(row, dict)
        return row


def unlearning_metrics(
    original: ModelAnswers,
    unlearned: Sequence[ModelAnswers],
    retrained: Sequence[ModelAnswers],
    *,
    forgotten_class: int | None = None,
    incompetent: Sequence[Answers] = (),
    relearn: tuple[Sequence[float], Sequence[float]] | None = None,
    relearn_cap: float = math.inf,
    seconds: tuple[Sequence[float], Sequence[float]] | None = None,
    level: float = 0.95,
) -> UnlearningMetrics:
    """Fill one row.

    Args:
        original: answers before deletion.
        unlearned: after it, of one model a seed, at least one.
        retrained: of models retrained without the records, one a seed, at least one; two for noise floors.
        forgotten_class: where a class was forgotten: its label; it is left out of the test set.
        incompetent: answers on the forget records of untrained models, for ZRF.
        relearn: relearn times of models after deletion and of retrained ones, in one unit.
        relearn_cap: time at which relearning was given up.
        seconds: wall-clock of each deletion, and of each retraining, on the same machine.
        level: confidence of all intervals.

    Raises:
        InvalidInput: no model on a side, models that answer for different records, a forgotten class that the forget
            records are not of, probabilities instead of logits.
        MissingNeed: models that answer with labels only.
    """
    _check_models(original, unlearned, retrained, forgotten_class)
    gone, of_class = forgotten_class, forgotten_class is not None
    after, reached = ([_named(model, gone) for model in side] for side in (unlearned, retrained))
    gap_of = ("ua", "ra", "ta", *(("mia",) if all("mia" in m for m in (*after, *reached)) else ()))
    sets = [[{"forget": 1 - m["ua"], "retain": m["ra"], "test": m["ta"]} for m in side] for side in (after, reached)]
    test_before = _value(accuracy(original.test, without=gone))
    aus = [
        [adaptive_unlearning_score(test_before, m["test"], m["forget"], of_class=of_class) for m in side]
        for side in sets
    ]
    again = [model.forget for model in retrained]

    def over(side: Sequence[ModelAnswers], one: Callable[[ModelAnswers], Estimate]) -> Estimate:
        return _over([one(model) for model in side], AFTER if side is unlearned else RETRAINED, level)

    def both(one: Callable[[ModelAnswers], Estimate]) -> Compared:
        return Compared(over(unlearned, one), over(retrained, one))

    def distance(measure: Callable[..., Estimate]) -> Compared:
        value = over(unlearned, lambda m: measure(m.forget, again, level=level))
        return Compared(value, between_each_other(measure.__name__, again, level=level))

    def against_untrained(measure: Callable[..., Estimate]) -> Compared:
        if not incompetent:
            return Compared(_absent("no answers of untrained models were given"), _absent("no untrained models"))
        return both(lambda m: measure(m.forget, incompetent, level=level))

    return UnlearningMetrics(
        ua=both(lambda m: unlearning_accuracy(m.forget, level=level)),
        ra=both(lambda m: accuracy(m.retain, level=level)),
        ta=both(lambda m: accuracy(m.test, without=gone, level=level)),
        mia=both(lambda m: m.mia or _absent("not measured")),
        gap=average_gap(*([{n: m[n] for n in gap_of} for m in side] for side in (after, reached)), level=level),
        gap_of=gap_of,
        completeness=distance(completeness),
        js=distance(js_divergence),
        activation_distance=distance(activation_distance),
        zrf=against_untrained(zrf),
        zrf_published=against_untrained(zrf_as_published),
        tow=Compared(*tug_of_war(*sets, level=level)),
        aus=Compared(
            mean_estimate(aus[0], of=AFTER, level=level),
            mean_estimate(aus[1], of=RETRAINED, level=level),
        ),
        forgetting_rate=over(unlearned, lambda m: forgetting_rate(original.forget, m.forget, again, level=level)),
        retention_rate=over(unlearned, lambda m: retention_rate(original.retain, m.retain, level=level)),
        retention_rate_test=over(
            unlearned, lambda m: retention_rate(_without(original.test, gone), _without(m.test, gone), level=level)
        ),
        ain=_absent("relearn times were not measured")
        if relearn is None
        else anamnesis_index(*relearn, cap=relearn_cap, level=level),
        minutes=_absent("run times were not measured")
        if seconds is None
        else mean_estimate(np.asarray(seconds[0], np.float64) / 60, of="runs", level=level, low=0.0),
        cost=_absent("run times were not measured")
        if seconds is None
        else unpaired_ratio(*seconds, of="runs", level=level),
        unlearned_models=len(unlearned),
        retrained_models=len(retrained),
    )


def _absent(reason: str) -> Estimate:
    return Estimate(None, reason=reason)


def _named(model: ModelAnswers, gone: int | None) -> dict[str, float]:
    metrics = {
        "ua": _value(unlearning_accuracy(model.forget)),
        "ra": _value(accuracy(model.retain)),
        "ta": _value(accuracy(model.test, without=gone)),
    }
    return metrics if model.mia is None else {**metrics, "mia": _value(model.mia)}


def _value(estimate: Estimate) -> float:
    if estimate.value is None:
        raise InvalidInput(f"an accuracy has no value: {estimate.reason}; every set needs records")
    return estimate.value


def _over(found: Sequence[Estimate], of: str, level: float) -> Estimate:
    """One model's estimate as it is; of several models the mean with an interval over models and pooled counts."""
    if len(found) == 1:
        return found[0]
    values = [one.value for one in found if one.value is not None]
    if len(values) < len(found):
        reasons = sorted({one.reason for one in found if one.value is None and one.reason})
        reason = "; ".join(reasons) or "not measured"
        return Estimate(None, n=len(found), reason=f"{len(found) - len(values)} of {len(found)} {of}: {reason}")
    mean = mean_estimate(values, of=of, level=level)
    counts = [one.k for one in found if one.k is not None]
    if len(counts) < len(found):
        return mean
    return dataclasses.replace(mean, k=sum(counts), n=sum(one.n or 0 for one in found))


def _without(answers: Answers, gone: int | None) -> Answers:
    if gone is None:
        return answers
    keep = answers.labels != gone
    return Answers(answers.ids[keep], answers.labels[keep], answers.logits[keep], labels_only=answers.labels_only)


def _check_models(
    original: ModelAnswers, unlearned: Sequence[ModelAnswers], retrained: Sequence[ModelAnswers], gone: int | None
) -> None:
    if not unlearned or not retrained:
        raise InvalidInput(
            f"{len(unlearned)} models after deletion and {len(retrained)} retrained ones: give one of each at least"
        )
    for model in (*unlearned, *retrained):
        for name in ("forget", "retain", "test"):
            own, theirs = getattr(original, name), getattr(model, name)
            same = np.array_equal(own.ids, theirs.ids) and np.array_equal(own.labels, theirs.labels)
            if not same or own.logits.shape[-1] != theirs.logits.shape[-1]:
                raise InvalidInput(
                    f"{name}: all models must answer for the same records in one order and the same classes; "
                    f"{own.ids.size} records, {own.logits.shape[-1]} classes against {theirs.ids.size} and "
                    f"{theirs.logits.shape[-1]}, or other ids"
                )
    if gone is not None and (original.forget.labels != gone).any():
        found = np.unique(original.forget.labels)[:5].tolist()
        raise InvalidInput(f"forgotten_class={gone}: the forget records have the labels {found}; give their own class")


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, (str, bool, int, float))
    return value
