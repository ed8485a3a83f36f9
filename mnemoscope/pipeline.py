"""Procedure mode end to end: from a plan to a result. The one place where rooms, attacks and methods meet."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.declared import Declared
from mnemoscope.audit.verdict.endpoints import structure_endpoint
from mnemoscope.audit.verdict.epsilons import refutations
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.procedure import Alternative, FleetAnswers, ProcedureAudit, ProcedureInput
from mnemoscope.audit.verdict.procedure_decision import SubjectScores
from mnemoscope.audit.verdict.procedure_scores import reads_both
from mnemoscope.audit.verdict.result import AuditResult, Cost, Endpoint, GateResult, ModelGroup, NotRun, Subject
from mnemoscope.audit.work.plan import DesignPlan, Plan, RuntimePlan
from mnemoscope.audit.work.run_log import FIRST_SCORE, MODELS_READY, PLAN
from mnemoscope.audit.work.tuned import resolved_settings, tuned_of
from mnemoscope.commitment import commit_plan
from mnemoscope.evidence import ANSWERS, SCORES, EvidenceFolder
from mnemoscope.planned_records import data_checks, data_summary, refuse_changed_data
from mnemoscope.preparation import DP_DELTA, PreparedAudit
from mnemoscope.progress import Progress
from mnemoscope.provenance import LIMITATIONS, environment, timestamp
from mnemoscope.reconstruction import coverage, reconstruct
from mnemoscope.requests import RequestChain, limitations_of, stages_of
from mnemoscope.stored_answers import NO_NAMES, AnswerWriter
from mnemoscope.stored_scores import ScoreWriter

if TYPE_CHECKING:
    from mnemoscope.audit.models.protocol import TrainsItself
    from mnemoscope.audit.models.recipes import Recipe
    from mnemoscope.audit.work.store import Store
    from mnemoscope.audit.work.workspace import ModelRef, Workspace

__all__ = ["demo_plan", "open_workspace", "run_plan"]


def demo_plan(*, seed: int = 0, device: str = "auto") -> Plan:
    """The main job on embedded real data: 72 small models of the digits, four ways of deleting."""
    return Plan(
        name="Deleting digits: four ways compared", seed=seed, design=DesignPlan(), runtime=RuntimePlan(device=device)
    )


def run_plan(
    plan: Plan,
    *,
    store: str | Path,
    out: Path | None = None,
    progress: Progress | None = None,
    declared: Declared | None = None,
    key: Path | None = None,
    keep_answers: bool = False,
    restricted: bool = False,
) -> AuditResult:
    """Carry out a procedure audit.

    Args:
        plan: data, design, recipe, subjects, attacks and policy.
        store: folder of finished work; what is there is not computed again.
        out: folder that receives ``plan.json``, ``result.json`` and the report; None writes nothing.
        progress: told of steps.
        declared: what somebody states beside the numbers.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.
        keep_answers: also keep the recorded answers of all models, which are large, in ``out``.
        restricted: the result is the restricted edition, with single records under keyed pseudonyms.

    Returns:
        The result, one subject for each deletion procedure of the plan.
    """
    with EvidenceFolder(out, key) as evidence:
        result = _carry_out(plan, evidence, store, progress, declared, keep_answers=keep_answers)
    if restricted:
        result = replace(result, edition="restricted")
    if out is not None:
        from mnemoscope.reports import write_report

        write_report(result, out)
    return result


def _carry_out(
    plan: Plan,
    evidence: EvidenceFolder,
    store: str | Path,
    progress: Progress | None,
    declared: Declared | None,
    *,
    keep_answers: bool,
) -> AuditResult:
    from mnemoscope.audit.models.protocol import TrainsItself, trainer_of
    from mnemoscope.audit.models.training import fresh_model
    from mnemoscope.audit.work.store import Store

    opened = Store(store)
    prepared = PreparedAudit(plan, store=opened, progress=progress)
    watch, told = prepared.watch, prepared.progress
    refuse_changed_data(prepared)
    prepared.powers  # noqa: B018  # alpha is chosen here, before any model exists
    workspace = open_workspace(prepared)
    # A model that cannot be built is found here: a plan is committed when it can be carried out.
    prepared.check_private_layers(fresh_model(workspace.recipe, workspace.device_data, seed=0))
    stages = stages_of(prepared)
    whole = stages[-1].prepared  # everything that is to be forgotten is forgotten there
    checks, data_gates = data_checks(whole)
    commitment = commit_plan(plan, prepared.alpha, evidence.out)
    committed = commitment.before_scores
    evidence.log.add(PLAN, plan.digest)
    kept = _Kept(prepared, evidence, keep_answers=keep_answers)
    private = _private_fleets(prepared, opened)
    chain = RequestChain(prepared)
    found: dict[str, list[Subject]] = {wanted.name: [] for wanted in prepared.subjects}
    costs: list[Cost] = []
    schemes: dict[TrainsItself | None, _Scheme] = {}
    refused: dict[str, str] = {}
    recovering: set[str] = set()
    count = len(prepared.subjects)
    rounds = [(stage, i) for stage in stages for i in range(count)]
    for done, (stage, i) in enumerate(rounds):
        wanted, method = prepared.subjects[i], prepared.methods[i]
        if i == 0:
            own = workspace if stage.number == 1 else open_workspace(stage.prepared)
            schemes = {None: _Scheme(stage.prepared, own, private, evidence)}
        trainer = trainer_of(method)
        if trainer not in schemes:
            schemes[trainer] = _Scheme(stage.prepared, open_workspace(stage.prepared, trainer=trainer), [], evidence)
        scheme = schemes[trainer]
        kept.answers.scheme(scheme.audit.inputs)
        name = stage.title(wanted.name)
        models = chain.models(stage, wanted.name, method, scheme.workspace)
        after = scheme.fleets.answers(name, models)
        scores: list[tuple[SubjectScores, Basis]] = []
        gates = [*data_gates, *scheme.fleets.gates(committed)]
        with watch.step("reconstruct"):
            recovered, why_not = reconstruct(
                prepared.reconstructions, scheme.workspace, models, seed=plan.seed, level=prepared.policy.interval_level
            )
            refused |= why_not
            recovering |= {row.attack for row in recovered}
        with watch.step("score"):
            told.step("score", done, len(rounds))
            subject = scheme.audit.subject(
                name,
                after,
                method=method.name,
                settings=_flat(resolved_settings(wanted, plan.folder)),
                trained_against=getattr(method, "trains_against", ()),
                gates=gates,
                models=scheme.fleets.groups(name, models, method.name),
                flags=() if committed else ("exploratory",),
                cost_fraction=scheme.workspace.cost_fraction(models[0].fleet),
                structure=scheme.fleets.structure(models),
                reconstructed=recovered,
                on_scores=lambda *both, into=scores: into.append(both),
            )
            found[wanted.name].append(replace(subject, tuned=tuned_of(wanted, plan.folder)))
            chain.add(stage, wanted.name, method, subject, scores[0][0].after[prepared.primary], scheme.audit)
            kept.scores.subject(name, *scores[0])
            kept.answers.subject(name, after, scores[0][0].trained_against)
            evidence.log.add("subject scored", name)
            told.step("score", done + 1, len(rounds))
        if i + 1 == count:
            costs += [cost for one in schemes.values() for cost in stage.costs(one.workspace.costs)]
    subjects = tuple(subject for several in found.values() for subject in several)
    kept.scores.close(
        "procedure",
        plan=plan.digest,
        policy=prepared.policy,
        primary=prepared.primary,
        alpha=prepared.alpha,
        attacks=tuple({"name": spec.name, "settings": dict(spec.settings)} for spec in prepared.specs),
    )
    kept.answers.close()
    result = AuditResult(
        title=plan.name,
        mode="procedure",
        created_at=timestamp(),
        data=data_summary(whole, checks, evidence),
        plan=prepared.plan_summary(commitment),
        limits=limits_of("procedure", has_fleet=True, policy=prepared.policy),
        subjects=subjects,
        environment=environment(workspace.device_name),
        costs=(*costs, *watch.costs()),
        not_run=_not_run(prepared),
        coverage=coverage(
            [attack.name for attack in prepared.attacks],
            [attack.name for attack in prepared.reconstructions if attack.name in recovering],
            {name: reason for name, reason in refused.items() if name not in recovering},
        ),
        requests=chain.rows,
        declared=declared,
        limitations=(*LIMITATIONS, *_of_canaries(prepared), *limitations_of(prepared)),
        warnings=tuple(dict.fromkeys(line for subject in subjects for line in refutations(subject.epsilons))),
    )
    return evidence.finish(result)


class _Kept:
    """Files of scores and answers, opened when there is something to write: training comes first, for hours."""

    def __init__(self, prepared: PreparedAudit, evidence: EvidenceFolder, *, keep_answers: bool) -> None:
        self.prepared, self.evidence, self.keep_answers = prepared, evidence, keep_answers

    @cached_property
    def scores(self) -> ScoreWriter:
        names = self.evidence.pseudonyms(self.prepared.dataset.keys_of(self.prepared.design.audited))
        return ScoreWriter(self.evidence.arrays(SCORES), names)

    @cached_property
    def answers(self) -> AnswerWriter:
        return AnswerWriter(self.evidence.arrays(ANSWERS) if self.keep_answers else None, NO_NAMES)


class _Scheme:
    """One way of training: its fleets, and the audit of what is deleted from them.

    A method that trains its models itself (SISA) is compared with its own models: before deletion, trained by it
    without the forgotten records, and so again with other seeds.
    """

    def __init__(
        self,
        prepared: PreparedAudit,
        workspace: "Workspace",
        alternatives: list[Alternative],
        evidence: EvidenceFolder,
    ) -> None:
        self.workspace = workspace
        fleets = self.fleets = _Fleets(prepared, workspace)
        plan, design = prepared.plan, prepared.design
        both = any(reads_both(attack) for attack in prepared.attacks)
        inputs = ProcedureInput(
            design=design,
            keys=prepared.dataset.keys_of(design.audited),
            labels=fleets.labels(design.audited),
            population_ids=fleets.population,
            population_labels=fleets.labels(fleets.population),
            test_labels=fleets.labels(fleets.test),
            before=fleets.answers("before", workspace.fleet("before")),
            retrained=fleets.answers("retrained A", workspace.fleet("retrained", replica="A")),
            control=fleets.answers("retrained B", workspace.fleet("retrained", replica="B")),
            reseeded=fleets.answers("before B", workspace.fleet("before", replica="B")) if both else None,
            queries=plan.attacks.queries,
            canaries=prepared.canaries,
            classes=prepared.dataset.classes,
        )
        self.audit = ProcedureAudit(
            inputs,
            prepared.attacks,
            primary=prepared.primary,
            policy=prepared.policy,
            alpha=prepared.alpha,
            seed=plan.seed,
            measures=prepared.measures,
            defences=prepared.defences,
            alternatives=alternatives,
        )
        evidence.once(MODELS_READY, "before and retrained")
        evidence.once(FIRST_SCORE)
        told = prepared.progress
        with prepared.watch.step("controls"):
            told.step("controls", 0, 2)
            self.audit.positive_control  # noqa: B018
            told.step("controls", 1, 2)
            self.audit.negative_control  # noqa: B018
            told.step("controls", 2, 2)


def open_workspace(
    prepared: PreparedAudit, *, recipe: "Recipe | None" = None, trainer: "TrainsItself | None" = None
) -> "Workspace":
    """Return the workspace of a prepared audit, which has a store.

    Args:
        prepared: the plan with its data and design.
        recipe: instead of the plan's.
        trainer: the method that trains all models itself, where one does.
    """
    from mnemoscope.audit.work.workspace import Workspace

    plan = prepared.plan
    assert prepared.store is not None
    return Workspace(
        prepared.store,
        prepared.dataset,
        prepared.design,
        recipe or plan.build_recipe(),
        runtime=prepared.runtime(),
        seed=plan.seed,
        progress=prepared.progress.step,
        subject=plan.load_subject(),
        engine=plan.build_engine(),
        trainer=trainer,
    )


def _private_fleets(prepared: PreparedAudit, store: "Store") -> list[Alternative]:
    """Train the models of the design anew with DP-SGD, a fleet for each noise multiplier of the plan."""
    fleets = []
    roles = (Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN)
    sizes = np.unique(np.isin(prepared.design.role, roles).sum(axis=1))
    for noise in prepared.plan.defences.dp_noise:
        from mnemoscope.audit.models.private import dp_epsilon

        recipe = prepared.private_recipe(noise)
        # Training sets differ a little in size: what is claimed for the fleet holds for each of its models.
        epsilon = max(dp_epsilon(recipe, int(n), DP_DELTA) for n in sizes)
        workspace = open_workspace(prepared, recipe=recipe)
        answers = _Fleets(prepared, workspace).answers("DP-SGD", workspace.fleet("before"))
        name = f"DP-SGD, noise {noise:g}, clip {recipe.dp_clip:g}"
        fleets.append(Alternative(name, answers, epsilon, DP_DELTA))
    return fleets


def _of_canaries(prepared: PreparedAudit) -> tuple[str, ...]:
    """What noise in the audited records does to the meaning of every number here."""
    if not prepared.canary_note:
        return ()
    return (
        "Every audited record carries noise that was planted for this audit, which makes it easier to learn by heart: "
        "the numbers speak of records with such noise, not of the records as they are.",
    )


def _not_run(prepared: PreparedAudit) -> tuple[NotRun, ...]:
    rows = []
    if not any(Need.GRADIENT in attack.needs for attack in prepared.attacks):
        rows.append(
            NotRun(
                "attacks that read the model's parameters or gradients",
                "none was asked for",
                "name gradient_norm or gradient_alignment in attacks.run",
            )
        )
    if not any(reads_both(attack) for attack in prepared.attacks):
        rows.append(
            NotRun(
                "comparison of both versions of one model (difference attack)",
                "none was asked for",
                "name difference_margin in attacks.run, and decide who may hold the model before deletion",
            )
        )
    if not prepared.reconstructions:
        rows.append(
            NotRun(
                "reconstruction, model inversion and attribute inference",
                "none was asked for",
                "name them in attacks.reconstructions",
            )
        )
    rows.append(
        NotRun(
            "process evidence",
            "no record of the deletion process was given",
            "keep dated records of what was removed, by whom and from where: tier A needs them",
        )
    )
    return tuple(rows)


class _Fleets:
    """Answers of fleets on the record sets an audit needs, and what the reader must know about the models."""

    def __init__(self, prepared: PreparedAudit, workspace: "Workspace") -> None:
        design = prepared.design
        self.prepared, self.workspace = prepared, workspace
        self.population = design.records(0, Role.POPULATION)
        self.test = design.records(0, Role.TEST)
        self.accuracy: dict[str, float] = {}
        self.models: dict[str, tuple[ModelRef, ...]] = {}

    def labels(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of records, in the order given."""
        labels: NDArray[np.int64] = self.prepared.dataset.labels[self.prepared.dataset.positions(ids)]
        return labels

    def answers(self, name: str, models: "tuple[ModelRef, ...]") -> FleetAnswers:
        """Record a fleet's logits on audited, population and test records; one inference pass serves all attacks."""
        audited = self.prepared.design.audited
        ids = np.concatenate([audited, self.population, self.test])
        groups = self.prepared.query_groups
        logits = self.workspace.answers(models, ids, queries=groups[0])
        test = logits[:, audited.size + self.population.size :, :1]
        if len(groups) > 1:
            asked = ids[: audited.size + self.population.size]
            more = [self.workspace.answers(models, asked, queries=group) for group in groups[1:]]
            logits = np.concatenate([logits[:, : asked.size], *more], axis=2)
        n, z = audited.size, self.population.size
        fleet = FleetAnswers(
            audited=logits[:, :n],
            population=logits[:, n : n + z] if z else None,
            test=test if self.test.size else None,
            queries=tuple(query for group in groups for query in group),
            oracles=self.workspace.oracles(models) if self.prepared.live else None,
        )
        self.models[name] = models
        if fleet.test is not None:
            right = fleet.test[:, :, 0, :].argmax(axis=-1) == self.labels(self.test)
            self.accuracy[name] = float(right.mean())
        return fleet

    def structure(self, models: "tuple[ModelRef, ...]") -> Endpoint:
        """P6: search each model for the rows it had to forget; models adopted without weights are left out."""
        from mnemoscope.audit.models.contents import record_forms, rows_inside

        found = searched = 0
        for ref in models:
            if ref.weights is None:
                continue
            forgotten = self.prepared.design.records(ref.index, Role.FORGOTTEN)
            forms = record_forms(self.workspace.device_data, forgotten)
            found += int(rows_inside(self.workspace.model(ref).state_dict(), forms).sum())
            searched += int(forgotten.size)
        return structure_endpoint(found, searched)

    def gates(self, committed: bool) -> list[GateResult]:
        """G5 to G8 that concern models and plan."""
        return [
            self._identity(),
            self._references(),
            GateResult(
                "G8",
                "plan",
                "the plan's digest is fixed before the first score",
                "pass" if committed else "fail",
                "committed before any model was trained" if committed else "an earlier plan was already scored here",
                "exploratory",
            ),
        ]

    def _identity(self) -> GateResult:
        """G5: what the retrained models saw, by the trainer's record, holds nothing that was to be forgotten."""
        design = self.prepared.design
        refs = [ref for name in ("retrained A", "retrained B") for ref in self.models[name]]
        recorded = [ref for ref in refs if self.workspace.has_seen_ids(ref)]
        tainted = sum(
            bool(np.isin(design.records(ref.index, Role.FORGOTTEN, Role.NEVER), self.workspace.seen_ids(ref)).any())
            for ref in recorded
        )
        silent = len(refs) - len(recorded)
        observed = f"{tainted} of {len(recorded)} retrained models saw such a record, by the trainer's own record"
        return GateResult(
            "G5",
            "identity",
            "answers come from the models listed, by digest; retrained models never saw a forgotten record",
            "fail" if tainted else "not run" if silent else "pass",
            observed + (f"; {silent} were made elsewhere and have none" if silent else ""),
            "NOT ASSESSED",
        )

    def _references(self) -> GateResult:
        """G7: enough retrained models."""
        m, policy = self.prepared.design.n_models, self.prepared.policy
        rule = f"at least {policy.min_references} retrained models with different seeds"
        observed = f"{m} retrained models in each of two fleets"
        if {"before", "retrained A"} <= self.accuracy.keys():
            # Twins share the recipe and differ in the amount of data alone: their gap is printed, it is no fault.
            gap = self.accuracy["before"] - self.accuracy["retrained A"]
            observed += f"; accuracy before minus retrained {gap:+.2%}, by less data alone"
        good = m >= policy.min_references
        return GateResult("G7", "references", rule, "pass" if good else "fail", observed, "tier")

    def groups(self, name: str, models: "tuple[ModelRef, ...]", method: str) -> tuple[ModelGroup, ...]:
        """The groups of models behind one subject, with digests."""

        def group(label: str, role: Any, refs: "tuple[ModelRef, ...]", text: str, how: str = "") -> ModelGroup:
            return ModelGroup(label, role, len(refs), self.workspace.fleet_digest(refs), text, how)

        return (
            group("before", "before", self.models["before"], "trained on background, kept and forgotten records"),
            group(name, "after", models, "the same models after deletion", method),
            group("retrained A", "retrained", self.models["retrained A"], "reference: trained without the forgotten"),
            group("retrained B", "retrained", self.models["retrained B"], "negative control: other seeds"),
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    kept = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, kept) else str(value) for key, value in settings.items()}
