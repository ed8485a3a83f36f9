import numpy as np
import pytest

from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_groups import group_rates


def fleet(leak=0.0, *, seed=0, m=48, n=120, hard=0.0):
    """Record-balanced roles; records of group 1 carry the leak, and are harder to tell where ``hard`` is not 0."""
    rng = np.random.default_rng(seed)
    side = rng.permuted(np.tile(np.repeat([0, 1, -1], m // 3).astype(np.int8)[:, None], (1, n)), axis=0)
    group = np.arange(n) % 4
    score = rng.normal(size=side.shape) + hard * (group == 1)
    score += leak * (group == 1) * (side == 1)
    return FleetScores(score, side, np.repeat([0, 1], m // 2)), group.astype(np.int64)


def test_counts_are_those_at_the_fleet_thresholds():
    scores, group = fleet(1.0)
    whole = scores.rates([0.05])[0]
    found = group_rates(scores, group, 0.05, 0.1)
    hit = scores.hits(0.05)
    for g in range(4):
        inside = (scores.side == 1) & (group == g)
        assert (found[g].tpr.k, found[g].tpr.n) == (int(hit[inside].sum()), int(inside.sum()))
        outside = (scores.side == 0) & (group == g)
        assert (found[g].fpr.k, found[g].fpr.n) == (int(hit[outside].sum()), int(outside.sum()))
    assert sum(found[g].tpr.k for g in range(4)) == whole.tp
    assert sum(found[g].fpr.k for g in range(4)) == whole.fp


def test_one_group_of_all_records_is_the_fleet():
    scores, group = fleet(0.6)
    whole = scores.rates([0.05])[0]
    one = group_rates(scores, group * 0, 0.05, 0.1)[0]
    expected = whole.tpr_estimate(0.95)
    assert one.tpr.value == expected.value
    assert (one.tpr.low, one.tpr.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert one.p_value >= whole.p_above(0.1) - 1e-9  # its own false alarms are asked about beside


def test_the_other_tail_is_the_same_with_the_sign_turned():
    scores, group = fleet(-1.5)
    turned = FleetScores(-scores.score, scores.side, scores.fold)
    over, plain = (
        group_rates(s, group, 0.05, 0.1, tail=t) for s, t in ((scores, "over-forgotten"), (turned, "residual"))
    )
    assert over[1].tpr == plain[1].tpr
    assert over[1].tpr.value > 0.2


def test_groups_left_out_and_groups_nobody_forgot_have_no_rate():
    scores, group = fleet()
    side = scores.side.copy()
    side[:, group == 3] = -1
    found = group_rates(FleetScores(scores.score, side, scores.fold), np.where(group == 2, -1, group), 0.05, 0.1)
    assert sorted(found) == [0, 1]


def test_an_easy_group_is_no_leak():
    """A class that every model scores higher raises both rates: its own false alarms explain it."""
    scores, group = fleet(hard=1.5)
    found = group_rates(scores, group, 0.05, 0.1)
    assert found[1].tpr.value > 0.1
    assert found[1].p_value > 0.2


@pytest.mark.slow
def test_intervals_cover_and_nothing_stands_out_where_nothing_leaks():
    covered, small, runs = 0, 0, 120
    for seed in range(runs):
        scores, group = fleet(seed=seed)
        found = group_rates(scores, group, 0.05, 0.1)
        covered += sum(e.tpr.low <= 0.05 <= e.tpr.high for e in found.values())
        small += sum(e.p_value <= 0.05 for e in found.values())
    assert covered / (4 * runs) > 0.92
    assert small / (4 * runs) < 0.03


def test_a_leaking_group_is_found_alone():
    scores, group = fleet(1.5)
    found = group_rates(scores, group, 0.05, 0.1)
    assert found[1].p_value < 1e-4
    assert min(found[g].p_value for g in (0, 2, 3)) > 0.05
