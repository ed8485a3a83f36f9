"""A gate for a pipeline: reads the words of a result and the policy's rules, decides nothing anew, and has a code.

The code is the worst of what was found: 3 a bound is exceeded, 5 no statement can be used, 4 it could not be decided or
less was shown than the policy asks for, 0 the policy is met. Input that cannot be used is an error of the command (2).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mnemoscope.audit.verdict.consistency import policy_of, require_consistent
from mnemoscope.audit.verdict.gate_rules import GateRules, counted_subjects
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.policy_file import PolicyDocument
from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.audit.verdict.rules import exit_code
from mnemoscope.reports import phrases
from mnemoscope.reports.decisive import endpoint_name, endpoint_text, worst_endpoint
from mnemoscope.reports.facts import next_step
from mnemoscope.reports.junit import Case

__all__ = ["Condition", "GateOutcome", "SubjectOutcome", "changed_bounds", "decide_gate", "junit_cases"]

Code = Literal[0, 3, 4, 5]
Status = Literal["met", "not met", "warning"]

WORST_FIRST: tuple[Code, ...] = (3, 5, 4, 0)
"""A signal found is worse than an audit that could not speak, and that is worse than one that could not decide."""

LIT = {0: "PASSED", 3: "BLOCKED: OUTSIDE BOUND", 4: "BLOCKED: INCONCLUSIVE", 5: "BLOCKED: NOT ASSESSED"}
DEVIATIONS_SHOWN = 10
AHEAD_DAYS = 1.0
"""Clocks differ; a result from further ahead than this is no result of the past."""


@dataclass(frozen=True)
class Condition:
    """One thing the policy asks for.

    Attributes:
        name: what was asked, short.
        status: "met", "not met" or "warning".
        code: exit code where it is not met; 0 elsewhere.
        detail: a sentence with the numbers.
    """

    name: str
    status: Status
    code: Code
    detail: str


@dataclass(frozen=True)
class SubjectOutcome:
    """What the gate makes of one subject.

    Attributes:
        name: of the subject.
        word: what the audit said.
        tier: its tier.
        counts: whether it counts for the gate.
        code: exit code of the subject by itself; 0 where it does not count.
        why: why it does not count, or what its word means here.
        worst: the endpoint that matters most, with its number, interval and bound; "" where there is none.
        next_step: what would make it conclusive; "" where nothing is needed.
    """

    name: str
    word: str
    tier: str | None
    counts: bool
    code: Code
    why: str
    worst: str = ""
    next_step: str = ""


@dataclass(frozen=True)
class GateOutcome:
    """What the gate says.

    Attributes:
        code: exit code.
        headline: one line.
        subjects: every subject of the result, those that do not count among them.
        conditions: what the policy asks for beside the words.
        changed: bounds that the policy now states otherwise than the audit fixed them: key, fixed, now.
        notes: what a reader must know and what blocks nothing.
        result: digest of the result that was read.
        policy: digest of the policy that was read.
    """

    code: Code
    headline: str
    subjects: tuple[SubjectOutcome, ...]
    conditions: tuple[Condition, ...]
    changed: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    result: str
    policy: str

    def json(self) -> str:
        """The outcome as a JSON document, keys sorted."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def text(self) -> str:
        """The outcome for a terminal: names of unknown origin without control or direction marks."""
        return "".join(phrases.plain(line, 2_000) + "\n" for line in self.lines(details=True))

    def lines(self, *, details: bool = False) -> list[str]:
        """The outcome as lines, the headline first.

        Args:
            details: also of each subject that counts the endpoint that matters most, and what would decide it.
        """
        rows = [self.headline]
        for key, fixed, now in self.changed:
            rows.append(f"bound {key}: fixed as {fixed} before scoring, the policy now says {now}")
        for s in self.subjects:
            tier = f" (tier {s.tier})" if s.tier else ""
            rows.append(f"{s.name}: {s.word}{tier}; {'' if s.counts else 'not counted: '}{s.why}")
            if details and s.counts:
                rows += [f"  worst: {s.worst}"] if s.worst else []
                rows += [f"  would decide it: {s.next_step}"] if s.next_step else []
        rows += [f"{c.name}: {c.status}; {c.detail}" for c in self.conditions]
        return [*rows, *self.notes, f"result {self.result}; policy {self.policy}"]


