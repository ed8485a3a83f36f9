"""Markdown, JUnit and CSV: the numbers of the result, its digest, the same bytes, and nothing that breaks out."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from made_results import audit, clean, leaking, made, with_drift

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.gate_rules import GateRules
from mnemoscope.audit.verdict.policy_record import Deviation, PolicyRecord
from mnemoscope.audit.verdict.result import Subject
from mnemoscope.reports import formats
from mnemoscope.reports.decisive import endpoint_name, found_beyond, not_checked, worst_endpoint
from mnemoscope.reports.documents import read_document
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.junit import Case, junit_xml
from mnemoscope.reports.markdown import escape, markdown_summary
from mnemoscope.reports.schema import result_digest, to_json
from mnemoscope.reports.tables import RESTRICTED, TABLES, csv_tables, csv_text

MADE = ("membership", "successive")


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))


@pytest.mark.parametrize("name", MADE)
def test_every_view_names_its_source_and_is_the_same_for_the_same_source(name: str) -> None:
    result = made(name)
    digest = result_digest(result)
    first = markdown_summary(result), junit_xml(result), csv_tables(result)
    if name == "membership":
        assert first == (markdown_summary(result), junit_xml(result), csv_tables(result))
    assert digest in first[0]
    assert digest.encode() in first[1]
    assert all(row["result_sha256"] == digest for data in first[2].values() for row in rows(data))


def test_a_view_of_a_document_names_the_document_whatever_this_release_would_write() -> None:
    assert "sha256:other" in markdown_summary(made("membership"), digest="sha256:other")
    assert b"sha256:other" in junit_xml(made("membership"), digest="sha256:other")


def test_the_summary_says_word_worst_endpoint_what_was_not_checked_and_what_would_decide() -> None:
    result = made("all_words")
    text = markdown_summary(result)
    for subject in result.subjects:
        worst = worst_endpoint(result, subject)
        assert worst is not None
        part = text.partition(f"### {escape(subject.name)}: {subject.verdict.word}")[2].partition("###")[0]
        assert escape(endpoint_name(worst)) in part
        assert worst.outcome in part
        assert escape(subject.verdict.meaning, 600) in part
    assert "What would make it conclusive: an attack with more power" in text
    lines = not_checked(result)
    assert lines
    assert all(f"- {escape(line, 600)}" in text for line in lines)
    assert all(escape(line, 600) in text for line in result.limitations)


def test_the_worst_endpoint_is_what_the_word_rests_on() -> None:
    bad = audit(leaking())
    worst = worst_endpoint(bad, bad.subjects[0])
    assert worst is not None
    assert (worst.id, worst.attack, worst.outcome) == ("P1", "lira", "beyond")
    assert worst in found_beyond(bad, bad.subjects[0])
    good = audit(clean())
    assert found_beyond(good, good.subjects[0]) == ()
    nearest = worst_endpoint(good, good.subjects[0])
    assert nearest is not None
    assert nearest.outcome == "within"
    used = {
        e.part: (e.estimate.high or 0) / (e.bound or 1)
        for e in good.subjects[0].endpoints if e.primary and e.required and e.id in ("P1", "P3") and e.bound
    }  # fmt: skip
    assert (nearest.estimate.high or 0) / (nearest.bound or 1) >= max(used.values())


def test_owner_reasons_and_deviations_are_in_the_views() -> None:
    result = made("result")
    decided = PolicyRecord("sha256:p", "A. Person", "officer", "few people", {"auc_margin": "served to all"})
    changed = (Deviation("policy.auc_margin", "0.05", "0.1"), Deviation("design.audited", None, "600"))
    result = replace(result, plan=replace(result.plan, decided=decided, deviations=changed))
    text = markdown_summary(result)
    assert "A. Person, officer" in text
    assert "few people" in text
    assert "policy.auc\\_margin: 0.05 → 0.1" in text
    tables = csv_tables(result)
    assert next(r for r in rows(tables["policy.csv"]) if r["key"] == "auc_margin")["reason"] == "served to all"
    assert [(r["key"], r["committed"], r["ran"]) for r in rows(tables["deviations.csv"])] == [
        ("policy.auc_margin", "0.05", "0.1"), ("design.audited", "", "600"),
    ]  # fmt: skip


def suites(data: bytes) -> dict[str, ET.Element]:
    root = ET.fromstring(data)
    for suite in root:
        counts = [suite.findall("testcase"), suite.findall("testcase/failure"), suite.findall("testcase/skipped")]
        assert [suite.get(k) for k in ("tests", "failures", "skipped")] == [str(len(found)) for found in counts]
    assert root.get("failures") == str(sum(int(suite.get("failures", "0")) for suite in root))
    return {str(suite.get("name")): suite for suite in root}


def outcomes(suite: ET.Element) -> dict[str, str]:
    return {
        str(case.get("name")): next((child.tag for child in case if child.tag != "system-out"), "passed")
        for case in suite.findall("testcase")
    }


def test_every_endpoint_and_gate_is_a_case_and_the_word_one_more() -> None:
    result = made("all_words")
    for subject in result.subjects:
        found = outcomes(suites(junit_xml(result))[subject.name])
        assert len(found) == 1 + len(subject.endpoints) + len(subject.gates)
        assert found["verdict"] == ("passed" if subject.verdict.word == "WITHIN BOUND" else
                                    "skipped" if subject.method == "noop" else "failure")  # fmt: skip


WORDS: list[tuple[Callable[[], Subject], bool, bool]] = [
    (clean, True, True), (leaking, False, False), (lambda: clean(failed=("G1",)), False, True),
    (lambda: clean(failed=("G2",)), False, False), (lambda: clean(failed=("G3",)), False, True),
    (lambda: clean(failed=("G7",)), True, True), (lambda: with_drift(clean()), True, True),
]  # fmt: skip


@pytest.mark.parametrize(("make", "passes", "passes_with_warnings"), WORDS)
def test_a_suite_fails_when_its_subject_does_and_only_then(make, passes: bool, passes_with_warnings: bool) -> None:
    result = audit(make())
    for inconclusive, expected in (("block", passes), ("warn", passes_with_warnings)):
        suite = suites(junit_xml(result, rules=GateRules(inconclusive=inconclusive)))["mine"]
        assert (suite.get("failures") == "0") is expected


def test_a_subject_that_does_not_count_never_fails() -> None:
    result = made("result")
    assert outcomes(suites(junit_xml(result))["noop"])["verdict"] == "skipped"
    assert outcomes(suites(junit_xml(result))["finetune"])["verdict"] == "failure"
    only = suites(junit_xml(result, rules=GateRules(subjects=("retrain",))))
    assert [name for name, suite in only.items() if suite.get("failures") != "0"] == []
    named = suites(junit_xml(result, rules=GateRules(subjects=("noop",))))
    assert outcomes(named["noop"])["verdict"] == "failure"


def test_conditions_of_a_gate_are_a_suite_of_their_own() -> None:
    cases = [Case("age", "failed", "too old", "NOT ASSESSED"), Case("tier", "passed", "B")]
    suite = suites(junit_xml(made("result"), conditions=cases))["gate"]
    assert outcomes(suite) == {"age": "failure", "tier": "passed"}


def test_hostile_names_stay_text_in_every_view() -> None:
    result = made("hostile")
    text = markdown_summary(result)
    for raw in ("<script", "\u202e", "\u2066", "\x1b"):
        assert raw not in text
    assert max(map(len, text.splitlines())) < 6_000
    data = junit_xml(result)
    assert ET.fromstring(data) is not None
    assert b"<script" not in data
    assert "\u202e" not in data.decode("utf-8")
    for table in csv_tables(result).values():
        assert not {"\u202e", "\x1b", "\x00"} & set(table.decode("utf-8"))


@pytest.mark.parametrize("name", ["]]>", "\x00\x01", "\ufffe\uffff", "a\nb\r\nc", "\ud800"])
def test_names_that_xml_cannot_hold_are_made_visible(name: str) -> None:
    result = audit(clean(name if name != "\ud800" else "plain"))
    assert "verdict" in outcomes(next(iter(suites(junit_xml(result)).values())))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a|b", "a\\|b"), ("*x*", "\\*x\\*"), ("https://evil.example", "https&#58;//evil.example"),
        ("@team", "&#64;team"), ("#12", "&#35;12"), ("<img src=x>", "&lt;img src=x&gt;"), ("`c`", "\\`c\\`"),
        ("a\nb", "a\\\\nb"), ("www.evil.example", "www&#46;evil.example"), ("[a](b)", "\\[a\\](b)"),
        ("&lt;", "&amp;lt;"),
    ],
)  # fmt: skip
def test_text_of_unknown_origin_is_literal_in_markdown(raw: str, shown: str) -> None:
    assert escape(raw) == shown


def test_tables_hold_the_numbers_of_the_result() -> None:
    result = made("result")
    tables = csv_tables(result)
    ends = rows(tables["endpoints.csv"])
    assert len(ends) == sum(len(s.endpoints) for s in result.subjects)
    first, e = ends[0], result.subjects[0].endpoints[0]
    assert (first["id"], first["attack"], first["outcome"]) == (e.id, e.attack, e.outcome)
    assert [float(first[k]) for k in ("value", "low", "high", "bound")] == [
        e.estimate.value, e.estimate.low, e.estimate.high, e.bound
    ]  # fmt: skip
    assert [int(first[k]) for k in ("k", "n")] == [e.estimate.k, e.estimate.n]
    curves = rows(tables["curves.csv"])
    assert [float(r["tpr"]) for r in curves[:33]] == list(result.subjects[0].curves[0].tpr)
    rates = rows(csv_tables(made("one_model"))["rates.csv"])
    assert "needs at least" in next(r for r in rates if r["tpr_value"] == "")["tpr_reason"]
    assert {r["attack_class"]: r["executed"] for r in rows(tables["coverage.csv"])}["membership inference"] == "true"
    assert next(r for r in rows(tables["about.csv"]) if r["key"] == "alpha")["value"] == "0.01"
    assert len(rows(tables["limitations.csv"])) == len(result.limitations)


def test_every_list_of_a_subject_has_a_table() -> None:
    """A list that is added to the document and forgotten here would be missing from every spreadsheet."""
    text = json.dumps([*TABLES, *RESTRICTED])
    elsewhere = {"by_class": "classes"}
    lists = [f.name for f in fields(Subject) if str(f.type).startswith("tuple[")]
    assert len(lists) > 10
    assert [name for name in lists if elsewhere.get(name, name) not in text] == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1", "＝1"])
def test_text_is_no_formula_and_numbers_stay_numbers(text: str) -> None:
    data = csv_text(("a", "b", "c"), [(text, -0.25, True)]).decode("utf-8")
    assert data.endswith("\r\n")
    cell = next(csv.reader(io.StringIO(data.splitlines()[1])))
    assert cell[0].startswith(("'", "\\"))
    assert cell[1:] == ["-0.25", "true"]


def test_cells_with_commas_quotes_and_lines_come_back() -> None:
    data = csv_text(("a",), [('x, "y"',), (None,), (10_000_000_000_000_000_000.0,)])
    assert [row["a"] for row in rows(data)] == ['x, "y"', "", "1e+19"]


def test_single_records_are_in_the_restricted_edition_alone() -> None:
    result = made("result")
    assert any(s.exposed for s in result.subjects)
    for edition in ("public", "internal"):
        tables = csv_tables(for_edition(result, edition))
        assert not set(tables) & {f"{name}.csv" for name in RESTRICTED}
        assert not any(b"digits/0017" in data for data in tables.values())
    restricted = replace(result, edition="restricted")
    assert "exposed.csv" in csv_tables(restricted)


def test_forms_are_written_beside_their_source_and_nothing_is_replaced(tmp_path) -> None:
    result = made("membership")
    names = formats.parse_formats("markdown, junit,csv,markdown")
    assert names == ("markdown", "junit", "csv")
    written = formats.write_formats(result, names, tmp_path)
    assert written[0] == tmp_path / "summary.md"
    assert (tmp_path / "tables" / "endpoints.csv").is_file()
    assert read_document(tmp_path)[1] == result_digest(result)
    formats.write_formats(result, names, tmp_path)  # the same bytes again are no loss
    (tmp_path / "summary.md").write_text("mine")
    with pytest.raises(InvalidInput, match="summary.md is there already.*--force"):
        formats.write_formats(result, ("markdown", "json"), tmp_path)
    assert (tmp_path / "summary.md").read_text() == "mine"
    formats.write_formats(result, ("markdown",), tmp_path, force=True)
    assert (tmp_path / "summary.md").read_text() == markdown_summary(result)


@pytest.mark.parametrize("text", ["", "html;csv", "docx", " , "])
def test_an_unknown_form_is_refused_with_those_that_are_there(text: str) -> None:
    with pytest.raises(InvalidInput, match="allowed, separated by commas: html"):
        formats.parse_formats(text)


def test_a_form_that_cannot_be_made_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    def broken(result):
        raise InvalidInput("no such engine")

    monkeypatch.setitem(formats.FORMATS, "broken", broken)
    with pytest.raises(InvalidInput, match="no such engine"):
        formats.write_formats(made("membership"), ("markdown", "broken"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_document_is_read_with_the_digest_of_its_bytes(tmp_path) -> None:
    import hashlib

    data = to_json(made("membership"))
    spaced = json.dumps(json.loads(data), indent=1).encode()  # the same result, not in canonical form
    (tmp_path / "result.json").write_bytes(spaced)
    result, digest = read_document(tmp_path / "result.json")
    assert digest == "sha256:" + hashlib.sha256(spaced).hexdigest() != result_digest(result)
    with pytest.raises(InvalidInput, match="cannot read"):
        read_document(tmp_path / "absent.json")
    (tmp_path / "result.json").write_bytes(data[:-40])
    with pytest.raises(InvalidInput, match="not a JSON document"):
        read_document(tmp_path)


def test_no_view_claims_what_no_test_can_show() -> None:
    claim = re.compile(r"\b(compliant|anonymous|certified|deleted completely|is safe)\b", re.IGNORECASE)
    for name in ("result", "all_words", "membership"):
        result = made(name)
        assert not claim.search(markdown_summary(result))
        assert not claim.search(junit_xml(result).decode("utf-8"))
