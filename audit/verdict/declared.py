"""What only a human can say about an audited deletion; nothing of it is inferred, and none of it changes a number.

Dates are text, "2026-11-21" or "2026-11-21T09:30:00Z"; digests are "sha256:" and 64 hex digits. What is left out stays
"not declared" in every view.
"""

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from mnemoscope.audit.errors import InvalidInput

__all__ = [
    "DOCUMENTS",
    "RELEASE_CONTEXTS",
    "ROLES",
    "SCOPE_ITEMS",
    "STATUSES",
    "Claim",
    "Declared",
    "DeclaredDocument",
    "DeclaredPerson",
    "DeclaredRequest",
    "DeclaredScope",
    "DeclaredService",
    "ForgetSet",
    "Recipient",
    "days_between",
]

ReleaseContext = Literal["internal", "API with scores", "API with labels only", "open weights", "unknown"]
ScopeItem = Literal[
    "source rows",
    "backups and logs",
    "model in service",
    "older checkpoints",
    "derived models",
    "stored instances",
    "recipients",
    "forget set of this audit",
]
ScopeStatus = Literal["done", "open", "not applicable", "unknown"]
Role = Literal["requester", "assessor", "approver", "dpo"]
DocumentKind = Literal["dpia", "threat model", "process record", "data sheet", "other"]

RELEASE_CONTEXTS: tuple[ReleaseContext, ...] = (
    "internal",
    "API with scores",
    "API with labels only",
    "open weights",
    "unknown",
)
SCOPE_ITEMS: tuple[ScopeItem, ...] = (
    "source rows",
    "backups and logs",
    "model in service",
    "older checkpoints",
    "derived models",
    "stored instances",
    "recipients",
    "forget set of this audit",
)
"""Everything that a duty to erase covers; the audit tests one artefact of it."""
STATUSES: tuple[ScopeStatus, ...] = ("done", "open", "not applicable", "unknown")
ROLES: tuple[Role, ...] = ("requester", "assessor", "approver", "dpo")
DOCUMENTS: tuple[DocumentKind, ...] = ("dpia", "threat model", "process record", "data sheet", "other")

LONGEST_TEXT = 2_000
MOST_ENTRIES = 500
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", re.ASCII)
_DATE_FIELDS = ("received", "executed", "replaced", "at", "destroyed", "kept_until", "next_test_due", "told_at")
_DIGEST_FIELDS = ("digest", "served_digest", "commitment")


def _moment(text: str) -> datetime:
    """Read a date or an RFC 3339 time in UTC; a date is its first moment."""
    if not _MOMENT.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text.removesuffix("Z"))


def days_between(first: str, last: str) -> int:
    """Count calendar days from one declared date to another.

    >>> days_between("2026-10-01", "2026-11-02T08:00:00Z")
    32
    """
    return (_moment(last).date() - _moment(first).date()).days


def _check(part: object, where: str) -> None:
    """Refuse what no reader could use: dates and digests of another form, endless text and lists."""
    for field in fields(part):  # type: ignore[arg-type]
        value, name = getattr(part, field.name), f"{where}.{field.name}"
        if isinstance(value, tuple) and len(value) > MOST_ENTRIES:
            raise InvalidInput(f"{name}: {len(value)} entries; at most {MOST_ENTRIES} are read")
        texts = value if isinstance(value, tuple) else (value,)
        for text in texts:
            if isinstance(text, str) and len(text) > LONGEST_TEXT:
                raise InvalidInput(f"{name}: {len(text):,} characters; give at most {LONGEST_TEXT:,}")
        if not isinstance(value, str):
            continue
        if field.name in _DATE_FIELDS:
            try:
                _moment(value)
            except ValueError as error:
                raise InvalidInput(
                    f"{name}={value[:40]!r}: give a date such as 2026-11-21, or a time in UTC such as "
                    "2026-11-21T09:30:00Z"
                ) from error
        if field.name in _DIGEST_FIELDS and value and not _DIGEST.fullmatch(value):
            raise InvalidInput(f"{name}={value[:40]!r}: give 'sha256:' and 64 lower-case hex digits")


@dataclass(frozen=True)
class DeclaredRequest:
    """The request or requests for deletion that the audit is about.

    Attributes:
        ids: pseudonymous ids of the requests; never names of people.
        received: when the first of them was received.
        executed: when the deletion was carried out.
        replaced: when the model in service was replaced by the one after deletion.
        ground: legal ground in the controller's own words.
        n_subjects: people behind the requests.
    """

    ids: tuple[str, ...] = ()
    received: str | None = None
    executed: str | None = None
    replaced: str | None = None
    ground: str = ""
    n_subjects: int | None = None

    def __post_init__(self) -> None:
        _check(self, "request")
        if self.n_subjects is not None and self.n_subjects < 0:
            raise InvalidInput(f"request.n_subjects={self.n_subjects}: give 0 or more")
        known = [(name, getattr(self, name)) for name in ("received", "executed", "replaced")]
        dates = [(name, value) for name, value in known if value is not None]
        for (earlier, a), (later, b) in zip(dates, dates[1:], strict=False):
            if days_between(a, b) < 0:
                raise InvalidInput(f"request.{later}={b} lies before request.{earlier}={a}; correct one of them")

    @property
    def elapsed_days(self) -> int | None:
        """Calendar days from the request to the replacement in service; None unless both are declared."""
        if self.received is None or self.replaced is None:
            return None
        return days_between(self.received, self.replaced)


