"""Whether the files beside a result are those that it names, in the order in which they should have come about."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from mnemoscope.agreement import Rows
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.commitments import merkle_root
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.run_log import PLAN, RESULT, check_order, read_log
from mnemoscope.evidence import ANSWERS, COMMITMENTS, LOG, SCORES

__all__ = ["check_files", "check_plan", "folder_of"]

KNOWN = (SCORES, ANSWERS, COMMITMENTS, LOG)
LARGEST_TEXT = 1 << 30


def folder_of(path: Path) -> Path:
    """The folder of a result: the path itself, or that of the file it names."""
    return path if path.is_dir() else path.parent


def check_files(base: Path, result: AuditResult, rows: Rows, *, needed: Sequence[str]) -> bool:
    """Compare every file with its digest, follow the log, and rebuild the roots of the record sets.

    Args:
        base: the folder of the result.
        result: what names the files.
        rows: receives a row for each file; a file that is not here and not needed is taken over by name.
        needed: files without which nothing can be computed.

    Returns:
        Whether all that was compared agrees: only then may anything be computed from the files.
    """
    good = True
    for file in result.evidence:
        if file.path not in KNOWN:  # never open a path that a document names
            rows.take(f"{file.path}: not a file of this release")
            continue
        found = _digest(base / file.path)
        if found is None and file.path not in needed:
            rows.take(f"{file.path}: it is not here, so it was not compared")
        else:
            good &= rows.add(f"{file.path}: digest", file.sha256, found or "there is no such file")
    if not good:
        return False
    if (base / LOG).exists():
        good &= _check_log(base, result, rows)
    elif result.log_head and LOG not in {file.path for file in result.evidence}:
        good &= rows.add(f"{LOG}: head", result.log_head, "the result lists no log")
    if (base / COMMITMENTS).exists():
        _check_commitments(base, result, rows)
    return good


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _check_log(base: Path, result: AuditResult, rows: Rows) -> bool:
    try:
        steps, head = read_log(_text(base / LOG))
    except InvalidInput as error:
        return rows.add(f"{LOG}: chain", "unbroken", str(error), False)
    good = rows.add(f"{LOG}: head", result.log_head, head)
    fault = check_order(steps)
    good &= rows.add(f"{LOG}: order plan, first score, result", "in order", fault or "in order")
    plans = {step.about for step in steps if step.step == PLAN}
    good &= rows.add(f"{LOG}: plan digest", result.plan.digest, ", ".join(sorted(plans)))
    ends = [step.about for step in steps if step.step == RESULT]
    named = " ".join(f"{file.path}={file.sha256}" for file in result.evidence if file.path != LOG)
    return good & rows.add(f"{LOG}: files of the result", named, ends[-1] if ends else "none")


def _check_commitments(base: Path, result: AuditResult, rows: Rows) -> None:
    try:
        sets = json.loads(_text(base / COMMITMENTS))["sets"]
        roots = {
            str(role): (merkle_root([bytes.fromhex(leaf) for leaf in one["leaves"]]), one["n"], len(one["leaves"]))
            for role, one in sets.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        rows.add(f"{COMMITMENTS}", "commitments", f"cannot be read ({type(error).__name__})", False)
        return
    for one in result.data.sets:
        if one.keyed:
            root, n, leaves = roots.get(one.role, ("no such set", 0, 0))
            same = (root, n, leaves) == (one.digest, one.n_records, one.n_records)
            recomputed = f"{leaves} records, {root}" if n == leaves else f"{leaves} leaves for {n} records, {root}"
            rows.add(f"record set {one.role}: root", f"{one.n_records} records, {one.digest}", recomputed, same)


def check_plan(base: Path, result: AuditResult, rows: Rows) -> None:
    """Compare the digest of ``plan.json`` with the one that the result carries, where there is such a file."""
    path = base / "plan.json"
    if result.mode != "procedure":
        return
    if not path.exists():
        rows.take("plan.json: it is not here, so the plan's digest was not compared")
        return
    try:
        plan = json.loads(_text(path))["plan"]
        found = "sha256:" + hashlib.sha256(canonical_json(plan)).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"cannot be read ({type(error).__name__})"
    rows.add("plan.json: digest", result.plan.digest, found)


def _text(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise InvalidInput(f"{path.name}: is larger than {LARGEST_TEXT:,} bytes")
    return data
