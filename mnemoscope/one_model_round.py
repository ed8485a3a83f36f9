"""One round of a league in one-model mode: one model a seed, every method deletes from it, each result is judged.

It serves what a fleet cannot: a class as a whole, and models too large to be trained by the dozen. Attacks on single
records are offline ones with the few retrained models as references; no verdict on the procedure follows.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Answers, Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.records.request import Kind, Request, select_records, selection_beside
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.statistics.unlearning import ModelAnswers, unlearning_metrics
from mnemoscope.audit.verdict.league import UNFIT
from mnemoscope.audit.verdict.onemodel import TESTED, audit_one_model, plan_one_model
from mnemoscope.audit.verdict.onemodel_describe import utilities
from mnemoscope.audit.verdict.onemodel_gates import PROBABLY_WRONG, sanity_check
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, runnable
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy, load_policy
from mnemoscope.audit.verdict.policy_file import policy_record
from mnemoscope.audit.verdict.result import (
    AuditResult,
    Cost,
    DataSummary,
    Measured,
    NotRun,
    RecordSet,
    Utility,
    Verdict,
)
from mnemoscope.audit.work.keys import Json, content_key, ids_digest, plain_json
from mnemoscope.audit.work.plan import Plan, load_attack, load_method
from mnemoscope.audit.work.tuned import resolved_settings, tuned_of
from mnemoscope.evidence import EvidenceFolder
from mnemoscope.model_evidence import ModelEvidence
from mnemoscope.preparation import DEFAULT_SUBJECTS
from mnemoscope.progress import Progress, Quiet
from mnemoscope.provenance import LIMITATIONS, environment, timestamp
from mnemoscope.unlearning_table import LiteratureSets, literature_rows, model_answers

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.answers.protocols import Attack
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.protocol import UnlearningMethod
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.work.store import Store

__all__ = ["RoundRecords", "round_records", "run_one_model_round"]

Ids = NDArray[np.int64]

VERSION = 1
"""Raised by hand when code changes what a model of a round is."""

LEAST = 20
"""Forget and holdout records that any rate needs."""


@dataclass(frozen=True, eq=False)
class RoundRecords:
    """Who plays which part in a round; sets are disjoint.

    Attributes:
        request: what is to be forgotten.
        holdout: ids that no model ever saw, of the forgotten class where one is forgotten.
        retain: retained ids that are scored.
        population: ids that no model ever saw, for population attacks.
        test: ids for accuracy, without the forgotten class where one is forgotten.
    """

    request: Request
    holdout: Ids
    retain: Ids
    population: Ids
    test: Ids


def round_records(plan: Plan, dataset: "Dataset", forget: str) -> RoundRecords:
    """Divide the records: as many are trained on as the plan has audited and background records.

    Args:
        plan: its ``design`` says how many; its seed draws them.
        dataset: the records.
        forget: as ``--forget`` takes it, read among the training records; "random:200", "class:3", a file.

    Raises:
        InvalidInput: too few records to forget, or to stand beside them.
    """
    d = plan.design
    pools = random_design(
        dataset.labels,
        n_models=2,
        audited=d.audited + d.background,
        population=d.population,
        test=d.test,
        validation=d.validation,
        counts=(0, 1, 1),
        seed=child_seed(plan.seed, "round"),
    )
    trained = pools.audited
    elsewhere = np.setdiff1d(dataset.ids, trained)
    kind: Kind = "class" if forget.startswith("class:") else "records"
    spec = selection_beside(plan.folder, forget)
    gone = np.intersect1d(select_records(dataset, spec, seed=plan.seed, exclude=elsewhere), trained)
    unused, test = pools.records(0, Role.UNUSED), pools.records(0, Role.TEST)
    if kind == "class" and gone.size:
        label = dataset.labels[dataset.positions(gone[:1])][0]
        of = {name: dataset.labels[dataset.positions(ids)] == label for name, ids in (("u", unused), ("t", test))}
        unused, test = unused[of["u"]], test[~of["t"]]
    rng = generator(plan.seed, "round", "holdout")
    holdout = np.sort(rng.permutation(unused)[: max(gone.size, LEAST)])
    if min(gone.size, holdout.size) < LEAST:
        raise InvalidInput(
            f"league.forget={forget!r}: {gone.size} records to forget and {holdout.size} that no model saw; allowed: "
            f"at least {LEAST} of each. Train on fewer records (design.background), or name more to forget"
        )
    retain = np.setdiff1d(trained, gone)
    shown = np.sort(rng.permutation(retain)[: 2 * gone.size])
    request = Request(kind, gone, retain, pools.records(0, Role.VALIDATION), trained=trained)
    return RoundRecords(request, holdout, shown, pools.records(0, Role.POPULATION), test)


def run_one_model_round(
    plan: Plan,
    forget: str,
    *,
    references: int,
    store: str | Path,
    out: Path | None = None,
    progress: Progress | None = None,
    key: Path | None = None,
) -> AuditResult:
    """Train one model, let every subject of the plan forget the same records in it, and audit each result.

    Args:
        plan: data, counts of records, recipe, subjects, attacks and policy.
        forget: what is to be forgotten.
        references: models retrained without the forgotten records.
        store: folder of finished work.
        out: folder that receives ``result.json`` and the report; None writes nothing.
        progress: told of steps.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.

    Returns:
        The result in one-model mode, a subject for each method that serves the request.
    """
    with EvidenceFolder(out, key) as evidence:
        result = _carry_out(plan, forget, references, store, evidence, progress)
    if out is not None:
        from mnemoscope.reports import write_report

        write_report(result, out)
    return result


def _carry_out(
    plan: Plan,
    forget: str,
    references: int,
    store: str | Path,
    evidence: EvidenceFolder,
    progress: Progress | None,
) -> AuditResult:
    from mnemoscope.attacks import DEFAULT_ATTACKS
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.work.store import Store

    dataset, policy = plan.load_dataset(), load_policy(plan.policy)
    records = round_records(plan, dataset, forget)
    runtime, told = plan.build_runtime(), progress or Quiet()
    data = DeviceData(dataset, runtime.torch_device(), subject=plan.load_subject())
    bench = _RoundBench(Store(store), dataset, data, plan.build_recipe(), runtime, plan.seed, records, told)
    before = bench.original(None)
    bench.require_sense(before, policy)
    retrained = [bench.retrained(k) for k in range(references)]
    subjects, costs = [], [before.cost("train"), *(one.cost("retrain") for one in retrained)]
    plan_summary = limits = None
    not_run: dict[tuple[str, str], NotRun] = {}
    wanted = plan.subjects or DEFAULT_SUBJECTS
    kept = ModelEvidence(evidence)
    for i, subject in enumerate(wanted):
        method = _method(plan, subject)
        if records.request.kind not in getattr(method, "kinds", ("records", "class")):
            continue
        told.step(f"forget {forget}", i, len(wanted))
        start = bench.original(method)
        try:
            after = bench.retrained(references) if method.name == "retrain" else bench.unlearned(method, start)
        except AuditError as error:
            not_run[subject.name, ""] = NotRun(f"{subject.name} on {forget}", str(error))
            told.note(f"{subject.name} on {forget}: {error}")
            continue
        inputs = bench.inputs(after, start, retrained)
        attacks = _attacks(plan, inputs)
        fixed = plan_one_model(inputs, attacks, policy=policy, seed=plan.seed)
        kept.begin(inputs, plan.digest)
        # Labels and preprocessing were checked on the original. A model that a method ruined is a result, and a
        # forgotten class is answered with other classes.
        found = audit_one_model(inputs, attacks, plan=fixed, name=subject.name, method=method.name, force=True)
        spent = float(np.mean([one.seconds for one in retrained]))
        tested = bench.test_utility(after, start, retrained, policy)
        verdict = _fitness(found.subject.verdict, tested, policy)
        kept.add(inputs, found, verdict)
        subjects.append(
            replace(
                found.subject,
                verdict=verdict,
                settings=_flat(resolved_settings(subject, plan.folder)),
                tuned=tuned_of(subject, plan.folder),
                utility=(*found.subject.utility, *tested),
                measured=bench.literature(after, start, retrained, policy),
                cost_fraction_of_retraining=after.seconds / spent if spent > 0 else None,
            )
        )
        costs.append(after.cost(f"forget by {subject.name}"))
        plan_summary, limits = found.plan, found.limits
        not_run |= {(subject.name, row.what): row for row in found.not_run}
    told.step(f"forget {forget}", len(wanted), len(wanted))
    if plan_summary is None or limits is None:
        raise InvalidInput(
            f"league.forget={forget!r}: no subject of the plan serves requests of kind {records.request.kind!r}"
        )
    specs = plan.attack_specs(DEFAULT_ATTACKS)
    settings = tuple({"name": spec.name, "settings": dict(spec.settings)} for spec in specs)
    kept.close("one-model", replace(plan_summary, digest=plan.digest), policy, settings)
    result = AuditResult(
        title=plan.name,
        mode="one-model",
        created_at=timestamp(),
        data=bench.summary(evidence),
        plan=replace(plan_summary, digest=plan.digest, decided=policy_record(plan.policy)),
        limits=limits,
        subjects=tuple(subjects),
        environment=environment(str(data.device)),
        costs=tuple(costs),
        not_run=tuple(dict.fromkeys(not_run.values())),
        limitations=LIMITATIONS,
    )
    return evidence.finish(result)


@dataclass(frozen=True, eq=False)
class _Made:
    """A model with its time."""

    key: str
    module: "nn.Module"
    seconds: float
    seed: int

    def cost(self, step: str) -> Cost:
        return Cost(step, round(self.seconds, 3), computed=1)


def _fitness(verdict: Verdict, tested: tuple[Utility, ...], policy: Policy) -> Verdict:
    """Flag a model that lost accuracy on test records: where a class went, never-seen records of it show nothing."""
    for row in tested:
        gap = row.gap_to_retrained if row.models == "after" else None
        lost = gap is not None and gap.high is not None and gap.high < -policy.utility_margin
        if lost and not any(UNFIT in flag for flag in verdict.flags):
            return replace(verdict, flags=(*verdict.flags, UNFIT))
    return verdict


@dataclass(frozen=True, eq=False)
class _RoundBench:
    """Makes and asks the models of a round; what the store holds is not made again."""

    store: "Store"
    dataset: "Dataset"
    data: "DeviceData"
    recipe: "Recipe"
    runtime: "Runtime"
    seed: int
    records: RoundRecords
    told: Progress
    _made: dict[str, _Made] = dataclasses.field(default_factory=dict, repr=False)

    def original(self, method: "UnlearningMethod | None") -> _Made:
        """The model before deletion; a method that trains its models itself has one of its own."""
        from mnemoscope.audit.models.protocol import trainer_of

        trainer = None if method is None else trainer_of(method)
        return self._trained("before", np.union1d(self.records.request.forget, self.records.request.retain), trainer)

    def retrained(self, number: int) -> _Made:
        """A model that was trained without the forgotten records."""
        return self._trained(f"retrained {number}", self.records.request.retain, None)

    def unlearned(self, method: "UnlearningMethod", start: _Made) -> _Made:
        """The model after a method forgot the request in it."""
        from mnemoscope.audit.models.history import History
        from mnemoscope.audit.models.protocol import trainer_of
        from mnemoscope.audit.work.tasks import UNLEARN_VERSION, describe_method

        request = self.records.request
        parts = self._parts(request.forget, request.retain, request.validation)
        about = describe_method(method)
        key = content_key("round unlearn", VERSION, {**parts, "v": UNLEARN_VERSION, "method": about, "of": start.key})
        seed = child_seed(self.seed, "round", "unlearn", method.name)
        more: dict[str, Any] = {}
        if Need.HISTORY in method.needs:
            more["history"] = History(np.union1d(request.forget, request.retain), start.seed)

        def make() -> "nn.Module":
            return method.unlearn(
                start.module,
                request,
                recipe=self.recipe,
                data=self.data,
                runtime=self.runtime,
                rng=generator(seed),
                **more,
            )

        return self._kept(key, make, seed, trainer_of(method))

    def _trained(self, what: str, ids: Ids, trainer: Any) -> _Made:
        from mnemoscope.audit.models.training import train_model
        from mnemoscope.audit.work.tasks import TRAIN_VERSION, describe_method

        about = None if trainer is None else describe_method(trainer)
        key = content_key("round train", VERSION, {**self._parts(ids), "v": TRAIN_VERSION, "what": what, "by": about})
        seed = child_seed(self.seed, "round", "train", what)
        train = train_model if trainer is None else trainer.train

        def make() -> "nn.Module":
            module: nn.Module = train(self.recipe, self.data, ids, seed=seed, runtime=self.runtime).module
            return module

        return self._kept(key, make, seed, trainer)

    def _parts(self, *ids: Ids) -> dict[str, Json]:
        from mnemoscope.audit.work.tasks import platform_parts

        return {
            "data": self.dataset.digest,
            "recipe": plain_json(self.recipe.key_parts()),
            "seed": self.seed,
            "ids": [ids_digest(one) for one in ids],
            **platform_parts(self.runtime),
        }

    def _kept(self, key: str, make: "Callable[[], nn.Module]", seed: int, trainer: Any) -> _Made:
        from mnemoscope.audit.models.checkpoints import load_into, model_bytes
        from mnemoscope.audit.models.training import fresh_model
        from mnemoscope.audit.work.tasks import WEIGHTS

        if key in self._made:
            return self._made[key]
        entry = self.store.get(key)
        if entry is None:
            begun = time.perf_counter()
            module = make()
            seconds = time.perf_counter() - begun
            self.store.put(key, {WEIGHTS: model_bytes(module)}, inputs={}, meta={"kind": "round", "seconds": seconds})
        else:
            seconds = float(str(entry.meta["seconds"]))
            module = (
                fresh_model(self.recipe, self.data, seed=0)
                if trainer is None
                else trainer.fresh(self.recipe, self.data)
            )
            load_into(module, entry.path(WEIGHTS))
        self._made[key] = _Made(key, module.to(self.data.device).eval(), seconds, seed)
        return self._made[key]

    def _ask(self, module: "nn.Module", ids: Ids) -> NDArray[np.float32]:
        from mnemoscope.audit.models.inference import infer_logits

        return infer_logits(module, self.data, ids, runtime=self.runtime)

    def inputs(self, after: _Made, before: _Made, retrained: list[_Made]) -> OneModelInput:
        """Answers of all models on the records of the round."""
        r = self.records
        parts = [
            (r.request.forget, Group.FORGET),
            (r.holdout, Group.HOLDOUT),
            (r.retain, Group.RETAIN),
            (r.population, Group.POPULATION),
        ]
        ids = np.concatenate([part for part, _ in parts])
        group = np.concatenate([np.full(part.size, role, np.int8) for part, role in parts])
        others = np.stack([self._ask(one.module, ids) for one in retrained])
        labels = self.dataset.labels[self.dataset.positions(ids)]
        return OneModelInput(ids, labels, group, self._ask(after.module, ids), self._ask(before.module, ids), others)

    def require_sense(self, original: _Made, policy: Policy) -> None:
        """Refuse an original that knows unseen records no better than chance."""
        ids = self.records.test if self.records.test.size else self.records.population
        if not ids.size:
            return
        labels = self.dataset.labels[self.dataset.positions(ids)]
        predicted = self._ask(original.module, ids)[:, 0].argmax(axis=-1)
        found = sanity_check(predicted == labels, labels, predicted, policy)
        if found.status == "fail":
            raise InvalidInput(
                f"{PROBABLY_WRONG}: the original has {found.observed}. Check both, or train longer (recipe.overrides)"
            )

    def test_utility(self, after: _Made, before: _Made, retrained: list[_Made], policy: Policy) -> tuple[Utility, ...]:
        """Accuracy on test records, with the gap to retrained models."""
        ids = self.records.test
        if not ids.size:
            return ()
        labels = self.dataset.labels[self.dataset.positions(ids)]

        def right(one: _Made) -> NDArray[np.bool_]:
            hits: NDArray[np.bool_] = self._ask(one.module, ids)[:, 0].argmax(axis=-1) == labels
            return hits

        single: Any = {"before": right(before), "after": right(after)}
        return tuple(utilities("test", single, np.stack([right(one) for one in retrained]), policy.interval_level))

    def literature(self, after: _Made, before: _Made, retrained: list[_Made], policy: Policy) -> tuple[Measured, ...]:
        """The metrics of unlearning papers, with what retrained models score beside them."""
        from mnemoscope.audit.models.training import fresh_model

        r = self.records
        if not r.test.size:
            return ()
        of_class = r.request.kind == "class"
        sets = LiteratureSets(
            r.request.forget,
            r.retain,
            r.test,
            lambda ids: self.dataset.labels[self.dataset.positions(ids)],
            int(self.dataset.labels[self.dataset.positions(r.request.forget[:1])][0]) if of_class else None,
        )

        def answers(one: _Made) -> ModelAnswers:
            rng = generator(self.seed, "round", "svm")
            return model_answers(lambda ids: self._ask(one.module, ids), sets, rng=rng)

        untrained = fresh_model(self.recipe, self.data, seed=child_seed(self.seed, "round", "untrained"))
        metrics = unlearning_metrics(
            answers(before),
            [answers(after)],
            [answers(one) for one in retrained],
            forgotten_class=sets.forgotten_class,
            incompetent=[Answers(sets.forget, sets.labels(sets.forget), self._ask(untrained, sets.forget))],
            seconds=([after.seconds], [one.seconds for one in retrained]),
            level=policy.interval_level,
        )
        return literature_rows(metrics, int(sets.forget.size))

    def summary(self, evidence: EvidenceFolder) -> DataSummary:
        """The data set and how many records play which role, committed to where there is a key."""
        r, dataset = self.records, self.dataset
        sets = (
            ("forget", r.request.forget, "trained on, then deleted"),
            ("retain", r.request.retain, "trained on, stays"),
            ("holdout", r.holdout, "seen by no model"),
            ("population", r.population, "seen by no model"),
            ("validation", r.request.validation, "methods of deletion may train on them"),
            ("test", r.test, "accuracy"),
        )
        shown = tuple(
            evidence.commit(
                RecordSet(name, int(ids.size), ids_digest(ids), note),
                ids,
                map(bytes, dataset.digests[dataset.positions(ids)]),
            )
            for name, ids, note in sets
            if ids.size
        )
        shape = tuple(int(side) for side in dataset.values.shape[1:])
        return DataSummary(dataset.name, dataset.digest, int(dataset.ids.size), len(dataset.classes), shape, shown, ())


def _method(plan: Plan, subject: Any) -> "UnlearningMethod":
    from mnemoscope.unlearning import METHODS

    return load_method(subject, METHODS, folder=plan.folder)


def _attacks(plan: Plan, inputs: OneModelInput) -> "list[Attack]":
    """The plan's attacks that one model allows; the default ones where it names none."""
    from mnemoscope.attacks import ATTACKS, DEFAULT_ATTACKS

    made = [load_attack(spec, ATTACKS) for spec in plan.attack_specs(DEFAULT_ATTACKS)]
    return runnable(inputs, made, TESTED)[0]


def _flat(settings: dict[str, Any]) -> dict[str, str | int | float | bool | None]:
    kept = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, kept) else str(value) for key, value in settings.items()}
