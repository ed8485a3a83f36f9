"""One-model mode end to end: two checkpoints of the user's own model, before and after a deletion."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.checks import check_resolution
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.verdict.endpoints import structure_endpoint
from mnemoscope.audit.verdict.onemodel import PROBABLY_WRONG, TESTED, audit_one_model, plan_one_model, sanity_check
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, leave_out_uncovered, runnable
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy, load_policy
from mnemoscope.audit.verdict.result import AuditResult, Check, Cost, DataSummary, Endpoint, GateResult, RecordSet
from mnemoscope.companions import Workbench, checkpoints_in, choose_recipe, shadow_sides
from mnemoscope.guard import check_seed
from mnemoscope.progress import Progress, Quiet
from mnemoscope.provenance import LIMITATIONS, environment, timestamp

if TYPE_CHECKING:
    from mnemoscope.audit.answers.protocols import Attack
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.records.datasets import Dataset

__all__ = ["Comparison", "run_compare"]

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """What is compared, and on which records.

    Records are given as ``--forget`` takes them: keys, ids, a folder, ``class:3``, ``random:600``, a CSV file.

    Attributes:
        before: checkpoint before deletion.
        after: checkpoint after deletion.
        model: the user's ``subject.py``.
        data: image folder, ``.npz`` with x and y, CSV table, or a data set's name.
        forget: records that were to be forgotten.
        holdout: records that no model ever saw.
        retain: records that stayed; None leaves the question whether they became exposed open.
        retrained_models: folder of checkpoints retrained without the forget and holdout records.
        references: how many such models to train here, on all records but forget, holdout and population.
        recipe: how they are trained: a name or a TOML file.
        shadow_models: how many shadow models to train here, or a folder of checkpoints, each with a CSV file of the
            same name that lists the records it was trained on.
        population: records that no model ever saw, for attacks that compare with a population.
        served_digest: sha256 of the checkpoint declared as being in service.
        label_column: label column of a CSV table.
        data_root: folder of torchvision's data sets.
        download: whether torchvision may fetch a named data set that is missing.
        policy: bounds and levels, a TOML file.
        alpha: false positive rate of the endpoints; None = chosen from counts.
        device: "auto", "cpu", "cuda", ...
        seed: root of every random draw.
        store: folder of finished work.
    """

    before: Path
    after: Path
    model: Path
    data: str
    forget: str
    holdout: str
    retain: str | None = None
    retrained_models: Path | None = None
    references: int = 0
    recipe: str | None = None
    shadow_models: str | int | None = None
    population: str | None = None
    served_digest: str | None = None
    label_column: str | None = None
    data_root: Path | None = None
    download: bool = False
    policy: Policy | Path | str | None = None
    alpha: float | None = None
    device: str = "auto"
    seed: int = 0
    store: str | Path = field(default=".mnemoscope")

    def __post_init__(self) -> None:
        if self.references and self.retrained_models is not None:
            raise InvalidInput(
                f"references={self.references} and retrained_models={self.retrained_models}: give one of them"
            )
        if self.references < 0:
            raise InvalidInput(f"references={self.references}: must be 0 or more")
        check_seed(self.seed)
        if self.served_digest is not None:
            bare = self.served_digest.removeprefix("sha256:").lower()
            if len(bare) != 64 or not set(bare) <= set("0123456789abcdef"):
                raise InvalidInput(f"served_digest={self.served_digest!r}: must be a sha256, 64 hex digits")
        self._check_companions()

    def _check_companions(self) -> None:
        """Folders and counts of other models, before any is trained."""
        if self.retrained_models is not None:
            checkpoints_in(self.retrained_models)
        if self.shadow_models is None:
            return
        if not str(self.shadow_models).isdecimal():
            for path in checkpoints_in(Path(str(self.shadow_models))):
                _members_file(path)
        elif int(self.shadow_models) < 2:
            raise InvalidInput(
                f"shadow_models={self.shadow_models}: at least 2 are needed, one with each record and one without"
            )

    def rules(self) -> Policy:
        """The policy with the given alpha."""
        policy = load_policy(self.policy)
        return policy if self.alpha is None else replace(policy, alpha=self.alpha)


@dataclass(frozen=True, eq=False)
class Records:
    """Who plays which part; groups are disjoint.

    Attributes:
        ids: (n,) int64 of all groups.
        group: (n,) int8 of ``Group``.
    """

    ids: Ids
    group: NDArray[np.int8]

    def of(self, *groups: Group) -> Ids:
        """Ids of some groups."""
        return self.ids[np.isin(self.group, groups)]


def select(question: Comparison, dataset: "Dataset") -> Records:
    """Find the records of each group in the data set.

    Raises:
        InvalidInput: unknown records, an empty group, or groups that share records (named by key).
    """
    from mnemoscope.audit.records.request import select_records

    wanted = {
        Group.FORGET: question.forget,
        Group.HOLDOUT: question.holdout,
        Group.RETAIN: question.retain,
        Group.POPULATION: question.population,
    }
    parts = {
        group: select_records(dataset, spec, seed=child_seed(question.seed, "select", group.name))
        for group, spec in wanted.items()
        if spec is not None
    }
    seen: dict[int, Group] = {}
    for group, ids in parts.items():
        shared = [int(i) for i in ids if int(i) in seen]
        if shared:
            keys = ", ".join(dataset.keys_of(np.array(shared[:3], np.int64)))
            other = seen[shared[0]].name.lower()
            raise InvalidInput(
                f"{group.name.lower()} and {other} share {len(shared)} records ({keys}, ...); "
                "a record plays one part: remove them from one of the two"
            )
        seen |= dict.fromkeys(map(int, ids), group)
    ids = np.concatenate(list(parts.values()))
    group_of = np.concatenate([np.full(ids.size, group, np.int8) for group, ids in parts.items()])
    return Records(ids, group_of)


def run_compare(question: Comparison, *, progress: Progress | None = None) -> AuditResult:
    """Audit two checkpoints.

    Args:
        question: what is compared, and on which records.
        progress: told of steps.

    Returns:
        The result in one-model mode, with one subject.

    Raises:
        InvalidInput: records, checkpoints or options that cannot be used; or an accuracy on holdout records near
            chance, which means that labels or preprocessing are probably wrong. Nothing was trained then.
    """
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.subject import load_subject
    from mnemoscope.audit.records.datasets import load_dataset
    from mnemoscope.audit.work.store import Store

    told = progress or Quiet()
    policy, clock = question.rules(), _Clock()
    for path in (question.before, question.after):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "there is no such checkpoint"
            raise InvalidInput(f"{path}: {what}; give a safetensors or state_dict file")
    dataset = load_dataset(
        question.data,
        data_root=question.data_root,
        download=question.download,
        label_column=question.label_column,
    )
    records = select(question, dataset)
    forget, holdout = records.of(Group.FORGET), records.of(Group.HOLDOUT)
    check_resolution(forget.size, holdout.size, max(policy.candidates()))
    runtime = Runtime(device=question.device)
    data = DeviceData(dataset, runtime.torch_device(), subject=load_subject(question.model))
    bench = Workbench(data, dataset, Store(question.store), runtime, question.seed, told)
    clock.lap("read the records")
    labels = dataset.labels[dataset.positions(records.ids)]
    after = bench.delivered(question.after, records.ids)
    before = bench.delivered(question.before, records.ids)
    _stop_when_near_chance(after, labels, records, policy)
    clock.lap("ask the two models")
    retrained, trained, note = _retrained(question, bench, records)
    shadow, side = _shadow(question, bench, records)
    clock.lap("companion models", trained)
    inputs = OneModelInput(
        records.ids, labels, records.group, after, before, retrained, shadow, side if shadow is not None else None
    )
    inputs, uncovered = leave_out_uncovered(inputs)
    checks, duplicates, drift = _record_checks(dataset, records, policy, question.seed)
    if uncovered:
        remedy = "add shadow models, so that each record is in some of them and out of others"
        title = "reference models on both sides of every record"
        checks = (*checks, Check("coverage", title, "fail", uncovered, remedy))
    clock.lap("check the records")
    attacks = _attacks(inputs)
    found = audit_one_model(
        inputs,
        attacks,
        plan=plan_one_model(inputs, attacks, policy=policy, seed=question.seed),
        name=question.after.name,
        method="as delivered",
        duplicates=duplicates,
        identity=_identity(question, note),
        drift=drift,
        structure=_structure(question, data, records),
        hint="" if retrained is not None else "retrained models (--references 5) would show what such models score",
    )
    clock.lap("attacks, endpoints and verdict")
    own = [check for check in found.checks if check.id not in {c.id for c in checks}]
    accuracy = _accuracy(before, after, labels, records)
    return AuditResult(
        title=f"{question.before.name} and {question.after.name}",
        mode="one-model",
        created_at=timestamp(),
        data=_summary(dataset, records, (*checks, *own, accuracy)),
        plan=found.plan,
        limits=found.limits,
        subjects=(replace(found.subject, models=_with_file_digests(found.subject.models, question)),),
        environment=environment(str(data.device)),
        costs=tuple(clock.costs),
        not_run=found.not_run,
        limitations=LIMITATIONS,
    )


def _structure(question: Comparison, data: "DeviceData", records: Records) -> Endpoint:
    """P6: search the delivered checkpoint for the forget records."""
    from mnemoscope.audit.models.checkpoints import load_state
    from mnemoscope.audit.models.contents import record_forms, rows_inside

    forget = records.ids[records.group == Group.FORGET]
    state, _ = load_state(question.after)
    return structure_endpoint(int(rows_inside(state, record_forms(data, forget)).sum()), int(forget.size))


def _attacks(inputs: OneModelInput) -> "list[Attack]":
    """The default attacks; an offline variant is left out where the online one can run."""
    from mnemoscope.attacks import ATTACKS, DEFAULT_ATTACKS

    attacks = [ATTACKS[name]() for name in DEFAULT_ATTACKS]
    able = {attack.name for attack in runnable(inputs, attacks, TESTED)[0]}
    return [a for a in attacks if not (a.name.endswith("_offline") and a.name.removesuffix("_offline") in able)]


def _stop_when_near_chance(logits: Logits, labels: Ids, records: Records, policy: Policy) -> None:
    """The sanity line, before any model is trained for hours on wrong labels."""
    rows = records.group == Group.HOLDOUT
    predicted = logits[rows, 0].argmax(axis=-1).astype(np.int64)
    check = sanity_check(predicted == labels[rows], labels[rows], predicted, policy)
    if check.status == "fail":
        raise InvalidInput(f"{PROBABLY_WRONG}: on holdout records {check.observed}. Check classes and transform")


def _retrained(question: Comparison, bench: Workbench, records: Records) -> tuple[Logits | None, int, str]:
    """Retrained models' answers (r, n, 1, c), how many were trained now, and what is known of their data."""
    if question.retrained_models is not None:
        paths = checkpoints_in(question.retrained_models)
        logits = np.stack([bench.delivered(path, records.ids) for path in paths])
        return logits, 0, f"{len(paths)} retrained models as delivered: their training records were not checked"
    if not question.references:
        return None, 0, ""
    unseen = records.of(Group.FORGET, Group.HOLDOUT, Group.POPULATION)
    rest = np.setdiff1d(bench.dataset.ids, unseen)
    if rest.size == 0:
        raise InvalidInput("--references: no record is left to train on; --data must hold more than forget and holdout")
    assert bench.data.subject is not None
    recipe = choose_recipe(question.recipe, subject=bench.data.subject.digest, is_image=bench.data.is_image)
    logits, trained, _ = bench.train("retrained", recipe, [rest] * question.references, records.ids)
    return logits, trained, f"{question.references} retrained models saw none of {unseen.size} records held out"


