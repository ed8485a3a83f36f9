"""Does what a result says follow from the endpoints and gates that it records? Nothing is measured or decided anew.

A document can fit its schema and still have been edited: a word changed, a bound widened, an endpoint declared within.
The rules are fixed, so the word can be recomputed from the rest of the document by anybody who holds it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import AuditResult, Endpoint, Subject, Verdict
from mnemoscope.audit.verdict.rules import SENTENCES, decide

__all__ = ["inconsistencies", "policy_of", "recomputed", "require_consistent"]

CLOSE = 1e-9
SHOWN = 5
LOST = "A part of the audit that the word depends on could not be computed."


def policy_of(values: Mapping[str, str | int | float | bool | None]) -> Policy:
    """Return the policy that a result records, from ``PlanSummary.policy``.

    Keys that an earlier release did not have keep their default; keys of later releases are left out.

    Raises:
        InvalidInput: a value that no policy may have.

    >>> policy_of(Policy(alpha=0.05).as_dict()) == Policy(alpha=0.05)
    True
    """
    lists = {f.name for f in fields(Policy) if isinstance(f.default, tuple)}
    known = {f.name for f in fields(Policy)}
    clean: dict[str, object] = {}
    for key, value in values.items():
        if key not in known:
            continue
        if key in lists:
            parts = [part.strip() for part in str(value).split(",") if part.strip()]
            clean[key] = tuple(map(_number, parts)) if key == "alpha_candidates" else tuple(parts)
        else:
            clean[key] = value
    return Policy(**clean)  # type: ignore[arg-type]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"policy.alpha_candidates: {text[:40]!r} is no number") from None


def recomputed(result: AuditResult, subject: Subject) -> Verdict:
    """Decide again from what the document records of one subject: its endpoints, its gates, the policy, the limits.

    Raises:
        InvalidInput: a recorded value that the rules cannot work on.
    """
    policy, said = policy_of(result.plan.policy), subject.verdict
    made = decide(subject.endpoints, subject.gates, policy=policy, limits=result.limits, alpha=result.plan.alpha)
    if said.word == "NOT ASSESSED" and said.meaning == LOST and made.word in ("WITHIN BOUND", "INCONCLUSIVE"):
        # Failed computations are recorded as reasons alone; they can make a word say less, never more.
        made = decide(
            subject.endpoints, subject.gates, policy=policy, limits=result.limits, alpha=result.plan.alpha,
            failures=said.reasons or ("not named",),
        )  # fmt: skip
    return made


def inconsistencies(result: AuditResult) -> tuple[str, ...]:
    """Say, sentence by sentence, what in a result does not follow from the rest of it; empty where all does."""
    try:
        policy = policy_of(result.plan.policy)
    except InvalidInput as error:
        return (f"the recorded policy is none: {error}",)
    found: list[str] = []
    if result.plan.deviations and result.plan.committed_before_scores:
        found.append("plan: deviations from a committed plan are listed, and it is said to be the committed one")
    found += _limits(result, policy)
    names = [subject.name for subject in result.subjects]
    found += [
        f"subjects: {name!r} is there {names.count(name)} times"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    for i, subject in enumerate(result.subjects):
        where = f"subjects[{i}]"
        found += [f"{where}: {fault}" for fault in _words(result, subject)]
        for j, endpoint in enumerate(subject.endpoints):
            # The public edition withholds numbers of small groups: their outcome cannot be checked there.
            hidden = result.edition == "public" and endpoint.estimate.value is None
            faults = [*(() if hidden else _outcome(endpoint, policy)), *_bound(endpoint, policy, result.plan.alpha)]
            found += [f"{where}.endpoints[{j}] ({endpoint.id}): {fault}" for fault in faults]
    words = {subject.name: subject.verdict.word for subject in result.subjects}
    found += [
        f"requests[{i}]: says {row.word!r}, and the audit after this request says {words[row.audit]!r}"
        for i, row in enumerate(result.requests)
        if row.audit in words and words[row.audit] != row.word
    ]
    return tuple(found)


def require_consistent(result: AuditResult, name: str = "result") -> None:
    """Refuse a result that was edited.

    Args:
        result: what was read.
        name: of the document, for the message.

    Raises:
        InvalidInput: something in it does not follow from the rest; the first faults are listed.
    """
    found = inconsistencies(result)
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InvalidInput(
            f"{name}: the document contradicts itself, so it is not what an audit wrote: "
            + "; ".join(found[:SHOWN])
            + more
            + ". Use the result.json of the audit as it was written, or run the audit again"
        )


def _limits(result: AuditResult, policy: Policy) -> Iterator[str]:
    """The cap on the tier against what was given."""
    cap = result.limits.highest_tier
    if result.mode == "membership" or policy.profile == "smoke":
        if cap is not None:
            what = "a smoke run" if policy.profile == "smoke" else "an audit of one model's members"
            yield f"limits: tier {cap} is said to be possible for {what}"
        return
    if cap is None:
        yield f"limits: no tier is said to be possible in mode {result.mode!r}"
        return
    if cap == "A" and any(row.what == "process evidence" for row in result.not_run):
        yield "limits: tier A is said to be possible, and process evidence is listed as not given"
    if result.mode == "one-model":
        retrained = min(
            (sum(m.n_models for m in s.models if m.role == "retrained") for s in result.subjects), default=0
        )
        best = (
            "D" if retrained == 0
            else "C" if retrained < policy.min_references
            else "B" if retrained < policy.references_for_a
            else "A"
        )  # fmt: skip
        if cap < best:
            yield f"limits: tier {cap} is said to be possible with {retrained} retrained models, which bear {best}"


def _words(result: AuditResult, subject: Subject) -> Iterator[str]:
    said = subject.verdict
    if said.sentence != SENTENCES[said.word]:
        yield f"the sentence is not that of {said.word}"
    try:
        made = recomputed(result, subject)
    except (ValueError, ArithmeticError, KeyError) as error:
        yield f"the rules cannot be applied to what is recorded ({error})"
        return
    if made.word != said.word:
        yield f"the word is {said.word}, and {made.word} follows from the endpoints and gates"
        return
    # Several subjects of one model share the limits of one of them, which may cap another one's tier otherwise.
    shared = result.mode == "one-model" and len(result.subjects) > 1
    if made.tier != said.tier and not shared:
        yield f"the tier is {said.tier}, and {made.tier} follows"
    # The sign of a number that the public edition withholds is not there to be read.
    hidden = result.edition == "public" and any(e.estimate.value is None for e in subject.endpoints)
    if made.direction != said.direction and not hidden:
        yield f"the direction is {said.direction}, and {made.direction} follows"
    missing = [flag for flag in made.flags if flag not in said.flags]
    if missing:
        yield f"the flag {missing[0]!r} is missing"
    if not result.plan.committed_before_scores and "exploratory" not in said.flags:
        yield "the plan was not fixed before the scores, and the flag 'exploratory' is missing"


def _outcome(e: Endpoint, policy: Policy) -> Iterator[str]:
    """An outcome against the number, the limits and the bound beside it."""
    low, high, bound = e.estimate.low, e.estimate.high, e.bound
    if low is not None and high is not None and not low <= high:
        yield f"the lower limit {low:g} is above the upper limit {high:g}"
        return
    if (e.outcome == "not computed") != (e.estimate.value is None) and bound is not None and e.outcome != "undecided":
        yield f"the outcome is {e.outcome!r}, and the value is {e.estimate.value}"
        return
    if bound is None or e.estimate.value is None:
        return
    if e.id == "P6":
        if (e.outcome == "within") != (e.estimate.k == 0):
            yield f"the outcome is {e.outcome!r} with {e.estimate.k} rows found"
        return
    if low is None or high is None or e.id == "P7":
        return
    inside = {
        "P2": -abs(bound) < low and high < abs(bound),
        "P5": low >= -abs(bound),
    }.get(e.id, high <= bound)
    if e.outcome == "within" and not inside:
        yield f"the outcome is 'within', and the interval {low:g} to {high:g} is not within the bound {bound:g}"
    if e.outcome == "undecided" and inside:
        yield f"the outcome is 'undecided', and the interval {low:g} to {high:g} is within the bound {bound:g}"
    if e.id == "P2":
        beyond = low > abs(bound) or high < -abs(bound)
        if (e.outcome == "beyond") != beyond:
            yield f"the outcome is {e.outcome!r}, with an interval from {low:g} to {high:g} and the margin {bound:g}"
    elif e.id in ("P1", "P3", "P4") and e.p_value is not None:
        beyond = e.p_value <= 1 - policy.level + CLOSE
        if e.outcome == "beyond" and not beyond:
            yield f"the outcome is 'beyond', with a p-value of {e.p_value:g}"


def _bound(e: Endpoint, policy: Policy, alpha: float | None) -> Iterator[str]:
    """A bound against the policy that the plan fixed."""
    if e.bound is None:
        return
    expected: float | None
    if alpha is None:
        expected = {"P5": policy.utility_margin, "P6": 0.0}.get(e.id)
    else:
        expected = {
            "P1": policy.tpr_bound(alpha),
            "P2": policy.auc_margin if "AUC" in e.part else policy.tpr_margin_at(alpha),
            "P3": policy.exposure_bound_at(alpha),
            "P4": policy.retained_bound_at(alpha),
            "P5": policy.utility_margin,
            "P6": 0.0,
            "P7": policy.claimed_epsilon,
        }.get(e.id)
    given = abs(e.bound) if e.id == "P5" else e.bound
    if expected is not None and not math.isclose(given, expected, rel_tol=CLOSE, abs_tol=CLOSE):
        yield f"the bound is {e.bound:g}, and the policy's is {expected:g}"
