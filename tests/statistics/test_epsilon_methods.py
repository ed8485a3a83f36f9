"""Every bound against its paper's numbers, a naive twin, a world without leak and one whose epsilon is known."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.epsilon import TRIALS
from mnemoscope.audit.statistics.epsilon_bayes import (
    bayesian_interval,
    bayesian_lower_bound,
    exact_p_value,
)
from mnemoscope.audit.statistics.epsilon_choice import (
    GUESSES,
    Bonferroni,
    Fixed,
    Split,
    epsilon_bounds,
    epsilon_from_counts,
    one_run_bound,
    threshold_bound,
)
from mnemoscope.audit.statistics.epsilon_fdp import fdp_lower_bound, fdp_mu, rejects_gdp
from mnemoscope.audit.statistics.epsilon_gdp import delta_of_gdp, epsilon_of_gdp, gdp_lower_bound
from mnemoscope.audit.statistics.epsilon_one_run import (
    Guesses,
    guess_counts,
    one_run_ceiling,
    one_run_epsilon,
    one_run_lower_bound,
    one_run_p_value,
)


def most_allowed(runs, rate=0.05, doubt=1e-4):
    """Exceedances that a bound of this error rate passes except once in 10,000 tests."""
    return stats.binom.ppf(1 - doubt, runs, rate)


# -- Gaussian differential privacy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 1.99), (1, 4.377), (2, 10.0), (4, 24.4)])
def test_gaussian_conversion_equals_the_reference_table(mu, epsilon):
    assert epsilon_of_gdp(mu, 1e-5) == pytest.approx(epsilon, abs=0.05 if mu == 4 else 0.006)
    assert delta_of_gdp(mu, epsilon_of_gdp(mu, 1e-5)) == pytest.approx(1e-5, rel=1e-9)


def test_gaussian_delta_equals_its_definition_and_does_not_overflow():
    for mu, epsilon in ((0.3, 0.2), (1.0, 2.0), (2.5, 0.0), (3.0, 9.0)):
        plain = stats.norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2)
        assert delta_of_gdp(mu, epsilon) == pytest.approx(plain, rel=1e-9)
    assert 800 < epsilon_of_gdp(40.0, 1e-5) < 1000  # e^eps alone is no float64 here
    assert delta_of_gdp(1e-3, 1.0) == 0.0
    assert epsilon_of_gdp(1e-6, 1e-5) == 0.0  # its total variation is below delta


def test_gaussian_bound_worked_example_and_ceiling():
    bound = gdp_lower_bound(84, 1000, 1, 1000)
    assert (bound.mu, bound.bound) == pytest.approx((1.0447, 4.60), abs=0.005)
    assert gdp_lower_bound(1000, 1000, 0, 1000).bound == bound.ceiling > bound.bound
    assert gdp_lower_bound(0, 10, 10, 10).bound == 0.0
    for counts in ((0, 10, 0, 10), (10, 10, 10, 10), (3, 10, 9, 10)):
        assert gdp_lower_bound(*counts).bound == 0.0
    with pytest.raises(InvalidInput, match="finite epsilon only"):
        gdp_lower_bound(84, 1000, 1, 1000, delta=0.0)
    with pytest.raises(InvalidInput, match="mu="):
        epsilon_of_gdp(math.inf, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_gaussian_bound_covers_the_gaussian_mechanism(mu):
    rng = np.random.default_rng(9)
    runs, n, truth = 1000, 300, epsilon_of_gdp(mu, 1e-5)
    tp, fp = rng.binomial(n, stats.norm.sf(0.5 - mu), runs), rng.binomial(n, stats.norm.sf(0.5), runs)
    found = np.array([gdp_lower_bound(int(a), n, int(b), n).bound for a, b in zip(tp, fp, strict=True)])
    assert (found > truth).sum() <= most_allowed(runs)
    assert mu < 1 or np.median(found) > 0.4 * truth


# -- Bayesian ----------------------------------------------------------------------------------------------------------


def test_bayesian_interval_equals_the_reference_and_the_paper_to_its_digits():
    low, high = bayesian_interval(487, 487, 512, 513, 0.9, 1e-5)
    assert (low, high) == pytest.approx((0.144, 6.416), abs=0.0006)
    assert (low, high) == pytest.approx((0.145, 6.399), abs=0.02)  # the authors' own quadrature


def test_bayesian_interval_equals_draws_of_the_posterior():
    rng = np.random.default_rng(10)
    for tp, n1, fp, n0, delta in ((84, 200, 20, 200, 0.0), (150, 200, 60, 100, 1e-3)):
        x, y = rng.beta(0.5 + n1 - tp, 0.5 + tp, 400_000), rng.beta(0.5 + fp, 0.5 + n0 - fp, 400_000)
        with np.errstate(invalid="ignore", divide="ignore"):
            shown = np.stack(
                [np.log((1 - delta - x) / y), np.log((1 - delta - y) / x), np.log((y - delta) / (1 - x)),
                 np.log((x - delta) / (1 - y))]
            )  # fmt: skip
        shown = np.nan_to_num(shown, nan=-np.inf)
        assert bayesian_interval(tp, n1, fp, n0, 0.9, delta) == pytest.approx(
            np.quantile(shown.max(axis=0), [0.05, 0.95]), abs=0.01
        )
        directed = np.maximum(0, shown[:2].max(axis=0))
        assert bayesian_lower_bound(tp, n1, fp, n0, 0.9, delta).bound == pytest.approx(
            np.quantile(directed, 0.1), abs=0.01
        )


def test_exact_p_value_is_fishers():
    for tp, n1, fp, n0 in ((7, 20, 2, 30), (0, 5, 3, 5), (5, 5, 0, 5), (84, 1000, 1, 1000), (30, 60, 31, 60)):
        table = [[tp, n1 - tp], [fp, n0 - fp]]
        assert exact_p_value(tp, n1, fp, n0) == pytest.approx(stats.fisher_exact(table, "greater")[1], rel=1e-9)


@pytest.mark.slow
def test_the_papers_interval_never_holds_zero_and_the_bound_does():
    """Without a leak the two-sided region's lower end is positive every time; the bound keeps its nominal rate."""
    rng = np.random.default_rng(11)
    runs, n = 500, 60
    for rate in (0.02, 0.5):
        tp, fp = rng.binomial(n, rate, runs), rng.binomial(n, rate, runs)
        pairs = list(zip(tp.tolist(), fp.tolist(), strict=True))
        above = sum(bayesian_lower_bound(a, n, b, n, delta=1e-5).bound > 0 for a, b in pairs)
        assert above <= most_allowed(runs)
        assert min(bayesian_interval(a, n, b, n, delta=1e-5, nodes=200)[0] for a, b in pairs[:20]) > 0


