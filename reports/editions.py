"""Three editions of one result: public, internal, restricted. Every view shows the edition, and nothing beyond it.

A report about who was in the training data is personal data itself. Restricted shows what the result holds; internal
leaves out everything about single records; public also leaves out small groups, people, machines, and what would let
a reader guess which records were meant. A redacted result is a result of its own: its digest is that of its own file.
"""

import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.declared import Declared
from mnemoscope.audit.verdict.policy_record import PolicyRecord
from mnemoscope.audit.verdict.result import AuditResult, DataSummary, Environment, Subject

__all__ = ["EDITIONS", "MIN_GROUP", "SUPPRESSED", "WITHHELD", "WITHHELD_SEED", "Edition", "for_edition"]

Edition = Literal["public", "internal", "restricted"]

EDITIONS: tuple[Edition, ...] = ("public", "internal", "restricted")
"""From the one that shows least to the one that shows most."""

MIN_GROUP = 10
"""Smallest group of records of which the public edition shows a number."""

WITHHELD = "withheld"
WITHHELD_SEED = -1
"""In place of the seed: with the data, it says which records were drawn."""

SUPPRESSED = "suppressed in this edition: fewer than"

INDIVIDUALS = ("exposed", "individuals")
"""Fields of a subject that name records: restricted alone."""

PER_RECORD = ("distributions",)
"""Fields of a subject from which values of single records can be read: not public."""

SHOWN_PACKAGES = ("torch", "numpy", "scipy")

_PATH = re.compile(
    r"""(?xi)
    \b [a-z][a-z0-9+.-]* :// [^\s"'<>|]+                      # an address
    | (?<![\w/]) [a-z] : [\\/] [^,;:"'<>|()\n]*              # a drive
    | \\\\ [\w.$-]+ \\ [^,;:"'<>|()\n]*                      # a share of another machine
    | (?<![\w/]) ~ [\w.-]* [\\/] [^,;:"'<>|()\n]*            # a home folder
    | (?<![\w/.)\]]) / (?=[\w.@~+-]) [^,;:"'<>|()\n]*        # from the root
    | (?:[\w.~@+-]+ [\\/])+ [\w.@+-]+ \. [a-z]\w{0,11} \b    # a file in a folder
    | \b [\w.+-]+ @ [\w-]+ (?:\.[\w-]+)*                     # a mailbox, or a user of a machine
    """
)
_COUNT = re.compile(r"(?<!request )(?<![\d,.])(\d[\d,]*) of (\d[\d,]*)(?![\d,]*\d)")


