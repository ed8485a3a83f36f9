"""Audit from predictions alone: one ``.npz`` file of answers in, one result out. No torch, no model, no pickle.

Arrays of the file (n records, c classes, r retrained and m shadow models):

| array | shape | meaning |
|---|---|---|
| ``logits`` or ``probs`` | (n, c) or (n, q, c) | the audited model's answers; q queries a record |
| ``labels`` | (n,) | true classes |
| ``member`` | (n,) 0/1 | who was trained on: leakage of one model, no deletion verdict |
| ``role`` | (n,) text | forget, holdout, retain, calibration or population: a deletion audit |
| ``before_logits`` / ``before_probs`` | as above | the model before deletion |
| ``retrained_logits`` / ``retrained_probs`` | (r, n, c) | models retrained without all but the retain records |
| ``shadow_logits`` / ``shadow_probs`` | (m, n, c) | the attacker's models |
| ``side`` | (m, n) 1/0/-1 | whether each shadow model was trained on each record (-1: leave out) |
| ``calibration_logits`` / ``_probs``, ``_labels``, ``_member`` | (k, c), (k,), (k,) | another model's records |
| ``ids`` | (n,) | record numbers, unique; 0 to n - 1 without it |
"""

import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks import ATTACKS, DEFAULT_ATTACKS, DEFAULT_VERSION_ATTACKS_ALONE
from mnemoscope.audit.answers.checks import (
    check_labels,
    check_logits,
    check_pool,
    check_probabilities,
    check_resolution,
    check_shape,
    to_logits,
)
from mnemoscope.audit.answers.protocols import Attack
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.membership import audit_membership
from mnemoscope.audit.verdict.onemodel import OneModelAudit, audit_one_model, plan_one_model, record_sets
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy, load_policy
from mnemoscope.audit.verdict.policy_file import policy_record
from mnemoscope.audit.verdict.result import AuditResult, Cost, DataSummary, RecordSet
from mnemoscope.evidence import EvidenceFolder
from mnemoscope.model_evidence import ModelEvidence
from mnemoscope.provenance import LIMITATIONS, environment, timestamp
from mnemoscope.published_numbers import published_numbers

__all__ = ["KNOWN_ARRAYS", "read_scores", "run_scores"]

Logits = NDArray[np.float32]
Mode = Literal["one-model", "membership"]
ANSWERS = ("", "before_", "retrained_", "shadow_", "calibration_")
KNOWN_ARRAYS = frozenset(
    [f"{prefix}{kind}" for prefix in ANSWERS for kind in ("logits", "probs")]
    + ["labels", "member", "role", "side", "calibration_labels", "calibration_member", "ids"]
)
SHORT = {"before": "before_logits", "retrained": "retrained_logits", "shadow": "shadow_logits"}
"""Names that are easily forgotten to end in _logits or _probs; said in the error."""


def run_scores(
    file: Path | str,
    *,
    out: Path | None = None,
    policy: Policy | Path | str | None = None,
    alpha: float | None = None,
    seed: int = 0,
    title: str | None = None,
    force: bool = False,
    key: Path | None = None,
) -> AuditResult:
    """Audit recorded predictions.

    Args:
        file: the ``.npz`` file, see the module's table.
        out: folder that receives the evidence; ``result.json`` is written there by the caller. None writes nothing.
        policy: bounds and levels, or a TOML file with them.
        alpha: false-alarm rate of the endpoints; None = chosen from counts.
        seed: root seed.
        title: of the report; None names the file.
        force: go on although the accuracy on never-seen records is near chance.
        key: the controller's key file for pseudonyms and commitments; None makes one in ``out``.

    Returns:
        The complete result: mode "one-model" with ``role``, "membership" with ``member``.

    Raises:
        InvalidInput: anything in the file that cannot be used, by name, with what is allowed and the remedy.
    """
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InvalidInput(f"out={out}: is a file; give a folder")
    rules = load_policy(policy)
    if alpha is not None:
        rules = replace(rules, alpha=alpha)
    with EvidenceFolder(out, key) as evidence:
        result = _carry_out(Path(file), evidence, rules, seed=seed, title=title, force=force)
        return evidence.finish(replace(result, plan=replace(result.plan, decided=policy_record(policy))))


