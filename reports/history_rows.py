"""What a page over many audits keeps of each: one row a subject, small enough to hold hundreds of audits at once."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from mnemoscope.audit.errors import AuditError
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.policy import load_policy
from mnemoscope.audit.verdict.result import AuditResult, ModelGroup, ModelRole, Subject, Tier, Word
from mnemoscope.reports.facts import headline, main_game, main_role
from mnemoscope.reports.history_find import Found

__all__ = ["Audit", "Due", "Row", "audit_of", "with_due"]

PAGES = ("report.html", "report.pdf", "summary.pdf", "summary.md")
"""Reports that are linked to where they lie beside a result."""


@dataclass(frozen=True)
class Due:
    """When a subject must be tested again, as its audit declared.

    Attributes:
        day: the day.
        state: "due", "overdue", or "superseded" by a later audit of the same subject on the same data.
        by: date of that later audit.
    """

    day: date
    state: str
    by: date | None = None


@dataclass(frozen=True)
class Row:
    """One subject of one audit.

    Attributes:
        name, method: the subject's own.
        word, tier, flags: its verdict.
        model: digest of the models that were judged; "" where none is recorded.
        n_models: how many they are.
        role: "after", or "before" in a membership audit.
        attack: the primary attack.
        fpr: of the rates; None where no finding carries one.
        tpr, over: its rates in the residual and the over-forgotten tail.
        auc: its AUC.
        bound: of the policy on the rates; None where there is none.
        due: set by :func:`with_due`; None where nothing was declared.
    """

    name: str
    method: str
    word: Word
    tier: Tier | None
    flags: tuple[str, ...]
    model: str
    n_models: int
    role: ModelRole
    attack: str
    fpr: float | None
    tpr: Estimate
    over: Estimate
    auc: Estimate
    bound: float | None
    due: Due | None = None


@dataclass(frozen=True)
class Audit:
    """One result, without what the page does not show.

    Attributes:
        place: folder of the result, relative to the folder searched.
        copies: further folders that hold the same bytes.
        files: reports that lie beside it.
        digest: of ``result.json``.
        created_at: as written; ``when`` is the same instant in UTC, None where it is no time.
        declared_due: the day on which the next test is due, as declared; None where nothing was.
        plan, policy: digests.
    """

    place: str
    copies: tuple[str, ...]
    files: tuple[str, ...]
    digest: str
    title: str
    created_at: str
    when: datetime | None
    declared_due: date | None
    data: str
    data_digest: str
    mode: str
    edition: str
    plan: str
    policy: str
    alpha: float | None
    rows: tuple[Row, ...]


def audit_of(found: Found) -> Audit:
    """Keep of a result what the page over many audits shows."""
    r = found.result
    return Audit(
        place=found.place,
        copies=(),
        files=tuple(name for name in PAGES if name in found.files),
        digest=found.digest,
        title=r.title,
        created_at=r.created_at,
        when=_instant(r.created_at),
        declared_due=_declared_due(r),
        data=r.data.name,
        data_digest=r.data.digest,
        mode=r.mode,
        edition=r.edition,
        plan=r.plan.digest,
        policy=_policy_digest(r),
        alpha=r.plan.alpha,
        rows=tuple(_row(r, subject) for subject in r.subjects),
    )


def _row(r: AuditResult, subject: Subject) -> Row:
    h, role = headline(r, subject), main_role(r)
    models = _judged(subject, role)
    return Row(
        name=subject.name,
        method=subject.method,
        word=subject.verdict.word,
        tier=subject.verdict.tier,
        flags=subject.verdict.flags,
        model="" if models is None else models.digest,
        n_models=0 if models is None else models.n_models,
        role=role,
        attack=h.attack,
        fpr=h.fpr,
        tpr=h.after,
        over=h.over if r.mode != "membership" else Estimate(None, reason="nothing was deleted"),
        auc=_auc(r, subject, h.attack),
        bound=next((e.bound for e in subject.endpoints if e.id == "P1" and e.primary and e.bound is not None), None),
    )


def _judged(subject: Subject, role: ModelRole) -> ModelGroup | None:
    return next((group for group in subject.models if group.role == role), None)


def _auc(r: AuditResult, subject: Subject, attack: str) -> Estimate:
    key = (attack, main_game(r), main_role(r))
    hit = (f.auc for f in subject.findings if (f.attack, f.game, f.models) == key)
    return next(hit, Estimate(None, reason="not measured"))


def _instant(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _declared_due(r: AuditResult) -> date | None:
    """The day on which the next test is due; None where none was declared, or not as a date."""
    text = None if r.declared is None else r.declared.next_test_due
    moment = None if text is None else _instant(text)
    return None if moment is None else moment.date()


def _policy_digest(r: AuditResult) -> str:
    """The digest of the policy: of its file where one decided, else of the values that the result holds.

    Results of other releases may hold other keys; equal values give equal digests in any case.
    """
    import rfc8785

    if r.plan.decided is not None:
        return r.plan.decided.digest

    values: dict[str, object] = dict(r.plan.policy)
    with suppress(AuditError, KeyError, TypeError, ValueError):
        made = load_policy(
            {
                **values,
                "alpha_candidates": [float(part) for part in str(values["alpha_candidates"]).split(",")],
                "primary_order": [part.strip() for part in str(values["primary_order"]).split(",")],
            }
        )
        if made.as_dict() == values:
            return made.digest
    return "sha256:" + hashlib.sha256(rfc8785.dumps(dict(r.plan.policy))).hexdigest()


def with_due(audits: list[Audit], today: date) -> list[Audit]:
    """Say of every declared day whether it lies behind us without a later audit of the same subject and data.

    Args:
        audits: all of them.
        today: audits made after this day do not count: they had not been made by then.
    """
    latest: dict[tuple[str, str], datetime] = {}
    for audit in audits:
        for row in audit.rows:
            if audit.when is not None and audit.when.date() <= today:
                key = (audit.data_digest, row.name)
                latest[key] = max(audit.when, latest.get(key, audit.when))

    def due(audit: Audit, row: Row) -> Due | None:
        if audit.declared_due is None:
            return None
        later = latest.get((audit.data_digest, row.name))
        if later is not None and audit.when is not None and later > audit.when:
            return Due(audit.declared_due, "superseded", later.date())
        return Due(audit.declared_due, "overdue" if audit.declared_due < today else "due")

    return [replace(audit, rows=tuple(replace(row, due=due(audit, row)) for row in audit.rows)) for audit in audits]
