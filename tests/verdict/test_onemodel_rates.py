"""Rates at thresholds fixed on other records: exactness, symmetry, and the faulty in-sample threshold beside ours."""

import numpy as np
import pytest
from scipy import stats

from mnemoscope.audit.statistics.roc import threshold_at
from mnemoscope.audit.verdict.onemodel_rates import (
    Difference,
    Group,
    Influence,
    auc_influence,
    deal,
    p_above_ratio,
    rate_influence,
    tail_rate,
)


def groups(f: int, h: int, c: int = 0) -> np.ndarray:
    return np.repeat([Group.FORGET, Group.HOLDOUT, Group.CALIBRATION], [f, h, c]).astype(np.int8)


def test_nobody_is_judged_by_a_threshold_it_set() -> None:
    rng = np.random.default_rng(0)
    group = groups(101, 77)
    labels = rng.integers(0, 5, group.size)
    board = deal(group, labels, rng)
    holdout = board.rows(Group.HOLDOUT)
    assert (board.sets[holdout] == 1 - board.judged[holdout]).all()
    assert (board.sets[~holdout] == -1).all()
    for g in (Group.FORGET, Group.HOLDOUT):
        for label in range(5):
            rows = (group == g) & (labels == label)
            assert abs(int((board.judged[rows] == 0).sum()) - int((board.judged[rows] == 1).sum())) <= 1


def test_given_calibration_records_set_all_thresholds() -> None:
    group = groups(10, 20, 30)
    board = deal(group, np.zeros(60, np.int64), np.random.default_rng(0))
    assert (board.sets[group == Group.CALIBRATION] == 0).all()
    assert (board.judged[group != Group.CALIBRATION] == 0).all()
    score = np.random.default_rng(1).normal(size=60)
    rate = tail_rate(score, board, 0.1, "residual")
    level = threshold_at(score[group == Group.CALIBRATION], 0.1)
    assert rate.k == int((score[:10] >= level).sum())
    assert rate.fp == int((score[10:30] >= level).sum())
    assert rate.shape == (3.0, 28.0)
    low = tail_rate(score, board, 0.1, "over-forgotten")
    assert low.k == int((-score[:10] >= threshold_at(-score[group == Group.CALIBRATION], 0.1)).sum())


@pytest.mark.slow
def test_p_value_is_the_beta_binomial_tail_and_keeps_its_level() -> None:
    assert p_above_ratio(10, 600, 1.0, (5.0, 596.0)) == pytest.approx(stats.betabinom.sf(9, 600, 5, 596), rel=1e-6)
    assert p_above_ratio(60, 600, 2.0, (5e6, 95e6)) == pytest.approx(stats.binom.sf(59, 600, 0.1), rel=1e-3)
    assert p_above_ratio(0, 600, 2.0, (5.0, 596.0)) == 1.0
    rng = np.random.default_rng(0)
    f = rng.beta(5, 596, 2000)
    p = np.array([p_above_ratio(int(k), 600, 2.0, (5.0, 596.0)) for k in rng.binomial(600, 2 * f)])
    assert (p <= 0.05).mean() <= stats.binom.ppf(0.999, 2000, 0.05) / 2000
    assert (p <= 0.05).mean() > 0.02


@pytest.mark.slow
def test_a_binomial_p_value_would_mistake_a_low_threshold_for_a_signal() -> None:
    """The faulty formula takes the threshold's FPR for alpha; ours carries its noise. Few calibration records."""
    rng = np.random.default_rng(3)
    runs, n_cal, n, alpha = 1500, 100, 20_000, 0.02
    faulty = ours = 0
    for f in rng.beta(2, n_cal - 1, runs):  # the 2nd largest of 100 never-seen scores
        k = int(rng.binomial(n, f))
        faulty += stats.binom.sf(k - 1, n, 2 * alpha) <= 0.05
        ours += p_above_ratio(k, n, 2.0, (2.0, n_cal - 1.0)) <= 0.05
    assert faulty / runs > 0.06
    assert ours / runs <= 0.05


def test_influence_gives_the_variance_that_is_seen() -> None:
    rng = np.random.default_rng(0)
    group = groups(400, 400)
    board = deal(group, np.zeros(800, np.int64), rng)
    values, areas, expected, expected_auc = [], [], [], []
    for _ in range(400):
        score = rng.normal(size=800)
        rate = tail_rate(score, board, 0.1, "residual")
        found, area = rate_influence(score, board, rate), auc_influence(score, board)
        values.append(found.value)
        areas.append(area.value)
        expected.append((found.share**2).sum())
        expected_auc.append((area.share**2).sum())
    assert np.var(values) == pytest.approx(np.mean(expected), rel=0.25)
    assert np.var(areas) == pytest.approx(np.mean(expected_auc), rel=0.25)
    assert np.mean(values) == pytest.approx(0.1, abs=0.004)


def test_difference_covers_and_counts_training_runs() -> None:
    """Retrained models that differ as wholes: the interval must hold their number's share of that variance."""
    rng = np.random.default_rng(0)
    n, r, runs, spread = 300, 6, 400, 0.05
    hits = hits_records_only = 0
    grid = np.linspace(-3, 3, 61)
    for _ in range(runs):
        base = rng.random(n)
        means = 0.3 + spread * rng.standard_normal(r)

        def influence(p: float, base: np.ndarray = base) -> Influence:
            x = (0.5 * base + 0.5 * rng.random(n) < p).astype(float)
            return Influence(float(x.mean()), (x - x.mean()) / n)

        def truth(p: float) -> float:
            return 2 * p * p if p <= 0.5 else 1 - 2 * (1 - p) ** 2

        d = Difference.of([(influence(0.3), influence(float(p))) for p in means])
        expected = truth(0.3) - np.average(
            [truth(float(0.3 + spread * z)) for z in grid], weights=np.exp(-0.5 * grid**2)
        )
        ci = d.interval(0.90)
        hits += ci.lower <= expected <= ci.upper
        short = 1.645 * np.sqrt(1 / 6) * 0.3 / np.sqrt(n)
        hits_records_only += abs(d.value - expected) <= short
    assert hits / runs > 0.85
    assert hits_records_only / runs < 0.80


def test_no_hit_at_all_still_has_a_width() -> None:
    zero = Influence(0.0, np.zeros(500))
    d = Difference.of([(zero, zero)] * 5, (500, 0))
    ci = d.interval(0.90)
    assert ci.upper > 0.004
    assert d.p_above(0.0) == pytest.approx(0.5)
    assert Difference.of([(zero, zero)] * 5).interval(0.90).upper == 0.0