def decide_gate(
    result: AuditResult, policy: PolicyDocument, *, now: datetime | None = None, digest: str = ""
) -> GateOutcome:
    """Apply the rules of a policy to a result.

    Args:
        result: what an audit found.
        policy: the bounds that must have been fixed before scoring, and the gate's rules.
        now: the time to measure the result's age at, with a zone; None = now.
        digest: of the result's document.

    Raises:
        InvalidInput: the result contradicts itself, or the policy names subjects that it does not hold.
    """
    require_consistent(result)
    rules = policy.gate
    counted = counted_subjects(result, rules)
    subjects = tuple(_subject(result, s, rules, s in counted) for s in result.subjects)
    changed = changed_bounds(result, policy.bounds)
    conditions = [
        *_whole(result, counted, changed),
        *_age(result, rules, now or datetime.now(UTC)),
        *(c for s in counted for c in _of_subject(s, result, rules)),
        *_coverage(result, rules),
    ]
    codes: list[Code] = [*(s.code for s in subjects), *(c.code for c in conditions)]
    # Bounds cannot be chosen after the scores: with other bounds not even a word that blocks is this policy's.
    code: Code = 5 if changed else next(c for c in WORST_FIRST if c in {0, *codes})
    warned = any(c.status == "warning" for c in conditions) or any(
        s.counts and s.code == 0 and s.word != "WITHIN BOUND" for s in subjects
    )
    headline = f"{LIT[code]}{' with warnings' if code == 0 and warned else ''}: {_because(code, subjects, conditions)}"
    return GateOutcome(
        code, headline, subjects, tuple(conditions), changed, _notes(result, policy), digest, policy.digest
    )


def changed_bounds(result: AuditResult, bounds: Policy) -> tuple[tuple[str, str, str], ...]:
    """List the keys in which a policy differs from the one that the audit fixed: (key, fixed, now).

    A key that an earlier release did not know counts as its default.
    """
    fixed, ours = policy_of(result.plan.policy).as_dict(), bounds.as_dict()
    if fixed["profile"] == "smoke":  # says so itself, and states nothing whatever the bounds are
        fixed["profile"] = ours["profile"]
    return tuple((key, _shown(fixed[key]), _shown(ours[key])) for key in ours if fixed[key] != ours[key])


def _shown(value: object) -> str:
    return "the default by the counts" if value is None else str(value)


def _subject(result: AuditResult, subject: Subject, rules: GateRules, counts: bool) -> SubjectOutcome:
    word, tier = subject.verdict.word, subject.verdict.tier
    if not counts:
        why = (
            "it deletes nothing, and is there to be found"
            if rules.subjects is None
            else "the policy's gate.subjects does not name it"
        )
        return SubjectOutcome(subject.name, word, tier, False, 0, why)
    code = exit_code(word)
    why = subject.verdict.meaning
    if word == "INCONCLUSIVE" and rules.inconclusive == "warn":
        code, why = 0, f"a warning only, as the policy says. {why}"
    worst = worst_endpoint(result, subject)
    shown = "" if worst is None else f"{endpoint_name(worst)}: {endpoint_text(worst)}"
    return SubjectOutcome(subject.name, word, tier, True, code, why, shown, next_step(subject))  # type: ignore[arg-type]


