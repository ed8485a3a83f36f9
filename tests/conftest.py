"""A skipped test is a hole in the evidence: every skip must be listed with its reason, or the run fails.

Makes the modules in ``shared`` importable, which tests of several folders use.
"""

import fnmatch
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "shared"))


def allowed_skips(text: str) -> list[tuple[str, str]]:
    """Parse lines of ``node id pattern | reason pattern``; ``#`` starts a comment line."""
    rows = [line.strip() for line in text.splitlines()]
    pairs = [row.partition("|")[::2] for row in rows if row and not row.startswith("#")]
    return [(test.strip(), reason.strip()) for test, reason in pairs]


def is_allowed(nodeid: str, reason: str, allowed: list[tuple[str, str]]) -> bool:
    """Tell whether a skip matches a listed pair of patterns."""
    return any(fnmatch.fnmatchcase(nodeid, test) and fnmatch.fnmatchcase(reason, pattern) for test, pattern in allowed)


class SkipGuard:
    """Collects skips that are not listed; lives on the controlling process, also under xdist."""

    def __init__(self, allowed: list[tuple[str, str]]) -> None:
        self.allowed = allowed
        self.unlisted: list[str] = []

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not is_allowed(report.nodeid, reason, self.allowed):
            self.unlisted.append(f"{report.nodeid} | {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._see(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unlisted:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unlisted:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list", red=True)
            for line in sorted(set(self.unlisted)):
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Register the guard on the process that reports."""
    if not hasattr(config, "workerinput"):
        text = (Path(__file__).parent / "allowed_skips.txt").read_text(encoding="utf-8")
        config.pluginmanager.register(SkipGuard(allowed_skips(text)), "mnemoscope-skips")