@pytest.mark.slow
def test_the_prior_alone_would_exceed_its_error_where_flags_are_rare():
    """Why an exact test is asked first; both rates by enumeration of all counts, 30 against 300 trials."""
    n_in, n_out, rate, most = 30, 300, 0.005, 8
    chance = np.outer(stats.binom.pmf(range(most), n_in, rate), stats.binom.pmf(range(most), n_out, rate))
    assert chance.sum() > 0.999
    u = (np.arange(400) + 0.5) / 400
    ungated = gated = 0.0
    for tp in range(most):
        fnr = stats.beta.ppf(u, 0.5 + n_in - tp, 0.5 + tp)
        for fp in range(most):
            worse = stats.beta.sf(1 - fnr, 0.5 + fp, 0.5 + n_out - fp).mean()  # FPR >= TPR
            ungated += chance[tp, fp] * (worse < 0.05)
            gated += chance[tp, fp] * (bayesian_lower_bound(tp, n_in, fp, n_out).bound > 0)
    assert ungated > 0.08
    assert 0.001 < gated <= 0.05


@pytest.mark.slow
def test_bayesian_bound_is_credible_and_not_confident():
    """Its shortfall against a known epsilon is as stated: small with one tight inequality, larger with both."""
    rng = np.random.default_rng(13)
    runs, n = 300, 100
    p = math.e / (1 + math.e)
    above = {}
    for name, hit, alarm in (("one", 0.05 * math.e, 0.05), ("both", p, 1 - p)):
        tp, fp = rng.binomial(n, hit, runs), rng.binomial(n, alarm, runs)
        found = [bayesian_lower_bound(int(a), n, int(b), n) for a, b in zip(tp, fp, strict=True)]
        above[name] = np.mean([b.bound > 1.0 for b in found])
        assert all(b.bound <= b.ceiling and b.bound < b.upper for b in found)
        assert np.mean([b.bound for b in found]) > np.mean([epsilon_from_counts(b.tp, n, b.fp, n).bound for b in found])
    assert above["one"] < 0.11
    assert 0.06 < above["both"] < 0.20