def _shadow(question: Comparison, bench: Workbench, records: Records) -> tuple[Logits | None, NDArray[np.int8]]:
    """Shadow models' answers (m, n, 1, c) and sides (m, n)."""
    none = np.empty((0, records.ids.size), np.int8)
    if question.shadow_models is None:
        return None, none
    if not str(question.shadow_models).isdecimal():
        return _shadow_folder(Path(str(question.shadow_models)), bench, records)
    count = int(question.shadow_models)
    played = np.isin(records.group, (Group.FORGET, Group.HOLDOUT))
    side = np.full((count, records.ids.size), -1, np.int8)
    side[:, played] = shadow_sides(count, int(played.sum()), rng=generator(question.seed, "compare", "sides"))
    side[:, records.group == Group.RETAIN] = 1
    side[:, records.group == Group.POPULATION] = 0
    rest = np.setdiff1d(bench.dataset.ids, records.of(Group.FORGET, Group.HOLDOUT, Group.POPULATION))
    assert bench.data.subject is not None
    recipe = choose_recipe(question.recipe, subject=bench.data.subject.digest, is_image=bench.data.is_image)
    chosen = [np.union1d(rest, records.ids[row == 1]) for row in side]
    return bench.train("shadow", recipe, chosen, records.ids)[0], side