@dataclass(frozen=True)
class DeclaredService:
    """The model in service.

    Attributes:
        name: what the controller calls it.
        served_digest: digest of the artefact that is in service.
        contains_record: whether the model in service was still trained on the records asked to be forgotten.
        holds_before: who holds the model before deletion, which beside the one after can reveal what was removed.
    """

    name: str = ""
    served_digest: str = ""
    contains_record: bool | None = None
    holds_before: str = ""

    def __post_init__(self) -> None:
        _check(self, "service")


@dataclass(frozen=True)
class DeclaredScope:
    """What was done about one kind of copy, as declared."""

    item: ScopeItem
    status: ScopeStatus
    note: str = ""
    at: str | None = None

    def __post_init__(self) -> None:
        _check(self, "scope")


@dataclass(frozen=True)
class DeclaredPerson:
    """Somebody who answers for a part of the audit.

    Attributes:
        role: requester of the audit, assessor, approver, or data protection officer.
        name: a name or an id.
        independent: whether an assessor is independent of those who trained the model.
        decision: what was decided; of the data protection officer the opinion, empty = pending.
        at: when.
    """

    role: Role
    name: str = ""
    independent: bool | None = None
    decision: str = ""
    at: str | None = None

    def __post_init__(self) -> None:
        _check(self, "people")


@dataclass(frozen=True)
class DeclaredDocument:
    """A document that the report points to, by id and digest."""

    kind: DocumentKind
    id: str
    digest: str = ""
    at: str | None = None

    def __post_init__(self) -> None:
        _check(self, "documents")


@dataclass(frozen=True)
class Recipient:
    """Somebody who received the data, and whether they were told of the erasure."""

    name: str
    told: bool | None = None
    told_at: str | None = None

    def __post_init__(self) -> None:
        _check(self, "recipients")


@dataclass(frozen=True)
class ForgetSet:
    """The deleted records that this audit itself needed: who held them, until when.

    Attributes:
        held_by: who holds or held them.
        kept_until: when they are to be destroyed.
        destroyed: when they were.
        commitment: digest of the keyed commitment to them.
    """

    held_by: str = ""
    kept_until: str | None = None
    destroyed: str | None = None
    commitment: str = ""

    def __post_init__(self) -> None:
        _check(self, "forget_set")


@dataclass(frozen=True)
class Claim:
    """A claim of differential privacy or of certified removal, as its maker states it.

    Attributes:
        kind: e.g. "DP-SGD".
        epsilon, delta: as claimed.
        unit: unit of privacy, e.g. "one record".
        relation: neighbouring relation, e.g. "add or remove".
        accountant: name and version.
        trusted: who has to be trusted for it.
        source: where it is stated.
    """

    kind: str
    epsilon: float | None = None
    delta: float | None = None
    unit: str = ""
    relation: str = ""
    accountant: str = ""
    trusted: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        _check(self, "claims")
        for name, value, top in (("epsilon", self.epsilon, 1e6), ("delta", self.delta, 1.0)):
            if value is not None and not 0 <= value < top:
                raise InvalidInput(f"claims.{name}={value}: give a number of at least 0 and below {top:g}")


@dataclass(frozen=True)
class Declared:
    """Everything declared for one report.

    Attributes:
        declared_by: who declares it (a role or an id).
        at: when.
        release_context: how the model is or will be released.
        request: the request that the audit is about.
        service: the model in service.
        scope: status of each kind of copy; items left out are "not declared".
        people: who answers for what.
        documents: what to read beside this report.
        recipients: who received the data.
        forget_set: the records kept for this audit.
        claims: claims of differential privacy or certified removal.
        next_test_due: when the audit is to be repeated.
    """

    declared_by: str = ""
    at: str | None = None
    release_context: ReleaseContext | None = None
    request: DeclaredRequest = DeclaredRequest()
    service: DeclaredService = DeclaredService()
    scope: tuple[DeclaredScope, ...] = ()
    people: tuple[DeclaredPerson, ...] = ()
    documents: tuple[DeclaredDocument, ...] = ()
    recipients: tuple[Recipient, ...] = ()
    forget_set: ForgetSet = ForgetSet()
    claims: tuple[Claim, ...] = ()
    next_test_due: str | None = None

    def __post_init__(self) -> None:
        _check(self, "declarations")
        items = [row.item for row in self.scope]
        twice = sorted({item for item in items if items.count(item) > 1})
        if twice:
            raise InvalidInput(f"scope: {', '.join(twice)} is declared more than once; keep one entry")