# -- one run -----------------------------------------------------------------------------------------------------------


def test_one_run_equals_the_reference_values():
    for made, row in {
        100: {60: 0.05, 70: 0.47, 80: 0.96, 90: 1.63, 95: 2.17, 100: 3.49},
        1000: {550: 0.09, 600: 0.297, 700: 0.73, 800: 1.25, 900: 2.02, 950: 2.70, 990: 4.06, 1000: 5.809},
        10_000: {6000: 0.37, 8000: 1.345, 9000: 2.14, 10_000: 8.11},
    }.items():
        for right, epsilon in row.items():
            assert one_run_epsilon(right, made, made) == pytest.approx(epsilon, abs=0.0052)
    assert one_run_epsilon(1000, 1000, 10_000, delta=1e-5) == pytest.approx(5.53, abs=0.005)
    assert one_run_ceiling(1000, 10_000, delta=1e-5) == pytest.approx(5.53, abs=0.005)
    assert one_run_epsilon(0, 10, 10) == one_run_epsilon(5, 10, 10) == 0.0


def slow_p_value(right, made, canaries, epsilon, delta):
    """The sum of the paper, term by term."""
    w = stats.binom(made, 1 / (1 + math.exp(-epsilon)))
    windows = [sum(w.pmf(v) for v in range(right - i, right)) / i for i in range(1, right + 1)]
    return min(1.0, w.sf(right - 1) + 2 * canaries * delta * max(windows, default=0.0))


@pytest.mark.slow
def test_one_run_p_value_equals_the_sum_of_the_paper():
    for right, made, canaries, epsilon, delta in (
        (60, 100, 100, 0.1, 1e-4),
        (45, 50, 200, 1.5, 1e-3),
        (30, 30, 30, 2.0, 1e-5),
        (10, 40, 40, 0.0, 1e-2),
        (1, 3, 9, 0.5, 0.0),
    ):
        slow = slow_p_value(right, made, canaries, epsilon, delta)
        assert one_run_p_value(right, made, canaries, epsilon, delta) == pytest.approx(slow, rel=1e-9)
        bound = one_run_epsilon(right, made, canaries, delta=delta)
        if bound:
            assert slow_p_value(right, made, canaries, bound - 1e-6, delta) < 0.05
            assert slow_p_value(right, made, canaries, bound + 1e-6, delta) >= 0.05 - 1e-9


def test_a_hundred_thousand_canaries_are_no_work():
    begun = time.perf_counter()
    many = one_run_epsilon(80_000, 100_000, 100_000, delta=1e-7)
    assert 1.36 < many < one_run_epsilon(80_000, 100_000, 100_000) < math.log(4)
    assert fdp_mu(80_000, 100_000, 100_000) == pytest.approx(2 * stats.norm.ppf(0.8), rel=0.7)
    assert one_run_ceiling(100_000, 100_000) == pytest.approx(10.415, abs=0.01)
    assert time.perf_counter() - begun < 10  # seconds, not minutes; about one on an idle core


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.0])
def test_one_run_bound_covers_randomised_response(epsilon):
    """Each canary's answer is its coin, flipped with probability 1/(1 + e^eps): exactly eps-DP, and tight."""
    rng = np.random.default_rng(int(10 + epsilon))
    runs, made = 2000, 300
    right = rng.binomial(made, 1 / (1 + math.exp(-epsilon)), runs)
    above = sum(one_run_epsilon(int(v), made, made) > epsilon for v in right)
    assert 0 < above <= most_allowed(runs)
    assert above > 0.025 * runs  # tight up to the steps of the counts