def _carry_out(
    path: Path, evidence: EvidenceFolder, rules: Policy, *, seed: int, title: str | None, force: bool
) -> AuditResult:
    clock = _Clock()
    with clock.step("read and check predictions"):
        inputs, mode = read_scores(path)
        never = inputs.count(Group.HOLDOUT) + inputs.count(Group.CALIBRATION)
        check_resolution(inputs.count(Group.FORGET), never, max(rules.candidates()))
    attacks: list[Attack] = [ATTACKS[name]() for name in DEFAULT_ATTACKS]
    both: list[Attack] = [ATTACKS[name]() for name in DEFAULT_VERSION_ATTACKS_ALONE]
    with clock.step("choose alpha from counts"):
        plan = plan_one_model(inputs, _best_variants(inputs, attacks), policy=rules, seed=seed)
    kept = ModelEvidence(evidence)
    kept.begin(inputs, plan.summary().digest)
    with clock.step("attacks, endpoints and verdict"):
        found: OneModelAudit = (
            audit_one_model(inputs, attacks, plan=plan, name=path.stem, force=force, version_attacks=both)
            if mode == "one-model"
            else audit_membership(inputs, plan, name=path.stem, force=force)
        )
    subject = found.subject
    kept.add(inputs, found, subject.verdict)
    kept.close(mode, found.plan, rules, tuple({"name": a.name, "settings": {}} for a in plan.attacks))
    if mode == "one-model":
        with clock.step("numbers of published tables"):
            subject = replace(subject, measured=published_numbers(inputs, level=rules.interval_level, seed=seed))
    sets, digest = _committed(inputs, mode, evidence)
    data = DataSummary(
        path.name, digest, int(inputs.ids.size), int(inputs.after.shape[-1]), tuple(inputs.after.shape[1:]), sets,
        found.checks,
    )  # fmt: skip
    return AuditResult(
        title=title or f"Audit of {path.name}",
        mode=mode,
        created_at=timestamp(),
        data=data,
        plan=found.plan,
        limits=found.limits,
        subjects=(subject,),
        environment=environment("cpu"),
        costs=tuple(clock.costs),
        not_run=found.not_run,
        limitations=LIMITATIONS,
    )


LABEL = "its label: the records themselves were not given"


def _committed(inputs: OneModelInput, mode: Mode, evidence: EvidenceFolder) -> tuple[tuple[RecordSet, ...], str]:
    """The record sets with their digest, and that of all records, keyed where there is a key."""
    sets, digest = record_sets(inputs, membership=mode == "membership")
    rows = [rows for group in Group if (rows := inputs.rows(group)).size]

    def contents(at: NDArray[np.int64]) -> list[bytes]:
        return [int(label).to_bytes(8, "big", signed=True) for label in inputs.labels[at]]

    keyed = tuple(
        evidence.commit(one, inputs.ids[at], contents(at), content=LABEL) for one, at in zip(sets, rows, strict=True)
    )
    return keyed, evidence.digest(inputs.ids, contents(np.arange(inputs.ids.size)), lambda: digest)


def _best_variants(inputs: OneModelInput, attacks: list[Attack]) -> list[Attack]:
    """Leave out the offline variant of an attack whose online variant can run; lacking ones stay, to be named."""
    from mnemoscope.audit.verdict.onemodel import TESTED
    from mnemoscope.audit.verdict.onemodel_input import runnable

    able = {attack.name for attack in runnable(inputs, attacks, TESTED)[0]}
    return [a for a in attacks if not (a.name.endswith("_offline") and a.name.removesuffix("_offline") in able)]


