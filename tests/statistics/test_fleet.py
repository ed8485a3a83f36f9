"""Rates of a fleet against slow, obvious twins and against simulation."""

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit
from sklearn.metrics import roc_auc_score

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_differences import (
    difference,
    mean_difference,
    mean_share_difference,
    p_greater,
    paired_share_difference,
    share,
)
from mnemoscope.audit.statistics.influence import influence_variance


def toy(seed=0, m=12, n=30, levels=None, shift=0.0):
    rng = np.random.default_rng(seed)
    side = rng.integers(-1, 2, (m, n)).astype(np.int8)
    score = rng.normal(size=(m, n)) + shift * (side == 1)
    if levels:
        score = np.round(score * levels) / levels
    return FleetScores(score, side, np.arange(m) % 3)


def naive_rates(fleet, fpr, sign):
    """One model, one cell at a time: its threshold comes from the other models of its fold."""
    models, records = fleet.score.shape
    tp = fp = 0
    for k in range(models):
        others = [i for i in range(models) if i != k and fleet.fold[i] == fleet.fold[k]]
        out = sorted(
            (sign * fleet.score[i, j] for i in others for j in range(records) if fleet.side[i, j] == 0), reverse=True
        )
        allowed = int(fpr * len(out) + 1e-9)
        for j in range(records):
            # A hit where at most `allowed` of the others' outs score as high or higher than the lowest hit would.
            level = min((s for s in out if sum(o >= s for o in out) <= allowed), default=np.nextafter(out[0], np.inf))
            hit = sign * fleet.score[k, j] >= level
            tp += hit and fleet.side[k, j] == 1
            fp += hit and fleet.side[k, j] == 0
    return tp, fp


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("tail", ["residual", "over-forgotten"])
def test_rates_equal_the_naive_twin(levels, tail):
    fleet = toy(levels=levels, shift=0.8)
    sign = 1 if tail == "residual" else -1
    for fpr, rate in zip((0.02, 0.1, 0.3), fleet.rates((0.02, 0.1, 0.3), tail), strict=True):
        assert (rate.tp, rate.fp) == naive_rates(fleet, fpr, sign)


def test_quick_shares_equal_the_rates_where_no_fold_is_small():
    fleet = toy(m=30, n=400, shift=0.8)
    low, high = fleet.hit_shares(0.1)
    assert low == pytest.approx(fleet.rates([0.1])[0].tpr, abs=0.01)
    assert high == pytest.approx(fleet.rates([0.1], "over-forgotten")[0].tpr, abs=0.01)


def test_a_tie_block_is_never_split_by_a_threshold():
    """A 0/1 score whose block of ones is larger than allowed flags nothing, rather than part of the block."""
    side = np.tile(np.array([1, 0], np.int8), (4, 10))
    fleet = FleetScores(np.ones(side.shape), side, np.arange(4) % 2)
    rate = fleet.rates([0.1])[0]
    assert (rate.tp, rate.fp) == (0, 0)


@pytest.mark.parametrize("levels", [None, 2])
def test_auc_equals_scikit_learn(levels):
    fleet = toy(levels=levels, shift=0.5)
    play = fleet.side >= 0
    expected = roc_auc_score(fleet.side[play], fleet.score[play])
    assert fleet.auc().value == pytest.approx(expected, abs=1e-12)
    assert fleet.auc_value() == pytest.approx(expected, abs=1e-12)
    assert fleet.auc().influence.sum() == pytest.approx(0, abs=1e-12)


def test_influence_variance_equals_three_sums():
    x = np.random.default_rng(0).normal(size=(4, 5))
    v_model = sum(x[k].sum() ** 2 for k in range(4)) * 4 / 3
    v_record = sum(x[:, j].sum() ** 2 for j in range(5)) * 5 / 4
    assert influence_variance(x) == pytest.approx(max(v_model + v_record - (x**2).sum(), min(v_model, v_record)))


