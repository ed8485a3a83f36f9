"""What a signature vouches for: in-toto statements about an audit, about a test result, and about an opinion on it.

A statement names its subjects by digest, so that it stays true of exactly those bytes. No time stands in any of them: a
clock of one's own shows nothing to others, and without it the same bundle and key give the same bytes.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports.manifest import MANIFEST, Manifest, is_digest

__all__ = [
    "AUDIT_TYPE",
    "OPINION_TYPE",
    "STATEMENT_TYPE",
    "TEST_TYPE",
    "Opinion",
    "audit_statement",
    "opinion_statement",
    "read_opinion",
    "pipeline_statements",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
AUDIT_TYPE = "urn:mnemoscope:attestation:audit-result:v1"
OPINION_TYPE = "urn:mnemoscope:attestation:opinion:v1"
TEST_TYPE = "https://in-toto.io/attestation/test-result/v0.1"

TEST_RESULTS = {"WITHIN BOUND": "PASSED", "INCONCLUSIVE": "WARNED", "OUTSIDE BOUND": "FAILED"}
"""NOT ASSESSED makes no statement: nothing was tested that could pass or fail."""

MOST_OPINION_BYTES = 2**16
LONGEST = {"by": 200, "role": 200, "decision": 200, "text": 20_000}


@dataclass(frozen=True)
class Opinion:
    """What a person, for example a data-protection officer, says about an audit.

    Attributes:
        by: name or pseudonym; it can be read by everybody who has the bundle.
        role: e.g. "data protection officer".
        date: of the opinion, "2026-11-21".
        text: the opinion.
        decision: what follows, in the person's own words; may be empty.
        independent: whether the person had no part in the audit; None where it is not said.
    """

    by: str
    role: str
    date: str
    text: str
    decision: str = ""
    independent: bool | None = None


def _hex(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _unique(subjects: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Subjects with names that are unique, as the statement's specification asks; equal pairs are one subject."""
    found: dict[str, str] = {}
    for name, digest in subjects:
        spare, number = name, 2
        while found.get(spare, digest) != digest:
            spare, number = f"{name} ({number})", number + 1
        found[spare] = digest
    return [{"name": name, "digest": _hex(digest)} for name, digest in found.items()]


def _models(subject: Subject) -> list[tuple[str, str]]:
    """The models of a subject whose digest is one; a model known by its answers alone has the digest of those."""
    return [
        (f"models/{subject.name}/{group.name}", group.digest) for group in subject.models if is_digest(group.digest)
    ]


def _files(manifest: Manifest, manifest_digest: str) -> list[tuple[str, str]]:
    return [("result.json", manifest.result), (MANIFEST, manifest_digest)]


def _digest_of(manifest: Manifest, path: str) -> str | None:
    return next((e.sha256 for e in (*manifest.entries, *manifest.withheld) if e.path == path), None)


def audit_statement(result: AuditResult, manifest: Manifest, manifest_digest: str) -> dict[str, Any]:
    """State what an audit found, on which artefacts, under which plan and policy.

    Args:
        result: as the bundle holds it.
        manifest: of the bundle.
        manifest_digest: of the bytes of its ``manifest.json``.
    """
    models = [pair for subject in result.subjects for pair in _models(subject)]
    return {
        "_type": STATEMENT_TYPE,
        "subject": _unique([*_files(manifest, manifest_digest), *models]),
        "predicateType": AUDIT_TYPE,
        "predicate": {
            "edition": manifest.edition,
            "derivedFrom": manifest.derived_from,
            "schemaVersion": result.schema_version,
            "mode": result.mode,
            "verdicts": [
                {"subject": s.name, "word": s.verdict.word, "tier": s.verdict.tier, "flags": list(s.verdict.flags)}
                for s in result.subjects
            ],
            "planDigest": result.plan.digest,
            "policyDigest": _digest_of(manifest, "policy.json"),
            "logHead": result.log_head or None,
            "tool": manifest.tool,
            "means": "The holder of the key vouches for these exact bytes. It is evidence about the attacks that were "
            "run, no proof that data is gone, and no legal determination.",
        },
    }


