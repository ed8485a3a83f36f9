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
from mnemoscope.audit.verdict.endpoints import structure_endpoint
from mnemoscope.audit.verdict.onemodel import PROBABLY_WRONG, TESTED, audit_one_model, plan_one_model, sanity_check
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, leave_out_uncovered, runnable
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy, load_policy
from mnemoscope.audit.verdict.policy_file import policy_record
from mnemoscope.audit.verdict.result import AuditResult, Check, Cost, Endpoint, GateResult
from mnemoscope.companions import Workbench, checkpoints_in
from mnemoscope.compared_models import members_file, retrained_answers, shadow_answers
from mnemoscope.compared_records import Records, accuracy_check, data_summary, record_checks, select
from mnemoscope.evidence import EvidenceFolder
from mnemoscope.guard import check_seed
from mnemoscope.model_evidence import ModelEvidence
from mnemoscope.progress import Progress, Quiet
from mnemoscope.provenance import LIMITATIONS, environment, timestamp
from mnemoscope.published_numbers import published_numbers

if TYPE_CHECKING:
    from mnemoscope.audit.answers.protocols import Attack
    from mnemoscope.audit.models.data import DeviceData

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
                members_file(path)
        elif int(self.shadow_models) < 2:
            raise InvalidInput(
                f"shadow_models={self.shadow_models}: at least 2 are needed, one with each record and one without"
            )

    def rules(self) -> Policy:
        """The policy with the given alpha."""
        policy = load_policy(self.policy)
        return policy if self.alpha is None else replace(policy, alpha=self.alpha)


def run_compare(
    question: Comparison, *, out: Path | None = None, key: Path | None = None, progress: Progress | None = None
) -> AuditResult:
    """Audit two checkpoints.

    Args:
        question: what is compared, and on which records.
        out: folder that receives the evidence; ``result.json`` is written there by the caller. None writes nothing.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.
        progress: told of steps.

    Returns:
        The result in one-model mode, with one subject.

    Raises:
        InvalidInput: records, checkpoints or options that cannot be used; or an accuracy on holdout records near
            chance, which means that labels or preprocessing are probably wrong. Nothing was trained then.
    """
    with EvidenceFolder(out, key) as evidence:
        return _carry_out(question, evidence, progress)


def _carry_out(question: Comparison, evidence: EvidenceFolder, progress: Progress | None) -> AuditResult:
    from mnemoscope.attacks import ATTACKS, DEFAULT_VERSION_ATTACKS_ALONE
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
    retrained, trained, note = retrained_answers(question, bench, records)
    shadow, side = shadow_answers(question, bench, records)
    clock.lap("companion models", trained)
    inputs = OneModelInput(
        records.ids, labels, records.group, after, before, retrained, shadow, side if shadow is not None else None,
        classes=dataset.classes, keys=tuple(dataset.keys_of(records.ids)),
    )  # fmt: skip
    inputs, uncovered = leave_out_uncovered(inputs)
    checks, duplicates, drift = record_checks(dataset, records, policy, question.seed)
    if uncovered:
        remedy = "add shadow models, so that each record is in some of them and out of others"
        title = "reference models on both sides of every record"
        checks = (*checks, Check("coverage", title, "fail", uncovered, remedy))
    clock.lap("check the records")
    attacks = _attacks(inputs)
    plan = plan_one_model(inputs, attacks, policy=policy, seed=question.seed)
    kept = ModelEvidence(evidence)
    kept.begin(inputs, plan.summary().digest)
    found = audit_one_model(
        inputs,
        attacks,
        plan=plan,
        name=question.after.name,
        method="as delivered",
        duplicates=duplicates,
        identity=_identity(question, note),
        drift=drift,
        structure=_structure(question, data, records),
        version_attacks=[ATTACKS[name]() for name in DEFAULT_VERSION_ATTACKS_ALONE],
        hint="" if retrained is not None else "retrained models (--references 5) would show what such models score",
    )
    kept.add(inputs, found, found.subject.verdict)
    kept.close("one-model", found.plan, policy, tuple({"name": a.name, "settings": {}} for a in plan.attacks))
    clock.lap("attacks, endpoints and verdict")
    own = [check for check in found.checks if check.id not in {c.id for c in checks}]
    accuracy = accuracy_check(before, after, labels, records)
    result = AuditResult(
        title=f"{question.before.name} and {question.after.name}",
        mode="one-model",
        created_at=timestamp(),
        data=data_summary(dataset, records, (*checks, *own, accuracy), evidence),
        plan=replace(found.plan, decided=policy_record(question.policy)),
        limits=found.limits,
        subjects=(
            replace(
                found.subject,
                models=_with_file_digests(found.subject.models, question),
                measured=published_numbers(inputs, level=policy.interval_level, seed=question.seed),
            ),
        ),
        environment=environment(str(data.device)),
        costs=tuple(clock.costs),
        not_run=found.not_run,
        limitations=LIMITATIONS,
    )
    return evidence.finish(result)


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