def read_scores(file: Path | str) -> tuple[OneModelInput, Mode]:
    """Read and check a predictions file; object arrays (pickles) are refused, nothing is executed.

    Returns:
        The records with ``member`` mapped to forget (members) and holdout (the others), and the mode.
    """
    path = Path(file)
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise InvalidInput(f"{path.name}: there is no such file; give an .npz file of predictions") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); give an .npz file of predictions") from error
    # The stream is ours, so that it is closed whatever NumPy makes of a damaged file.
    with stream:
        try:
            archive = np.load(stream, allow_pickle=False)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            # NumPy takes what it does not know for a pickle and tells how to load one unsafely: no advice to repeat.
            why = "it is no archive of arrays" if "pickle" in str(error) else str(error)
            raise InvalidInput(
                f"{path.name}: is no readable .npz file ({why}); write it with numpy.savez, plain numbers only"
            ) from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InvalidInput(f"{path.name}: holds a single array; give an .npz file with named arrays (numpy.savez)")
        with archive:
            _check_names(path.name, set(archive.files))
            return _assemble(archive)


def _check_names(file: str, names: set[str]) -> None:
    unknown = sorted(names - KNOWN_ARRAYS)
    if unknown:
        import difflib

        hints = []
        for name in unknown:
            near = SHORT.get(name) or next(iter(difflib.get_close_matches(name, KNOWN_ARRAYS, n=1)), None)
            hints.append(f"{name!r}" + (f" (did you mean {near!r}?)" if near else ""))
        raise InvalidInput(f"{file}: unknown arrays {', '.join(hints)}; allowed: {', '.join(sorted(KNOWN_ARRAYS))}")
    for prefix in ANSWERS:
        if {f"{prefix}logits", f"{prefix}probs"} <= names:
            raise InvalidInput(
                f"{file}: both {prefix}logits and {prefix}probs are given; keep the logits, leave probs out"
            )
    missing = [
        text
        for text, there in (
            ("logits (or probs)", names & {"logits", "probs"}),
            ("labels", "labels" in names),
            ("member or role", names & {"member", "role"}),
        )
        if not there
    ]
    if missing:
        raise InvalidInput(f"{file}: lacks {', '.join(missing)}; add these arrays")
    if {"member", "role"} <= names:
        raise InvalidInput(f"{file}: both member and role are given; role for a deletion audit, member for one model")
    if bool({"shadow_logits", "shadow_probs"} & names) != ("side" in names):
        raise InvalidInput(f"{file}: shadow answers and side belong together; add the one that is missing")
    calibration = {"calibration_labels", "calibration_member"}
    if ({"calibration_logits", "calibration_probs"} & names or calibration & names) and not (
        calibration <= names and {"calibration_logits", "calibration_probs"} & names
    ):
        raise InvalidInput(
            f"{file}: calibration_logits (or _probs), calibration_labels and calibration_member belong together; "
            "add what is missing"
        )


def _array(archive: np.lib.npyio.NpzFile, name: str) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = archive[name]
    except ValueError as error:
        raise InvalidInput(f"{name}: holds Python objects, which could run code; write plain numbers") from error
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise InvalidInput(f"{name}: the file is damaged ({error}); write it again") from error
    return array


def _answers(archive: np.lib.npyio.NpzFile, prefix: str, shape: tuple[int | None, ...], meaning: str) -> Logits | None:
    """Answers with a query axis, (..., n, q, c) float32, checked; a missing query axis is added."""
    name = next((n for n in (f"{prefix}logits", f"{prefix}probs") if n in archive.files), None)
    if name is None:
        return None
    array = _array(archive, name)
    if array.ndim == len(shape) - 1 and array.ndim and _fits(array.shape, (*shape[:-2], shape[-1])):
        array = array[..., None, :]
    check_shape(name, array, shape, meaning)
    if array.shape[-1] < 2:
        raise InvalidInput(f"{name}: {array.shape[-1]} class; allowed: at least 2. For a binary score give (1 - p, p)")
    if name.endswith("probs"):
        check_probabilities(name, array)
        return to_logits(array)
    check_logits(name, array)
    return np.ascontiguousarray(array, np.float32)


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(w is None or w == g for g, w in zip(given, wanted, strict=True))


