"""The command line: light help, exit codes, one message for what a user can act on."""

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import mnemoscope
from mnemoscope import api, cli
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, StaleArtifact, StoreError, UnsupportedModel

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "demo", "init", "run", "league", "tune", "compare", "scores", "plan", "export", "adopt", "list", "report", "store",
    "schema", "rerun", "diff", "gate", "policy", "bundle", "keygen", "sign", "verify", "index", "declare", "figures",
)  # fmt: skip
HEAVY = ("torch", "torchvision", "matplotlib", "scipy", "sklearn", "numpy")


def call(*args: str) -> "SimpleNamespace":
    return CliRunner().invoke(cli.app, list(args))


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return {name.partition(".")[0] for name in done.stderr.splitlines()}


@pytest.mark.parametrize("args", [["--help"], ["compare", "--help"], ["plan", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    run = f"import runpy, sys\nsys.argv = ['mnemoscope', *{args!r}]\n"
    run += "try:\n    runpy.run_module('mnemoscope', run_name='__main__')\n"
    run += "except SystemExit as end:\n    assert not end.code"
    loaded = loaded_after(run)
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_the_guard_against_heavy_imports_can_fail() -> None:
    assert "numpy" in loaded_after("import numpy")


def test_importing_the_package_loads_nothing() -> None:
    assert loaded_after("import mnemoscope").isdisjoint({*HEAVY, "typer", "rich"})


def test_help_names_every_command_in_its_group() -> None:
    text = call("--help").output
    groups = re.split(r"─ (Audit|Inspect|Report) ─", text)
    panels = dict(zip(groups[1::2], groups[2::2], strict=True))
    words = {group: set(re.findall(r"│ (\w+)", body)) for group, body in panels.items()}
    assert words["Audit"] >= {"demo", "init", "run", "compare", "scores", "export", "adopt", "league", "tune"}
    assert words["Inspect"] >= {"plan", "list", "store"}
    assert words["Report"] >= {"report", "schema"}
    assert words["Audit"] | words["Inspect"] | words["Report"] == set(COMMANDS)


def _commands() -> list[ast.FunctionDef]:
    def is_command(node: ast.stmt) -> bool:
        return isinstance(node, ast.FunctionDef) and any(
            isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) and d.func.attr == "command"
            for d in node.decorator_list
        )

    return [n for n in ast.parse(inspect.getsource(cli)).body if is_command(n)]  # type: ignore[misc]


@pytest.mark.parametrize("command", _commands(), ids=lambda node: node.name)
def test_a_command_is_short_and_calls_one_function_of_the_api(command: ast.FunctionDef) -> None:
    body = command.body[1:]
    assert body[-1].end_lineno is not None
    assert body[-1].end_lineno - body[0].lineno < 15
    calls = {
        n.func.attr
        for n in ast.walk(command)
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and isinstance(n.func.value, ast.Name)
        and n.func.value.id == "api"
    }
    assert len(calls) == 1, calls
    assert hasattr(api, calls.pop())


def test_every_option_of_compare_reaches_the_question() -> None:
    from mnemoscope.comparison import Comparison

    not_asked = {"as_json", "exit_code", "out", "declarations", "key", "restricted"}
    options = set(inspect.signature(cli.compare).parameters) - not_asked
    assert options == set(Comparison.__dataclass_fields__)


@pytest.mark.parametrize("kind", [AuditError, InvalidInput, MissingNeed, StaleArtifact, StoreError, UnsupportedModel])
def test_what_a_user_can_act_on_is_one_message_and_exit_2(
    kind: type[AuditError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("labels: 11 is outside of 0..9; check the classes")

    monkeypatch.setattr(api, "run", fail)
    done = call("run", "plan.toml")
    assert done.exit_code == 2
    assert done.stderr == "error: labels: 11 is outside of 0..9; check the classes\n"
    assert done.stdout == ""


@pytest.mark.parametrize("args", [["compare"], ["nonsense"], ["demo", "--seed", "x"], ["list", "tables"]])
def test_a_wrong_call_is_exit_2(args: list[str]) -> None:
    assert call(*args).exit_code == 2


def test_a_fault_of_ours_is_exit_1_with_a_traceback_and_a_hint() -> None:
    code = (
        "from mnemoscope import api, cli\nimport sys\n"
        "def fail(*a, **k): raise RuntimeError('inner')\n"
        "api.schema = fail\nsys.argv = ['mnemoscope', 'schema']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: inner" in done.stderr
    assert "fault of mnemoscope" in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_is_exit_130_and_says_how_to_go_on() -> None:
    code = (
        "from mnemoscope import api, cli\nimport sys, time\n"
        "def work(*a, **k): print('ready', flush=True); time.sleep(60)\n"
        "api.schema = work\nsys.argv = ['mnemoscope', 'schema']\ncli.main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "ready\n"
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=30)
    assert p.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err


def _result(*words: str) -> "SimpleNamespace":
    return SimpleNamespace(subjects=[SimpleNamespace(verdict=SimpleNamespace(word=word)) for word in words])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["WITHIN BOUND"], 0),
        (["WITHIN BOUND", "OUTSIDE BOUND"], 3),
        (["WITHIN BOUND", "INCONCLUSIVE"], 4),
        (["INCONCLUSIVE", "NOT ASSESSED"], 5),
        (["NOT ASSESSED", "OUTSIDE BOUND"], 3),
        ([], 5),
    ],
)
def test_exit_code_is_that_of_the_worst_subject(words: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "scores", lambda *_, **__: _result(*words))
    monkeypatch.setattr(api, "show", lambda *_: None)
    assert call("scores", "x.npz").exit_code == 0
    assert call("scores", "x.npz", "--exit-code").exit_code == code


def test_json_goes_alone_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(*_: object, progress: api.Progress, **__: object) -> object:
        progress.note("working")
        return _result("WITHIN BOUND")

    monkeypatch.setattr(api, "scores", scores)
    monkeypatch.setattr(api, "to_json", lambda _: '{"a": 1}\n')
    done = call("scores", "x.npz", "--json")
    assert done.stdout == '{"a": 1}\n'
    assert "working" in done.stderr


def test_version_is_that_of_the_distribution() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert call("--version").output.strip() == mnemoscope.__version__ == declared


def test_init_writes_once_and_refuses_to_overwrite(tmp_path: Path) -> None:
    assert call("init", str(tmp_path)).exit_code == 0
    written = (tmp_path / "subject.py").read_text()
    compile(written, "subject.py", "exec")
    (tmp_path / "subject.py").write_text("mine")
    done = call("init", str(tmp_path))
    assert done.exit_code == 2
    assert "exists" in done.stderr
    assert (tmp_path / "subject.py").read_text() == "mine"


@pytest.mark.parametrize("what", ["attacks", "methods", "datasets", "models"])
def test_list_describes_each_entry(what: str) -> None:
    rows = api.list_plugins(what)
    assert rows
    assert all(name and about for name, about in rows)
    assert {line.split()[0] for line in call("list", what).output.splitlines()} == {name for name, _ in rows}


def test_public_names_stay_functions_when_every_module_is_loaded() -> None:
    import mnemoscope.comparison
    import mnemoscope.pipeline

    for name in mnemoscope.__all__[1:]:
        assert inspect.isfunction(getattr(mnemoscope, name)), name
    with pytest.raises(AttributeError, match="nothing_like_this"):
        mnemoscope.nothing_like_this  # noqa: B018
