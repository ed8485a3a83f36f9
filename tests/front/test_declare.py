"""Declarations and editions from the command line: written, merged into the result, numbers untouched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mnemoscope.cli import app
from mnemoscope.reports.schema import read_result

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "compare_leaking.json"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_a_new_file_is_written_once(tmp_path):
    file = tmp_path / "said.toml"
    assert run("declare", "new", file)[0] == 0
    code, said = run("declare", "new", file)
    assert code == 2
    assert "exists" in said


@pytest.mark.slow
def test_a_report_merges_declarations_and_shows_an_edition(tmp_path):
    file = tmp_path / "said.toml"
    file.write_text("declared_by = 'Jane Roe'\nrelease_context = 'internal'\n[request]\nreceived = 2026-10-01\n")
    arguments = ("report", RESULT, "--declarations", file, "--format", "html,dpia")
    assert run(*arguments, "--out", tmp_path / "inside")[0] == 0
    assert run(*arguments, "--out", tmp_path / "public", "--edition", "public")[0] == 0
    before, inside, public = (read_result(p) for p in (RESULT, tmp_path / "inside", tmp_path / "public"))
    assert inside.declared is not None
    assert inside.declared.request.received == "2026-10-01"
    assert replace(inside, declared=None) == before
    assert (public.edition, public.declared.declared_by) == ("public", "withheld")
    for name in ("report.html", "dpia.md"):
        assert "2026-10-01" in (tmp_path / "public" / name).read_text(encoding="utf-8")
        assert "Jane Roe" not in (tmp_path / "public" / name).read_text(encoding="utf-8")
    code, said = run("report", tmp_path / "public", "--edition", "restricted", "--out", tmp_path / "more")
    assert code == 2
    assert "public edition" in said
    assert not (tmp_path / "more").exists()


def test_declarations_that_cannot_be_read_stop_before_any_work(tmp_path):
    file = tmp_path / "said.toml"
    file.write_text("release_context = 'moon'\n")
    for arguments in (("demo",), ("run", "missing.toml"), ("scores", "missing.npz"), ("report", RESULT)):
        code, said = run(*arguments, "--declarations", file, "--out", tmp_path / "out")
        assert code == 2, said
        assert "allowed are 'internal'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_audit_carries_its_declarations(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    logits = (rng.normal(size=(400, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
    np.savez(tmp_path / "x.npz", logits=logits, labels=labels, member=np.arange(400) < 200)
    file = tmp_path / "said.toml"
    file.write_text("next_test_due = 2027-01-01\n")
    code, said = run("scores", tmp_path / "x.npz", "--declarations", file, "--out", tmp_path / "out")
    assert code == 0, said
    assert read_result(tmp_path / "out").declared.next_test_due == "2027-01-01"
    assert "2027-01-01" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
