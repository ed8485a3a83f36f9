"""The records of a plan before anything is trained: unchanged, disjoint, alike without the model, and summed up."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.records.drift import blind_baseline
from mnemoscope.audit.records.duplicates import find_duplicates
from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.result import Check, DataSummary, GateResult, RecordSet
from mnemoscope.audit.work.keys import content_key
from mnemoscope.evidence import EvidenceFolder
from mnemoscope.preparation import PreparedAudit

__all__ = ["data_checks", "data_summary", "refuse_changed_data"]


def refuse_changed_data(prepared: PreparedAudit) -> None:
    """Refuse to go on with a plan whose data changed since it was first carried out with this store.

    Raises:
        InvalidInput: names the keys that were added, removed, altered or moved.
    """
    from mnemoscope.audit.records.index import RecordIndex

    assert prepared.store is not None
    key = content_key("record index of a plan", 1, {"plan": prepared.plan.digest})
    entry = prepared.store.get(key)
    if entry is None:
        index = {"index": prepared.dataset.index.to_bytes()}
        prepared.store.put(key, index, inputs={"plan": prepared.plan.digest}, meta={"kind": "record index"})
    elif changes := prepared.dataset.changed_since(RecordIndex.from_bytes(entry.path("index").read_bytes())):
        raise InvalidInput(
            f"data {prepared.dataset.name} changed since this plan was first run: {changes.sentence}. Restore these "
            "records and run the same command again; where the change is meant, give the plan another name"
        )


def data_checks(prepared: PreparedAudit) -> tuple[tuple[Check, ...], list[GateResult]]:
    """Duplicates across roles (G4) and the blind baseline (drift), before anything is trained."""
    design, dataset, policy = prepared.design, prepared.dataset, prepared.policy
    with prepared.watch.step("check the records"):
        audited = design.audited
        elsewhere = np.concatenate([design.records(0, Role.BACKGROUND), design.records(0, Role.POPULATION)])
        report = find_duplicates(dataset, audited, np.concatenate([audited, elsewhere]), near=policy.duplicate_distance)
        forgotten = design.records(0, Role.FORGOTTEN)
        never = design.records(0, Role.NEVER)
        drift = blind_baseline(
            dataset.get(forgotten),
            dataset.get(never),
            rng=generator(prepared.plan.seed, "blind baseline"),
            labels_a=dataset.labels[dataset.positions(forgotten)],
            labels_b=dataset.labels[dataset.positions(never)],
        )
    share = report.share
    gate = GateResult(
        "G4",
        "disjointness",
        f"at most {policy.max_duplicate_share:.0%} of the audited records have an exact or near duplicate elsewhere",
        "pass" if share <= policy.max_duplicate_share else "fail",
        report.sentence(dataset),
        "INCONCLUSIVE",
    )
    drifted = drift.p_value < policy.drift_level
    observed = f"AUC {drift.auc.value:.3f} without the model, p = {drift.p_value:.3f}"
    drift_gate = GateResult(
        "drift",
        "blind baseline",
        f"a classifier without the model does not tell forgotten from never-seen (p above {policy.drift_level:g})",
        "fail" if drifted else "pass",
        observed,
        "INCONCLUSIVE",
    )
    checks = (
        Check(
            "duplicates",
            "duplicates across roles",
            gate.status,
            gate.observed,
            "remove one of each pair" if gate.status == "fail" else "",
        ),
        Check(
            "drift",
            "forgotten against never-seen, no model",
            drift_gate.status,
            observed,
            "draw forgotten and never-seen records alike" if drifted else "",
        ),
    )
    return checks, [gate, drift_gate]


def data_summary(prepared: PreparedAudit, checks: tuple[Check, ...], evidence: EvidenceFolder) -> DataSummary:
    """The data set and how many records play which role, committed to where there is a key."""
    design, dataset = prepared.design, prepared.dataset

    def record_set(role: str, ids: NDArray[np.int64], note: str) -> RecordSet:
        digest = hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()
        made = RecordSet(role, int(ids.size), "sha256:" + digest, note)
        return evidence.commit(made, ids, map(bytes, dataset.digests[dataset.positions(ids)]))

    counts = {role: int((design.role[0] == role).sum()) for role in (Role.KEPT, Role.FORGOTTEN, Role.NEVER)}
    per_record = [int((design.roles_of(design.audited)[:, 0] == r).sum()) for r in counts]
    note = (
        f"in each of {design.n_models} models about {counts[Role.KEPT]} kept, {counts[Role.FORGOTTEN]} forgotten, "
        f"{counts[Role.NEVER]} never seen; each record {'/'.join(map(str, per_record))} times"
    )
    if (total := prepared.requests.total) > 1:
        note += f"; those forgotten are named by {total} requests, one after another"
    if prepared.canary_note:
        note += f". Not the records as they are: {prepared.canary_note}"
    sets = [record_set("audited", design.audited, note)]
    for role, text in (
        (Role.BACKGROUND, "always trained on, never scored"),
        (Role.POPULATION, "the attacker's own non-members"),
        (Role.CALIBRATION, "seen by no model"),
        (Role.TEST, "accuracy"),
        (Role.VALIDATION, "methods of deletion may train on them"),
    ):
        ids = design.records(0, role)
        if ids.size:
            sets.append(record_set(role.name.lower(), ids, text))
    return DataSummary(
        name=dataset.name,
        digest=dataset.digest,
        n_records=int(dataset.ids.size),
        n_classes=len(dataset.classes),
        shape=tuple(int(s) for s in dataset.values.shape[1:]),
        sets=tuple(sets),
        checks=checks,
    )
