"""One subject decided again, from scores that were stored or made again, beside what the result says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mnemoscope.agreement import Rows, Tolerance, shown, shown_endpoint
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict import describe, onemodel_describe
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.onemodel_decision import OneModelScores, decide_model
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.procedure_decision import SubjectScores, decide_endpoints, positive_control, precision
from mnemoscope.audit.verdict.result import Endpoint, Finding, GateResult, Subject, Verdict

__all__ = ["Decided", "Found", "compare_subject", "compare_whole", "of_model", "of_procedure"]

Found = dict[tuple[str, str, str], Finding]

WHY_TAKEN = {
    "G1": "it was not scored again",
    "G2": "its permutations ask the answers, which scores do not hold: see --from answers",
    "G4": "duplicates are read from the records themselves",
    "G5": "digests are read from the models themselves",
    "G6": "accuracy was not computed again",
    "G7": "it is read from the models themselves",
    "G8": "the plan's digest is compared with plan.json and the log instead",
    "drift": "it is read from the records themselves",
}


@dataclass(frozen=True)
class Decided:
    """What follows from scores.

    Attributes:
        endpoints: in the order of the rules.
        gates: those that follow from scores.
        findings: of attacks, by (attack, game, models).
        not_again: attacks whose scores were not made again, with the reason; their endpoints are taken over.
    """

    endpoints: tuple[Endpoint, ...]
    gates: tuple[GateResult, ...]
    findings: Found
    not_again: dict[str, str]


def of_procedure(
    scores: SubjectScores, policy: Policy, *, control: GateResult | None = None, not_again: dict[str, str] | None = None
) -> Decided:
    """Decide one deletion procedure from its scores.

    Args:
        scores: all that its endpoints rest on.
        policy: the rules' numbers.
        control: G2, where it was computed again.
        not_again: attacks that were not run again, with the reason.
    """
    gates = [positive_control(scores.shared, policy), precision(scores, policy)]
    if control is not None:
        gates.append(control)
    shared, level = scores.shared, policy.interval_level
    found: Found = {}

    def add(attack: str, game: str, models: str, one: FleetScores | None, *, own: bool) -> None:
        if one is None:
            return
        # The games beside "forgetting" are described at the default level, without the audit's own FPR.
        at = {"level": level, "alpha": shared.alpha} if own else {"level": 0.95, "alpha": None}
        found[attack, game, models] = describe.finding(
            attack, game, models, attack == shared.primary, one, thresholds=np.zeros(one.fold.shape), **at  # type: ignore[arg-type]
        )  # fmt: skip

    for attack, one in scores.after.items():
        add(attack, "forgetting", "after", one, own=True)
        add(attack, "forgetting", "retrained", shared.retrained.get(attack), own=True)
    add(shared.primary, "forgetting", "no-op", shared.no_op, own=True)
    add(shared.primary, "membership", "before", shared.before, own=False)
    add(shared.primary, "retention", "after", scores.retained, own=False)
    add(shared.primary, "retention", "retrained", shared.retained, own=False)
    return Decided(tuple(decide_endpoints(scores, policy)), tuple(gates), found, not_again or {})


def of_model(
    scores: OneModelScores, policy: Policy, *, membership: bool = False, not_again: dict[str, str] | None = None
) -> Decided:
    """Decide one model from its scores; arguments as of ``of_procedure``."""
    decided = decide_model(scores, policy)
    board = scores.board
    take = board.rows(Group.FORGET) | board.rows(Group.HOLDOUT)
    is_in, ids = board.rows(Group.FORGET)[take], np.flatnonzero(take)
    found: Found = {}
    for attack, one in scores.attacks.items():
        versions: list[tuple[str, str, list[NDArray[np.float64] | None]]] = [
            ("membership", "before", [one.after if membership else one.before]),
            ("forgetting", "after", [None if membership else one.after]),
            ("forgetting", "retrained", [theirs for _, theirs in one.pairs]),
        ]
        for game, models, several in versions:
            values = [v[take] for v in several if v is not None]
            if values:
                trials = onemodel_describe.pooled(values, is_in, ids)
                found[attack, game, models] = onemodel_describe.finding(
                    attack, game, models, attack == scores.primary, trials,  # type: ignore[arg-type]
                    level=policy.interval_level, alpha=scores.alpha,
                )  # fmt: skip
    return Decided(decided.endpoints, decided.gates, found, not_again or {})


def compare_subject(
    recorded: Subject, decided: Decided, basis: Basis, policy: Policy, tolerance: Tolerance, rows: Rows
) -> None:
    """Compare endpoints, gates, findings and the verdict of one subject; what does not follow is taken over by name.

    Args:
        recorded: as the result has it.
        decided: as it follows from scores.
        basis: what the word rests on beside them.
        policy: the rules' numbers.
        tolerance: how near is near enough.
        rows: receives the rows.
    """
    name = recorded.name
    endpoints, gates = compare_parts(recorded, decided, tolerance, rows)
    verdict = basis.decide(endpoints, gates, policy)
    flags = (*verdict.flags, *(flag for flag in basis.added if flag not in verdict.flags))
    _verdict(name, recorded.verdict, replace(verdict, flags=flags), tolerance, rows)


def compare_whole(recorded: Subject, decided: Decided, verdict: Verdict, tolerance: Tolerance, rows: Rows) -> None:
    """Compare one subject with an audit of it that was carried out again, ``verdict`` and all."""
    compare_parts(recorded, decided, tolerance, rows)
    _verdict(recorded.name, recorded.verdict, verdict, tolerance, rows)


def compare_parts(
    recorded: Subject, decided: Decided, tolerance: Tolerance, rows: Rows
) -> tuple[list[Endpoint], list[GateResult]]:
    """Compare endpoints, gates and findings; returns endpoints and gates as they follow, else as they are recorded."""
    name = recorded.name
    endpoints = _endpoints(name, recorded.endpoints, decided, tolerance, rows)
    gates = _gates(name, recorded.gates, decided.gates, tolerance, rows)
    _findings(name, recorded.findings, decided, tolerance, rows)
    return endpoints, gates


def _verdict(name: str, recorded: Verdict, made: Verdict, tolerance: Tolerance, rows: Rows) -> None:
    for what, ours, theirs, agrees in tolerance.verdict(recorded, made):
        rows.add(f"{name}: {what}", ours, theirs, agrees)


def _key(e: Endpoint) -> tuple[str, str, str]:
    return e.id, e.part, e.attack


def _endpoints(
    name: str, recorded: Sequence[Endpoint], decided: Decided, tolerance: Tolerance, rows: Rows
) -> list[Endpoint]:
    """The endpoints in the recorded order: as they follow where they do, else as they are recorded."""
    made = {_key(e): e for e in decided.endpoints}
    seen: set[tuple[str, str, str]] = set()
    merged = []
    for e in recorded:
        what = f"{name}: {e.id} {e.part}" + (f" ({e.attack})" if e.attack else "")
        new = made.get(_key(e))
        if _key(e) in seen:
            rows.add(what, "twice", "once")
        elif new is not None:
            rows.add(what, shown_endpoint(e), shown_endpoint(new), tolerance.endpoint(e, new))
        elif e.attack in decided.not_again:
            rows.take(f"endpoints of {e.attack}: {decided.not_again[e.attack]}")
        elif e.id == "P6":
            rows.take("P6: the rows are searched for in the models themselves")
        elif e.estimate.value is None:
            rows.take(f"{e.id}, left open in the audit: {e.detail or e.estimate.reason}")
        else:
            rows.add(what, shown_endpoint(e), "does not follow from the scores", False)
        seen.add(_key(e))
        merged.append(new or e)
    for key, e in made.items():
        if key not in seen:
            what = f"{name}: {e.id} {e.part}" + (f" ({e.attack})" if e.attack else "")
            rows.add(what, "missing", shown_endpoint(e), False)
            merged.append(e)
    return merged


def _gates(
    name: str, recorded: Sequence[GateResult], made: Sequence[GateResult], tolerance: Tolerance, rows: Rows
) -> list[GateResult]:
    computed = {gate.id: gate for gate in made}
    merged = []
    for gate in recorded:
        new = computed.pop(gate.id, None)
        if new is not None:
            same = gate == new if tolerance.exact else gate.status == new.status
            rows.add(f"{name}: gate {gate.id} {gate.title}", _shown(gate), _shown(new), same)
        elif gate.status != "not run":
            rows.take(f"gate {gate.id} ({gate.title}): {WHY_TAKEN.get(gate.id, 'it does not follow from scores')}")
        merged.append(new or gate)
    for gate in computed.values():
        rows.add(f"{name}: gate {gate.id} {gate.title}", "missing", _shown(gate), False)
        merged.append(gate)
    return sorted(merged, key=lambda gate: gate.id)


def _shown(gate: GateResult) -> str:
    return f"{gate.status}: {gate.observed}"


def _findings(name: str, recorded: Sequence[Finding], decided: Decided, tolerance: Tolerance, rows: Rows) -> None:
    made = dict(decided.findings)
    for finding in recorded:
        new = made.pop((finding.attack, finding.game, finding.models), None)
        if new is None:
            again = decided.not_again.get(finding.attack)
            rows.take(
                f"endpoints of {finding.attack}: {again}"
                if again
                else f"game {finding.game}: findings whose scores are not stored describe, and decide nothing"
            )
            continue
        what = f"{name}: {finding.attack}, {finding.game}, {finding.models}"
        rows.add(f"{what}: AUC", shown(finding.auc), shown(new.auc), tolerance.estimate(finding.auc, new.auc, auc=True))
        both = list(zip(finding.tpr, new.tpr, strict=False))
        same = len(finding.tpr) == len(new.tpr) and all(
            (a.fpr, a.tail) == (b.fpr, b.tail) and tolerance.estimate(a.tpr, b.tpr, auc=False) for a, b in both
        )
        same = same and (finding.n_in, finding.n_out) == (new.n_in, new.n_out)
        if tolerance.exact:
            same = same and all(tolerance.estimate(a.realised_fpr, b.realised_fpr, auc=False) for a, b in both)
        rows.add(f"{what}: rates", _rates(finding), _rates(new), same)


def _rates(finding: Finding) -> str:
    return "; ".join(f"{x.tail} {100 * x.fpr:g} %: {shown(x.tpr)}" for x in finding.tpr)
