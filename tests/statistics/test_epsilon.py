"""Epsilon bounds hold at their stated confidence; peer-defects rows 8, 13 and 15 shown to fail the same test."""

import math

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.epsilon import epsilon_ceiling, epsilon_from_rates, epsilon_lower_bound
from mnemoscope.audit.statistics.epsilon_choice import Split, one_run_bound, threshold_bound
from mnemoscope.audit.statistics.proportions import clopper_pearson_limits


@pytest.mark.parametrize(
    ("counts", "point", "bound"), [((84, 1000, 1, 1000), 4.43, 2.50), ((2100, 25_000, 25, 25_000), 4.43, 4.00)]
)
def test_worked_examples(counts, point, bound):
    result = epsilon_lower_bound(*counts)
    assert result.point == pytest.approx(point, abs=0.005)
    assert result.bound == pytest.approx(bound, abs=0.005)
    assert result.bound < result.ceiling


@pytest.mark.parametrize(
    ("n", "ceiling"), [(50, 2.57), (100, 3.28), (500, 4.91), (1000, 5.60), (10_000, 7.91), (100_000, 10.21)]
)
def test_ceilings_equal_the_reference_table(n, ceiling):
    assert epsilon_ceiling(n, n) == pytest.approx(ceiling, abs=0.006)
    assert epsilon_lower_bound(n, n, 0, n).bound == pytest.approx(epsilon_ceiling(n, n))


def test_both_inequalities_against_spelled_out_limits():
    for tp, n1, fp, n0, delta in (
        (84, 1000, 1, 1000, 1e-5),
        (999, 1000, 500, 1000, 0.0),
        (40, 100, 40, 100, 0.0),
        (0, 9, 0, 9, 0.1),
    ):
        low = stats.beta.ppf(0.025, tp, n1 - tp + 1) if tp else 0.0
        high = stats.beta.ppf(0.975, fp + 1, n0 - fp) if fp < n0 else 1.0
        candidates = [0.0]
        for upper, lower in ((low, high), (1 - high, 1 - low)):
            if upper > delta:
                candidates.append(math.log((upper - delta) / lower))
        assert epsilon_lower_bound(tp, n1, fp, n0, delta=delta).bound == pytest.approx(max(candidates), abs=1e-9)
    mirrored = epsilon_lower_bound(999, 1000, 916, 1000)
    assert mirrored.bound == pytest.approx(epsilon_lower_bound(84, 1000, 1, 1000).bound, abs=1e-9)


def test_limits_of_rates_at_their_ends():
    assert epsilon_from_rates([0.0, 0.1, 0.0], [0.0, 0.2, 1.0]).tolist() == [0.0, 0.0, 0.0]
    assert float(epsilon_from_rates(0.5, 0.0)) == math.inf
    assert epsilon_from_rates([0.5, 0.2], 0.1).tolist() == pytest.approx([math.log(5), math.log(2)])


