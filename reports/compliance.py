"""Rows of the compliance sections: what was checked, what was not, what somebody declared, and what limits it all.

Nothing is inferred from what is not declared, and nothing here changes a number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.declared import (
    ROLES,
    SCOPE_ITEMS,
    Declared,
    DeclaredPerson,
    ReleaseContext,
    ScopeItem,
    days_between,
)
from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.editions import SUPPRESSED
from mnemoscope.reports.facts import accuracy, gap, main_role
from mnemoscope.reports.texts import AttackClass, attack_classes, fixed_limitations

__all__ = [
    "ACCESS",
    "CoverageRow",
    "Fact",
    "PersonRow",
    "ScopeRow",
    "checked",
    "computed_limitations",
    "coverage_rows",
    "dates",
    "declared_of",
    "extra_limitations",
    "missing_word",
    "notices",
    "people",
    "scope_rows",
    "tested_artefact",
    "threat_model",
    "unchecked",
]

Verified = Literal["yes", "partly", "no"]
CoverageStatus = Literal["executed", "not executed", "not applicable"]

SCOPE_TITLES: dict[ScopeItem, str] = {
    "source rows": "Source rows, feature store, labels",
    "backups and logs": "Backups, caches, logs, notebooks",
    "model in service": "Model in service",
    "older checkpoints": "Older checkpoints, optimiser state, averaged weights",
    "derived models": "Derived models: fine-tuned, distilled, adapters, quantised copies",
    "stored instances": "Parts that hold instances: support vectors, neighbours, retrieval index, replay buffer",
    "recipients": "Recipients told",
    "forget set of this audit": "The forget set kept for this audit",
}

ACCESS: dict[ReleaseContext | None, str] = {
    "internal": "staff and systems that can reach the artefact: parameters and answers",
    "API with scores": "anybody with access to the interface: scores of chosen inputs",
    "API with labels only": "anybody with access to the interface: labels of chosen inputs",
    "open weights": "anybody: parameters, gradients, answers, and further training",
    "unknown": "not known; only tests with access to the parameters would cover every case",
    None: "not declared, and not inferred",
}

PARAMETER_ATTACKS = frozenset({"gradient_norm", "gradient_alignment"})
"""Membership attacks that read parameters or gradients; the others read answers."""


@dataclass(frozen=True)
class Fact:
    """A question and its answer; ``missing`` where nothing was declared or recorded."""

    name: str
    text: str
    missing: bool = False


@dataclass(frozen=True)
class ScopeRow:
    """One kind of copy: what was declared of it, and whether this tool looked at it."""

    item: ScopeItem
    title: str
    status: str
    note: str
    verified: Verified
    how: str


@dataclass(frozen=True)
class CoverageRow:
    """One class of attack: executed, not executed, or not applicable, and why."""

    of: AttackClass
    status: CoverageStatus
    by: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class PersonRow:
    """One role; ``person`` is None where nobody was declared."""

    role: str
    person: DeclaredPerson | None


def declared_of(result: AuditResult) -> Declared:
    """The declarations, empty ones where there are none."""
    return Declared() if result.declared is None else result.declared


def missing_word(result: AuditResult) -> str:
    """What stands where nothing was declared; in a public edition it may have been withheld as well."""
    return "not declared, or withheld" if result.edition == "public" else "not declared"


def _names(result: AuditResult, subjects: list[Subject]) -> str:
    if len(subjects) == len(result.subjects):
        return "every subject" if len(subjects) > 1 else "the subject"
    shown = ", ".join(phrases.plain(s.name, 40) for s in subjects[:6])
    return shown + (f" and {len(subjects) - 6} more" if len(subjects) > 6 else "")


def tested_artefact(result: AuditResult) -> tuple[str, str]:
    """What was tested, in words, and the digest that names it; "" where there are several."""
    role = main_role(result)
    digests = {m.digest: m for s in result.subjects for m in s.models if m.role == role}
    if len(digests) == 1:
        (group,) = digests.values()
        return f"{group.n_models} {'model' if group.n_models == 1 else 'models'}, {group.name}", group.digest
    return f"{len(digests)} groups of models, one a subject", ""


def _verified(result: AuditResult, item: ScopeItem) -> tuple[Verified, str]:
    """Whether this audit looked at one kind of copy; fixed by the kind of audit, never by what is declared."""
    if item == "model in service":
        if result.mode == "procedure":
            return "no", "models of the same procedure were tested, by digest (S5), not the one in service"
        identity = [g.status for s in result.subjects for g in s.gates if g.id == "G5"]
        if identity and all(status == "pass" for status in identity):
            return "yes", "the digest tested is the one declared as served (G5, S6)"
        return "partly", "the artefacts of S5 were tested; that one of them is in service was not confirmed (G5, S6)"
    if item == "stored instances":
        found = [e.outcome for s in result.subjects for e in s.endpoints if e.id == "P6"]
        if found and all(outcome in ("within", "beyond") for outcome in found):
            return "yes", "searched for exact copies of the forgotten rows (S11)"
        return (
            ("partly", "searched for some subjects (S11)") if set(found) & {"within", "beyond"} else ("no", "not run")
        )
    if item == "forget set of this audit":
        return "no", "date and commitment are printed as declared"
    return "no", "outside of this test"


def scope_rows(result: AuditResult) -> list[ScopeRow]:
    """The scope-of-erasure table: every kind of copy, always all of them."""
    declared, rows = declared_of(result), []
    said = {row.item: row for row in declared.scope}
    for item in SCOPE_ITEMS:
        row, (verified, how) = said.get(item), _verified(result, item)
        status = missing_word(result) if row is None else f"declared: {row.status}"
        parts = [] if row is None else [row.note, f"on {row.at}" if row.at else ""]
        if item == "recipients" and declared.recipients:
            told = sum(r.told is True for r in declared.recipients)
            parts.append(f"{told} of {len(declared.recipients)} recipients declared as told")
        if item == "forget set of this audit":
            kept = declared.forget_set
            parts += [
                f"held by {kept.held_by}" if kept.held_by else "",
                f"kept until {kept.kept_until}" if kept.kept_until else "",
                f"destroyed on {kept.destroyed}" if kept.destroyed else "",
                f"commitment {kept.commitment}" if kept.commitment else "",
            ]
        if verified != "no" and row is None:
            status = f"tested; {status}"
        rows.append(ScopeRow(item, SCOPE_TITLES[item], status, "; ".join(p for p in parts if p), verified, how))
    return rows


def coverage_rows(result: AuditResult) -> list[CoverageRow]:
    """Every class of attack a reader expects, with what the result says of it; unknown classes of a result follow."""
    said = {row.attack_class: row for row in result.coverage}
    rows: list[CoverageRow] = []
    for known in attack_classes():
        row = said.pop(known.name, None)
        if row is None:
            by = _ran_of(result, known.name)
            rows.append(CoverageRow(known, "executed" if by else "not executed", by, "" if by else known.unless_run))
            continue
        rows.append(CoverageRow(known, _status(row.executed, row.reason), row.by, row.reason))
    for row in said.values():
        other = AttackClass(row.attack_class, "not named there", "not compared", "U", "")
        rows.append(CoverageRow(other, _status(row.executed, row.reason), row.by, row.reason))
    return rows


def _status(executed: bool, reason: str) -> CoverageStatus:
    if executed:
        return "executed"
    return "not applicable" if reason.startswith("does not apply") else "not executed"


def _ran_of(result: AuditResult, name: str) -> tuple[str, ...]:
    """What produced a number in one class of attack, of a result whose own table lacks the class."""
    if name == "membership inference":
        return _ran(result)
    own = {"attribute_inference": "attribute inference", "model_inversion": "model inversion"}
    rows = (x for s in result.subjects for x in s.reconstructed if x.success.value is not None)
    return tuple(dict.fromkeys(x.attack for x in rows if own.get(x.attack, "reconstruction") == name))


def _ran(result: AuditResult) -> tuple[str, ...]:
    """Attacks that produced a number."""
    names = (f.attack for s in result.subjects for f in s.findings if f.auc.value is not None)
    return tuple(dict.fromkeys(names))


def _reads_parameters(result: AuditResult) -> bool:
    return bool(PARAMETER_ATTACKS & set(_ran(result))) or any(s.reconstructed for s in result.subjects)


def threat_model(result: AuditResult) -> list[Fact]:
    """Goal, knowledge, capability and effort of the attacker that was played, in the words of NIST AI 100-2."""
    context = declared_of(result).release_context
    games = {f.game for s in result.subjects for f in s.findings}
    both = any(game.startswith("difference") for game in games)
    groups = {(m.role, m.name, m.digest): m.n_models for s in result.subjects for m in s.models}
    helpers = sum(n for (role, _, _), n in groups.items() if role in ("retrained", "shadow"))
    seconds = sum(c.seconds for c in result.costs)
    reads = "recorded scores (logits or probabilities) of chosen records"
    reads += "; parameters or gradients" if _reads_parameters(result) else "; no parameters and no gradients"
    reads += "; both versions of a model" if both else "; one version of a model at a time"
    knows = "the records asked about with their labels, and records that no model saw"
    knows += f"; {helpers:,} retrained or shadow models of the same kind" if helpers else "; no model of the same kind"
    missing = context is None
    return [
        Fact("Goal", "privacy compromise: to tell whether a record was among the training records"),
        Fact("Knowledge", knows),
        Fact("Capability", f"query access: {reads}"),
        Fact("Effort", f"{phrases.duration(seconds)} of computing for the whole audit; queries were not counted")
        if result.costs
        else Fact("Effort", "not recorded", True),
        Fact("Release context, as declared", missing_word(result) if missing else str(context), missing),
        Fact("Access that this context implies", ACCESS[context], missing),
    ]


def checked(result: AuditResult) -> list[Fact]:
    """What was checked, in five rows."""
    role = main_role(result)
    facts = threat_model(result)
    ran = _ran(result)
    subject = result.subjects[0] if result.subjects else None
    tested = next((f for s in result.subjects for f in s.findings if f.primary), None)
    sets = {row.role: row.n_records for row in result.data.sets}
    count = "no record was scored"
    if tested is not None:
        inside, outside = ("member", "non-member") if result.mode == "membership" else ("forgotten", "never-seen")
        count = f"{tested.n_in:,} trials on {inside} and {tested.n_out:,} on {outside} records"
        if sets:
            count += f"; {', '.join(f'{phrases.plain(k, 30)} {n:,}' for k, n in sets.items())} records"
    groups = {(m.name, m.digest): m for s in result.subjects for m in s.models if m.role == "retrained"}
    models = sum(m.n_models for m in groups.values())
    side = "not measured"
    if subject is not None and len(result.subjects) == 1:
        held = accuracy(subject, "test", role)
        held = held if held.value is not None else accuracy(subject, "holdout", role)
        parts = [f"accuracy {phrases.percent(held.value)}" if held.value is not None else ""]
        change = gap(subject)
        parts.append(
            f"{phrases.amount(change.value, 'difference')} against retrained" if change.value is not None else ""
        )
        side = "; ".join(p for p in parts if p) or side
    elif subject is not None:
        measured = sum(any(u.models == role for u in s.utility) for s in result.subjects)
        side = f"accuracy of {measured} of {len(result.subjects)} subjects (S9)"
    return [
        Fact("Attacks run", f"{len(ran)}: {', '.join(ran)}" if ran else "none produced a number", not ran),
        Fact("Access assumed", facts[2].text),
        Fact("Records tested", count, tested is None),
        Fact("Reference models", f"{models:,} retrained without the records" if models else "none", not models),
        Fact("Side effects", side, side == "not measured"),
    ]


def unchecked(result: AuditResult) -> list[str]:
    """Names of what was not checked: classes of attack first, then every kind of copy outside of the test."""
    names = [row.of.name for row in coverage_rows(result) if row.status == "not executed"]
    copies = [SCOPE_TITLES[row.item].split(",")[0].split(":")[0].lower() for row in scope_rows(result)
              if row.verified == "no" and row.item != "forget set of this audit"]  # fmt: skip
    return names + copies


def dates(result: AuditResult) -> list[Fact]:
    """Dates of the request and of the audit; elapsed days are computed, never guessed."""
    declared, word = declared_of(result), missing_word(result)
    request = declared.request
    rows = [
        Fact("Request received", request.received or word, request.received is None),
        Fact("Deletion carried out", request.executed or word, request.executed is None),
        Fact("Model in service replaced", request.replaced or word, request.replaced is None),
        Fact("Audit made", result.created_at[:10]),
        Fact("Next test due", declared.next_test_due or word, declared.next_test_due is None),
    ]
    days = request.elapsed_days
    if days is not None:
        rows.append(Fact("From request to replacement", f"{days:,} {'day' if days == 1 else 'days'}"))
    elif request.received is not None:
        try:
            open_days = days_between(request.received, result.created_at)
        except ValueError:
            return rows
        rows.append(Fact("From request to this audit", f"{open_days:,} days; a replacement is {word}"))
    return rows


def notices(result: AuditResult) -> list[str]:
    """What a reader must not miss in what was declared, and neutral prompts that follow from a finding."""
    declared, lines = declared_of(result), []
    if declared.service.contains_record:
        lines.append(
            "Declared: the model in service was still trained on the records asked to be forgotten. Whatever this "
            "audit found of another model does not speak of the one in service."
        )
    served = declared.service.served_digest
    if served:
        roles = {m.role for s in result.subjects for m in s.models if m.digest == served}
        if not roles:
            lines.append("The digest declared as served is that of no model tested here.")
        elif "before" in roles and result.mode != "membership":
            lines.append("The digest declared as served is that of the model before deletion.")
    late = declared.request.elapsed_days
    if late is not None and late > 31:
        lines.append(f"{late} days passed from the request to the replacement; whether that was due in time is for the "
                     "controller to say.")  # fmt: skip
    if any(s.verdict.word == "OUTSIDE BOUND" for s in result.subjects):
        lines.append(
            "A finding outside of the bound may need an assessment by the data protection officer: whether to hold a "
            "release, whether to retrain, whether it is to be reported. None of these is decided here."
        )
    return lines


def people(result: AuditResult) -> list[PersonRow]:
    """The four roles, each once for every person declared, or once without."""
    declared = declared_of(result)
    rows: list[PersonRow] = []
    for role in ROLES:
        found = [PersonRow(role, person) for person in declared.people if person.role == role]
        rows += found or [PersonRow(role, None)]
    return rows


def extra_limitations(result: AuditResult) -> list[str]:
    """What the audit itself said beyond the fixed text."""
    fixed = set(fixed_limitations())
    return [text for text in result.limitations if text not in fixed]


def _suppressed(value: object) -> Iterator[Estimate]:
    if isinstance(value, Estimate):
        if value.value is None and (value.reason or "").startswith(SUPPRESSED):
            yield value
    elif isinstance(value, tuple):
        if not (value and isinstance(value[0], int | float)):
            for item in value:
                yield from _suppressed(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from _suppressed(getattr(value, f.name))


def computed_limitations(result: AuditResult) -> list[str]:
    """What this result could not do, computed from it: gates, attacks, groups left out, deviations, power, context."""
    lines: list[str] = []
    for status, said in (("fail", "failed"), ("not run", "was not run")):
        missed: dict[str, list[Subject]] = {}
        for s in result.subjects:
            for g in s.gates:
                if g.status == status:
                    missed.setdefault(f"{g.id} ({g.title})", []).append(s)
        lines += [f"Gate {phrases.plain(name)} {said} for {_names(result, who)}." for name, who in missed.items()]
    for status in ("not executed", "not applicable"):
        named = [phrases.plain(row.of.name) for row in coverage_rows(result) if row.status == status]
        if named:
            lines.append(f"Classes of attack {status}: {', '.join(named)}.")
    attacks = [n.what for n in result.not_run if n.what.startswith("attack ")]
    if attacks:
        lines.append(f"Attacks that could not run: {', '.join(phrases.plain(a[7:]) for a in attacks)}.")
    if not result.plan.committed_before_scores:
        lines.append("The plan was not fixed before the first score: the audit is exploratory.")
    changed = len(result.plan.deviations)
    if changed:
        values = "1 value of the plan was" if changed == 1 else f"{changed} values of the plan were"
        lines.append(f"{values} changed after it was committed (S2).")
    power = result.plan.power
    if result.mode == "membership":
        pass
    elif power.value is None:
        lines.append(f"The chance of WITHIN BOUND when nothing leaks is not known: {phrases.plain(power.reason, 300)}.")
    else:
        lines.append(f"When nothing leaks, the rule says WITHIN BOUND in {phrases.percent(power.value)} of simulated "
                     "audits with these counts; in the others it would not.")  # fmt: skip
    hidden = sum(1 for _ in _suppressed(result.subjects))
    hidden += sum(row.suppressed for s in result.subjects for row in s.by_class)
    if hidden:
        lines.append(f"{hidden} numbers of small groups are suppressed.")
    declared = declared_of(result)
    if declared.release_context is None:
        lines.append(
            "The release context is not declared, so that nothing is said on whether the access tested fits it."
        )
    elif declared.release_context in ("open weights", "internal", "unknown") and not _reads_parameters(result):
        lines.append(
            f"The release context {declared.release_context!r} can give access to parameters; no attack here read any."
        )
    if result.edition == "public":
        lines.append("This is the public edition: what it leaves out is in the internal and restricted ones.")
    return lines
