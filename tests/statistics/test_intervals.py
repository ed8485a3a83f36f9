"""Intervals of rates, AUCs and differences against SciPy, published vectors and exact enumeration."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.intervals import (
    auc_interval,
    clopper_pearson,
    clopper_pearson_limits,
    delong,
    difference_of_rates,
    difference_score,
    hanley_mcneil_se,
    jeffreys,
    paired_delong,
    paired_difference_of_rates,
    rate,
    stratified_bootstrap,
    wilson,
)
from mnemoscope.audit.statistics.roc import auc

REFERENCE_ROWS = [
    (1, 1_000, 0.00003, 0.00556),
    (84, 1_000, 0.0676, 0.1029),
    (10, 10_000, 0.00048, 0.00184),
    (840, 10_000, 0.0786, 0.0896),
    (25, 25_000, 0.00065, 0.00148),
    (2_100, 25_000, 0.0806, 0.0875),
]


@pytest.mark.parametrize(("k", "n", "low", "high"), REFERENCE_ROWS)
def test_clopper_pearson_reference_table(k, n, low, high):
    ci = clopper_pearson(k, n)
    digits = 5 if high < 0.01 else 4
    assert round(ci.lower, digits) == pytest.approx(low, abs=1.01 * 10**-digits)
    assert round(ci.upper, digits) == pytest.approx(high, abs=1.01 * 10**-digits)


def test_clopper_pearson_self_test_vectors():
    assert clopper_pearson(0, 2995, sides="upper").upper == pytest.approx(0.001, abs=5e-7)
    ci = clopper_pearson(84, 1000)
    assert (round(ci.lower, 7), round(ci.upper, 7)) == (0.0675527, 0.1029430)
    assert clopper_pearson(0, 50, sides="upper").upper == pytest.approx(1 - 0.05 ** (1 / 50), rel=1e-12)


@pytest.mark.parametrize("sides", ["two", "lower", "upper"])
def test_rate_intervals_equal_scipy_on_a_grid(sides):
    alternative = {"two": "two-sided", "lower": "greater", "upper": "less"}[sides]
    for n in (1, 7, 40, 300):
        for k in sorted({0, 1, n // 3, n - 1, n}):
            for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
                ci = ours(k, n, 0.9, sides)
                other = stats.binomtest(k, n, alternative=alternative).proportion_ci(0.9, method=method)
                # SciPy leaves a rounding error where k = 0 or k = n fixes Wilson's limit.
                assert ci.lower == pytest.approx(other.low, abs=1e-9)
                assert ci.upper == pytest.approx(other.high, abs=1e-9)
            if 0 < k < n:
                q = 0.1 / (2 if sides == "two" else 1)
                ci = jeffreys(k, n, 0.9, sides)
                if sides != "upper":
                    assert ci.lower == pytest.approx(stats.beta.ppf(q, k + 0.5, n - k + 0.5), rel=1e-8)
                if sides != "lower":
                    assert ci.upper == pytest.approx(stats.beta.ppf(1 - q, k + 0.5, n - k + 0.5), rel=1e-8)


def test_vector_form_equals_the_scalar_form():
    k = np.array([[0, 3], [5, 10]])
    low, high = clopper_pearson_limits(k, 10, 0.95)
    for index in np.ndindex(k.shape):
        ci = clopper_pearson(int(k[index]), 10)
        assert (low[index], high[index]) == (ci.lower, ci.upper)


def test_ends_and_errors():
    assert (jeffreys(0, 10).lower, jeffreys(10, 10).upper) == (0.0, 1.0)
    assert (clopper_pearson(0, 0).lower, clopper_pearson(0, 0).upper) == (0.0, 1.0)
    assert rate(0, 0).value is None
    assert rate(3, 12).value == 0.25
    assert (rate(3, 12).k, rate(3, 12).n) == (3, 12)
    for k, n in ((-1, 5), (6, 5)):
        with pytest.raises(InvalidInput):
            clopper_pearson(k, n)
        with pytest.raises(InvalidInput):
            rate(k, n)
    with pytest.raises(InvalidInput, match="level"):
        clopper_pearson(1, 2, 95.0)
    with pytest.raises(InvalidInput, match="sides"):
        clopper_pearson(1, 2, 0.95, "both")


IN = np.array([0.9, 0.8, 0.4, 0.7])
OUT = np.array([0.5, 0.3, 0.4, 0.1, 0.6])


def test_delong_vector():
    result = delong(IN, OUT)
    np.testing.assert_allclose(result.v10, [1, 1, 0.5, 1])
    np.testing.assert_allclose(result.v01, [0.75, 1, 0.875, 1, 0.75])
    assert result.auc == 0.875
    assert result.se == pytest.approx(0.136931, abs=1e-6)


def slow_delong(s1, s0):
    kernel = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in s0] for a in s1])
    v10, v01 = kernel.mean(1), kernel.mean(0)
    return kernel.mean(), math.sqrt(v10.var(ddof=1) / len(s1) + v01.var(ddof=1) / len(s0))


@pytest.mark.parametrize("levels", [3, 10, 10**6])
def test_delong_equals_the_quadratic_twin(levels):
    rng = np.random.default_rng(levels)
    s1, s0 = rng.integers(0, levels, 37) * 1.0, rng.integers(0, levels, 53) * 1.0
    value, se = slow_delong(s1, s0)
    assert delong(s1, s0).auc == pytest.approx(value, abs=1e-12)
    assert delong(s1, s0).se == pytest.approx(se, abs=1e-12)


def test_paired_delong_of_a_score_with_itself():
    result = paired_delong(IN, OUT, IN, OUT)
    assert (result.difference.value, result.z, result.p_value) == (0.0, 0.0, 1.0)


def test_paired_delong_equals_its_slow_twin():
    rng = np.random.default_rng(1)
    a1, a0 = rng.integers(0, 9, 30) * 1.0, rng.integers(0, 7, 41) * 1.0
    b1, b0 = a1 + rng.integers(0, 3, 30), a0 + rng.integers(0, 3, 41)
    result = paired_delong(a1, a0, b1, b0)
    ka = np.sign(a1[:, None] - a0) / 2 + 0.5
    kb = np.sign(b1[:, None] - b0) / 2 + 0.5
    d = ka - kb
    se = math.sqrt(d.mean(1).var(ddof=1) / 30 + d.mean(0).var(ddof=1) / 41)
    assert result.z == pytest.approx(d.mean() / se)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(d.mean() / se)))
    with pytest.raises(InvalidInput, match="same records"):
        paired_delong(a1, a0, b1[1:], b0)


def test_paired_delong_without_variance_is_not_significant_by_division():
    result = paired_delong(np.ones(5), np.zeros(5), np.zeros(5), np.zeros(5))
    assert result.difference.value == 0.5
    assert result.p_value == 2.0**-4
    assert result.difference.low < 0.5


def test_auc_interval_on_the_logit_scale_and_its_ends():
    ci = auc_interval(0.875, 0.136931, 4, 5)
    half = 1.959964 * 0.136931 / (0.875 * 0.125)
    centre = math.log(7)
    assert ci.lower == pytest.approx(1 / (1 + math.exp(half - centre)), abs=1e-6)
    assert ci.upper == pytest.approx(1 / (1 + math.exp(-half - centre)), abs=1e-6)
    perfect = auc_interval(1.0, 0.0, 40, 60)
    assert perfect.upper == 1.0
    assert perfect.lower == pytest.approx(0.025 ** (1 / 40))
    assert auc_interval(0.0, 0.0, 40, 60).upper == pytest.approx(1 - 0.025 ** (1 / 40))
    assert auc_interval(0.6, 0.05, 40, 60, sides="lower").upper == 1.0
    assert auc_interval(0.6, 0.05, 40, 60, df=5).upper > auc_interval(0.6, 0.05, 40, 60).upper


def test_hanley_mcneil_matches_the_null_formula_and_delong_on_exponentials():
    n = 500
    assert hanley_mcneil_se(0.5, n, n) == pytest.approx(math.sqrt((2 * n + 1) / (12 * n * n)), rel=1e-9)
    assert round(hanley_mcneil_se(0.5, n, n), 4) == 0.0183
    rng = np.random.default_rng(2)
    s1, s0 = 3.0 * rng.exponential(size=4000), rng.exponential(size=4000)
    assert delong(s1, s0).se == pytest.approx(hanley_mcneil_se(0.75, 4000, 4000), rel=0.05)


def slow_score_limits(k1, n1, k2, n2, z):
    """Slow twin: maximise the likelihood under each difference on a fine grid, scan all differences."""
    inside = []
    for delta in np.linspace(-0.9999, 0.9999, 4001):
        p2 = np.linspace(max(0.0, -delta), min(1.0, 1 - delta), 2001)[1:-1]
        p1 = p2 + delta
        with np.errstate(divide="ignore", invalid="ignore"):
            ll = sum(
                np.where(k > 0, k * np.log(p), 0.0) + np.where(n > k, (n - k) * np.log1p(-p), 0.0)
                for k, n, p in ((k1, n1, p1), (k2, n2, p2))
            )
        best = int(np.nanargmax(ll))
        v = (p1[best] * (1 - p1[best]) / n1 + p2[best] * (1 - p2[best]) / n2) * (n1 + n2) / (n1 + n2 - 1)
        if abs(k1 / n1 - k2 / n2 - delta) <= z * math.sqrt(v):
            inside.append(delta)
    return min(inside), max(inside)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(9, 10, 3, 10), (0, 20, 0, 15), (5, 30, 0, 12), (10, 10, 0, 10)])
def test_miettinen_nurminen_equals_a_grid_search(counts):
    low, high = slow_score_limits(*counts, 1.959964)
    estimate = difference_of_rates(*counts)
    assert estimate.low == pytest.approx(low, abs=1.5e-3)
    assert estimate.high == pytest.approx(high, abs=1.5e-3)


def test_difference_of_rates_published_values_and_zero_counts():
    estimate = difference_of_rates(56, 70, 48, 80)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0528, 0.3382)
    none = difference_of_rates(0, 500, 0, 500)
    assert none.value == 0
    assert 0.005 < none.high < 0.01
    assert none.low == pytest.approx(-none.high, abs=1e-9)
    assert difference_score(0, 500, 0, 500, 0.0) == 0.0
    assert difference_of_rates(0, 0, 1, 3).value is None


def pmf(n, p):
    k = np.arange(n + 1)
    return np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + k * np.log(p) + (n - k) * np.log1p(-p))


@pytest.mark.slow
def test_difference_of_rates_covers_at_small_counts_where_wald_does_not():
    n1, n2 = 25, 30
    limits = {(a, b): difference_of_rates(a, n1, b, n2) for a in range(n1 + 1) for b in range(n2 + 1)}
    score, wald = [], []
    for p1, p2 in ((0.02, 0.02), (0.05, 0.001), (0.05, 0.1), (0.1, 0.02), (0.5, 0.3), (0.9, 0.8)):
        weight = np.outer(pmf(n1, p1), pmf(n2, p2))
        held = np.array(
            [[limits[a, b].low <= p1 - p2 <= limits[a, b].high for b in range(n2 + 1)] for a in range(n1 + 1)]
        )
        score.append(float((weight * held).sum()))
        f1, f2 = np.arange(n1 + 1)[:, None] / n1, np.arange(n2 + 1)[None] / n2
        half = 1.959964 * np.sqrt(f1 * (1 - f1) / n1 + f2 * (1 - f2) / n2)
        wald.append(float((weight * (np.abs(f1 - f2 - (p1 - p2)) <= half)).sum()))
    assert min(score) > 0.93
    assert min(wald) < 0.75


def test_tango_interval_closed_form_and_coverage():
    """Closed form at no discordant pair (Tango 1998): +- z^2 / (n + z^2)."""
    even = paired_difference_of_rates(4, 4, 50)
    assert even.value == 0
    assert even.low == pytest.approx(-even.high, abs=1e-9)
    none = paired_difference_of_rates(0, 0, 100)
    assert none.low == pytest.approx(-none.high)
    assert none.high == pytest.approx(1.959964**2 / (100 + 1.959964**2), abs=1e-6)
    rng = np.random.default_rng(7)
    held = wald = 0
    for b, c, _ in rng.multinomial(40, [0.06, 0.02, 0.92], 2000):
        ci = paired_difference_of_rates(int(b), int(c), 40)
        held += ci.low <= 0.04 <= ci.high
        half = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / 40) / 40
        wald += abs((b - c) / 40 - 0.04) <= half
    assert held / 2000 > 0.935
    assert wald / 2000 < 0.92


def test_bootstrap_is_seeded_and_agrees_with_delong():
    rng = np.random.default_rng(0)
    s1, s0 = rng.standard_normal(300) + 0.5, rng.standard_normal(300)
    first = stratified_bootstrap(auc, s1, s0, resamples=600, rng=np.random.default_rng(4))
    again = stratified_bootstrap(auc, s1, s0, resamples=600, rng=np.random.default_rng(4))
    assert first == again
    se = delong(s1, s0).se
    assert (first.upper - first.lower) / (2 * 1.96 * se) == pytest.approx(1.0, abs=0.15)
    with pytest.raises(InvalidInput, match="50,000"):
        stratified_bootstrap(auc, np.zeros(50_001), np.zeros(5), rng=rng)
    with pytest.raises(InvalidInput, match="resamples"):
        stratified_bootstrap(auc, s1, s0, resamples=10, rng=rng)
