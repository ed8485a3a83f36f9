"""The package list is written by hand: it must name every folder of code, and nothing else."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = {
    "mnemoscope": "mnemoscope",
    "mnemoscope.audit": "audit",
    "mnemoscope.attacks": "attacks",
    "mnemoscope.unlearning": "unlearning",
    "mnemoscope.reports": "reports",
}


def declared() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["setuptools"]


def folders_of_code() -> set[str]:
    found = set()
    for name, folder in TOP.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((name, *inner)))
    return found


def test_every_folder_of_code_is_listed() -> None:
    listed = declared()["packages"]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == folders_of_code()


def test_package_folders_are_those_of_the_architecture() -> None:
    assert declared()["package-dir"] == TOP


def test_no_code_lies_in_a_folder_that_is_no_package() -> None:
    for folder in TOP.values():
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), file


def test_test_folders_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
