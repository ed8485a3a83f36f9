"""Checks of what a bundle holds: presence, digests, schema, plan and policy, log, order of times, pages."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.policy import load_policy
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.audit.work.keys import canonical_json
from mnemoscope.audit.work.run_log import FIRST_SCORE, PLAN, RESULT, Step, check_order, read_log
from mnemoscope.reports.archive import ContainerError
from mnemoscope.reports.contents import Contents, ZipContents
from mnemoscope.reports.manifest import ATTESTATIONS, MANIFEST, SUMS, Manifest, parse_canonical, rank, sums
from mnemoscope.reports.schema import from_json
from mnemoscope.reports.views import names_source, printed_digests, witness

__all__ = ["Seen", "digests", "log", "order", "pages", "plan_and_policy", "present", "read_bundled_result", "words"]


class Seen(NamedTuple):
    """What a check saw."""

    status: Literal["holds", "does not hold", "not checked"]
    said: tuple[str, ...]


def _holds(*said: str) -> Seen:
    return Seen("holds", said)


def _fails(*said: str) -> Seen:
    return Seen("does not hold", said)


def _unseen(*said: str) -> Seen:
    return Seen("not checked", said)


def present(contents: Contents, manifest: Manifest) -> list[str]:
    """Name files that are missing, that nobody listed, or that this edition may not hold."""
    there, wanted = set(contents.sizes), manifest.paths() | {MANIFEST, SUMS}
    wrong = [f"{path}: is listed, and missing" for path in sorted(wanted - there)]
    wrong += [
        f"{path}: is here, and nobody listed it"
        for path in sorted(there - wanted)
        if not path.startswith(f"{ATTESTATIONS}/")
    ]
    wrong += [f"{ascii(path)}: is here, and no file of a bundle is named so" for path in contents.strange]
    wrong += [
        f"{entry.path}: is classified {entry.classification}, which the {manifest.edition} edition may not hold"
        for entry in manifest.entries
        if rank(entry.classification) > rank(manifest.edition)
    ]
    return wrong


def digests(contents: Contents, manifest: Manifest, raw: bytes) -> list[str]:
    """Name files whose bytes are not those that were listed."""
    wrong = []
    for entry in manifest.entries:
        if entry.path not in contents.sizes:
            continue
        if contents.digest(entry.path) != (entry.sha256, entry.bytes):
            wrong.append(f"{entry.path}: its bytes were altered (they differ from the digest in {MANIFEST})")
    if SUMS in contents.sizes and contents.read(SUMS) != sums(manifest.entries, raw):
        wrong.append(f"{SUMS}: its bytes were altered (it differs from {MANIFEST})")
    if isinstance(contents, ZipContents):
        wrong += [
            f"{path}: its check sum in the zip is not that of its bytes"
            for path in contents.sizes
            if not contents.crc_holds(path) and not any(line.startswith(f"{path}:") for line in wrong)
        ]
    own = next((entry for entry in manifest.entries if entry.path == "result.json"), None)
    if own is None or own.sha256 != manifest.result:
        wrong.append(f"{MANIFEST}: names another result than the one it lists")
    return wrong


def read_bundled_result(contents: Contents, manifest: Manifest) -> AuditResult:
    """Read ``result.json`` and check that it is canonical and of the edition that the list says.

    Raises:
        InvalidInput: it does not fit, or is of a newer schema.
    """
    data = contents.read("result.json")
    result = from_json(data)
    parse_canonical(data, "result.json")
    if result.edition != manifest.result_edition:
        raise InvalidInput(f"result.json: states the {result.edition} edition, the list the {manifest.result_edition}")
    named = any(subject.exposed or subject.individuals for subject in result.subjects)
    if named and manifest.edition != "restricted":
        raise InvalidInput(f"result.json: names single records, which the {manifest.edition} edition may not hold")
    return result


def _document(contents: Contents, path: str) -> Any:
    try:
        return json.loads(contents.read(path))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: no JSON document") from error


def _plan_faults(plan: object, result: AuditResult) -> list[str]:
    if not isinstance(plan, dict) or not isinstance(plan.get("plan"), dict):
        return ["plan.json: holds no plan"]
    wrong = []
    digest = "sha256:" + hashlib.sha256(canonical_json(plan["plan"])).hexdigest()
    if digest != result.plan.digest or plan.get("digest") != digest:
        wrong.append("plan.json: the digest of the plan is not the one that the result names")
    given = plan["plan"].get("policy", {})
    resolved: Mapping[str, object] = {}
    try:
        resolved = load_policy(given).as_dict()
    except InvalidInput as error:
        wrong.append(f"plan.json: {error}")
    changed = sorted(k for k, v in result.plan.policy.items() if resolved and resolved.get(k) != v)
    if changed:
        wrong.append(f"plan.json: the policy in the plan gives other values than the result for {', '.join(changed)}")
    return wrong


def plan_and_policy(contents: Contents, manifest: Manifest, result: AuditResult) -> Seen:
    """Compare plan and policy with what the result says was decided on."""
    from mnemoscope.audit.verdict.policy_file import policy_record
    from mnemoscope.reports.bundle_documents import policy_document

    wrong, fine = [], []
    try:
        if "policy.json" in contents.sizes:
            if contents.read("policy.json") != policy_document(contents.read("result.json")):
                wrong.append("policy.json: is not the policy that the result was decided by")
            fine.append(f"policy.json is the policy of the result ({len(result.plan.policy)} values)")
        if "plan.json" in contents.sizes:
            plan = _document(contents, "plan.json")
            wrong += _plan_faults(plan, result)
            if not wrong and result.plan.decided is not None:
                record = policy_record(plan["plan"].get("policy", {}))
                if record is None or record.digest != result.plan.decided.digest:
                    wrong.append("plan.json: the policy's digest is not the one that the result names")
            fine.append(f"the plan has the digest that the result names ({result.plan.digest[:19]}...)")
        elif any(entry.path == "plan.json" for entry in manifest.withheld):
            fine.append("the plan is withheld in this edition")
        else:
            fine.append("no plan.json: this audit wrote none")
    except InvalidInput as error:
        wrong.append(str(error))
    return _fails(*wrong) if wrong else _holds("; ".join(fine))


def words(contents: Contents, manifest: Manifest, result: AuditResult) -> Seen:
    """Decide again from the endpoints and gates that the result records; no score is needed for that."""
    del contents, manifest
    from mnemoscope.audit.verdict.consistency import inconsistencies

    wrong = inconsistencies(result)
    if wrong:
        return _fails(*(f"result.json: {fault}" for fault in wrong))
    count = len(result.subjects)
    return _holds(
        f"the word of {'the one subject' if count == 1 else f'all {count} subjects'} follows from what is recorded"
    )


def _logs(manifest: Manifest) -> tuple[str | None, str | None]:
    """The path of the log that is there, and of one that is withheld."""
    there = next((entry.path for entry in manifest.entries if entry.role == "log"), None)
    return there, next((entry.path for entry in manifest.withheld if entry.role == "log"), None)


def log(contents: Contents, manifest: Manifest, result: AuditResult) -> Seen:
    """Follow the chain of the log, and compare its head with the one that the result names."""
    there, withheld = _logs(manifest)
    if there is None:
        if withheld:
            return _unseen(f"{withheld} is withheld in this edition; the result names its head")
        if result.log_head:
            return _fails("the result names the head of a log, and the bundle lists none")
        return _unseen("this audit kept no log")
    try:
        steps, head = read_log(contents.read(there))
    except InvalidInput as error:
        return _fails(f"{there}: {error}")
    if head != result.log_head:
        return _fails(f"{there}: ends in {head}, and the result names {result.log_head or 'no head'}")
    stored = {f"{file.path}={file.sha256}" for file in result.evidence if file.path != there}
    logged = {part for step in steps if step.step == RESULT for part in step.about.split()}
    if result.edition != "public" and not stored <= logged:  # the public edition withholds the paths in a result
        return _fails(f"{there}: the last line names other evidence than the result does")
    return _holds(f"{there}: {len(steps)} lines, an unbroken chain that ends where the result says")


def order(contents: Contents, manifest: Manifest, result: AuditResult) -> Seen:
    """Check that the plan came before the first score, and the first score before the result."""
    there, withheld = _logs(manifest)
    if there is None:
        why = f"{withheld} is withheld in this edition" if withheld else "this audit kept no log"
        return _unseen(f"{why}; by its own word the result was written at {result.created_at}")
    try:
        steps, _ = read_log(contents.read(there))
    except InvalidInput:
        return _unseen("what it would rest on, the log, does not hold")
    wrong = [fault] if (fault := check_order(steps)) else []
    planned = {step.about for step in steps if step.step == PLAN}
    if planned and not any(result.plan.digest in about for about in planned):
        wrong.append("the log was begun with another plan than the one that the result names")
    wrong += _late_plan(contents, steps)
    if wrong:
        return _fails(*(f"{there}: {fault}" for fault in wrong))
    times = {step.step: step.time for step in reversed(steps)}
    said = f"plan {times[PLAN]}, first score {times[FIRST_SCORE]}, result {times[RESULT]}, by the machine's own clock"
    flagged = "" if result.plan.committed_before_scores else "; exploratory: another plan had been scored before"
    return _holds(said + flagged)


def _late_plan(contents: Contents, steps: tuple[Step, ...]) -> list[str]:
    """Compare the time in the plan's file with that of the first score."""
    if "plan.json" not in contents.sizes:
        return []
    try:
        plan = _document(contents, "plan.json")
    except InvalidInput:
        return []  # the check of the plan names it
    committed = plan.get("committed_at") if isinstance(plan, dict) else None
    scored = next((step.time for step in steps if step.step == FIRST_SCORE), None)
    # Times of the plan have whole seconds: compared to the second, as text of one form.
    if isinstance(committed, str) and scored is not None and committed[:19] > scored[:19]:
        return [f"the plan was committed at {committed[:40]}, after the first score at {scored}"]
    return []


def pages(contents: Contents, manifest: Manifest, result: AuditResult) -> Seen:
    """Check that the pages say they were made from this result."""
    del result  # the digest that pages print is that of its bytes
    wrong = []
    views = [e.path for e in manifest.entries if e.role in ("report", "figure", "table") and e.path in contents.sizes]
    for path in views:
        try:
            says = witness(path)
            data = contents.read(says) if says in contents.sizes else b""
        except ContainerError as error:
            wrong.append(str(error))
            continue
        if path == "report.html" and names_source(data) != manifest.result:
            wrong.append("report.html: names the digest of another result than result.json, or of none")
        elif manifest.result not in printed_digests(data):
            wrong.append(f"{path}: does not name result.json as what it was made from (nor does {says})")
    if "report.html" not in manifest.paths():
        wrong.append("report.html: a bundle has this page, and none is listed")
    many = "report.html names" if len(views) == 1 else f"{len(views)} pages, tables and figures name"
    return _fails(*wrong) if wrong else _holds(f"{many} this result as their source")