def test_point_is_null_where_a_rate_is_zero():
    assert epsilon_lower_bound(5, 10, 0, 10).point is None
    assert epsilon_lower_bound(2, 10, 5, 10).point == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "epsilon", [0.5, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_bound_holds_at_its_confidence_under_randomised_response(epsilon):
    """Randomised response is exactly epsilon-DP and both inequalities are tight: the hardest case."""
    rng = np.random.default_rng(int(10 * epsilon))
    p = math.exp(epsilon) / (1 + math.exp(epsilon))
    runs, n = 3000, 400
    tp, fp = rng.binomial(n, p, runs), rng.binomial(n, 1 - p, runs)
    wrong = sum(epsilon_lower_bound(int(a), n, int(b), n).bound > epsilon for a, b in zip(tp, fp, strict=True))
    assert wrong / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    if epsilon:
        assert wrong > 0


def null_scores(rng, n=200):
    return rng.standard_normal(n), rng.standard_normal(n)


def steinke_bound(correct, guesses, q):
    """Bound of the one-run audit at a guess count fixed beforehand (delta 0): accuracy above e^eps / (1 + e^eps)."""
    low = float(clopper_pearson_limits(correct, guesses, 1 - q, "lower")[0])
    return max(0.0, math.log(low / (1 - low))) if low > 0.5 else 0.0


@pytest.mark.slow
def test_peer_defect_row_8_maximum_over_guess_counts():
    """Peer-defects row 8: the maximum over guess counts is above zero in many null runs at a nominal 5 %."""
    rng = np.random.default_rng(8)
    runs, faulty, ours = 200, 0, 0
    for _ in range(runs):
        score, bit = rng.standard_normal(400), rng.random(400) < 0.5
        ranked = bit[np.argsort(score)]
        faulty += any(
            steinke_bound(int(ranked[-k:].sum() + (~ranked[:k]).sum()), 2 * k, 0.05) > 0 for k in range(1, 201)
        )
        ours += one_run_bound(score[bit], score[~bit], rng=rng).bound > 0
    assert faulty / runs > 0.2
    assert ours / runs <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.slow
def test_peer_defect_row_13_maximum_over_thresholds_and_interval_types():
    """Peer-defects row 13: a maximum over thresholds and four kinds of interval is above zero in many null runs."""
    rng = np.random.default_rng(13)
    runs, faulty, ours = 150, 0, 0
    z = 1.959964
    for _ in range(runs):
        s1, s0 = null_scores(rng)
        found = 0.0
        for cut in np.quantile(np.concatenate([s1, s0]), np.linspace(0.01, 0.99, 99)):
            t, f = (s1 >= cut).mean(), (s0 >= cut).mean()
            half_t, half_f = (z * math.sqrt(v * (1 - v) / 200) for v in (t, f))
            wilson_low = (t + z * z / 400 - z * math.sqrt(t * (1 - t) / 200 + z * z / 160_000)) / (1 + z * z / 200)
            wilson_high = (f + z * z / 400 + z * math.sqrt(f * (1 - f) / 200 + z * z / 160_000)) / (1 + z * z / 200)
            exact = clopper_pearson_limits(int(t * 200), 200)[0], clopper_pearson_limits(int(f * 200), 200)[1]
            for low, high in ((t - half_t, f + half_f), (wilson_low, wilson_high), exact):
                for upper, lower in ((low, high), (1 - high, 1 - low)):
                    if upper > 0:
                        found = max(found, math.log(upper / max(lower, 1e-12)))
        faulty += found > 0
        ours += threshold_bound(s1, s0, rng=rng).bound > 0
    assert faulty / runs > 0.1
    assert ours / runs <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs)
    assert faulty > 3 * max(1, ours)


def test_peer_defect_row_15_upper_bootstrap_limit_as_headline():
    """Peer-defects row 15: an upper limit is no lower bound: with a true epsilon of 1 it lies above it in most runs."""
    rng = np.random.default_rng(15)
    p, n, runs = math.e / (1 + math.e), 300, 100
    faulty = ours = 0
    for _ in range(runs):
        tp, fp = rng.binomial(n, p), rng.binomial(n, 1 - p)
        t, f = rng.binomial(n, tp / n, 400) / n, rng.binomial(n, fp / n, 400) / n
        faulty += np.quantile(np.log(t / f), 0.975) > 1.0
        ours += epsilon_lower_bound(int(tp), n, int(fp), n).bound > 1.0
    assert faulty / runs > 0.8
    assert ours / runs <= 0.05


def test_split_bound_finds_a_leak_and_is_seeded():
    rng = np.random.default_rng(3)
    s1, s0 = rng.standard_normal(2000) + 2, rng.standard_normal(2000)
    first = threshold_bound(s1, s0, rng=np.random.default_rng(1))
    assert first == threshold_bound(s1, s0, rng=np.random.default_rng(1))
    assert 1.5 < first.bound < first.ceiling
    assert first.n_in == first.n_out == 1000
    assert first.threshold is not None
    held = epsilon_lower_bound(first.tp, first.n_in, first.fp, first.n_out)
    assert held.bound == first.bound


def test_bad_input_is_refused():
    for arguments in ((5, 4, 0, 4), (1, 2, -1, 2), (0, 0, 0, 5)):
        with pytest.raises(InvalidInput):
            epsilon_lower_bound(*arguments)
    with pytest.raises(InvalidInput, match="delta"):
        epsilon_lower_bound(1, 2, 0, 2, delta=1.0)
    with pytest.raises(InvalidInput, match="fraction"):
        threshold_bound(np.ones(5), np.ones(5), choice=Split(1.0), rng=np.random.default_rng(0))
