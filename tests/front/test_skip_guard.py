"""The guard against silent skips is itself tested: an unlisted skip fails a run, a listed one does not."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest_plugins = ["pytester"]
SUITE = """
import pytest

@pytest.mark.skip(reason="no accelerator here")
def test_listed(): ...

def test_inside():
    pytest.skip({reason!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["no accelerator here", "too lazy"])
@pytest.mark.parametrize("extra", [(), ("-n", "1")])
def test_a_skip_needs_its_listed_reason(pytester: pytest.Pytester, reason: str, extra: tuple[str, ...]) -> None:
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text())
    (pytester.path / "allowed_skips.txt").write_text("# why\ntest_*.py::test_* | no accelerator*\n")
    pytester.makepyfile(SUITE.format(reason=reason))
    done = pytester.runpytest_subprocess(*extra)
    fails = reason == "too lazy"
    assert done.ret == (pytest.ExitCode.TESTS_FAILED if fails else pytest.ExitCode.OK)
    assert ("test_inside | too lazy" in done.stdout.str()) is fails