def _shadow_folder(folder: Path, bench: Workbench, records: Records) -> tuple[Logits, NDArray[np.int8]]:
    from mnemoscope.audit.records.request import select_records

    logits, sides = [], []
    for path in checkpoints_in(folder):
        seen = select_records(bench.dataset, str(_members_file(path)), seed=0)
        sides.append(np.isin(records.ids, seen).astype(np.int8))
        logits.append(bench.delivered(path, records.ids))
    return np.stack(logits), np.stack(sides)


def _members_file(checkpoint: Path) -> Path:
    """The list of records beside a shadow model's checkpoint."""
    members = checkpoint.with_suffix(".csv")
    if not members.is_file():
        raise InvalidInput(f"{checkpoint}: {members.name} is missing; it must list the records this model saw")
    return members


def _record_checks(
    dataset: "Dataset", records: Records, policy: Policy, seed: int
) -> tuple[tuple[Check, ...], GateResult, GateResult]:
    """Duplicates of forget records elsewhere (G4), and whether forget and holdout differ without any model."""
    from mnemoscope.audit.records.drift import blind_baseline
    from mnemoscope.audit.records.duplicates import find_duplicates

    forget, holdout = records.of(Group.FORGET), records.of(Group.HOLDOUT)
    # Only records that stayed, or never came, can betray a forgotten one: its copies within the request go with it.
    others = np.setdiff1d(dataset.ids, forget)
    found = find_duplicates(dataset, forget, others, near=policy.duplicate_distance)
    alike = found.share <= policy.max_duplicate_share
    duplicates = GateResult(
        "G4",
        "disjointness",
        f"at most {policy.max_duplicate_share:.0%} of the forget records have an exact or near duplicate elsewhere",
        "pass" if alike else "fail",
        f"{found.n_exact} exact and {found.n_near} near pairs; {found.share:.2%} of {forget.size} forget records",
        "INCONCLUSIVE",
    )
    blind = blind_baseline(dataset.get(forget), dataset.get(holdout), rng=generator(seed, "blind baseline"))
    drifted = blind.p_value < policy.drift_level
    observed = f"AUC {blind.auc.value:.3f} without the model, p = {blind.p_value:.3f}"
    drift = GateResult(
        "drift",
        "blind baseline",
        f"a classifier without the model does not tell forget from holdout (p at least {policy.drift_level:g})",
        "fail" if drifted else "pass",
        observed,
        "INCONCLUSIVE",
    )
    checks = (
        Check("duplicates", "copies of forget records", duplicates.status, duplicates.observed, "remove the copies"),
        Check("drift", "forget against holdout, no model", drift.status, observed, "draw both from one source"),
    )
    return checks, duplicates, drift


