"""ROC counts, AUC and rates against slow twins; ties move together."""

import time

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.roc import (
    auc,
    auc_estimate,
    balanced_accuracy,
    roc_band,
    roc_counts,
    thin_curve,
    threshold_at,
    tpr_at_fpr,
    tpr_estimate,
)
from mnemoscope.audit.statistics.trials import Trials


def slow_auc(s1, s0):
    return float(np.mean([[1.0 if a > b else 0.5 if a == b else 0.0 for b in s0] for a in s1]))


def slow_counts(s1, s0):
    points = [(0, 0)]
    for level in sorted(set(s1.tolist()) | set(s0.tolist()), reverse=True):
        points.append((int((s1 >= level).sum()), int((s0 >= level).sum())))
    return points


def one_model(s1, s0):
    score = np.concatenate([s1, s0])
    return Trials.one_model(score, np.arange(score.size) < len(s1), np.arange(score.size))


def tied_pairs():
    rng = np.random.default_rng(0)
    for levels in (2, 3, 6, 1000):
        for n1, n0 in ((1, 1), (7, 5), (30, 41)):
            yield (
                rng.integers(0, levels, n1).astype(float) + rng.integers(0, 2),
                rng.integers(0, levels, n0).astype(float),
            )


@pytest.mark.parametrize(("s1", "s0"), list(tied_pairs()))
def test_counts_and_auc_equal_the_slow_twins(s1, s0):
    counts = roc_counts(s1, s0)
    assert list(zip(counts.tp.tolist(), counts.fp.tolist(), strict=True)) == slow_counts(s1, s0)
    assert (counts.tp[0], counts.fp[0]) == (0, 0)
    assert (counts.tp[-1], counts.fp[-1]) == (counts.n_in, counts.n_out)
    assert counts.threshold[0] == np.inf
    for level, tp, fp in zip(counts.threshold, counts.tp, counts.fp, strict=True):
        assert (tp, fp) == ((s1 >= level).sum(), (s0 >= level).sum())
    assert auc(s1, s0) == pytest.approx(slow_auc(s1, s0), abs=1e-12)
    assert np.trapezoid(counts.tpr, counts.fpr) == pytest.approx(auc(s1, s0), abs=1e-12)


def faulty_roc_auc(s1, s0):
    """LeakPro's curve: one point a trial in score order, ties split at the next threshold, ends left out."""
    thresholds = np.unique(np.concatenate([s1, s0]))
    tpr = np.array([(s1 > t).mean() for t in thresholds])
    fpr = np.array([(s0 >= t).mean() for t in thresholds])
    order = np.argsort(fpr, kind="stable")
    return float(np.trapezoid(tpr[order], fpr[order]))


def test_peer_defect_row_1_ties_split_and_ends_missing():
    """Peer-defects row 1: a tie group split over two thresholds without (0,0), (1,1) ruins quantised scores."""
    perfect_in, perfect_out = np.ones(50), np.zeros(50)
    assert auc(perfect_in, perfect_out) == 1.0
    assert faulty_roc_auc(perfect_in, perfect_out) < 0.9
    rng = np.random.default_rng(3)
    s1 = rng.choice(6, 400, p=[0.02, 0.05, 0.08, 0.15, 0.3, 0.4]).astype(float)
    s0 = rng.choice(6, 400, p=[0.4, 0.3, 0.15, 0.08, 0.05, 0.02]).astype(float)
    truth = slow_auc(s1, s0)
    assert auc(s1, s0) == pytest.approx(truth, abs=1e-12)
    assert abs(faulty_roc_auc(s1, s0) - truth) > 0.05
    assert tpr_at_fpr(s1, s0, 0.05)[1] <= 20


