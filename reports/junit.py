"""JUnit XML of one result: a suite a subject, a case an endpoint and a gate, so that a pipeline shows them as tests.

A case fails when it keeps its subject from passing, and only then: a suite without failures and errors is one that
the gate passes. What is description alone, was not run, or belongs to a subject that does not count, is skipped with
the reason.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.verdict.gate_rules import GateRules, counted_subjects
from mnemoscope.audit.verdict.result import AuditResult, Endpoint, GateResult, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.decisive import endpoint_name, endpoint_text, found_beyond
from mnemoscope.reports.facts import next_step
from mnemoscope.reports.schema import from_json, result_digest, to_json

__all__ = ["Case", "junit_xml"]

CLASS = "mnemoscope"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: what was asked.
        status: "passed", "failed" or "skipped".
        message: the numbers, or why it was skipped or failed.
        kind: of a failure, e.g. "OUTSIDE BOUND".
    """

    name: str
    status: Status
    message: str
    kind: str = ""


def junit_xml(
    result: AuditResult,
    *,
    rules: GateRules | None = None,
    conditions: Sequence[Case] = (),
    digest: str = "",
) -> bytes:
    """Render a result as JUnit XML.

    Args:
        result: what an audit found.
        rules: the gate's rules; None = the defaults, by which INCONCLUSIVE is a failure. With ``inconclusive = "warn"``
            it is skipped. Cases of a subject that does not count by them never fail.
        conditions: cases of the gate itself, in a suite of their own.
        digest: of the document that was read, where it is not that of this release's own encoding.

    Returns:
        UTF-8 bytes; the same result and rules give the same bytes.
    """
    data = to_json(result)
    result = from_json(data)
    rules = GateRules() if rules is None else rules
    digest = digest or result_digest(data)
    counted = {subject.name for subject in counted_subjects(result, rules)}
    suites = []
    if conditions:
        suites.append(("gate", list(conditions)))
    for subject in result.subjects:
        counts = subject.name in counted
        cases = subject_cases(result, subject, rules)
        suites.append((subject.name, cases if counts else [_uncounted(case) for case in cases]))
    root = ET.Element("testsuites", _attributes(result.title, [case for _, cases in suites for case in cases]))
    for name, cases in suites:
        suite = ET.SubElement(root, "testsuite", _attributes(name, cases))
        suite.set("timestamp", _text(result.created_at.removesuffix("Z"), 40))
        properties = ET.SubElement(suite, "properties")
        for key, value in (
            ("result_sha256", digest),
            ("plan_sha256", result.plan.digest),
            ("edition", result.edition),
            ("mnemoscope", result.environment.mnemoscope),
        ):
            ET.SubElement(properties, "property", {"name": key, "value": _text(value)})
        for case in cases:
            element = ET.SubElement(
                suite, "testcase", {"classname": f"{CLASS}.{_text(name)}", "name": _text(case.name), "time": "0"}
            )
            if case.status == "failed":
                ET.SubElement(element, "failure", {"type": case.kind, "message": _text(case.message, 400)})
            elif case.status == "skipped":
                ET.SubElement(element, "skipped", {"message": _text(case.message, 400)})
            else:
                ET.SubElement(element, "system-out").text = _text(case.message, 1_000)
        ET.SubElement(suite, "system-out").text = "\n".join(
            [f"result {digest}", *(_text(line, 1_000) for line in result.limitations)]
        )
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text + b"\n"


def subject_cases(result: AuditResult, subject: Subject, rules: GateRules) -> list[Case]:
    """Return the cases of one subject: its word, its endpoints, its gates."""
    verdict = subject.verdict
    blocks = verdict.word in ("OUTSIDE BOUND", "NOT ASSESSED") or (
        verdict.word == "INCONCLUSIVE" and rules.inconclusive == "block"
    )
    why = " ".join([verdict.sentence, verdict.meaning, *([next_step(subject)] if next_step(subject) else [])])
    status: Status = "failed" if blocks else "passed" if verdict.word == "WITHIN BOUND" else "skipped"
    cases = [Case("verdict", status, f"{verdict.word}: {why}", verdict.word if blocks else "")]
    found = {id(e) for e in found_beyond(result, subject)}
    cases += [_endpoint(e, subject, rules, found=id(e) in found) for e in subject.endpoints]
    cases += [_gate(gate, subject, rules) for gate in subject.gates]
    return cases


def _endpoint(e: Endpoint, subject: Subject, rules: GateRules, *, found: bool) -> Case:
    name, text, word = endpoint_name(e), endpoint_text(e), subject.verdict.word
    if found:
        return Case(name, "failed", text, "OUTSIDE BOUND")
    if e.outcome == "within":
        return Case(name, "passed", text)
    if e.id == "P5" and e.outcome == "beyond":
        return _treated(name, text, rules.not_fit_for_use, "not fit for use")
    if e.outcome == "beyond":
        return Case(name, "skipped", f"{text} by itself, not after correction for many tests, or description here")
    if e.primary and e.required and word == "INCONCLUSIVE" and e.outcome == "undecided":
        return _treated(name, text, rules.inconclusive, "INCONCLUSIVE")
    if e.primary and e.required and word == "NOT ASSESSED" and e.outcome == "not computed":
        return Case(name, "failed", text, "NOT ASSESSED")
    return Case(name, "skipped", text)


def _gate(gate: GateResult, subject: Subject, rules: GateRules) -> Case:
    name = f"gate {gate.id} {gate.title}"
    text = f"{gate.observed} (rule: {gate.rule})"
    if gate.status == "pass":
        return Case(name, "passed", text)
    if gate.status != "fail":
        if gate.id in ("G1", "G2") and gate.status == "not run":
            return _treated(name, f"{gate.status}: {text}", rules.controls, "no control")
        return Case(name, "skipped", f"{gate.status}: {text}")
    if gate.id in ("G2", "G5"):
        return Case(name, "failed", text, "NOT ASSESSED")
    if gate.id == "drift" and subject.verdict.word != "INCONCLUSIVE":
        return Case(name, "skipped", f"failed, so that P1 and P3 are description: {text}")
    if gate.id in ("G1", "G3", "G4", "drift"):
        return _treated(name, text, rules.inconclusive, "INCONCLUSIVE")
    if gate.id == "G6":
        return _treated(name, text, rules.not_fit_for_use, "not fit for use")
    if gate.id == "G8":
        return _treated(name, text, rules.exploratory, "exploratory")
    return Case(name, "skipped", f"failed, which lowers the tier: {text}")


def _treated(name: str, text: str, treatment: str, kind: str) -> Case:
    if treatment == "block":
        return Case(name, "failed", text, kind)
    return Case(name, "skipped", f"warning, {kind}: {text}")


def _uncounted(case: Case) -> Case:
    if case.status != "failed":
        return case
    return Case(case.name, "skipped", f"this subject does not count for the gate; {case.kind}: {case.message}")


def _attributes(name: str, cases: Sequence[Case]) -> dict[str, str]:
    return {
        "name": _text(name),
        "tests": str(len(cases)),
        "failures": str(sum(case.status == "failed" for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.status == "skipped" for case in cases)),
        "time": "0",
    }


def _text(value: object, limit: int = phrases.SHOWN_CHARACTERS) -> str:
    """Text that XML 1.0 can hold: control and direction marks made visible, the rest escaped when it is written."""
    return _NO_XML.sub(lambda hit: hit.group().encode("unicode_escape").decode(), phrases.plain(value, limit))