# -- one run, f-DP -----------------------------------------------------------------------------------------------------


def test_fdp_equals_the_reference_values():
    for made, right, mu, epsilon in (
        (1000, 600, 0.164, 0.58),
        (1000, 800, 0.576, 2.33),
        (1000, 900, 0.880, 3.78),
        (100, 60, 0.015, 0.04),
        (100, 80, 0.364, 1.40),
        (100, 95, 0.787, 3.32),
        (100, 100, 1.226, 5.55),
    ):
        found = fdp_mu(right, made, 1000)
        assert found == pytest.approx(mu, abs=0.0006)
        assert epsilon_of_gdp(found, 1e-5) == pytest.approx(epsilon, abs=0.006)


def slow_rejects(right, made, canaries, mu, error):
    r, h = [0.0] * (right + 1), [0.0] * (right + 1)
    r[right], h[right] = error * right / canaries, error * (made - right) / canaries
    for i in range(right - 1, -1, -1):
        h[i] = max(h[i + 1], stats.norm.cdf(stats.norm.ppf(min(1.0, r[i + 1])) - mu))
        r[i] = r[i + 1] + i / (made - i) * (h[i] - h[i + 1])
    return r[0] + h[0] > made / canaries


def test_fdp_recursion_equals_a_plain_one():
    rng = np.random.default_rng(14)
    seen = set()
    for _ in range(60):
        canaries = int(rng.integers(10, 80))
        made = int(rng.integers(5, canaries + 1))
        right, mu = int(rng.integers(made // 2, made + 1)), float(rng.choice([0.0, 0.1, 0.4, 1.0]))
        slow = slow_rejects(right, made, canaries, mu, 0.05)
        assert rejects_gdp(right, made, canaries, mu, 0.05) == slow
        seen.add(bool(slow))
    assert seen == {True, False}


@pytest.mark.parametrize(("mu", "share"), [(0.0, 0.5), (0.0, 0.1), (1.0, 0.5), (1.0, 0.1), (2.0, 0.1)])
def test_one_run_bounds_cover_the_gaussian_mechanism(mu, share):
    """Each canary is answered by its coin plus Gaussian noise: exactly mu-GDP, guesses at both ends."""
    rng = np.random.default_rng(int(100 * mu + 10 * share))
    runs, m, delta = 1000, 200, 1e-5
    k = int(share * m)
    coin = rng.random((runs, m)) < 0.5
    ranked = np.take_along_axis(coin, np.argsort(mu * coin + rng.standard_normal((runs, m)), axis=1), axis=1)
    right = (~ranked[:, :k]).sum(axis=1) + ranked[:, m - k :].sum(axis=1)
    truth = epsilon_of_gdp(mu, delta) if mu else 0.0
    sharp = np.array([fdp_mu(int(v), 2 * k, m) for v in right])
    loose = np.array([one_run_epsilon(int(v), 2 * k, m, delta=delta) for v in right])
    assert (sharp > mu).sum() <= most_allowed(runs)
    assert (loose > truth).sum() <= most_allowed(runs)
    if mu:
        assert epsilon_of_gdp(float(np.median(sharp)), delta) > np.median(loose) > 0


# -- choices -----------------------------------------------------------------------------------------------------------

THRESHOLDS = Bonferroni((-1.0, 0.0, 0.7, 1.3, 2.0))
NULL_CHOICES = [
    ("clopper-pearson", Split()),
    ("gaussian", Split()),
    ("bayesian", Split(0.3)),
    ("one-run", Bonferroni(GUESSES)),
    ("one-run-fdp", Split()),
]
OTHER_NULL_CHOICES = [
    ("clopper-pearson", THRESHOLDS),
    ("gaussian", THRESHOLDS),
    ("bayesian", Fixed(0.5)),
    ("one-run", Split()),
    ("one-run", Fixed((0.25, 0.25))),
    ("one-run-fdp", Bonferroni(GUESSES)),
]
"""The other ways to choose, in the slow stage: the quick one holds every method once."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "choice"),
    [*NULL_CHOICES, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHER_NULL_CHOICES)],
)
def test_no_bound_exceeds_zero_more_often_than_its_error(method, choice):
    rng = np.random.default_rng(8)
    runs = 1000 if method != "bayesian" else 300
    bound = one_run_bound if method.startswith("one-run") else threshold_bound
    above = 0
    for _ in range(runs):
        score, coin = rng.standard_normal(120), rng.random(120) < 0.5
        found = bound(score[coin], score[~coin], method=method, choice=choice, delta=1e-5, rng=rng)
        above += found.bound > 0
        assert 0 <= found.bound <= found.ceiling
        assert found.level == 0.95
    assert above <= most_allowed(runs)


def test_uncorrected_maxima_fail_the_same_test():
    """The same worlds, the largest of the same candidates without correction: caught."""
    rng = np.random.default_rng(8)
    runs, guessed = 300, 0
    for _ in range(runs):
        score, coin = rng.standard_normal(120), rng.random(120) < 0.5
        guessed += any(
            one_run_bound(score[coin], score[~coin], choice=Fixed(pair), rng=rng).bound > 0 for pair in GUESSES
        )
    assert guessed > most_allowed(runs)


def test_equal_scores_are_ranked_by_lot():
    """In first, out last, as concatenated: ranked by place, a constant score would guess every canary right."""
    constant = np.zeros(50)
    rng = np.random.default_rng(1)
    right = [guess_counts(constant, constant, 50, 50, rng=rng).right for _ in range(200)]
    assert abs(np.mean(right) - 50) < 2
    place = np.argsort(-np.concatenate([constant, constant]), kind="stable")
    assert (place[:50] < 50).sum() == 50  # the faulty ranking
    assert one_run_lower_bound(Guesses(50, 0, 50, 0, 50, 50)).bound > 3  # and what it would have claimed
    assert one_run_bound(constant, constant, choice=Fixed((0.5, 0.5)), rng=rng).bound < 0.5


def test_a_leak_is_found_by_every_method_and_perfect_scores_reach_the_ceiling():
    rng = np.random.default_rng(2)
    coin = rng.random(1000) < 0.5
    score = rng.standard_normal(1000) + 2 * coin
    bounds = epsilon_bounds(score[coin], score[~coin], delta=1e-5, fair_coins=True, rng=rng)
    assert [b.method for b in bounds] == ["Clopper-Pearson", "Bayesian", "Gaussian DP", "one run", "one run, f-DP"]
    truth = epsilon_of_gdp(2.0, 1e-5)
    assert all(0.8 < b.bound < truth for b in bounds)
    assert all(b.bound <= b.ceiling and b.estimate().low == b.bound for b in bounds)
    assert bounds[2].bound > bounds[0].bound  # what the model of a curve buys
    perfect = epsilon_bounds(coin[coin] + 0.0, coin[~coin] + 0.0, delta=1e-5, fair_coins=True, rng=rng)
    assert all(b.bound == pytest.approx(b.ceiling) for b in perfect)


def test_what_each_bound_quantifies_over_is_said():
    rng = np.random.default_rng(3)
    score, coin = rng.standard_normal(100), rng.random(100) < 0.5
    bounds = epsilon_bounds(score[coin], score[~coin], delta=1e-5, fair_coins=True, rng=rng)
    assert [b.assumption.startswith(TRIALS["records"]) for b in bounds] == [True, True, True, False, False]
    assert all(b.assumption.startswith(TRIALS["coins"]) for b in bounds[3:])
    assert ["Gaussian" in b.assumption for b in bounds] == [False, False, True, False, True]
    assert "no confidence bound" in bounds[1].assumption
    assert all("random 50%" in b.choice for b in bounds)
    pure = epsilon_bounds(score[coin], score[~coin], delta=0.0, fair_coins=True, rng=rng)
    assert [b.method for b in pure] == ["Clopper-Pearson", "Bayesian", "one run"]
    assert epsilon_from_counts(5, 10, 1, 10).assumption == TRIALS["runs"]


def test_choices_are_what_they_say():
    rng = np.random.default_rng(4)
    s1, s0 = rng.standard_normal(500) + 1.5, rng.standard_normal(500)
    fixed = threshold_bound(s1, s0, choice=Fixed(1.0), rng=rng)
    assert (fixed.tp, fixed.fp) == (int((s1 >= 1.0).sum()), int((s0 >= 1.0).sum()))
    assert fixed.bound == epsilon_from_counts(fixed.tp, 500, fixed.fp, 500).bound
    corrected = threshold_bound(s1, s0, choice=Bonferroni((0.0, 1.0, 2.0)), rng=rng)
    singles = [threshold_bound(s1, s0, choice=Fixed(t), level=1 - 0.05 / 3, rng=rng).bound for t in (0.0, 1.0, 2.0)]
    assert corrected.bound == max(singles)
    assert (corrected.level, corrected.delta) == (0.95, 0.0)
    one = one_run_bound(s1, s0, choice=Fixed((0.1, 0.05)), rng=rng)
    assert one.guesses == 150
    again = [one_run_bound(s1, s0, rng=np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    good = np.arange(50.0)
    with pytest.raises(InvalidInput, match="do not come from fair coins"):
        one_run_bound(np.arange(100.0), np.arange(200.0), rng=rng)  # guessing "out" alone would be right in two thirds
    with pytest.raises(InvalidInput, match="at least 8"):
        one_run_bound(np.arange(3.0), np.arange(3.0), rng=rng)
    with pytest.raises(InvalidInput, match="unknown; allowed"):
        threshold_bound(good, good, method="magic", rng=rng)
    with pytest.raises(InvalidInput, match="unknown; allowed"):
        one_run_bound(good, good, method="clopper-pearson", rng=rng)
    with pytest.raises(InvalidInput, match="one number"):
        threshold_bound(good, good, choice=Fixed((0.5, 0.5)), rng=rng)
    with pytest.raises(InvalidInput, match="shares of the canaries"):
        one_run_bound(good, good, choice=Fixed(0.5), rng=rng)
    with pytest.raises(InvalidInput, match="shares of the canaries"):
        one_run_bound(good, good, choice=Bonferroni(((0.6, 0.6),)), rng=rng)
    with pytest.raises(InvalidInput, match="at least one candidate"):
        threshold_bound(good, good, choice=Bonferroni(()), rng=rng)
    with pytest.raises(InvalidInput, match="fraction"):
        one_run_bound(good, good, choice=Split(1.0), rng=rng)
    with pytest.raises(InvalidInput, match="not finite"):
        one_run_bound(np.append(good, np.nan), good, rng=rng)
    with pytest.raises(InvalidInput, match="k_in"):
        guess_counts(good, good, 60, 60, rng=rng)
    with pytest.raises(InvalidInput, match="at least one guess"):
        one_run_lower_bound(Guesses(0, 0, 0, 0, 5, 5))
    with pytest.raises(InvalidInput, match="than there are"):
        Guesses(6, 0, 0, 0, 5, 5)
    with pytest.raises(InvalidInput, match="finite epsilon only"):
        fdp_lower_bound(Guesses(4, 1, 4, 1, 5, 5), delta=0.0)
    with pytest.raises(InvalidInput, match="delta"):
        one_run_lower_bound(Guesses(4, 1, 4, 1, 5, 5), delta=1.0)
    with pytest.raises(InvalidInput, match="trials="):
        epsilon_from_counts(5, 10, 1, 10, trials="models")
