"""What an impact assessment (GDPR Art. 35) can take from one result, in Markdown: facts and links, no judgement."""

import json
import re

from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports import compliance, phrases
from mnemoscope.reports.facts import headline
from mnemoscope.reports.page import report_id
from mnemoscope.reports.schema import from_json, result_digest, to_json
from mnemoscope.reports.texts import fixed_limitations, text_version

__all__ = ["DPIA_NAME", "dpia_extract"]

DPIA_NAME = "dpia.md"

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")


def _text(value: object, limit: int = 400) -> str:
    r"""A string of unknown origin as Markdown text: nothing in it is markup, a line break or a direction mark.

    >>> _text("<b>*x*|")
    '\\<b\\>\\*x\\*\\|'
    """
    return _SPECIAL.sub(r"\\\1", phrases.plain(value, limit))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def dpia_extract(result: AuditResult) -> str:
    """Write the extract.

    Args:
        result: what an audit found; shown is what its edition may show.

    Returns:
        Markdown that ends in a block of JSON for the record of processing (GDPR Art. 30).

    Raises:
        InvalidInput: the result does not fit its schema.
    """
    data = to_json(result)
    r, digest = from_json(data), result_digest(data)
    declared, missing = compliance.declared_of(r), compliance.missing_word(r)
    lines = [
        "# Extract for an impact assessment",
        "",
        f"From {report_id(digest)}, {r.edition} edition, made {_text(r.created_at)} by mnemoscope "
        f"{_text(r.environment.mnemoscope)}. Source: `result.json`, `{digest}`.",
        "",
        "Facts from one audit, for those who assess. Not legal advice; evidence, not a legal determination. Sections "
        "S0 to S15 are those of the report.",
        "",
        "## Processing that was looked at",
        "",
        f"- Title: {_text(r.title)}",
        f"- Data: {_text(r.data.name)}, {r.data.n_records:,} records in {r.data.n_classes} classes (S4)",
        f"- Artefact: {_text(compliance.tested_artefact(r)[0])} (S5)",
        f"- Release context: {_text(declared.release_context or missing)} (S3)",
        f"- Documents: {_documents(r) or missing} (S1)",
        "",
        "## Threat",
        "",
        *(f"- {fact.name}: {_text(fact.text)}" for fact in compliance.threat_model(r)),
        "",
        "## Evidence of likelihood",
        "",
    ]
    rows: list[tuple[str, ...]] = []
    for s in r.subjects:
        h = headline(r, s)
        at = "" if h.fpr is None else f" at {phrases.percent(h.fpr)} FPR"
        rows.append(
            (
                _text(s.name, 60),
                f"{s.verdict.word}{f', tier {s.verdict.tier}' if s.verdict.tier else ''}",
                _text(f"{h.attack}{at}: {phrases.estimate(h.after)}"),
                _text(phrases.estimate(h.retrained) if h.retrained.value is not None else "no retrained models"),
            )
        )
    lines += _table(("Subject", "Word", "Primary attack finds", "Retrained models"), rows)
    lines += [f"- {_text(s.name, 60)}: {_text(s.verdict.meaning)}" for s in r.subjects]
    lines += ["", "## Records concerned", ""]
    lines += [f"- {_text(x.role, 60)}: {x.n_records:,} records" for x in r.data.sets] or ["- not listed"]
    lines += _worst(r)
    lines += ["", "## Measures, as declared", ""]
    lines += _table(
        ("Copy", "Status", "Verified by this tool"),
        [(_text(x.title), _text(x.status), f"{x.verified}: {_text(x.how)}") for x in compliance.scope_rows(r)],
    )
    lines += [f"- {fact.name}: {_text(fact.text)}" for fact in compliance.dates(r)]
    lines += ["", "## Classes of attack", ""]
    lines += _table(
        ("Class", "EDPB Opinion 28/2024", "Status", "Reason"),
        [
            (_text(x.of.name), x.of.edpb, x.status, _text(x.reason) if x.reason else "")
            for x in compliance.coverage_rows(r)
        ],
    )
    lines += ["## What remains", "", f"Fixed limitations, version {text_version('limitations')}:", ""]
    lines += [f"{i}. {text}" for i, text in enumerate(fixed_limitations(), 1)]
    lines += ["", "Computed from this result:", ""]
    computed = compliance.extra_limitations(r) + compliance.computed_limitations(r)
    lines += [f"{i}. {_text(text, 1_000)}" for i, text in enumerate(computed, 1)]
    lines += ["", "Residual risk, and whether it is acceptable, is for the controller to state: not stated here.", ""]
    lines += ["## Opinion", ""]
    for row in compliance.people(r):
        if row.role == "dpo":
            opinion = "pending" if row.person is None or not row.person.decision else row.person.decision
            lines.append(f"- Data protection officer: {_text(opinion)}")
    lines += ["", "## Block for the record of processing", "", "```json", _record(r, digest), "```", ""]
    return "\n".join(lines)


def _documents(result: AuditResult) -> str:
    found = compliance.declared_of(result).documents
    return "; ".join(f"{d.kind} {_text(d.id)}{f' ({d.digest})' if d.digest else ''}" for d in found)


def _worst(result: AuditResult) -> list[str]:
    """The worst case of each subject, beside the average: the test of para 34 is any person."""
    lines = []
    for s in result.subjects:
        for e in s.endpoints:
            if e.id == "P3":
                found = _text(phrases.estimate(e.estimate, phrases.kind_of(e)))
                lines.append(f"- Worst case, {_text(s.name, 60)}, {_text(e.part)}: {found}, {e.outcome} (S8)")
    return lines


def _record(result: AuditResult, digest: str) -> str:
    """A block of JSON that a record of processing can hold; code fences cannot be closed from within JSON strings."""
    declared = compliance.declared_of(result)
    block = {
        "report": report_id(digest),
        "result": digest,
        "edition": result.edition,
        "audited_at": result.created_at,
        "data": phrases.plain(result.data.name),
        "artefact": [
            {"name": phrases.plain(m.name), "digest": m.digest}
            for s in result.subjects
            for m in s.models
            if m.role in ("after", "before")
        ],
        "words": {phrases.plain(s.name): s.verdict.word for s in result.subjects},
        "request_received": declared.request.received,
        "erasure_executed": declared.request.executed,
        "model_replaced": declared.request.replaced,
        "next_test_due": declared.next_test_due,
    }
    return json.dumps(block, indent=1, ensure_ascii=True).replace("`", "\\u0060")
