"""Examples in docstrings are run: what a reader copies must do what it says."""

import doctest
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)["tool"]["setuptools"]
    found = []
    for package in settings["packages"]:
        top = max((t for t in settings["package-dir"] if package == t or package.startswith(t + ".")), key=len)
        folder = ROOT / settings["package-dir"][top] / package.removeprefix(top).strip(".").replace(".", "/")
        found += [f"{package}.{file.stem}" for file in sorted(folder.glob("*.py")) if not file.stem.startswith("__")]
        found.append(package)
    return found


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples_to_run() -> None:
    finder, names = doctest.DocTestFinder(exclude_empty=True), ("mnemoscope.audit.rng", "mnemoscope.progress")
    found = [test for name in names for test in finder.find(importlib.import_module(name))]
    assert sum(len(test.examples) for test in found) >= 3
