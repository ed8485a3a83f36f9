"""What a report says of scope, coverage, dates and limits: from what was declared and found, and nothing beyond it."""

import json
from dataclasses import replace

import pytest

from mnemoscope.audit.verdict.declared import (
    SCOPE_ITEMS,
    Declared,
    DeclaredPerson,
    DeclaredRequest,
    DeclaredScope,
    DeclaredService,
)
from mnemoscope.audit.verdict.policy_record import Deviation
from mnemoscope.audit.verdict.result import Coverage
from mnemoscope.provenance import LIMITATIONS
from mnemoscope.reports import compliance
from mnemoscope.reports.dpia import dpia_extract
from mnemoscope.reports.html import SECTIONS, render_html
from mnemoscope.reports.page import reading
from mnemoscope.reports.schema import from_json, to_json
from mnemoscope.reports.texts import MARKS, attack_classes, cross_references, fixed_limitations


def test_what_is_not_declared_is_said_to_be(factory):
    made = factory.one_model()
    page = render_html(made, figures=False)
    assert page.count("not declared") > 15
    assert all("not declared" in row.status for row in compliance.scope_rows(made))
    assert [row.person for row in compliance.people(made)] == [None] * 4
    assert "opinion pending" in page
    assert [f.name for f in compliance.dates(made) if not f.missing] == ["Audit made"]


def test_declarations_survive_the_file_and_change_no_number(factory):
    made = factory.one_model()
    said = replace(made, declared=Declared(next_test_due="2027-01-01", people=(DeclaredPerson("dpo", "x"),)))
    read = from_json(to_json(said))
    assert read == from_json(to_json(read))
    assert read.declared == said.declared
    assert replace(read, declared=None) == from_json(to_json(made))


def test_the_scope_table_has_every_row_and_our_own_last_column(factory):
    everything = tuple(DeclaredScope(item, "done") for item in SCOPE_ITEMS)
    for made in (factory.one_model(), factory.result()):
        bold = replace(made, declared=Declared(scope=everything))
        rows, plain = compliance.scope_rows(bold), compliance.scope_rows(made)
        assert [r.item for r in rows] == list(SCOPE_ITEMS)
        assert [r.verified for r in rows] == [r.verified for r in plain]
        assert all(r.status == "declared: done" for r in rows)
    verified = {r.item: r.verified for r in compliance.scope_rows(factory.one_model())}
    assert verified["model in service"] == "partly"  # G5 was not run
    assert compliance.scope_rows(factory.result())[2].verified == "no"  # a procedure is no served model
    assert {verified[i] for i in SCOPE_ITEMS if i not in ("model in service", "stored instances")} == {"no"}


def test_all_five_classes_of_the_opinion_are_listed_executed_or_not(factory):
    made = factory.result()
    rows = compliance.coverage_rows(made)
    numerals = {row.of.edpb for row in rows}
    assert {f"para 55 ({n})" for n in ("i", "ii", "iii", "iv", "v")} <= numerals
    assert {row.of.name: row.status for row in rows}["membership inference"] == "executed"
    assert all(row.reason for row in rows if row.status != "executed")
    away = Coverage("regurgitation of training data", False, (), "does not apply: a classifier generates no data")
    other = Coverage("a new class", False, (), "not asked for")
    rows = compliance.coverage_rows(replace(made, coverage=(away, other)))
    said = {row.of.name: row.status for row in rows}
    assert said["regurgitation of training data"] == "not applicable"
    assert said["a new class"] == "not executed"
    assert said["reconstruction"] == "executed"
    assert said["membership inference"] == "executed"  # their numbers are in the result, whatever the table lacks
    assert "regurgitation of training data" not in compliance.unchecked(replace(made, coverage=(away,)))


def test_elapsed_days_and_what_must_not_be_missed(factory):
    made = factory.one_model()
    request = DeclaredRequest(received="2026-09-01", replaced="2026-10-11")
    digest = made.subjects[0].models[0].digest
    said = replace(made, declared=Declared(request=request, service=DeclaredService("", digest, True)))
    assert compliance.dates(said)[-1].text == "40 days"
    lines = " ".join(compliance.notices(said))
    assert "still trained on the records" in lines
    assert "that of the model before deletion" in lines
    assert "40 days passed" in lines
    open_ = replace(made, declared=Declared(request=DeclaredRequest(received="2026-11-01")))
    assert compliance.dates(open_)[-1].text.startswith("20 days; a replacement is not declared")
    unknown = replace(made, declared=Declared(service=DeclaredService("", "sha256:" + "0" * 64)))
    assert "that of no model tested here" in " ".join(compliance.notices(unknown))


@pytest.mark.slow
def test_computed_limitations_follow_from_the_result(factory):
    made = factory.one_model()
    lines = " ".join(compliance.computed_limitations(made))
    assert "G5 (identity) was not run" in lines
    assert "98.0 % of simulated audits" in lines
    assert "release context is not declared" in lines
    plan = replace(made.plan, committed_before_scores=False, deviations=(Deviation("policy.alpha", "0.01", "0.1"),))
    opened = replace(made, plan=plan, declared=Declared(release_context="open weights"))
    lines = " ".join(compliance.computed_limitations(opened))
    assert "exploratory" in lines
    assert "1 value of the plan was changed" in lines
    assert "no attack here read any" in lines or made.subjects[0].reconstructed
    page = render_html(opened, figures=False)
    assert "policy.alpha" in page


@pytest.mark.slow
def test_the_fixed_limitations_are_one_text(factory):
    assert fixed_limitations() == LIMITATIONS
    assert len(fixed_limitations()) == 10
    page = render_html(factory.membership(), figures=False)
    assert all(text in page for text in fixed_limitations())
    assert page.count(fixed_limitations()[0]) == 1  # the audit says it too; it is printed once


def test_the_cross_reference_points_to_sections_that_exist_and_keeps_its_marks(factory):
    rows, ids = cross_references(), {key for key, _ in SECTIONS}
    assert len(rows) > 30
    assert {row.section for row in rows} <= ids
    assert {row.mark for row in rows} <= set(MARKS)
    assert {row.evidence for row in rows} <= {"result.json", "plan.json", "dpia.md", "bundle"}
    assert {c.nist_mark for c in attack_classes()} <= set(MARKS)
    page = render_html(factory.membership(), figures=False)
    assert page.count("unverified") >= sum(row.mark == "U" for row in rows) > 2


def test_the_reading_says_what_the_counts_say(factory):
    made = factory.result([factory.subject("noop")])
    text = reading(made)
    found = next(
        t.tpr for f in made.subjects[0].findings if f.primary and f.game == "forgetting" and f.models == "after"
        for t in f.tpr if t.fpr == 0.01 and t.tail == "residual"
    )  # fmt: skip
    assert f"{100 * found.value:.1f} % of the forgotten ones" in text
    assert "wrongly accuses 1.0 %" in text


@pytest.mark.parametrize("maker", [pytest.param("all_words", marks=pytest.mark.slow), "one_model", "membership"])
def test_the_extract_for_an_impact_assessment(factory, maker):
    made = getattr(factory, maker)()
    text = dpia_extract(made)
    assert text.startswith("# Extract for an impact assessment\n")
    assert "for the controller to state: not stated here" in text
    for subject in made.subjects:
        assert subject.verdict.word in text
    block = json.loads(text.split("```json\n")[1].split("\n```")[0])
    assert block["words"] == {s.name: s.verdict.word for s in made.subjects}
    assert block["result"] in text.split("## ")[0]
    assert all(limit in text for limit in fixed_limitations())
    assert text == dpia_extract(from_json(to_json(made)))
