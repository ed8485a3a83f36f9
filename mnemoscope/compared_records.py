"""The records of a comparison of two checkpoints: who plays which part, and what is checked and told of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Check, DataSummary, GateResult, RecordSet

if TYPE_CHECKING:
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.comparison import Comparison
    from mnemoscope.evidence import EvidenceFolder

__all__ = ["Records", "accuracy_check", "data_summary", "record_checks", "select"]

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


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


def select(question: "Comparison", dataset: "Dataset") -> Records:
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


def record_checks(
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


def accuracy_check(before: Logits, after: Logits, labels: Ids, records: Records) -> Check:
    """Right answers before and after deletion, on forget and on holdout records."""

    def right(logits: Logits, group: Group) -> str:
        rows = records.group == group
        hits = int((logits[rows, 0].argmax(axis=-1) == labels[rows]).sum())
        return f"{hits}/{int(rows.sum())}"

    text = "; ".join(
        f"{group.name.lower()} {right(before, group)} before, {right(after, group)} after"
        for group in (Group.FORGET, Group.HOLDOUT)
    )
    return Check("accuracy", "accuracy before and after", "pass", text)


def data_summary(
    dataset: "Dataset", records: Records, checks: tuple[Check, ...], evidence: "EvidenceFolder"
) -> DataSummary:
    """The data set and how many records play which part, committed to where there is a key."""
    from mnemoscope.audit.work.keys import ids_digest

    sets = tuple(
        evidence.commit(
            RecordSet(group.name.lower(), int(ids.size), ids_digest(np.sort(ids))),
            ids,
            map(bytes, dataset.digests[dataset.positions(ids)]),
        )
        for group in Group
        if (ids := records.of(group)).size
    )
    shape = tuple(int(s) for s in dataset.values.shape[1:])
    return DataSummary(dataset.name, dataset.digest, int(dataset.ids.size), len(dataset.classes), shape, sets, checks)
