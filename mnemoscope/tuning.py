"""Hyper-parameters of deletion methods, chosen on a budget, on models that the audit never sees.

Each trial deletes from models set aside for tuning and is compared with a model that was retrained with another seed
*and another forget set*: what is chosen is nearness to retraining in general, never to one retrained model that the
method could be fitted to. Settings that ruin the model come last: by the metrics of papers a model that has lost half
its accuracy can be nearer to retraining than one that forgot little, and the audit would call it unfit for use.
Everything that was tried is written down and shown in the report.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.statistics.unlearning import ModelAnswers
from mnemoscope.audit.statistics.unlearning_scores import accuracy, average_gap, unlearning_accuracy
from mnemoscope.audit.verdict.policy import load_policy
from mnemoscope.audit.verdict.tuned import Trial, Tuned
from mnemoscope.audit.work.keys import content_key, ids_digest, plain_json
from mnemoscope.audit.work.plan import Plan, SubjectPlan, load_method, nearest
from mnemoscope.preparation import DEFAULT_SUBJECTS
from mnemoscope.progress import Progress, Quiet
from mnemoscope.unlearning_table import LiteratureSets, model_answers

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.protocol import UnlearningMethod
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.store import Store

__all__ = ["TUNED_NAME", "best_of", "run_tune", "trials_of"]

Ids = NDArray[np.int64]
Settings = dict[str, Any]

TUNED_NAME = "tuned.json"

MODELS = 2
"""Models set aside for tuning: the chosen settings must serve more than one."""

RULE = (
    "least average gap of UA, RA, TA and MIA-efficacy to a model retrained with another seed and another forget set, "
    "mean over {models} models that no audit uses, among settings that cost at most {margin:g} points of test accuracy "
    "against it; where all cost more, the one that costs least"
)


def run_tune(
    plan: Plan,
    *,
    budget: int,
    only: Sequence[str] = (),
    store: str | Path,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Tuned]:
    """Tune the plan's subjects.

    Args:
        plan: data, counts of records, recipe and subjects; settings that a subject gives stay, the others are tuned.
        budget: settings tried for each subject at most, the defaults included.
        only: names of subjects; all by default.
        store: folder of finished work.
        out: folder that receives ``tuned.json``, which a plan names in ``subjects.tuned``; None writes nothing.
        progress: told of steps.

    Returns:
        What was tried and chosen, by subject.

    Raises:
        InvalidInput: a budget below 2, or an unknown subject.
    """
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.work.store import Store
    from mnemoscope.unlearning import METHODS

    subjects = plan.subjects or DEFAULT_SUBJECTS
    names = [subject.name for subject in subjects]
    if unknown := [name for name in only if name not in names]:
        raise InvalidInput(f"subject {unknown[0]!r} is unknown{nearest(unknown[0], tuple(names))}; subjects: {names}")
    if budget < 2:
        raise InvalidInput(f"budget={budget}: at least 2, the defaults and something to compare them with")
    chosen = [subject for subject in subjects if not only or subject.name in only]
    made = [load_method(subject, METHODS, folder=plan.folder) for subject in chosen]
    dataset, told = plan.load_dataset(), progress or Quiet()
    recipe, runtime = plan.build_recipe(), plan.build_runtime()
    data = DeviceData(dataset, runtime.torch_device(), subject=plan.load_subject())
    bench = _TuningBench(Store(store), dataset, data, recipe, runtime, plan, told)
    margin = 100 * load_policy(plan.policy).utility_margin
    rule = RULE.format(models=MODELS, margin=margin)
    found: dict[str, Tuned] = {}
    for subject, method in zip(chosen, made, strict=True):
        trials = trials_of(method, subject.settings, recipe, budget, rng=generator(plan.seed, "tune", subject.name))
        if len(trials) < 2:
            told.note(f"{subject.name} has nothing to tune: it takes no learning rate and names no grid of its own")
            continue
        if "records" not in getattr(method, "kinds", ("records",)):
            told.note(f"{subject.name} serves whole classes alone, and tuning deletes single records: left as it is")
            continue
        rows = []
        for number, settings in enumerate(trials):
            told.step(f"tune {subject.name}", number, len(trials))
            rows.append(bench.trial(subject, settings))
        told.step(f"tune {subject.name}", len(trials), len(trials))
        done = [row for row in rows if row.gap is not None]
        if not done:
            raise AuditError(f"{subject.name}: none of {len(rows)} settings finished; the first: {rows[0].note}")
        found[subject.name] = Tuned(
            subject.method, best_of(done, margin).settings, rule, budget, plan.seed, tuple(rows)
        )
        if out is not None:  # after each: nothing is lost when a later one fails
            _write(found, out)
    if out is not None:
        _write(found, out)
    return found


def trials_of(
    method: "UnlearningMethod", fixed: Mapping[str, Any], recipe: "Recipe", budget: int, *, rng: np.random.Generator
) -> list[Settings]:
    """Return the settings to try: the defaults first, then the grid, or a random part of it within the budget.

    Args:
        method: of the subject.
        fixed: settings that the plan gives; they are not tuned.
        recipe: the models' training, which learning rates are measured by.
        budget: how many at most.
        rng: draws the part.
    """
    make = getattr(type(method), "grid", None)
    grid = {} if make is None else {name: values for name, values in make(recipe).items() if name not in fixed}
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] if grid else []
    points = [point for point in points if any(getattr(method, name, None) != value for name, value in point.items())]
    if len(points) > budget - 1:
        points = [points[i] for i in np.sort(rng.permutation(len(points))[: budget - 1])]
    return [{}, *points]


def best_of(trials: Sequence[Trial], margin: float) -> Trial:
    """Return the trial of least gap among those that keep the model fit for use, or the one nearest to that.

    Args:
        trials: that finished, at least one; of equally good ones the first is taken.
        margin: points of test accuracy that may be lost.
    """
    fit = [trial for trial in trials if -_number(trial.accuracy) <= margin]
    if fit:
        return min(fit, key=lambda trial: _number(trial.gap))
    return max(trials, key=lambda trial: _number(trial.accuracy))


def _number(value: float | None) -> float:
    assert value is not None, "a trial that finished has its gap and its accuracy"
    return value


@dataclass(frozen=True, eq=False)
class _Case:
    """One model set aside: its request, and the metrics that retraining of another kind reaches."""

    model: "nn.Module"
    request: Request
    seed: int
    sets: LiteratureSets
    target: dict[str, float]


@dataclass(frozen=True, eq=False)
class _TuningBench:
    store: "Store"
    dataset: "Dataset"
    data: "DeviceData"
    recipe: "Recipe"
    runtime: "Runtime"
    plan: Plan
    told: Progress

    def trial(self, subject: SubjectPlan, settings: Settings) -> Trial:
        """Delete with some settings from every model set aside."""
        from mnemoscope.unlearning import METHODS

        try:
            whole = SubjectPlan(subject.method, subject.name, {**subject.settings, **settings})
            method = load_method(whole, METHODS, folder=self.plan.folder)
            reached = [self._reached(method, self.case(k, method)) for k in range(MODELS)]
        except AuditError as error:
            if isinstance(error, InvalidInput) and not settings:
                raise
            return Trial(settings, None, str(error)[:200])
        gap, lost = np.mean(reached, axis=0)
        return Trial(settings, float(gap), "", float(lost))

    def _reached(self, method: "UnlearningMethod", case: _Case) -> tuple[float, float]:
        """Average gap and difference of test accuracy to the target, in points."""
        from mnemoscope.audit.models.history import History

        more: dict[str, Any] = {}
        if Need.HISTORY in method.needs:
            more["history"] = History(np.union1d(case.request.forget, case.request.retain), case.seed)
        rng = generator(self.plan.seed, "tune", method.name)
        after = method.unlearn(
            case.model, case.request, recipe=self.recipe, data=self.data, runtime=self.runtime, rng=rng, **more
        )
        metrics = self._metrics(after, case.sets)
        gap = average_gap([metrics], [case.target]).value.value
        assert gap is not None
        return gap, 100 * (metrics["ta"] - case.target["ta"])

    def case(self, number: int, method: "UnlearningMethod") -> _Case:
        """Return a model set aside, trained as the audited ones are, on records divided anew."""
        from mnemoscope.audit.models.protocol import trainer_of

        mine, other = self._divided(number, "forget"), self._divided(number, "reference")
        seed = child_seed(self.plan.seed, "tune", "train", number)
        trained = np.union1d(mine.request_ids[0], mine.request_ids[1])
        model = self._model(trained, seed, trainer_of(method))
        reference = self._model(other.request_ids[1], child_seed(self.plan.seed, "tune", "reference", number), None)
        request = Request("records", *mine.request_ids, mine.validation, trained=trained)
        return _Case(model, request, seed, mine.sets, self._metrics(reference, other.sets))

    def _divided(self, number: int, what: str) -> "_Divided":
        """Draw training, forget and test records: as many as each audited model has."""
        d = self.plan.design
        one_model = self.plan.league is not None and self.plan.league.mode == "one-model"
        # A model of a fleet never sees the audited records that are NEVER in it; that of a one-model league sees all.
        seen = 1.0 if one_model else (d.counts[0] + d.counts[1]) / sum(d.counts)
        pools = random_design(
            self.dataset.labels,
            n_models=2,
            audited=round(seen * d.audited) + d.background,
            test=d.test,
            validation=d.validation,
            counts=(0, 1, 1),
            seed=child_seed(self.plan.seed, "tune", what, number),
        )
        share = d.counts[1] / sum(d.counts)
        trained = pools.audited
        rng = generator(self.plan.seed, "tune", what, "forget", number)
        forget = np.sort(rng.permutation(trained)[: max(2, round(share * d.audited))])
        retain, test = np.setdiff1d(trained, forget), pools.records(0, Role.TEST)
        if test.size < 2:
            raise InvalidInput(f"design.test={d.test}: tuning compares accuracies on test records; give some")
        sets = LiteratureSets(forget, retain, test, lambda ids: self.dataset.labels[self.dataset.positions(ids)])
        return _Divided((forget, retain), pools.records(0, Role.VALIDATION), sets)

    def _model(self, ids: Ids, seed: int, trainer: Any) -> "nn.Module":
        from mnemoscope.audit.models.checkpoints import load_into, model_bytes
        from mnemoscope.audit.models.training import fresh_model, train_model
        from mnemoscope.audit.work.tasks import TRAIN_VERSION, WEIGHTS, describe_method, platform_parts

        parts = {
            "data": self.dataset.digest,
            "recipe": plain_json(self.recipe.key_parts()),
            "ids": ids_digest(ids),
            "seed": seed,
            "by": None if trainer is None else describe_method(trainer),
            **platform_parts(self.runtime),
        }
        key = content_key("tune train", TRAIN_VERSION, parts)
        entry = self.store.get(key)
        if entry is None:
            train = train_model if trainer is None else trainer.train
            content = model_bytes(train(self.recipe, self.data, ids, seed=seed, runtime=self.runtime).module)
            entry = self.store.put(key, {WEIGHTS: content}, inputs={}, meta={"kind": "tune"})
        own = trainer is not None
        module = trainer.fresh(self.recipe, self.data) if own else fresh_model(self.recipe, self.data, seed=0)
        load_into(module, entry.path(WEIGHTS))
        loaded: nn.Module = module.to(self.data.device).eval()
        return loaded

    def _metrics(self, module: "nn.Module", sets: LiteratureSets) -> dict[str, float]:
        from mnemoscope.audit.models.inference import infer_logits

        answers: ModelAnswers = model_answers(
            lambda ids: infer_logits(module, self.data, ids, runtime=self.runtime),
            sets,
            rng=generator(self.plan.seed, "tune", "svm"),
        )
        values = {
            "ua": unlearning_accuracy(answers.forget).value,
            "ra": accuracy(answers.retain).value,
            "ta": accuracy(answers.test).value,
            "mia": None if answers.mia is None else answers.mia.value,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False)
class _Divided:
    request_ids: tuple[Ids, Ids]
    validation: Ids
    sets: LiteratureSets


def _write(found: Mapping[str, Tuned], out: Path) -> Path:
    from mnemoscope.reports.schema import write_whole

    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(tuned) for name, tuned in found.items()}, indent=1, allow_nan=False)
    return write_whole(out / TUNED_NAME, (text + "\n").encode())