@pytest.mark.parametrize("fpr", [0.0, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("s1", "s0"), list(tied_pairs()))
def test_tpr_at_fpr_is_the_best_attainable_point(s1, s0, fpr):
    tp, fp, cut = tpr_at_fpr(s1, s0, fpr)
    allowed = int(np.floor(fpr * s0.size + 1e-9))
    assert tp == max(t for t, f in slow_counts(s1, s0) if f <= allowed)
    assert fp <= allowed
    assert (tp, fp) == ((s1 >= cut).sum(), (s0 >= cut).sum())
    level = threshold_at(s0, fpr)
    assert (s0 >= level).sum() <= allowed
    assert level == min((v for v in set(s0.tolist()) if (s0 >= v).sum() <= allowed), default=np.inf)


def test_nearest_point_convention_would_exceed_the_target():
    """With 500 out records and a target of 0.1 %, no false positive is allowed, not the one of 0.2 %."""
    s0 = np.arange(500.0)
    s1 = np.array([498.5, 499.5])
    assert tpr_at_fpr(s1, s0, 0.001)[:2] == (1, 0)


def test_threshold_keeps_the_expected_rate_on_fresh_records():
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(400):
        cut = threshold_at(rng.standard_normal(200), 0.05)
        rates.append((rng.standard_normal(2000) >= cut).mean())
    assert np.mean(rates) == pytest.approx(10 / 201, abs=0.002)


def test_rates_below_one_in_n_are_null_and_few_are_grey():
    rng = np.random.default_rng(1)
    trials = one_model(rng.standard_normal(300) + 1, rng.standard_normal(500))
    below = tpr_estimate(trials, 0.001)
    assert below.tpr.value is None
    assert below.fpr.value is None
    assert "below 1/n" in (below.tpr.reason or "")
    few = tpr_estimate(trials, 0.01)
    assert few.grey
    assert few.tpr.value is not None
    assert "description only" in (few.tpr.reason or "")
    enough = tpr_estimate(trials, 0.016)
    assert not enough.grey
    assert enough.tpr.reason is None
    assert (enough.fpr.k, enough.fpr.n, enough.tpr.n) == (8, 500, 300)


def test_peer_defect_row_29_over_forgetting_is_reported_in_its_own_tail():
    """Peer-defects row 29: over-forgetting drives the AUC to 0; one-tailed TPR is blind, both tails are reported."""
    rng = np.random.default_rng(2)
    forgotten, never = rng.standard_normal(600) - 6.0, rng.standard_normal(600)
    trials = one_model(forgotten, never)
    one_tailed = tpr_estimate(trials, 0.05)
    assert one_tailed.tpr.value == 0.0
    other = tpr_estimate(trials, 0.05, tail="over-forgotten")
    assert other.tpr.value > 0.99
    estimate = auc_estimate(trials)
    assert estimate.value < 0.001
    assert 0.0 <= estimate.low < estimate.high < 0.02
    assert other.fpr.k == 30


def test_tails_mirror_each_other():
    rng = np.random.default_rng(8)
    s1, s0 = rng.standard_normal(200) + 0.5, rng.standard_normal(300)
    low = tpr_estimate(one_model(s1, s0), 0.05, tail="over-forgotten")
    assert low == tpr_estimate(one_model(-s1, -s0), 0.05)
    with pytest.raises(InvalidInput, match="tail="):
        tpr_estimate(one_model(s1, s0), 0.05, tail="both")  # type: ignore[arg-type]


def test_a_fixed_threshold_gives_exact_binomial_intervals():
    s1, s0 = np.concatenate([np.ones(84), np.zeros(916)]), np.concatenate([np.ones(10), np.zeros(990)])
    fixed = tpr_estimate(one_model(s1, s0), 0.01, threshold=0.5)
    assert (fixed.tpr.k, fixed.fpr.k) == (84, 10)
    assert fixed.tpr.low == pytest.approx(0.0675527, abs=1e-6)
    own = tpr_estimate(one_model(s1, s0), 0.01)
    assert own.tpr.low < fixed.tpr.low
    assert own.tpr.high > fixed.tpr.high


def test_balanced_accuracy_at_a_fixed_threshold():
    s1, s0 = np.array([3.0, 3, 3, 0]), np.array([0.0, 0, 3, 0, 0])
    estimate = balanced_accuracy(one_model(s1, s0), 1.0)
    assert estimate.value == pytest.approx((0.75 + 0.8) / 2)
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        part = balanced_accuracy(one_model(rng.standard_normal(40) + 1, rng.standard_normal(60)), 0.5)
        held += part.low <= 0.6914625 <= part.high
    assert 0.92 <= held / 400 <= 0.985


def distance_to_polyline(px, py, x, y):
    """Slow twin: distance from each point to the nearest of all segments."""
    best = np.full(px.size, np.inf)
    for a in range(x.size - 1):
        dx, dy = x[a + 1] - x[a], y[a + 1] - y[a]
        length = dx * dx + dy * dy
        t = np.clip(((px - x[a]) * dx + (py - y[a]) * dy) / length, 0, 1) if length else 0.0
        best = np.minimum(best, np.hypot(px - x[a] - t * dx, py - y[a] - t * dy))
    return best


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
def test_thinned_curve_stays_within_the_tolerance(tolerance):
    rng = np.random.default_rng(9)
    for s1, s0 in (
        (rng.standard_normal(20_000) + 1, rng.standard_normal(20_000)),
        (rng.standard_normal(300), rng.standard_normal(300)),
        (rng.integers(0, 5, 500) * 1.0, rng.integers(0, 5, 500) * 1.0),
    ):
        counts = roc_counts(s1, s0)
        kept = thin_curve(counts, tolerance)
        assert kept[0] == 0
        assert kept[-1] == counts.tp.size - 1
        x = np.log10(np.maximum(counts.fp, 0.5) / counts.n_out)
        y = np.log10(np.maximum(counts.tp, 0.5) / counts.n_in)
        assert distance_to_polyline(x, y, x[kept], y[kept]).max() <= tolerance
        assert kept.size <= 1500
    assert thin_curve(roc_counts(rng.standard_normal(20_000), rng.standard_normal(20_000)), 0.01).size < 1500


def test_band_holds_each_point():
    counts = roc_counts(np.array([3.0, 2, 2, 0]), np.array([1.0, 2, 0]))
    low, high = roc_band(counts)
    assert (low <= counts.tpr).all()
    assert (high >= counts.tpr).all()
    assert low[0] == 0
    assert high[-1] == 1


@pytest.mark.slow
def test_a_million_scores_take_about_a_second():
    rng = np.random.default_rng(0)
    s1, s0 = rng.standard_normal(500_000) + 0.3, rng.standard_normal(500_000)
    started = time.process_time()
    counts = roc_counts(s1, s0)
    kept = thin_curve(counts)
    estimate = auc_estimate(one_model(s1, s0))
    rate = tpr_estimate(one_model(s1, s0), 0.001)
    spent = time.process_time() - started
    assert spent < 8.0
    assert kept.size < 3000
    assert estimate.low < 0.584 < estimate.high
    assert rate.tpr.low < 0.00268 < rate.tpr.high


@pytest.mark.parametrize("bad", [np.array([np.nan, 1.0]), np.array([[1.0]]), np.array([])])
def test_bad_scores_are_refused(bad):
    with pytest.raises(InvalidInput):
        roc_counts(bad, np.array([1.0]))
    with pytest.raises(InvalidInput):
        auc(np.array([1.0]), bad)


def test_an_empty_side_is_null_with_a_reason():
    trials = one_model(np.array([1.0, 2.0]), np.array([]))
    assert auc_estimate(trials).value is None
    assert tpr_estimate(trials, 0.1).tpr.value is None
    assert balanced_accuracy(trials, 0.0).value is None
    assert "both sides" in (auc_estimate(trials).reason or "")
