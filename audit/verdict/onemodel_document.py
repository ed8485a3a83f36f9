"""What a one-model audit tells its reader beside the verdict: findings, accuracy, models and records with digests."""

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.epsilons import model_epsilons
from mnemoscope.audit.verdict.onemodel_describe import curve, distributions, finding, pooled, utilities
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, Scores
from mnemoscope.audit.verdict.onemodel_plan import OneModelPlan
from mnemoscope.audit.verdict.onemodel_rates import Board, Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import (
    Curve,
    Distribution,
    EpsilonRow,
    Finding,
    ModelGroup,
    ModelRole,
    RecordSet,
    Utility,
)

__all__ = [
    "answers_digest",
    "describe_epsilons",
    "describe_findings",
    "describe_utility",
    "model_groups",
    "record_sets",
]

Floats = NDArray[np.float64]


def describe_findings(
    inputs: OneModelInput,
    plan: OneModelPlan,
    results: dict[str, Scores],
    retained: tuple[str, Scores] | None,
    board: Board,
) -> tuple[tuple[Finding, ...], tuple[Curve, ...], tuple[Distribution, ...]]:
    """Return findings, curves and score distributions of every attack, on forgotten and on retained records."""
    level = plan.policy.interval_level
    findings: list[Finding] = []
    curves: list[Curve] = []
    shapes: list[Distribution] = []

    def add(
        name: str, game: str, role: ModelRole, scores: list[Floats], is_in: NDArray[np.bool_], ids: NDArray[np.int64],
        threshold: float | None, note: str = "",
    ) -> None:  # fmt: skip
        trials = pooled(scores, is_in, ids)
        primary = name == plan.primary
        findings.append(
            finding(name, game, role, primary, trials, level=level, threshold=threshold, alpha=plan.alpha, note=note)
        )
        curves.append(curve(name, game, role, trials, level=level))
        shapes.extend(distributions(name, game, role, trials))

    take = board.rows(Group.FORGET) | board.rows(Group.HOLDOUT)
    is_in = board.rows(Group.FORGET)[take]
    for name, scores in results.items():
        ids = inputs.ids[scores.rows][take]
        if scores.before is not None:
            add(name, "membership", "before", [scores.before[take]], is_in, ids, scores.threshold)
        add(name, "forgetting", "after", [scores.after[take]], is_in, ids, scores.threshold, "; ".join(scores.flags))
        if scores.pairs:
            theirs = [b[take] for _, b in scores.pairs]
            add(name, "forgetting", "retrained", theirs, is_in, ids, None, "each scored by the others as references")
    if retained is not None:
        name, scores = retained
        group = inputs.group[scores.rows]
        both = (group == Group.RETAIN) | (group == Group.HOLDOUT)
        kept = (group == Group.RETAIN)[both]
        ids = inputs.ids[scores.rows][both]
        if scores.before is not None:
            add(name, "retention", "before", [scores.before[both]], kept, ids, scores.threshold)
        add(name, "retention", "after", [scores.after[both]], kept, ids, scores.threshold)
        if scores.pairs:
            add(name, "retention", "retrained", [b[both] for _, b in scores.pairs], kept, ids, None)
    return tuple(findings), tuple(curves), tuple(shapes)


def describe_epsilons(plan: OneModelPlan, results: dict[str, Scores], board: Board) -> tuple[EpsilonRow, ...]:
    """Return what the primary attack's scores say of epsilon, before and after deletion."""
    scores = results.get(plan.primary)
    if scores is None:
        return ()
    forget, never = board.rows(Group.FORGET), board.rows(Group.HOLDOUT)
    rows: list[EpsilonRow] = []
    versions: tuple[tuple[str, ModelRole, Floats | None], ...] = (
        ("forgetting", "after", scores.after),
        ("membership", "before", scores.before),
    )
    for game, models, values in versions:
        if values is not None:
            rng = generator(plan.seed, "epsilon", plan.primary, game)
            rows += model_epsilons(
                plan.primary, game, models, values[forget], values[never], plan.policy.level, rng=rng
            )
    return tuple(rows)


def describe_utility(inputs: OneModelInput, right: dict[str, NDArray[np.bool_]], policy: Policy) -> tuple[Utility, ...]:
    """Return the accuracy of each kind of model on forget, retained and holdout records."""
    found: list[Utility] = []
    names: tuple[tuple[Literal["forget", "retain", "holdout", "test"], tuple[Group, ...]], ...] = (
        ("forget", (Group.FORGET,)),
        ("retain", (Group.RETAIN,)),
        ("holdout", (Group.HOLDOUT, Group.CALIBRATION)),
    )
    roles: tuple[Literal["before", "after"], ...] = ("before", "after")
    for name, groups in names:
        rows = inputs.rows(*groups)
        if rows.size:
            single: dict[ModelRole, NDArray[np.bool_]] = {role: right[role][0][rows] for role in roles if role in right}
            retrained = right["retrained"][:, rows] if "retrained" in right else None
            found += utilities(name, single, retrained, policy.interval_level)
    return tuple(found)


def model_groups(
    inputs: OneModelInput, method: str, *, only: Literal["before"] | None = None
) -> tuple[ModelGroup, ...]:
    """Models behind the answers, told apart by digests of what they answered.

    Args:
        inputs: recorded answers.
        method: the deletion method, where it is known.
        only: "before" where there is a single model and no deletion.
    """
    groups: list[ModelGroup] = []
    what = "digest of the recorded answers"
    if inputs.before is not None:
        groups.append(ModelGroup("before", "before", 1, answers_digest(inputs.before), what))
    name: ModelRole = only or "after"
    groups.append(ModelGroup(name, name, 1, answers_digest(inputs.after), what, method))
    if inputs.retrained is not None:
        digest = answers_digest(inputs.retrained)
        groups.append(ModelGroup("retrained", "retrained", inputs.n_retrained, digest, what))
    if inputs.shadow is not None:
        digest = answers_digest(inputs.shadow)
        groups.append(ModelGroup("shadow", "shadow", int(inputs.shadow.shape[0]), digest, what))
    return tuple(groups)


def record_sets(inputs: OneModelInput, *, membership: bool = False) -> tuple[tuple[RecordSet, ...], str]:
    """Records of each role with the digest of their ids and labels, and the digest of them all."""
    names = {group: group.name.lower() for group in Group}
    if membership:
        names |= {Group.FORGET: "member", Group.HOLDOUT: "non-member"}
    sets = []
    for group, name in names.items():
        rows = inputs.rows(group)
        if rows.size:
            sets.append(RecordSet(name, int(rows.size), _ids_digest(inputs.ids[rows], inputs.labels[rows])))
    return tuple(sets), _ids_digest(inputs.ids, inputs.labels)


def _ids_digest(ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    state = hashlib.sha256(np.ascontiguousarray(ids, "<i8").data)
    state.update(np.ascontiguousarray(labels, "<i8").data)
    return "sha256:" + state.hexdigest()


def answers_digest(array: NDArray[np.float32]) -> str:
    """sha256 of type, shape and values of recorded answers."""
    state = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for part in array if array.ndim > 3 else (array,):
        state.update(np.ascontiguousarray(part).data)
    return "sha256:" + state.hexdigest()