def pipeline_statements(result: AuditResult, manifest: Manifest, manifest_digest: str) -> list[dict[str, Any]]:
    """State for pipelines what passed, in the terms of in-toto's test results: one statement for each subject.

    A word of NOT ASSESSED, and an audit of membership alone, make none.
    """
    made = []
    for subject in result.subjects:
        if subject.verdict.word not in TEST_RESULTS:
            continue
        names: dict[str, list[str]] = {"within": [], "undecided": [], "beyond": []}
        for e in subject.endpoints:
            if e.outcome in names:
                names[e.outcome].append(" ".join(filter(None, (e.id, e.part, f"({e.attack})" if e.attack else ""))))
        configuration = [
            {"name": path, "digest": _hex(digest)}
            for path in ("plan.json", "policy.json")
            if (digest := _digest_of(manifest, path)) is not None
        ]
        tested = _models(replace(subject, models=tuple(g for g in subject.models if g.role == "after")))
        made.append(
            {
                "_type": STATEMENT_TYPE,
                "subject": _unique([*tested, *_files(manifest, manifest_digest)]),
                "predicateType": TEST_TYPE,
                "predicate": {
                    "result": TEST_RESULTS[subject.verdict.word],
                    "configuration": configuration,
                    "passedTests": names["within"],
                    "warnedTests": names["undecided"],
                    "failedTests": names["beyond"],
                },
            }
        )
    return made


def opinion_statement(opinion: Opinion, manifest: Manifest, manifest_digest: str) -> dict[str, Any]:
    """State a person's opinion on an audit; the audit's own statement and its signature stay as they are."""
    predicate: dict[str, Any] = {"by": opinion.by, "role": opinion.role, "date": opinion.date, "text": opinion.text}
    if opinion.decision:
        predicate["decision"] = opinion.decision
    if opinion.independent is not None:
        predicate["independent"] = opinion.independent
    return {
        "_type": STATEMENT_TYPE,
        "subject": _unique(_files(manifest, manifest_digest)),
        "predicateType": OPINION_TYPE,
        "predicate": predicate,
    }


def read_opinion(path: Path | str) -> Opinion:
    """Read an opinion from a TOML file with by, role, date, text, and where wanted decision and independent.

    Raises:
        InvalidInput: the file cannot be read, or a key is unknown, missing, of a wrong type or too long.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_OPINION_BYTES + 1)
        if len(data) > MOST_OPINION_BYTES:
            raise InvalidInput(f"{path}: larger than {MOST_OPINION_BYTES:,} bytes; shorten the opinion")
        raw = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read the opinion {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: no TOML in UTF-8 ({error}); see docs/evidence.md for an example") from error
    known = ("by", "role", "date", "text", "decision", "independent")
    for key in raw:
        if key not in known:
            raise InvalidInput(f"{path}: unknown key {ascii(key)[:60]}; known are {', '.join(known)}")
    if isinstance(raw.get("date"), date | datetime):
        raw["date"] = raw["date"].isoformat()[:10]
    for key in ("by", "role", "date", "text"):
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            raise InvalidInput(f"{path}: {key} is missing or no text")
    try:
        raw["date"] = date.fromisoformat(raw["date"]).isoformat()
    except ValueError as error:
        raise InvalidInput(f"{path}: date={ascii(raw['date'])[:40]} is no day such as 2026-11-21") from error
    if not isinstance(raw.get("decision", ""), str) or not isinstance(raw.get("independent"), bool | None):
        raise InvalidInput(f"{path}: decision must be text, and independent must be true or false")
    for key, most in LONGEST.items():
        if len(raw.get(key, "")) > most:
            raise InvalidInput(f"{path}: {key} has {len(raw[key]):,} characters; at most {most:,} are taken")
    return Opinion(**raw)