@dataclass
class _Redaction:
    """One pass over a result: what to hide, and how much was hidden."""

    keys: tuple[str, ...]
    least: int
    estimates: int = 0
    groups: list[str] = field(default_factory=list)

    def text(self, value: str) -> str:
        for key in self.keys:
            value = value.replace(key, "[record withheld]")
        value = _PATH.sub("[path withheld]", value)
        return _COUNT.sub(self._count, value)

    def _count(self, match: re.Match[str]) -> str:
        n = int(match[2].replace(",", ""))
        return match[0] if n == 0 or n >= self.least else f"(a group of fewer than {self.least})"

    def walk(self, value: Any) -> Any:
        """Redact every text and every small group below a value; numbers of large groups stay as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Estimate):
            return self._estimate(value)
        if isinstance(value, tuple):
            # Points of curves: thousands of numbers in which there is nothing to hide.
            return value if value and isinstance(value[0], int | float) else tuple(self.walk(v) for v in value)
        if isinstance(value, dict):
            return {self.text(k) if isinstance(k, str) else k: self.walk(v) for k, v in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: self.walk(getattr(value, f.name)) for f in fields(value)})
        return value

    def _estimate(self, e: Estimate) -> Estimate:
        if e.value is not None and e.n is not None and 0 < e.n < self.least:
            self.estimates += 1
            return Estimate(None, reason=f"{SUPPRESSED} {self.least} records")
        return e if e.reason is None else replace(e, reason=self.text(e.reason))


def for_edition(result: AuditResult, edition: Edition | None = None, *, min_group: int = MIN_GROUP) -> AuditResult:
    """Return the result as an edition may show it; a second call changes nothing more.

    Args:
        result: what an audit found.
        edition: which one; None = the result's own.
        min_group: smallest group of records of which the public edition shows a number, at least 2.

    Returns:
        A result that carries the edition: the source of every view of it, with a digest of its own.

    Raises:
        InvalidInput: an unknown edition, a group size below 2, or an edition above that of a public result.
    """
    wanted = result.edition if edition is None else edition
    if wanted not in EDITIONS:
        raise InvalidInput(f"edition={wanted!r}: allowed are {', '.join(EDITIONS)}")
    if min_group < 2:
        raise InvalidInput(f"min_group={min_group}: give at least 2; a group of one is a person")
    if result.edition == "public" and wanted != "public":
        raise InvalidInput(
            f"edition={wanted!r}: this result is a public edition, from which the rest was taken out; "
            "give the result.json that the audit itself wrote"
        )
    if wanted == "restricted":
        return replace(result, edition="restricted", subjects=tuple(_pseudonymous(s) for s in result.subjects))
    names = INDIVIDUALS if wanted == "internal" else INDIVIDUALS + PER_RECORD
    emptied = replace(result, edition=wanted, subjects=tuple(_pooled(_without(s, names)) for s in result.subjects))
    return emptied if wanted == "internal" else _public(emptied, _keys(result.subjects), min_group)


def _without(subject: Subject, names: Iterable[str]) -> Subject:
    """Put the default, which is empty, into the named fields; a subject has those of its release."""
    empty: dict[str, Any] = {}
    for f in fields(subject):
        if f.name in names and getattr(subject, f.name):
            empty[f.name] = () if f.default is MISSING else f.default
    return replace(subject, **empty) if empty else subject


def _pseudonymous(subject: Subject) -> Subject:
    """Name records by their keyed pseudonym alone, where they have one; keys of single records are never written."""
    exposed = tuple(replace(x, record_id=-1, key="") if x.pseudonym else x for x in subject.exposed)
    return replace(subject, exposed=exposed, individuals=tuple(replace(x, key="") for x in subject.individuals))


def _pooled(subject: Subject) -> Subject:
    """Join cells of the map of records until none speaks of a handful of them."""
    if subject.record_map is None:
        return subject
    from mnemoscope.audit.verdict.record_map import pooled_map

    return replace(subject, record_map=pooled_map(subject.record_map))


def _keys(subjects: Iterable[Subject]) -> tuple[str, ...]:
    """Keys of records that the result names, longest first; very short ones are in every sentence."""
    found = {
        str(getattr(row, "key", "")) for s in subjects for name in INDIVIDUALS for row in (getattr(s, name, ()) or ())
    }
    return tuple(sorted((key for key in found if len(key) > 2), key=lambda key: (-len(key), key)))


def _public(result: AuditResult, keys: tuple[str, ...], least: int) -> AuditResult:
    hide = _Redaction(keys, least)
    declared = None if result.declared is None else _declared(result.declared, least)
    result = replace(
        result,
        data=_data(result.data, hide),
        subjects=tuple(_subject(s, hide) for s in result.subjects),
        environment=_environment(result.environment),
        declared=declared,
        plan=replace(result.plan, seed=WITHHELD_SEED, decided=_decided(result.plan.decided)),
    )
    shown: AuditResult = hide.walk(result)
    return replace(shown, limitations=(*shown.limitations, *_said(hide)))


def _said(hide: _Redaction) -> list[str]:
    lines = []
    if hide.estimates:
        lines.append(f"{hide.estimates} numbers of groups of fewer than {hide.least} records are left out here.")
    if hide.groups:
        names = ", ".join(hide.text(name) for name in dict.fromkeys(hide.groups))
        lines.append(f"Groups of fewer than {hide.least} records are left out here: {names}.")
    return lines


def _data(data: DataSummary, hide: _Redaction) -> DataSummary:
    """Leave out small sets, and digests of record ids: who knows the data could try sets until one fits."""
    small = [s for s in data.sets if 0 < s.n_records < hide.least]
    hide.groups += [f"records {s.role}" for s in small]
    sets = tuple(replace(s, digest=WITHHELD) for s in data.sets if s not in small)
    return replace(data, digest=WITHHELD, sets=sets)


def _subject(subject: Subject, hide: _Redaction) -> Subject:
    def large(row: Any) -> bool:
        fits = row.n_in >= hide.least and row.n_out >= hide.least
        if not fits:
            hide.groups.append(f"{row.attack}, {row.game}")
        return bool(fits)

    found, curves = tuple(f for f in subject.findings if large(f)), tuple(c for c in subject.curves if large(c))
    tuned = None if subject.tuned is None else replace(subject.tuned, seed=WITHHELD_SEED)
    return replace(subject, findings=found, curves=curves, tuned=tuned)


def _environment(environment: Environment) -> Environment:
    """Keep the versions that a reader compares; the machine is nobody's business."""
    return replace(
        environment,
        platform=environment.platform.split(" ")[0],
        packages={k: v for k, v in environment.packages.items() if k in SHOWN_PACKAGES},
        cpu=WITHHELD,
        cores=0,
        memory_bytes=0,
        device="cpu" if environment.device.startswith("cpu") else "accelerator",
    )


def _decided(record: PolicyRecord | None) -> PolicyRecord | None:
    """Keep the owner's role, the rules and the digest; withhold the name and every free sentence."""
    if record is None:
        return None
    return replace(
        record,
        owner=WITHHELD if record.owner else "",
        reason=WITHHELD if record.reason else "",
        reasons=dict.fromkeys(record.reasons, WITHHELD),
    )


def _declared(declared: Declared, least: int) -> Declared:
    """Keep statuses, dates and roles; withhold names and every free sentence."""

    def hidden(text: str) -> str:
        return WITHHELD if text else ""

    request, service, kept = declared.request, declared.service, declared.forget_set
    people_behind = request.n_subjects if request.n_subjects is None or request.n_subjects >= least else None
    return replace(
        declared,
        declared_by=hidden(declared.declared_by),
        request=replace(
            request, ids=(WITHHELD,) * len(request.ids), ground=hidden(request.ground), n_subjects=people_behind
        ),
        service=replace(service, holds_before=hidden(service.holds_before)),
        scope=tuple(replace(row, note=hidden(row.note)) for row in declared.scope),
        people=tuple(replace(p, name=hidden(p.name), decision=hidden(p.decision)) for p in declared.people),
        documents=tuple(replace(d, id=hidden(d.id)) for d in declared.documents),
        recipients=tuple(replace(r, name=f"recipient {i}") for i, r in enumerate(declared.recipients, 1)),
        forget_set=replace(kept, held_by=hidden(kept.held_by)),
    )