def clustered_world(rng, m, n, shift, effect):
    """Scores with a model effect and a record effect that both sides share."""
    side = np.stack([rng.permutation(np.repeat([-1, 0, 1], m // 3)) for _ in range(n)], axis=1).astype(np.int8)
    noise = rng.normal(size=(m, n)) + effect * rng.normal(size=(m, 1)) + effect * rng.normal(size=(1, n))
    return FleetScores(noise + shift * (side == 1), side, np.arange(m) % 2)


def test_clustered_standard_errors_match_simulation():
    """The reported variance equals the spread over worlds, where a binomial one is far too small."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(150):
        fleet = clustered_world(rng, 24, 120, 1.0, 0.7)
        rate, auc = fleet.rates([0.05])[0], fleet.auc()
        rows.append(
            (rate.tpr, influence_variance(rate.influence), auc.value, influence_variance(auc.influence), rate.n_in)
        )
    tpr, v_tpr, auc, v_auc, n_in = np.array(rows).T
    assert np.sqrt(v_tpr.mean()) == pytest.approx(tpr.std(), rel=0.25)
    assert np.sqrt(v_auc.mean()) == pytest.approx(auc.std(), rel=0.25)
    binomial = np.sqrt(tpr.mean() * (1 - tpr.mean()) / n_in.mean())
    assert binomial < 0.7 * tpr.std()


@pytest.mark.slow
def test_p_values_are_uniform_at_the_bound():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(200):
        a, b = clustered_world(rng, 24, 80, 0.5, 0.3), clustered_world(rng, 24, 80, 0.5, 0.3)
        d = difference(a.auc(), b.auc(), 0.9)
        p.append(p_greater(d, 0.0, 23))
    rejected = np.mean(np.array(p) < 0.05)
    assert 0.01 <= rejected <= 0.11  # binomial 99 % limits around 5 % with 200 runs


def test_difference_of_rates_has_width_without_any_hit():
    side = np.tile(np.array([1, 0], np.int8), (6, 30))
    fleet = FleetScores(np.zeros(side.shape), side, np.arange(6) % 2)
    rate = fleet.rates([0.05])[0]
    d = difference(rate, rate, 0.9)
    assert d.value == 0
    assert d.low < -0.01
    assert d.high > 0.01


def test_a_perfect_score_is_far_beyond_any_bound():
    side = np.tile(np.array([1, 0], np.int8), (6, 30))
    fleet = FleetScores(side.astype(float), side, np.arange(6) % 2)
    rate = fleet.rates([0.05])[0]
    assert rate.tpr == 1.0
    assert rate.p_above(0.1) < 1e-6


def test_a_threshold_that_came_out_too_low_is_no_signal():
    """One model scores everything higher: its cells pass the others' thresholds on both sides alike."""
    rng = np.random.default_rng(0)
    side = np.stack([rng.permutation(np.repeat([0, 1], 6)) for _ in range(300)], axis=1).astype(np.int8)
    score = rng.normal(size=side.shape)
    score[0] += 3
    rate = FleetScores(score, side, np.repeat([0, 1], 6)).rates([0.01])[0]
    assert rate.tpr > 0.02
    assert rate.p_above(0.02) > 0.05


def test_a_perfect_score_has_an_interval():
    side = np.tile(np.array([1, 0], np.int8), (6, 30))
    fleet = FleetScores(side.astype(float), side, np.arange(6) % 2)
    rate = fleet.rates([0.05])[0]
    estimate = rate.tpr_estimate()
    assert estimate.high == 1.0
    assert 0.95 < estimate.low < 1.0


def test_best_accuracy_of_noise_is_one_half_not_above():
    """The threshold comes from other folds of models: chosen in sample it would read above one half."""
    values = [toy(seed, m=12, n=60).best_accuracy().value for seed in range(40)]
    assert abs(np.mean(values) - 0.5) < 0.01


def test_shares_and_paired_differences():
    rng = np.random.default_rng(3)
    a, b = rng.random((10, 40)) < 0.7, rng.random((10, 40)) < 0.5
    cells = rng.random((10, 40)) < 0.5
    assert share(a, cells).value == pytest.approx(a[cells].mean())
    assert paired_share_difference(a, b, cells, 0.95).value == pytest.approx(a[cells].mean() - b[cells].mean())
    assert mean_difference(a, b, 0.95, "two").value == pytest.approx(a.mean() - b.mean())
    other = mean_share_difference(a, cells, ~cells, 0.95)
    assert other.value == pytest.approx(a[cells].mean() - a[~cells].mean())
    assert share(a, np.zeros_like(cells)).value is None
    assert mean_share_difference(a, cells, np.zeros_like(cells), 0.95).value is None


@pytest.mark.parametrize("hits", [12, 10])
def test_a_p_value_is_not_read_from_a_limit_cut_off_at_one(hits):
    """Few cells, nearly all flagged on one side: the upper limit stops at 1, and a width read from it says p = 0."""
    forgotten = np.zeros((6, 4), np.bool_)
    forgotten[:3] = True
    hit = forgotten.copy()
    hit[0, : 12 - hits] = False
    upper = mean_share_difference(hit, forgotten, ~forgotten, 0.95)
    lower = mean_share_difference(hit, forgotten, ~forgotten, 0.95, "lower")
    assert upper.value == lower.value == pytest.approx(hits / 12)
    assert upper.high == lower.high == 1.0
    # Twelve of twelve against none of twelve: Fisher's exact test alone gives 4e-7 for "no difference", and the limit
    # of the difference lies well below 1.
    assert 0.4 < lower.low < lower.value - 0.1
    p = p_greater(lower, 0.5, 5)
    width = upper.high - upper.value
    faulty = 0.0 if width <= 0 else float(stdtr(5, (0.5 - upper.value) * float(stdtrit(5, 0.95)) / width))
    assert faulty < p / 2
    assert (p <= 0.05) == (lower.low >= 0.5)
    with pytest.raises(InvalidInput, match="upper limit"):
        p_greater(upper, 0.5, 5)


def test_a_lower_limit_of_a_difference_mirrors_the_upper_one():
    rng = np.random.default_rng(4)
    a, b = (clustered_world(rng, 24, 80, 0.5, 0.3).rates([0.05])[0] for _ in range(2))
    lower, upper = difference(a, b, 0.95, "lower"), difference(b, a, 0.95, "upper")
    assert lower.low == pytest.approx(-upper.high)
    assert (lower.high, upper.low) == (1.0, -1.0)


def test_a_fold_of_one_model_is_refused_rather_than_flagging_everybody():
    side = np.tile(np.array([0, 1], np.int8), (3, 20))
    fleet = FleetScores(np.random.default_rng(0).normal(size=side.shape), side, np.array([0, 0, 1]))
    with pytest.raises(InvalidInput, match="fewer folds or more models"):
        fleet.rates([0.1])


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="one side"):
        FleetScores(np.zeros((2, 3)), np.zeros((2, 3), np.int8), np.arange(2))
    with pytest.raises(InvalidInput, match="2 folds"):
        FleetScores(np.zeros((2, 3)), np.array([[0, 1, 0]] * 2, np.int8), np.zeros(2))
    with pytest.raises(InvalidInput, match="agree"):
        FleetScores(np.zeros((2, 3)), np.zeros((2, 2), np.int8), np.arange(2))
