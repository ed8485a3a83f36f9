"""Differences from limits: Newcombe's published interval, coverage by simulation, and what has no interval."""

import numpy as np
import pytest

from mnemoscope.audit.statistics.proportions import rate, wilson
from mnemoscope.audit.statistics.square_and_add import METHOD, square_and_add
from mnemoscope.audit.statistics.trials import Estimate, Interval


def share(k: int, n: int, level: float = 0.95) -> Estimate:
    return Estimate(k / n, wilson(k, n, level), k, n)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe 1998, Table II, method 10, for the differences 56/70 - 48/80, 9/10 - 3/10, 6/7 - 2/7, 5/56 - 0/29
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 29), (5, 56), -0.0381, 0.1926),
    ],
)
def test_with_wilson_limits_it_is_newcombes_interval(first, second, low, high) -> None:
    found = square_and_add(share(*first), share(*second))
    assert found.value == pytest.approx(second[0] / second[1] - first[0] / first[1])
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert found.ci is not None
    assert found.ci.method == METHOD


def test_it_is_antisymmetric_and_a_difference_from_itself_is_none() -> None:
    a, b = share(3, 40), share(11, 60)
    there, back = square_and_add(a, b), square_and_add(b, a)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert square_and_add(a, a).value == 0.0
    assert square_and_add(a, a).low < 0 < square_and_add(a, a).high


def test_it_covers_the_difference_of_independent_rates() -> None:
    rng = np.random.default_rng(7)
    hits, runs = 0, 1_000
    first, second = rng.binomial(400, 0.02, runs), rng.binomial(400, 0.06, runs)
    for k1, k2 in zip(first, second, strict=True):
        found = square_and_add(share(int(k1), 400), share(int(k2), 400))
        hits += found.low <= 0.04 <= found.high
    assert 0.93 <= hits / runs <= 0.98


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (Estimate(None, reason="too few"), share(1, 9), "too few"),
        (share(1, 9), Estimate(0.5), "no interval"),
        (rate(1, 9, 0.95, "upper"), share(1, 9), "one-sided"),
        (share(1, 9), share(1, 9, 0.90), "different confidence"),
        (Estimate(0.1, Interval(0, 1, 0.95, "lower", "")), share(1, 9), "one-sided"),
    ],
)
def test_what_cannot_be_added_has_a_reason_and_no_interval(a, b, reason: str) -> None:
    found = square_and_add(a, b)
    assert found.ci is None
    assert reason in (found.reason or "")
