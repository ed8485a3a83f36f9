"""A small audit's folder as an audit leaves it, and what tests of bundles do with it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from mnemoscope.audit.verdict.evidence_files import Classification, EvidenceFile
from mnemoscope.audit.verdict.result import AuditResult, Environment, ExposedRecord
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.run_log import FIRST_SCORE, MODELS_READY, PLAN, RESULT, RunLog
from mnemoscope.reports.bundle import gather, write_bundle
from mnemoscope.reports.bundle_documents import Machine
from mnemoscope.reports.html import render_html
from mnemoscope.reports.manifest import MANIFEST, SUMS, Manifest, canonical, read_manifest, sums, write_manifest
from mnemoscope.reports.schema import to_json

MACHINE = Machine(
    Environment("0.1.0", "3.12.3", "Linux 6.8 x86_64", {"numpy": "2.4.6"}, "a common processor", 2, 8 * 2**30, "cpu"),
    {"numpy": "2.4.6", "scipy": "1.17.1"},
    "0123456789abcdef0123456789abcdef01234567",
    False,
    {"OMP_NUM_THREADS": "1"},
)
RECORD = "patients/0017.png"
CONTROLLER_KEY = "3f" * 32


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def small_result(factory: ModuleType) -> AuditResult:
    """One subject with a word, its endpoints and gates, and little else: quick to read and to render."""
    made = factory.result([factory.subject("retrain")])
    subject = made.subjects[0]
    slim = replace(
        subject, curves=(), distributions=(), findings=subject.findings[:2], measured=(), defended=(), epsilons=(),
        reconstructed=(), exposed=(ExposedRecord(17, RECORD, 0.0002, subject.findings[0].auc),),
    )  # fmt: skip
    return replace(made, subjects=(slim,))


def plan_document(result: AuditResult) -> tuple[bytes, str]:
    plan = {"name": "small", "seed": 0, "policy": {}, "data": {"name": "digits"}}
    plan_digest = digest(canonical_json(plan))
    document = {"digest": plan_digest, "alpha": 0.01, "committed_at": "2020-01-01T00:00:00Z", "plan": plan}
    return json.dumps(document, indent=1).encode() + b"\n", plan_digest


def write_audit(
    factory: ModuleType,
    folder: Path,
    *,
    edition: str = "internal",
    steps: tuple[str, ...] = (PLAN, MODELS_READY, FIRST_SCORE),
    page: Callable[[AuditResult], str] | None = None,
) -> AuditResult:
    """Write result.json, plan.json, report.html, the controller's key and evidence as an audit does.

    The page is a stub that names its source; ``page`` makes another one, e.g. the real one, which takes longer.
    """
    (folder / "evidence").mkdir(parents=True)
    raw, plan_digest = plan_document(made := small_result(factory))
    (folder / "plan.json").write_bytes(raw)
    (folder / "commitment.key").write_text(CONTROLLER_KEY + "\n")
    np.savez(folder / "evidence" / "scores.npz", after=np.linspace(0, 1, 60))
    (folder / "evidence" / "commitments.json").write_bytes(canonical({"version": 1, "sets": {}}))
    kinds: tuple[tuple[str, str, Classification], ...] = (
        ("evidence/scores.npz", "application/x-npz", "restricted"),
        ("evidence/commitments.json", "application/json", "internal"),
    )
    files = [_evidence(folder, *kind) for kind in kinds]
    log = RunLog()
    for step in steps:
        log.add(step, plan_digest if step == PLAN else "")
    log.add(RESULT, " ".join(f"{file.path}={file.sha256}" for file in files))
    (folder / "evidence" / "run.jsonl").write_bytes(log.to_bytes())
    files.append(_evidence(folder, "evidence/run.jsonl", "application/jsonl", "internal"))
    plan = replace(made.plan, digest=plan_digest)
    made = replace(made, plan=plan, evidence=tuple(files), log_head=log.head, edition=edition)
    (folder / "result.json").write_bytes(to_json(made))
    (folder / "report.html").write_text((page or stub_page)(made), encoding="utf-8")
    return made


def stub_page(result: AuditResult) -> str:
    """A page with what verification reads of one, and every string of the result."""
    raw = to_json(result)
    return f'<!doctype html><meta name="result-digest" content="{digest(raw)}"><pre>{raw.decode()}</pre>'


def real_page(result: AuditResult) -> str:
    return render_html(result, figures=False)


def _evidence(folder: Path, path: str, kind: str, classification: Classification) -> EvidenceFile:
    data = (folder / path).read_bytes()
    return EvidenceFile(path, digest(data), len(data), kind, classification, "for tests")


def bundled(audit: Path, target: Path, edition: str = "internal", **options: bool) -> Path:
    return write_bundle(gather(audit, edition=edition, machine=MACHINE), target, **options)  # type: ignore[arg-type]


def manifest_of(bundle: Path) -> Manifest:
    return read_manifest((bundle / MANIFEST).read_bytes())


def make_again(bundle: Path, change: Callable[[Manifest], Manifest] = lambda m: m) -> None:
    """What a forger does: list the files of a bundle as they are now, with digests that agree."""
    old = manifest_of(bundle)
    entries = []
    for entry in old.entries:
        data = (bundle / entry.path).read_bytes()
        entries.append(replace(entry, sha256=digest(data), bytes=len(data)))
    result = next(entry.sha256 for entry in entries if entry.path == "result.json")
    new = change(replace(old, entries=tuple(entries), result=result))
    raw = write_manifest(new)
    (bundle / MANIFEST).write_bytes(raw)
    (bundle / SUMS).write_bytes(sums(new.entries, raw))