def _identity(question: Comparison, note: str) -> GateResult:
    """G5: the tested artefact is the one declared as served."""
    tested = _file_digest(question.after)
    served = question.served_digest
    observed = f"tested: {tested}"
    if served is not None:
        bare = served.removeprefix("sha256:").lower()
        same = bare == tested.removeprefix("sha256:")
        observed += "; the one declared as served" if same else f"; declared as served: sha256:{bare}"
    else:
        observed += "; no digest was declared as served (--served-digest)"
    return GateResult(
        "G5",
        "identity",
        "the tested artefact is the one that is served; retrained data exclude the forget set",
        "not run" if served is None else "pass" if same else "fail",
        observed + (f"; {note}" if note else ""),
        "NOT ASSESSED",
    )


def _accuracy(before: Logits, after: Logits, labels: Ids, records: Records) -> Check:
    def right(logits: Logits, group: Group) -> str:
        rows = records.group == group
        hits = int((logits[rows, 0].argmax(axis=-1) == labels[rows]).sum())
        return f"{hits}/{int(rows.sum())}"

    text = "; ".join(
        f"{group.name.lower()} {right(before, group)} before, {right(after, group)} after"
        for group in (Group.FORGET, Group.HOLDOUT)
    )
    return Check("accuracy", "accuracy before and after", "pass", text)


def _summary(dataset: "Dataset", records: Records, checks: tuple[Check, ...]) -> DataSummary:
    from mnemoscope.audit.work.keys import ids_digest

    sets = tuple(
        RecordSet(group.name.lower(), int(ids.size), ids_digest(np.sort(ids)))
        for group in Group
        if (ids := records.of(group)).size
    )
    shape = tuple(int(s) for s in dataset.values.shape[1:])
    return DataSummary(dataset.name, dataset.digest, int(dataset.ids.size), len(dataset.classes), shape, sets, checks)


def _with_file_digests(models: Any, question: Comparison) -> Any:
    files: dict[str, Path] = {"before": question.before, "after": question.after}
    return tuple(
        replace(group, digest=_file_digest(files[group.role]), description=f"file {files[group.role].name}")
        if group.role in files
        else group
        for group in models
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class _Clock:
    """Seconds of each step, in order."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        import time

        self._now = now or time.perf_counter
        self._last = self._now()
        self.costs: list[Cost] = []

    def lap(self, step: str, computed: int = 0) -> None:
        """Close a step."""
        now = self._now()
        self.costs.append(Cost(step, round(now - self._last, 3), computed))
        self._last = now
