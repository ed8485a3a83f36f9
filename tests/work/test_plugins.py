"""The user's own code by path: known by its source, its imports from its own folder, its errors named."""

import re
import sys
from pathlib import Path

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.engines import ProcessEngine, SerialEngine
from mnemoscope.audit.work.plugins import load_plugin, make_plugin, plugin_of, source_digest


def test_imports_resolve_from_the_own_folder_and_two_folders_do_not_mix(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "helpers").mkdir(parents=True)
        (folder / "helpers" / "__init__.py").write_text("")
        (folder / "helpers" / "deep.py").write_text(f"VALUE = {name!r}\n")
        (folder / "mine.py").write_text(
            "from helpers.deep import VALUE\nclass Mine:\n    def __init__(self, k):\n        self.got = VALUE, k\n"
        )
        made.append(make_plugin("mine.py:Mine", {"k": 1}, folder))
    assert [m.got for m in made] == [("a", 1), ("b", 1)]  # type: ignore[attr-defined]
    assert "helpers" not in sys.modules
    assert not [path for path in sys.path if path.startswith(str(tmp_path))]
    plugin = plugin_of(made[0])
    assert plugin is not None
    assert plugin.path == tmp_path / "a" / "mine.py"
    assert plugin_of(SerialEngine()) is None


def test_the_digest_follows_the_file_and_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import helper, os\n")
    (tmp_path / "helper.py").write_text("import other\nA = 1\n")
    (tmp_path / "other.py").write_text("B = 1\n")
    (tmp_path / "unrelated.py").write_text("C = 1\n")
    path = tmp_path / "mine.py"
    first = source_digest(path)
    (tmp_path / "unrelated.py").write_text("C = 2\n")
    assert source_digest(path) == first
    (tmp_path / "other.py").write_text("B = 2\n")
    second = source_digest(path)
    assert second != first
    path.write_text("import helper, os\nX = 1\n")
    assert source_digest(path) not in {first, second}


def test_a_changed_file_is_loaded_anew_and_an_unchanged_one_runs_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("with open(__file__ + '.runs', 'a') as file: file.write('x')\nV = 1\n")
    assert load_plugin(f"{path}:V").value == 1
    assert load_plugin(f"{path}:V").value == 1
    assert (tmp_path / "mine.py.runs").read_text() == "x"
    path.write_text("V = 2\n")
    assert load_plugin(f"{path}:V").value == 2


@pytest.mark.parametrize(
    ("source", "spec", "match"),
    [
        ("x = 1\n", "mine.py", "write it as 'path/to/file.py:Name'"),
        ("x = 1\n", "mine.py:a b", "write it as"),
        ("x = 1\n", "absent.py:X", "there is no file"),
        ("def Near(): pass\n", "mine.py:Nar", "it has Near"),
        ("x = = 1\n", "mine.py:X", "not valid Python"),
        ("a = 1\nb = a / 0\n", "mine.py:X", "ZeroDivisionError: division by zero (line 2)"),
        ("import no_such_module_here\n", "mine.py:X", "No module named 'no_such_module_here'"),
        ("X = 3\n", "mine.py:X", "name a class"),
        ("class X: pass\n", "mine.py:X", "does not take settings {'k': 1}"),
    ],
)
def test_faults_are_named(tmp_path: Path, source: str, spec: str, match: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(InvalidInput, match=re.escape(match)):
        make_plugin(spec, {"k": 1}, tmp_path)


def fail(context: object) -> tuple[str, ...]:
    raise InvalidInput(f"no {context}")


def test_serial_engine_keeps_errors_in_the_future_and_lets_interruptions_through() -> None:
    with pytest.raises(InvalidInput, match="no ctx"):
        SerialEngine().submit(fail, "ctx").result()

    def interrupted(context: object) -> tuple[str, ...]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SerialEngine().submit(interrupted, "ctx")


def test_process_engine_refuses_no_workers() -> None:
    with pytest.raises(InvalidInput, match="workers=0"):
        ProcessEngine(0)