def _whole(result: AuditResult, counted: Sequence[Subject], changed: Sequence[tuple[str, str, str]]) -> list[Condition]:
    """What the result as a whole must be."""
    if changed:
        keys = ", ".join(key for key, _, _ in changed)
        detail = (
            f"the policy differs from the one fixed before scoring in: {keys}. Bounds cannot be changed after the "
            "scores: gate with the policy of the audit, or run it again with this one"
        )
        rows = [Condition("bounds", "not met", 5, detail)]
    else:
        rows = [Condition("bounds", "met", 0, "those that were fixed before the first score")]
    name = detail = ""
    if policy_of(result.plan.policy).profile == "smoke":
        name, detail = "profile", "a smoke run shows that the pipeline works, and states nothing about deletion"
    elif result.mode == "membership":
        name = "question"
        detail = "one model and a list of its members: what leaks is estimated, no word about deletion can follow"
    elif not result.subjects:
        name, detail = "subjects", "the result holds no subject: nothing was audited"
    elif not counted:
        name = "subjects"
        detail = "every subject is a control that deletes nothing; name in gate.subjects what counts"
    return [*rows, Condition(name, "not met", 5, detail)] if name else rows


def _age(result: AuditResult, rules: GateRules, now: datetime) -> list[Condition]:
    if rules.max_age_days is None:
        return []
    name = f"age at most {rules.max_age_days:g} days"
    try:
        made = datetime.fromisoformat(result.created_at)
    except ValueError:
        made = None
    if made is None or made.tzinfo is None:
        return [Condition(name, "not met", 5, f"the result says that it was made at {result.created_at[:40]!r}, "
                          "which is no time with a zone")]  # fmt: skip
    age = (now - made).total_seconds() / 86_400
    if age < -AHEAD_DAYS:
        return [Condition(name, "not met", 5, f"the result is dated {-age:.1f} days ahead of now")]
    if age > rules.max_age_days:
        return [Condition(name, "not met", 5, f"the result is {age:.1f} days old: run the audit again")]
    return [Condition(name, "met", 0, f"the result is {max(0.0, age):.1f} days old")]


def _of_subject(subject: Subject, result: AuditResult, rules: GateRules) -> list[Condition]:
    """What the policy asks for of one subject beside its word."""
    if result.mode == "membership":
        return []
    of, rows = f"{subject.name}: ", []
    if not subject.findings:
        rows.append(Condition(f"{of}findings", "not met", 5, "no attack produced a number for it"))
    rows += _controls(subject, rules)
    verdict = subject.verdict
    if rules.min_tier is not None and verdict.word != "NOT ASSESSED":
        good = verdict.tier is not None and verdict.tier <= rules.min_tier
        detail = f"tier {verdict.tier or 'none'}; the audit can say at most: {result.limits.may_say}"
        rows.append(Condition(f"{of}tier at least {rules.min_tier}", "met" if good else "not met", 0 if good else 4,
                              detail))  # fmt: skip
    ran = {f.attack for f in subject.findings if f.auc.value is not None}
    for attack in rules.attacks:
        good = attack in ran
        detail = "it produced a number" if good else f"it was not run; run were {', '.join(sorted(ran)) or 'none'}"
        rows.append(Condition(f"{of}attack {attack}", "met" if good else "not met", 0 if good else 5, detail))
    status = {gate.id: gate for gate in subject.gates}
    for gate in rules.gates:
        found = status.get(gate)
        good = found is not None and found.status == "pass"
        detail = "it is not in the result" if found is None else f"{found.status}: {found.observed}"
        rows.append(Condition(f"{of}gate {gate}", "met" if good else "not met", 0 if good else 4, detail))
    flags = (("exploratory", rules.exploratory, 5, "the plan was not fixed before the first score"),
             ("not fit for use", rules.not_fit_for_use, 4, "it lost more accuracy than the policy allows"))  # fmt: skip
    for flag, treatment, code, detail in flags:
        # A flag may name where it was seen: "not fit for use on test records".
        if any(given.startswith(flag) for given in verdict.flags):
            blocks = treatment == "block"
            rows.append(Condition(of + flag, "not met" if blocks else "warning", code if blocks else 0, detail))  # type: ignore[arg-type]
    return rows


