"""Two-way clustered variances against slow twins and simulated fleets with known truth."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.clustered import (
    auc_influence,
    clustered_limits,
    density_ratio,
    rate_influence,
    tpr_influence,
    two_way_variance,
)
from mnemoscope.audit.statistics.delong import delong
from mnemoscope.audit.statistics.intervals import clopper_pearson
from mnemoscope.audit.statistics.roc import tpr_at_fpr, tpr_estimate
from mnemoscope.audit.statistics.simulation import FleetWorld, fleet_coverage, fleet_truth, simulate_fleet
from mnemoscope.audit.statistics.trials import Trials


def slow_variance(h, model, record):
    """Sum of products over all pairs of cells that share a model or a record, corrected as documented."""
    m, n = len(set(model)), len(set(record))
    same_model = np.equal.outer(model, model)
    same_record = np.equal.outer(record, record)
    products = np.outer(h, h)
    v_model = (products * same_model).sum() * m / (m - 1)
    v_record = (products * same_record).sum() * n / (n - 1)
    v_cell = (products * (same_model & same_record)).sum()
    return max(v_model + v_record - v_cell, min(v_model, v_record))


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_two_way_variance_equals_the_sum_over_pairs(share):
    rng = np.random.default_rng(int(100 * share))
    values = rng.standard_normal((9, 30)) + rng.standard_normal(30) + rng.standard_normal((9, 1))
    mask = rng.random((9, 30)) < share
    mask[0, :2] = True
    model, record = np.nonzero(mask)
    h = (values[mask] - values[mask].mean()) / mask.sum()
    assert two_way_variance(values, mask) == pytest.approx(slow_variance(h, model, record), rel=1e-10)


def test_clusters_are_recognised_by_any_integer_ids():
    rng = np.random.default_rng(9)
    (score,), side = simulate_fleet(FleetWorld(12, 30, 1.0), rng)
    trials = Trials.from_fleet(score, side, np.arange(30))
    plain = auc_influence(trials)
    far = auc_influence(Trials(trials.score, trials.is_in, 10**12 - 7 * trials.record_id, trials.model_id - 5))
    assert far.variance == pytest.approx(plain.variance, rel=1e-12)
    assert far.df == plain.df == 11


def test_two_way_variance_is_right_on_random_effects():
    """Mean of a + b + e over a full array: sa^2/m + sb^2/n + se^2/(mn), to within the noise of estimation."""
    rng = np.random.default_rng(0)
    m, n = 20, 60
    found, naive = [], []
    for _ in range(400):
        x = 0.5 * rng.standard_normal((m, 1)) + 0.8 * rng.standard_normal(n) + rng.standard_normal((m, n))
        found.append(two_way_variance(x))
        naive.append(x.var(ddof=1) / x.size)
    truth = 0.25 / m + 0.64 / n + 1 / (m * n)
    assert np.mean(found) == pytest.approx(truth, rel=0.06)
    assert np.mean(naive) < 0.1 * truth


def test_no_model_effect_and_balanced_records_do_not_inflate():
    """Where every record has the same mean by design, the record term is negative covariance, not noise."""
    rng = np.random.default_rng(1)
    hits = rng.permuted(np.repeat([[1.0], [0.0]], 12, axis=0) * np.ones((24, 200)), axis=0)
    assert two_way_variance(hits) < 0.2 * 0.25 / hits.size
    assert two_way_variance(hits) >= 0.0


def test_one_model_varies_over_records_only():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 50))
    assert two_way_variance(x) == pytest.approx(x.var(ddof=1) / 50)
    score = rng.standard_normal(80)
    trials = Trials.one_model(score, np.arange(80) < 40, np.arange(80))
    influence = auc_influence(trials)
    # Both sides share one n/(n-1) in place of one each: a difference of second order.
    assert np.sqrt(influence.variance) == pytest.approx(delong(score[:40], score[40:]).se, rel=0.01)
    assert influence.df == 79


def test_few_clusters_that_carry_the_variance_lower_the_degrees_of_freedom():
    model, record = np.divmod(np.arange(40 * 50), 50)
    spread = rate_influence(np.random.default_rng(0).random(2000) < 0.3, model, record)
    assert 20 < spread.df <= 39
    held_by_two = rate_influence(np.isin(model, [3, 4]), model, record)
    assert held_by_two.df < 6
    assert held_by_two.interval().upper > clustered_limits(0.05, held_by_two.variance, 100, 2000, df=39).upper


def test_limits_follow_the_variance_and_never_beat_clopper_pearson():
    for k, n in ((0, 500), (8, 800), (100, 800), (800, 800)):
        p = k / n
        exact = clopper_pearson(k, n)
        tight = clustered_limits(p, 0.2 * p * (1 - p) / n, k, n)
        assert (tight.lower, tight.upper) == (exact.lower, exact.upper)
        wide = clustered_limits(p, 9 * p * (1 - p) / n, k, n, df=20)
        assert wide.lower <= exact.lower
        assert wide.upper >= exact.upper
    wide = clustered_limits(0.125, 9 * 0.125 * 0.875 / 800, 100, 800)
    assert (wide.upper - wide.lower) / 2 == pytest.approx(1.96 * 3 * np.sqrt(0.125 * 0.875 / 800), rel=0.05)
    assert wide.upper - 0.125 > 0.125 - wide.lower
    assert clustered_limits(0.125, 1e-3, 100, 800, sides="upper").lower == 0.0
    assert clustered_limits(0.125, 1e-3, 100, 800, sides="lower").upper == 1.0
    with pytest.raises(InvalidInput):
        clustered_limits(1.2, 0.1, 1, 2)


@pytest.mark.parametrize(
    ("shift", "scale", "fpr"), [(0, 1, 0.01), (1, 1, 0.01), (1, 1, 0.1), (1, 1.5, 0.02), (2, 1, 0.001)]
)
def test_density_ratio_is_accurate_where_the_secant_is_too_flat(shift, scale, fpr):
    rng = np.random.default_rng(3)
    z = -ndtri(fpr)
    truth = np.exp(-(((z - shift) / scale) ** 2) / 2 + z * z / 2) / scale
    ours, secant = [], []
    for _ in range(100):
        s1, s0 = rng.standard_normal(20_000) * scale + shift, rng.standard_normal(20_000)
        ours.append(density_ratio(s1, s0, fpr))
        low, high = tpr_at_fpr(s1, s0, fpr / 2), tpr_at_fpr(s1, s0, fpr * 2)
        secant.append((high[0] - low[0]) / (high[1] - low[1]))
    assert np.median(ours) == pytest.approx(truth, rel=0.03)
    assert abs(np.median(ours) / truth - 1) <= abs(np.median(secant) / truth - 1) + 0.02
    if shift == 2:
        assert np.median(secant) < 0.95 * truth


def test_density_ratio_degenerates_to_no_leak():
    assert density_ratio(np.ones(50), np.ones(50), 0.05) == 1.0
    assert density_ratio(np.full(50, -9.0), np.arange(50.0), 0.1) >= 0.0
    with pytest.raises(InvalidInput, match="fpr"):
        density_ratio(np.ones(5), np.ones(5), 0.0)


def test_tpr_influence_is_the_derivative_of_the_estimate():
    """Derived again by force: adding weight to one cell moves TPR at the estimated threshold by its contribution."""
    n = 60_000
    s0 = ndtri((np.arange(n) + 0.5) / n)  # quantiles in place of draws: the derivative without sampling noise
    s1 = s0 + 1.0
    fpr, step = 0.05, 0.01
    _, _, cut = tpr_at_fpr(s1, s0, fpr)
    score = np.concatenate([s1, s0])
    trials = Trials.one_model(score, np.arange(2 * n) < n, np.arange(2 * n))
    influence = tpr_influence(trials, score >= cut, ratio=density_ratio(s1, s0, fpr))
    extra = int(step * n)
    for point in (cut + 0.5, cut - 0.5):
        added = tpr_at_fpr(s1, np.concatenate([s0, np.full(extra, point)]), fpr)[0] / n
        first_order = (
            influence.contribution[n:][s0 >= cut][0] if point > cut else influence.contribution[n:][s0 < cut][0]
        )
        assert added - influence.value == pytest.approx(first_order * extra, rel=0.1)
        more = np.concatenate([s1, np.full(extra, point)])
        added = tpr_at_fpr(more, s0, fpr)[0] / more.size
        side = s1 >= cut if point > cut else s1 < cut
        assert added - influence.value == pytest.approx(influence.contribution[:n][side][0] * extra, rel=0.01)


def test_auc_influence_sums_to_zero_and_equals_pair_contributions():
    rng = np.random.default_rng(5)
    (score,), side = simulate_fleet(FleetWorld(12, 20, 0.5), rng)
    trials = Trials.from_fleet(np.round(score, 1), side, np.arange(20))
    influence = auc_influence(trials)
    kernel = np.sign(trials.in_scores[:, None] - trials.out_scores) / 2 + 0.5
    assert influence.value == pytest.approx(kernel.mean())
    np.testing.assert_allclose(
        influence.contribution[trials.is_in], (kernel.mean(1) - kernel.mean()) / trials.is_in.sum(), atol=1e-15
    )
    assert influence.contribution.sum() == pytest.approx(0, abs=1e-12)
    assert influence.variance == pytest.approx(
        slow_variance(influence.contribution, trials.model_id, trials.record_id), rel=1e-9
    )


def test_difference_pairs_equal_cells_and_concatenates_others():
    rng = np.random.default_rng(6)
    (a, b), side = simulate_fleet(FleetWorld(12, 40), rng, 2)
    ta, tb = (Trials.from_fleet(s, side, np.arange(40)) for s in (a, b))
    ia, ib = auc_influence(ta), auc_influence(tb)
    paired = ia - ib
    assert paired.contribution.size == ta.score.size
    order = rng.permutation(tb.score.size)
    shuffled = auc_influence(Trials(tb.score[order], tb.is_in[order], tb.record_id[order], tb.model_id[order]))
    assert (ia - shuffled).variance == pytest.approx(paired.variance, rel=1e-9)
    apart = ia - auc_influence(Trials(tb.score, tb.is_in, tb.record_id + 1000, tb.model_id + 1000))
    assert apart.variance == pytest.approx(ia.variance + ib.variance, rel=0.2)
    assert (ia - ia).variance == 0.0
    assert (ia - ia).interval().lower == 0.0


def test_estimates_choose_clusters_by_themselves():
    rng = np.random.default_rng(7)
    (score,), side = simulate_fleet(FleetWorld(12, 100, 1.0, model_effect=0.5), rng)
    trials = Trials.from_fleet(score, side, np.arange(100))
    pooled = Trials.one_model(trials.score, trials.is_in, np.arange(trials.score.size))
    fleet, naive = tpr_estimate(trials, 0.05), tpr_estimate(pooled, 0.05)
    assert fleet.tpr.value == naive.tpr.value
    assert fleet.tpr.high - fleet.tpr.low > 1.3 * (naive.tpr.high - naive.tpr.low)
    fixed = tpr_estimate(trials, 0.05, threshold=1.0)
    assert fixed.fpr.k == int((trials.out_scores >= 1.0).sum())
    exact = clopper_pearson(fixed.fpr.k, fixed.fpr.n)
    assert fixed.fpr.high >= exact.upper


def test_rate_influence_and_errors():
    hit = np.array([True, False, True, True])
    part = rate_influence(hit, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert (part.value, part.k, part.n_in) == (0.75, 3, 4)
    assert part.estimate().n == 4
    with pytest.raises(InvalidInput):
        rate_influence(np.zeros(0, bool), np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(InvalidInput, match="one \\(m, n\\)"):
        two_way_variance(np.zeros((2, 3)), np.zeros((3, 2), bool))
    trials = Trials.one_model(np.ones(2), np.array([True, False]), np.arange(2))
    with pytest.raises(InvalidInput, match="ratio"):
        tpr_influence(trials, np.ones(2, bool), ratio=-1.0)


def test_truth_of_raw_fleets_is_the_binormal_curve():
    truth = fleet_truth(FleetWorld(24, 300, 1.0), [0.01, 0.1], fleets=150)
    assert truth.auc == pytest.approx(ndtr(1 / np.sqrt(2)), abs=0.004)
    for fpr, tpr in truth.tpr:
        assert tpr == pytest.approx(ndtr(1 + ndtri(fpr)), rel=0.03)
    with pytest.raises(InvalidInput, match="multiple of 3"):
        FleetWorld(25, 300)


WORLDS = [
    FleetWorld(24, 200, 0.0, scored="leave-one-out"),
    FleetWorld(24, 200, 1.0, 0.5, record_effect=0.7, model_effect=0.4),
]


@pytest.mark.parametrize(
    ("paired", "world"),
    [
        (False, WORLDS[1]),  # a leak, with effects of models and of records
        pytest.param(False, WORLDS[0], marks=pytest.mark.slow),
        pytest.param(True, WORLDS[1], marks=pytest.mark.slow),
        pytest.param(True, WORLDS[0], marks=pytest.mark.slow),
    ],
)
def test_clustered_intervals_cover_on_dependent_fleets(world, paired):
    """200 runs: 95 % nominal stays above 89 % with probability 0.9995; long runs are in the benchmark."""
    for result in fleet_coverage(world, [0.05], runs=200, paired=paired):
        assert result.covered >= 178, result
        assert 0.85 < result.se_ratio < 1.25, result


def test_naive_intervals_do_not_cover_on_dependent_fleets():
    world = WORLDS[1]
    truth = dict(fleet_truth(world, [0.05], fleets=150).tpr)[0.05]
    held = 0
    for run in range(100):
        (score,), side = simulate_fleet(world, np.random.default_rng(run))
        tp, _, _ = tpr_at_fpr(score[side == 1], score[side == 0], 0.05)
        ci = clopper_pearson(tp, int((side == 1).sum()))
        held += ci.lower <= truth <= ci.upper
    assert held < 75
