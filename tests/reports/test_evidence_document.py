"""What docs/evidence.md shows is run as it stands, on a real audit of predictions."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_bundle import MACHINE, write_audit

from mnemoscope import api
from mnemoscope.reports.bundle import gather
from mnemoscope.reports.verification import CODES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- (?P<how>run: \w+|file: \S+) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)


def commands(code: str) -> list[list[str]]:
    return [words for line in code.splitlines() if (words := shlex.split(line, comments=True))]


def run(words: list[str], folder: Path) -> str:
    own = {"mnemoscope": [sys.executable, "-m", "mnemoscope"], "python": [sys.executable]}
    done = subprocess.run(
        own[words[0]] + words[1:], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def predictions(file: Path) -> None:
    """Logits of 300 members and 300 others: the model is surer of what it saw."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    logits = rng.normal(0, 1, (600, 4))
    forget = np.arange(600) < 300
    logits[np.arange(600), labels] += np.where(forget, 4.0, 2.0)
    np.savez(file, logits=logits, labels=labels, role=np.where(forget, "forget", "holdout"))


def test_the_table_of_codes_is_that_of_the_tool():
    rows = dict(re.findall(r"^\| ([a-z ]+) \| .* \| (\d+) \|$", TEXT, re.MULTILINE))
    assert {name: int(code) for name, code in rows.items()} == CODES


def test_every_file_that_a_bundle_holds_is_described(factory, tmp_path):
    write_audit(factory, tmp_path / "a")
    gathered = gather(tmp_path / "a", edition="restricted", machine=MACHINE)
    for path in gathered.files:
        assert f"`{path}`" in TEXT, path


@pytest.mark.slow
def test_the_document_is_run_as_it_stands(tmp_path):
    predictions(tmp_path / "predictions.npz")
    api.scores(tmp_path / "predictions.npz", out=tmp_path / "found")
    shown = []
    for match in BLOCK.finditer(TEXT):
        how, code = match["how"], match["code"]
        if how.startswith("file: "):
            (tmp_path / how.removeprefix("file: ")).write_text(code, encoding="utf-8")
        elif how == "run: python":
            (tmp_path / "program.py").write_text(code, encoding="utf-8")
            shown.append(run(["python", "program.py"], tmp_path))
        else:
            shown += [run(words, tmp_path) for words in commands(code)]
    verified = [text for text in shown if "Level T1" in text]
    assert len(verified) == 2
    assert all("FAILS" not in text for text in shown)
    assert "follow from the scores" in verified[0]
    assert "A. Officer" in verified[1]
    assert "recomputed not checked" in shown[-1]
    assert sorted(p.name for p in tmp_path.glob("*.pem")) == [
        "officer.pem", "officer.pub.pem", "signer.pem", "signer.pub.pem",
    ]  # fmt: skip