def _controls(subject: Subject, rules: GateRules) -> list[Condition]:
    """A quiet attack is worth nothing without a positive control, and no number without a negative one."""
    rows = []
    status = {gate.id: gate.status for gate in subject.gates}
    of = f"{subject.name}: "
    parts: tuple[tuple[str, Code, str], ...] = (
        ("G1", 4, "positive control: nothing shows that the attack could have seen the records"),
        ("G2", 5, "negative control: nothing shows that the attack finds nothing where there is nothing"),
    )
    for gate, code, detail in parts:
        if gate not in status:
            # Every audit lists both gates, run or not: a document without them is no evidence about either.
            rows.append(Condition(f"{of}{gate}", "not met", 5, f"the result does not mention the {detail}"))
        elif status[gate] in ("not run", "not applicable"):
            blocks = rules.controls == "block"
            rows.append(
                Condition(f"{of}{gate}", "not met" if blocks else "warning", code if blocks else 0,
                          f"it was not run, the {detail}")
            )  # fmt: skip
    return rows


def _coverage(result: AuditResult, rules: GateRules) -> list[Condition]:
    rows = []
    known = {row.attack_class: row for row in result.coverage}
    for name in rules.coverage:
        found = known.get(name)
        if found is not None and found.executed:
            rows.append(Condition(f"coverage: {name}", "met", 0, f"executed by {', '.join(found.by) or 'the audit'}"))
            continue
        detail = (
            f"not executed: {found.reason}" if found is not None
            else f"the result's coverage table has no such class; it has {', '.join(known) or 'none'}"
        )  # fmt: skip
        rows.append(Condition(f"coverage: {name}", "not met", 5, detail))
    return rows


def _because(code: Code, subjects: Sequence[SubjectOutcome], conditions: Sequence[Condition]) -> str:
    """The shortest true reason of a code."""
    for condition in conditions:
        if condition.name == "bounds" and condition.code == code and code:
            return condition.detail
    named = [s.name for s in subjects if s.counts and s.code == code]
    lacking = [c for c in conditions if c.code == code]
    if code == 0:
        counted = [s.name for s in subjects if s.counts]
        return f"{', '.join(counted)} {'meets' if len(counted) == 1 else 'meet'} the policy"
    parts = [f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} {LIT[code].partition(': ')[2]}"] if named else []
    parts += [f"{c.name}: {c.detail}" for c in lacking]
    return "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more" if len(parts) > 3 else "")


def _notes(result: AuditResult, policy: PolicyDocument) -> tuple[str, ...]:
    rows = []
    decided = result.plan.decided
    if decided is not None:
        now = policy.gate.as_json()
        if decided.gate != now and decided.gate:
            keys = sorted(k for k in {*decided.gate, *now} if decided.gate.get(k) != now.get(k))
            rows.append(f"note: the gate's rules are not those fixed with the plan; they differ in {', '.join(keys)}")
        if decided.owner:
            rows.append(f"policy decided by {decided.owner}{f', {decided.role}' if decided.role else ''}")
    changed = result.plan.deviations
    rows += [
        f"note: changed after another plan was fixed and scored: {d.key}, {d.committed or 'not there'} -> "
        f"{d.ran or 'not there'}"
        for d in changed[:DEVIATIONS_SHOWN]
    ]
    if len(changed) > DEVIATIONS_SHOWN:
        rows.append(f"note: and {len(changed) - DEVIATIONS_SHOWN} more keys of the plan were changed then")
    if not policy.owner:
        rows.append("note: the policy names no owner")
    if result.edition == "public":
        rows.append("note: the public edition withholds numbers, so that not every outcome in it can be checked")
    return tuple(rows)


def junit_cases(outcome: GateOutcome) -> list[Case]:
    """The gate's own conditions as test cases: those that are not met fail, warnings are skipped."""
    statuses: dict[Status, Literal["passed", "failed", "skipped"]] = {
        "met": "passed", "not met": "failed", "warning": "skipped"
    }  # fmt: skip
    kinds = {0: "", 3: "OUTSIDE BOUND", 4: "INCONCLUSIVE", 5: "NOT ASSESSED"}
    return [Case(c.name, statuses[c.status], c.detail, kinds[c.code]) for c in outcome.conditions]
