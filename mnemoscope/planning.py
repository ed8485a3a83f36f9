"""Before any work: what a plan will train and how long it takes, and work orders for training it elsewhere."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.audit.records.design import Role
from mnemoscope.audit.verdict.procedure_scores import reads_both
from mnemoscope.audit.work.plan import Plan
from mnemoscope.pipeline import open_workspace
from mnemoscope.preparation import PreparedAudit
from mnemoscope.progress import Progress
from mnemoscope.requests import after_request

if TYPE_CHECKING:
    from mnemoscope.audit.work.exchange import ExportReport
    from mnemoscope.audit.work.orders import FleetName, Replica

__all__ = ["check_plan", "export_orders"]

TRIAL_STEPS = 8
FLEETS: tuple[tuple["FleetName", "Replica"], ...] = (("before", "A"), ("retrained", "A"), ("retrained", "B"))


def _fleets(prepared: PreparedAudit) -> list[tuple["FleetName", "Replica"]]:
    """The fleets an audit trains: a subject that retrains and attacks on both versions each want one more.

    Several requests want those that are retrained once for each.
    """
    from mnemoscope.unlearning.retrain import Retrain

    more: list[tuple[FleetName, Replica]] = []
    if any(isinstance(method, Retrain) for method in prepared.methods):
        more.append(("retrained", "C"))
    if any(reads_both(attack) for attack in prepared.attacks):
        more.append(("before", "B"))
    return [*FLEETS, *more]


def check_plan(plan: Plan, *, store: str | Path, progress: Progress | None = None) -> str:
    """Describe what a plan will do; nothing is trained but a few steps to measure the time.

    Raises:
        InvalidInput: an entry that is not allowed, or a data set with too few records.
        MissingNeed: attacks that lack something, all listed.
    """
    from mnemoscope.audit.models.protocol import trainer_of
    from mnemoscope.audit.work.store import Store

    prepared = PreparedAudit(plan, store=Store(store), progress=progress)
    subjects = prepared.subjects
    own = sum(trainer_of(method) is not None for method in prepared.methods)
    requests = prepared.requests.total
    fleets = len(plan.defences.dp_noise) + sum(
        (1 + own * ((name, replica) != ("retrained", "C"))) * (requests if name == "retrained" else 1)
        for name, replica in _fleets(prepared)
    )
    design = prepared.design
    each = _seconds_a_model(prepared)
    todo = fleets * design.n_models
    chosen = "none: the counts bear no rate" if prepared.alpha is None else f"{prepared.alpha:g}"
    lines = [
        f"plan        {plan.name}, digest {plan.digest}",
        f"data        {prepared.dataset.name}: {prepared.dataset.ids.size:,} records, "
        f"{len(prepared.dataset.classes)} classes",
        "roles       "
        + ", ".join(f"{role.name.lower()} {n:,}" for role, n in _counts(prepared))
        + " in model 0"
        + (" after the first request" if requests > 1 else ""),
        f"to train    {fleets} fleets of {design.n_models} models: {todo}; then {len(subjects)} ways of deleting: "
        + ", ".join(subject.name for subject in subjects)
        + (f"; {requests} requests one after another, retrained models and an audit for each" if requests > 1 else ""),
        f"time        about {each:.2g} s a model one by one, so at most {todo * each / 60:.1f} min for the fleets, "
        "less where models are trained together or in the store already; the methods come on top",
        f"attacks     {', '.join(attack.name for attack in prepared.attacks)}; primary: {prepared.primary}",
        "power       " + ", ".join(f"{p.value:.2f} at alpha {p.alpha:g}" for p in prepared.powers),
        f"alpha       {chosen}",
    ]
    return "\n".join(lines)


def _counts(prepared: PreparedAudit) -> list[tuple[Role, int]]:
    first = prepared.design.role[0]
    return [(role, n) for role in Role if (n := int((first == role).sum()))]


def _seconds_a_model(prepared: PreparedAudit) -> float:
    """Seconds that training one model takes, from a few steps."""
    from mnemoscope.audit.models.training import fit, fresh_model

    workspace = open_workspace(prepared)
    recipe, data, runtime = workspace.recipe, workspace.device_data, workspace.runtime
    ids = prepared.design.records(0, Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN)
    module = fresh_model(recipe, data, seed=0)
    prepared.check_private_layers(module)
    steps = -(-ids.size // recipe.batch_size) * recipe.epochs

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        fit(module, recipe, data, ids, seed=0, runtime=runtime, max_steps=count)
        return time.perf_counter() - begun

    seconds(1)  # what happens once in a process is no part of a model's time
    return max(seconds(1 + TRIAL_STEPS) - seconds(1), 0.0) / TRIAL_STEPS * steps


def export_orders(plan: Plan, folder: Path, *, store: str | Path, progress: Progress | None = None) -> "ExportReport":
    """Write one work order for each model of a plan's fleets that the store does not hold.

    Raises:
        StoreError: the folder cannot be written.
    """
    from mnemoscope.audit.work.exchange import export_plan
    from mnemoscope.audit.work.store import Store

    prepared = PreparedAudit(plan, store=Store(store), progress=progress)
    design = prepared.design
    # The order in which an audit asks its models: an adopted logits file stands in for exactly these answers.
    asked = np.concatenate([design.audited, design.records(0, Role.POPULATION), design.records(0, Role.TEST)])
    reports = [
        export_plan(
            open_workspace(after_request(prepared, number)),
            folder,
            ids=asked,
            queries=plan.attacks.queries,
            fleets=[one for one in _fleets(prepared) if number == 1 or one[0] == "retrained"],
            answers_suffice=not prepared.live and len(prepared.query_groups) == 1,
        )
        for number in range(1, prepared.requests.total + 1)
    ]
    orders = tuple(order for report in reports for order in report.orders)
    return replace(reports[0], orders=orders, present=sum(report.present for report in reports))
