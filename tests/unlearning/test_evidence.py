"""Every registered method has its evidence, and the evidence is what it says it is."""

import json
import re
from pathlib import Path

import pytest
from evidence_rows import ROOT, load_script, marked_in_list, states_something, written_rows

from mnemoscope.audit.work.plan import load_plan
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.evidence import MethodEvidence, load_method_evidence

ROWS = load_method_evidence()
FIGURES = [row.measured for row in ROWS.values() if row.measured is not None]


@pytest.fixture(scope="module")
def script():
    return load_script("method_evidence")


def test_every_method_has_one_row_and_no_row_is_orphaned():
    assert [name for name, _ in written_rows("mnemoscope.unlearning")] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_is_whole_and_its_tests_state_something(name):
    row = ROWS[name]
    assert row.missing == ()
    for test in (row.known_answer, row.forgets):
        assert states_something(test), test


def test_what_is_written_is_what_the_results_say(script):
    results = script.read_results()
    assert script.rows_of_evidence(results) == json.loads(script.EVIDENCE.read_text(encoding="utf-8"))
    document = script.DOCUMENT.read_text(encoding="utf-8")
    assert script.written(document, results) == document
    for name in results:
        assert script.BEGIN.format(name=name) in document


@pytest.mark.parametrize("name", METHODS)
def test_a_figure_is_what_an_attack_finds_or_where_no_league_has_that_a_gap_and_says_which(script, name):
    rows = [
        row
        for league in script.read_results().values()
        for row in league["rows"]
        if row["method"] == name and row["tpr"]["value"] is not None and row["tpr"]["ci"] is not None
    ]
    figure = ROWS[name].measured
    found = [(row["strongest"], row["tpr"]["value"]) for row in rows]
    if found:
        assert figure.what.startswith("TPR at ")
        assert any(f", {attack}, " in figure.what and figure.value == value for attack, value in found)
    else:
        assert figure.what.startswith("gap of accuracies to retrained models ")


@pytest.mark.parametrize("result", sorted({figure.result for figure in FIGURES}))
def test_a_result_is_of_the_plan_as_it_stands(result):
    """A plan that was changed after its run describes another run than the figures are of."""
    of_result = json.loads((ROOT / result).read_text(encoding="utf-8"))["digest"]
    assert {figure.plan for figure in FIGURES if figure.result == result} == {of_result}
    plan = ROOT / "examples" / Path(result).with_suffix(".toml").name
    assert plan.is_file(), f"{result} has no plan of its name in examples/"
    assert load_plan(plan).digest == of_result, f"run {plan.name} again: `mnemoscope league`, then --keep"


def test_the_document_describes_every_method_once_with_its_source():
    text = (ROOT / "docs/unlearning.md").read_text(encoding="utf-8")
    table = text.partition("## All methods")[2].partition("\n## ")[0]
    described = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(described) == sorted(METHODS)


def test_a_method_without_evidence_is_marked(monkeypatch):
    assert marked_in_list("methods") == {}
    rows = {**ROWS, "finetune": MethodEvidence("", ROWS["finetune"].forgets, None)}
    monkeypatch.setattr("mnemoscope.unlearning.evidence.load_method_evidence", lambda: rows)
    assert marked_in_list("methods") == {"finetune": ["known answer", "figure on real data"]}
