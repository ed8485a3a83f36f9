"""What a user installs: the built wheel, used from a folder that has an attacks/ and an audit/ of its own."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TOP = ("mnemoscope", "audit", "attacks", "unlearning", "reports")
BESIDE = ("pyproject.toml", "README.md", "LICENSE")

LOOKED_UP = ("front", "reports", "work/test_plugins.py", "attacks/test_evidence.py")
"""Tests that go through commands, other processes, templates and files of the package: there a wheel can differ.

Every other test runs the modules themselves, and those are the repository's, byte for byte.
"""

pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy is built: a build leaves files beside the source, and stale ones there would get into the wheel.
    source = tmp_path_factory.mktemp("source")
    for name in TOP:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(*pip, "--target", str(target), str(wheel), cwd=target)
    return target


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An unrelated folder whose own attacks/ and audit/ would break everything if they were imported."""
    for name in ("attacks", "audit", "unlearning", "reports"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the user\\'s own {name} was imported')")
    return tmp_path


def environment(installed: Path) -> dict[str, str]:
    # The path entry comes before the editable install's finder, so the wheel's mnemoscope is the one imported.
    return {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}


def test_the_wheel_holds_every_source_file_as_it_is_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}
    expected = {}
    for folder in TOP:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT).as_posix()
                expected[inside if folder == "mnemoscope" else f"mnemoscope/{inside}"] = path.read_bytes()
    assert held.keys() == expected.keys()
    assert [name for name in held if held[name] != expected[name]] == []


def test_the_wheel_names_its_licence_and_version(wheel: Path) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"mnemoscope-{version}.dist-info/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "License-File: LICENSE" in metadata


def test_every_module_imports_from_the_wheel_in_a_folder_with_such_names(installed: Path, elsewhere: Path) -> None:
    code = """
import importlib, pathlib, sys
import mnemoscope
root = pathlib.Path(mnemoscope.__file__).parent
assert str(root).startswith(sys.argv[1]), root
for file in sorted(root.rglob("*.py")):
    parts = file.relative_to(root).with_suffix("").parts
    name = ".".join(("mnemoscope", *(parts[:-1] if parts[-1] == "__init__" else parts)))
    if name != "mnemoscope.__main__":
        module = importlib.import_module(name)
        assert str(module.__file__).startswith(sys.argv[1]), module
        print(name)
"""
    done = run(sys.executable, "-c", code, str(installed), cwd=elsewhere, env=environment(installed))
    assert {"mnemoscope.audit.errors", "mnemoscope.attacks", "mnemoscope.reports"} <= set(done.stdout.split())


def test_commands_work_from_the_wheel(installed: Path, elsewhere: Path) -> None:
    env = environment(installed)
    mnemoscope = (sys.executable, "-m", "mnemoscope")
    assert "Audit" in run(*mnemoscope, "--help", cwd=elsewhere, env=env).stdout
    assert "lira" in run(*mnemoscope, "list", "attacks", cwd=elsewhere, env=env).stdout
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    member = np.arange(400) % 2
    logits = rng.normal(size=(400, 4)) + 3.0 * np.eye(4)[labels] * (1 + 0.5 * member[:, None])
    np.savez(elsewhere / "predictions.npz", logits=logits.astype(np.float32), labels=labels, member=member)
    run(*mnemoscope, "scores", "predictions.npz", "--out", "found", cwd=elsewhere, env=env)
    assert {p.name for p in (elsewhere / "found").iterdir()} >= {"result.json", "report.html"}


def test_what_looks_the_package_up_passes_on_the_wheel(installed: Path, elsewhere: Path) -> None:
    # The tests are copied: beside the repository's own folders they could find the sources instead of the wheel.
    shutil.copytree(ROOT / "tests", elsewhere / "tests", ignore=shutil.ignore_patterns("__pycache__", "packaging"))
    for path in (ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "LICENSE", *ROOT.glob("*.md")):
        shutil.copy(path, elsewhere / path.name)
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, elsewhere / name)
    check = "import mnemoscope, sys; assert mnemoscope.__file__.startswith(sys.argv[1]), mnemoscope.__file__"
    run(sys.executable, "-c", check, str(installed), cwd=elsewhere, env=environment(installed))
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-n", "0", "-p", "no:cacheprovider")
    run(*pytest_, *(f"tests/{part}" for part in LOOKED_UP), cwd=elsewhere, env=environment(installed))
