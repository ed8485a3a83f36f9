"""What a short view shows of a subject: the endpoint that matters most, what was not checked, what would decide it."""

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.consistency import policy_of
from mnemoscope.audit.verdict.result import AuditResult, Endpoint, Subject
from mnemoscope.audit.verdict.rules import beyond_bound
from mnemoscope.reports import phrases

__all__ = ["endpoint_name", "endpoint_text", "found_beyond", "not_checked", "worst_endpoint"]


def endpoint_name(e: Endpoint) -> str:
    """An endpoint in one line: id, what is measured, by which attack.

    >>> from mnemoscope.audit.statistics.trials import Estimate
    >>> endpoint_name(Endpoint("P5", "accuracy minus retrained", "", False, False, Estimate(0.0), None, "within"))
    'P5 accuracy minus retrained'
    """
    return f"{e.id} {e.part}{f', {e.attack}' if e.attack else ''}"


def endpoint_text(e: Endpoint) -> str:
    """Its number with counts and interval, its bound, its outcome."""
    return f"{phrases.estimate(e.estimate, phrases.kind_of(e))}; bound: {phrases.bound(e)}; {e.outcome}"


def found_beyond(result: AuditResult, subject: Subject) -> tuple[Endpoint, ...]:
    """Return the endpoints that make the word OUTSIDE BOUND, by the recorded policy; none for another word."""
    if subject.verdict.word != "OUTSIDE BOUND":
        return ()
    try:
        return tuple(beyond_bound(subject.endpoints, subject.gates, policy=policy_of(result.plan.policy)))
    except InvalidInput:
        return ()


def _nearness(e: Endpoint) -> float:
    """How much of its bound the worse limit uses up: above 1 it is not kept for sure."""
    limits = [abs(x) for x in (e.estimate.low, e.estimate.high) if x is not None]
    if e.estimate.ci is not None and e.estimate.ci.sides != "two":
        limits = limits[:1] if e.estimate.ci.sides == "lower" else limits[1:]
    worst = max(limits, default=abs(e.estimate.value or 0.0))
    return worst / abs(e.bound) if e.bound else worst


def worst_endpoint(result: AuditResult, subject: Subject) -> Endpoint | None:
    """Return the endpoint that says most about the word; None where nothing was decided on a number.

    Of those that gave OUTSIDE BOUND the primary attack's first; else what is undecided, else what came nearest to its
    bound, among the endpoints that WITHIN BOUND needs.
    """
    found = found_beyond(result, subject)
    if found:
        return max(found, key=lambda e: (e.primary, e.id == "P1", _nearness(e)))
    needed = [e for e in subject.endpoints if e.primary and e.required and e.bound is not None]
    for outcome in ("not computed", "undecided", "within"):
        left = [e for e in needed if e.outcome == outcome]
        if left:
            return max(left, key=_nearness)
    return None


def not_checked(result: AuditResult) -> list[str]:
    """Every class of attack that was not executed and everything that was not run, each with its reason."""
    lines = [f"{row.attack_class}: {row.reason or 'not executed'}" for row in result.coverage if not row.executed] + [
        f"{row.what}: {row.why}{f' ({row.remedy})' if row.remedy else ''}" for row in result.not_run
    ]
    return list(dict.fromkeys(lines))
