"""What the README and CONTRIBUTING show is run as it stands: a reader's first command must work."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mnemoscope.audit.testing import attack_contract
from mnemoscope.reports.schema import read_result

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- run: (?P<how>[^>]+?) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)


def blocks(name: str) -> dict[str, str]:
    """Map what a marker says to the code of its block; several of one kind follow each other."""
    found: dict[str, str] = {}
    for match in BLOCK.finditer((ROOT / name).read_text(encoding="utf-8")):
        found[match["how"]] = found.get(match["how"], "") + match["code"]
    return found


def shell(code: str, cwd: Path) -> str:
    """Run each line with this interpreter; return what standard output said."""
    shown = []
    own = {"python": [sys.executable], "mnemoscope": [sys.executable, "-m", "mnemoscope"]}
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        words = own.get(words[0], [words[0]]) + words[1:]
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=900
        )
        assert done.returncode == 0, f"$ {line}\n{done.stdout}\n{done.stderr}"
        shown.append(done.stdout)
    return "".join(shown)


def test_every_block_of_the_readme_is_marked_or_is_the_set_up() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    marked = {match["code"] for match in BLOCK.finditer(text)}
    free = [code for code in re.findall(r"```\w+\n(.*?)```", text, re.DOTALL) if code not in marked]
    assert [line.split("#")[0].strip() for line in free[0].splitlines()] == ["make demo", "make test"]
    assert len(free) == 1
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


@pytest.mark.slow
def test_predictions_alone_are_twelve_lines_and_one_command(tmp_path: Path) -> None:
    found = blocks("README.md")
    program = found["python predictions.py"]
    assert len([line for line in program.splitlines() if line.strip()]) <= 12
    (tmp_path / "predictions.py").write_text(program, encoding="utf-8")
    shell("python predictions.py", tmp_path)
    shown = shell(found["shell"], tmp_path)
    assert "OUTSIDE BOUND" in shown
    assert {"result.json", "report.html"} <= {path.name for path in (tmp_path / "found").iterdir()}


@pytest.mark.slow
def test_two_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    shutil.copytree(ROOT / "examples/compare", folder)
    shown = shell(blocks("README.md")["slow shell in examples/compare"], folder)
    assert (folder / "work/found/report.html").is_file()
    words = {subject.verdict.word for subject in read_result(folder / "work/found/result.json").subjects}
    # Two checkpoints without retrained models never bear a clean bill.
    assert len(words) == 1
    assert words <= {"OUTSIDE BOUND", "INCONCLUSIVE", "NOT ASSESSED"}
    assert words.pop() in shown


@pytest.mark.slow
def test_a_plan(tmp_path: Path) -> None:
    new, check, run = blocks("README.md")["slow shell"].strip().splitlines()
    shell(new, tmp_path)
    plan = tmp_path / "plan.toml"
    smaller = re.sub(r"^#? ?models = 72\b", "models = 24", plan.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "models = 24" in smaller
    plan.write_text(smaller, encoding="utf-8")
    assert "24" in shell(check, tmp_path)
    shown = shell(run, tmp_path)
    assert "noop" in shown
    assert (tmp_path / "found/report.html").is_file()


def contributed_attack() -> types.ModuleType:
    module = types.ModuleType("contributed")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(blocks("CONTRIBUTING.md")["attack"], "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


CASES = attack_contract({"excess": contributed_attack().Excess})


@pytest.mark.parametrize("check", [check for _, check in CASES], ids=[name for name, _ in CASES])
def test_the_attack_that_contributors_are_shown_keeps_the_contract(check: object) -> None:
    check()  # type: ignore[operator]


def test_the_attack_that_contributors_are_shown_is_short() -> None:
    code = re.sub(r'""".*?"""', "", blocks("CONTRIBUTING.md")["attack"], flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


@pytest.mark.slow
def test_labels_are_corrected_as_shown(tmp_path: Path) -> None:
    (tmp_path / "correct.py").write_text(blocks("docs/unlearning.md")["slow python correct.py"], encoding="utf-8")
    shown = dict(line.split() for line in shell("python correct.py", tmp_path).splitlines())
    assert float(shown["after"]) > float(shown["before"]) + 0.03


@pytest.mark.slow
def test_measures_that_look_into_the_model_order_them_as_shown(tmp_path: Path) -> None:
    program = blocks("docs/unlearning.md")["slow python inspect_models.py"]
    (tmp_path / "inspect_models.py").write_text(program, encoding="utf-8")
    shown = {
        name: [float(v) for v in rest]
        for name, *rest in map(str.split, shell("python inspect_models.py", tmp_path).splitlines())
    }
    for column, order in enumerate((-1, -1, -1, 1)):
        values = [order * shown[name][column] for name in ("before", "after", "retrained")]
        assert values == sorted(values), column
    assert shown["before"][3] == shown["retrained"][2] == 0


def test_every_command_and_option_is_described() -> None:
    import typer

    from mnemoscope.cli import app

    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")

    def walk(command: object, path: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")
        if not hasattr(command, "commands"):
            assert f"`{path}" in text, path
            for option in command.params:  # type: ignore[attr-defined]
                for flag in option.opts:
                    assert not flag.startswith("--") or f"`{flag}" in text, f"{path} {flag}"

    walk(typer.main.get_command(app), "mnemoscope")


DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/cli.md",
    "docs/architecture.md",
    "docs/attacks.md",
    "docs/unlearning.md",
    "docs/walkthroughs.md",
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        if not target.startswith("http") and not target.endswith(".png"):
            assert ((ROOT / name).parent / target).exists(), target
