"""DegCount and DegRate against hand-counted vectors, worlds without a difference, and simulated clusters."""

import numpy as np
import pytest
from scipy.stats import t as student

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.degradation import confidence_in_truth, degradation
from mnemoscope.audit.statistics.intervals import clopper_pearson
from mnemoscope.audit.statistics.trials import Trials


def pair(classical, unlearning, is_in, record=None, model=None):
    """Two attacks' trials on the same records."""
    size = len(is_in)
    record = np.arange(size) if record is None else np.asarray(record)
    model = np.zeros(size, np.int64) if model is None else np.asarray(model)
    truth = np.asarray(is_in, np.bool_)
    return tuple(Trials(np.asarray(s, np.float64), truth, record, model) for s in (classical, unlearning))


def test_hand_counted_vector():
    """Six records, true-status confidences written out: three rose, one tied, two fell."""
    #            deleted              never used
    classical = [0.50, 0.60, 0.70, 0.30, 0.40, 0.80]
    unlearned = [0.90, 0.60, 0.65, 0.10, 0.20, 0.90]
    #   truth:    +.40   .00  -.05  +.20  +.20  -.10
    found = degradation(*pair(classical, unlearned, [1, 1, 1, 0, 0, 0]))
    assert (found.count.k, found.count.n) == (3, 6)
    assert (found.ties.k, found.ties.n) == (1, 6)
    assert found.balanced.value == pytest.approx(3.5 / 6)
    assert found.rate.value == pytest.approx((0.40 + 0.0 - 0.05 + 0.20 + 0.20 - 0.10) / 6)


def test_an_attack_against_itself_is_a_tie_everywhere():
    score = np.random.default_rng(0).random(60)
    found = degradation(*pair(score, score + 1e-15, np.arange(60) < 30))
    assert found.count.value == 0.0  # the paper's strict count reads as "never degraded"
    assert found.ties.value == 1.0
    assert found.balanced.value == 0.5
    assert found.rate.value == 0.0
    assert found.rate.low == found.rate.high == 0.0


def test_two_independent_blind_attacks_show_no_degradation():
    """Their confidences differ everywhere, but rise as often as they fall: the intervals hold one half and zero."""
    rng = np.random.default_rng(1)
    held = [0, 0]
    for _ in range(200):
        found = degradation(*pair(rng.random(80), rng.random(80), np.arange(80) < 40))
        held[0] += found.balanced.low <= 0.5 <= found.balanced.high
        held[1] += found.rate.low <= 0.0 <= found.rate.high
    assert min(held) >= 180  # 190 expected, sd 3


def test_one_model_has_textbook_intervals():
    rng = np.random.default_rng(2)
    classical, unlearned = rng.random(50), rng.random(50)
    found = degradation(*pair(classical, unlearned, np.ones(50)))
    rise = unlearned - classical
    half = student.ppf(0.975, 49) * rise.std(ddof=1) / np.sqrt(50)
    assert found.rate.high - found.rate.value == pytest.approx(half, rel=0.02)
    exact = clopper_pearson(int((rise > 0).sum()), 50)
    assert found.count.low <= exact.lower
    assert found.count.high >= exact.upper


def test_intervals_are_clustered_over_models():
    """Ten originals that each shift all their pairs alike: a plain interval holds the truth far too rarely."""
    rng = np.random.default_rng(3)
    clustered = plain = 0
    runs = 200
    for _ in range(runs):
        model = np.repeat(np.arange(10), 20)
        shift = rng.normal(0.1, 0.1, 10)[model]
        classical = np.full(200, 0.4)
        unlearned = np.clip(0.4 + shift + rng.normal(0.0, 0.02, 200), 0.0, 1.0)
        found = degradation(*pair(classical, unlearned, np.ones(200), model=model))
        clustered += found.rate.low <= 0.1 <= found.rate.high
        rise = unlearned - classical
        plain += abs(rise.mean() - 0.1) <= 1.96 * rise.std(ddof=1) / np.sqrt(200)
    assert clustered >= 0.9 * runs
    assert plain <= 0.6 * runs


def test_confidence_in_truth_turns_out_trials_around():
    trials, _ = pair([0.9, 0.9], [0.9, 0.9], [1, 0])
    assert confidence_in_truth(trials) == pytest.approx([0.9, 0.1])


def test_log_odds_are_refused_and_so_are_other_trials():
    good = pair([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [1, 0, 0])
    odds, _ = pair([2.0, -1.0, 0.0], [0.5, 0.5, 0.5], [1, 0, 0])
    with pytest.raises(InvalidInput, match=r"2 classical scores lie outside \[0, 1\].*expit"):
        degradation(odds, good[1])
    other, _ = pair([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [1, 0, 0], record=[5, 6, 7])
    with pytest.raises(InvalidInput, match="record_id of the two attacks differs"):
        degradation(good[0], other)
