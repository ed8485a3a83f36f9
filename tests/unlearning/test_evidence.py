"""Every registered method has its evidence, and the evidence is what it says it is."""

import ast
import importlib.util
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from mnemoscope import listing
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.evidence import MethodEvidence, load_method_evidence

ROOT = Path(__file__).parents[2]
ROWS = load_method_evidence()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("method_evidence", ROOT / "benchmarks/method_evidence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def states_something(test):
    """An assert, a comparison of a library's, or a helper of the file that has one."""
    path, _, function = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in functions, test

    def says(node, depth):
        for part in ast.walk(node):
            if isinstance(part, ast.Assert):
                return True
            if isinstance(part, ast.Call):
                called = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
                if called.startswith("assert_") or (depth and called in functions and says(functions[called], 0)):
                    return True
        return False

    return says(functions[function], 1)


def test_every_method_has_one_row_and_no_row_is_orphaned():
    text = (files("mnemoscope.unlearning") / "evidence.json").read_text(encoding="utf-8")
    assert [name for name, _ in json.loads(text, object_pairs_hook=list)] == list(METHODS)


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


def test_the_document_describes_every_method_once_with_its_source():
    text = (ROOT / "docs/unlearning.md").read_text(encoding="utf-8")
    table = text.partition("## All methods")[2].partition("\n## ")[0]
    described = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(described) == sorted(METHODS)


def test_a_method_without_evidence_is_marked(monkeypatch):
    lines = dict(listing.LISTINGS["methods"]())
    assert not any("not available" in line for line in lines.values())
    rows = {**ROWS, "finetune": MethodEvidence("", ROWS["finetune"].forgets, None)}
    monkeypatch.setattr("mnemoscope.unlearning.evidence.load_method_evidence", lambda: rows)
    lines = dict(listing.LISTINGS["methods"]())
    assert lines["finetune"].startswith("[not available: lacks known answer, figure on real data] ")
