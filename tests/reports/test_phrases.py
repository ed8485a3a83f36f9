import doctest

import pytest

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.reports import phrases


def test_doctests():
    assert doctest.testmod(phrases).failed == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100.0 %"),
        (0.9996, "99.96 %"),
        (0.00999, "1.0 %"),
        (0.0099, "0.99 %"),
        (0.5, "50.0 %"),
        (1e-5, "0.001 %"),
    ],
)
def test_percent(value, text):
    assert phrases.percent(value) == text


def test_rate_has_counts_and_interval():
    e = Estimate(3 / 800, Interval(0.0008, 0.0109, 0.95, "two", "Clopper-Pearson"), 3, 800)
    assert phrases.estimate(e) == "3 of 800 (0.38 %; 95 % CI 0.08 to 1.1 %)"


def test_defect_25_a_failed_attack_reads_as_missing_never_as_zero():
    """Row 25: a tabular audit package returns 0.0 for a failing attack and calls that low."""

    def faulty(e: Estimate) -> str:
        return f"{e.value or 0.0:.1f} LOW"

    failed = Estimate(None, reason="the attack needs 16 shadow models")
    assert faulty(failed) == faulty(Estimate(0.0))  # the fault: a failure looks like a clean result
    zero = Estimate(0.0, Interval(0.0, 0.01, 0.95, "upper", "Clopper-Pearson"), 0, 300)
    assert phrases.estimate(failed) == "not available: the attack needs 16 shadow models"
    assert phrases.estimate(zero) == "0 of 300 (0 %; 95 % upper limit 1.0 %)"


def test_plain_shows_what_could_deceive_and_keeps_other_scripts():
    assert phrases.plain("a\u202eb\x1b[0m\u2066\ud800") == "a\\u202eb\\x1b[0m\\u2066\\ud800"
    assert phrases.plain("مرحبا Ünï 猫") == "مرحبا Ünï 猫"
    long = phrases.plain("x" * 10_000)
    assert len(long) <= phrases.SHOWN_CHARACTERS
    assert "..." in long