def _assemble(archive: np.lib.npyio.NpzFile) -> tuple[OneModelInput, Mode]:
    after = _answers(archive, "", (None, None, None), "(n, c) or (n, q, c): records, queries, classes")
    assert after is not None
    n, q, c = after.shape
    check_pool("records", n, 4)
    labels = _array(archive, "labels")
    check_shape("labels", labels, (n,), f"({n},): one class for each record")
    ids = np.arange(n, dtype=np.int64)
    if "ids" in archive.files:
        given = _array(archive, "ids")
        check_shape("ids", given, (n,), f"({n},): one number for each record")
        ids = given.astype(np.int64)
    membership = "member" in archive.files
    group = _members(_array(archive, "member"), "member", n) if membership else _roles(_array(archive, "role"), n)
    one = f"({n}, {c}) or ({n}, {q}, {c}), like the audited model's"
    retrained = _answers(archive, "retrained_", (None, n, q, c), f"(r, n, c) = (r, {n}, {c})")
    shadow = _answers(archive, "shadow_", (None, n, q, c), f"(m, n, c) = (m, {n}, {c})")
    side = None
    if shadow is not None:
        raw = _array(archive, "side")
        check_shape("side", raw, (shadow.shape[0], n), f"(m, n) = ({shadow.shape[0]}, {n})")
        if not np.isin(raw, (-1, 0, 1)).all():
            raise InvalidInput("side: allowed are 1 (trained on), 0 (not trained on) and -1 (leave out)")
        side = raw.astype(np.int8)
    inputs = OneModelInput(
        ids,
        check_labels("labels", labels, c),
        group,
        after,
        before=_answers(archive, "before_", (n, q, c), one),
        retrained=retrained,
        shadow=shadow,
        shadow_side=side,
        known=_known(archive, q, c),
    )
    return inputs, "membership" if membership else "one-model"


def _members(member: NDArray[np.generic], name: str, n: int) -> NDArray[np.int8]:
    check_shape(name, member, (n,), f"({n},) of 1 (member) and 0")
    if not np.isin(member, (0, 1)).all():
        raise InvalidInput(f"{name}: allowed are 1 (member) and 0 (not); given also {np.unique(member)[:5].tolist()}")
    group = np.where(member.astype(bool), Group.FORGET, Group.HOLDOUT).astype(np.int8)
    check_pool(f"{name}: members", int((group == Group.FORGET).sum()), 2)
    check_pool(f"{name}: non-members", int((group == Group.HOLDOUT).sum()), 2)
    return group


def _roles(role: NDArray[np.generic], n: int) -> NDArray[np.int8]:
    if role.shape != (n,) or role.dtype.kind not in "US":
        raise InvalidInput(
            f"[A5] role: given {role.dtype} of shape {role.shape}; allowed: text of shape ({n},). "
            "Write forget or holdout for each record, or give 1 and 0 as member"
        )
    text = role.astype("U16")
    group = np.full(n, -1, np.int8)
    for g in Group:
        group[text == g.name.lower()] = g
    if (group < 0).any():
        unknown = ", ".join(repr(str(t)) for t in np.unique(text[group < 0])[:5])
        allowed = ", ".join(g.name.lower() for g in Group)
        raise InvalidInput(f"role: {int((group < 0).sum())} records have unknown roles {unknown}; allowed: {allowed}")
    for g in (Group.FORGET, Group.HOLDOUT):
        check_pool(f"role {g.name.lower()}", int((group == g).sum()), 2)
    return group


def _known(archive: np.lib.npyio.NpzFile, q: int, c: int) -> Reference | None:
    logits = _answers(archive, "calibration_", (None, q, c), f"(k, {c}), classes as in the audited model's answers")
    if logits is None:
        return None
    k = logits.shape[0]
    labels = _array(archive, "calibration_labels")
    check_shape("calibration_labels", labels, (k,), f"({k},)")
    side = np.where(_members(_array(archive, "calibration_member"), "calibration_member", k) == Group.FORGET, 1, 0)
    return Reference(
        np.arange(k, dtype=np.int64),
        check_labels("calibration_labels", labels, c),
        logits[None],
        side=side[None].astype(np.int8),
    )


class _Clock:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.costs.append(Cost(name, round(time.perf_counter() - start, 3), 1))
