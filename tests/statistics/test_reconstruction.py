"""Estimates over pairs of versions: the unit is the model, yes or no counts exactly, no spread bears no interval."""

import numpy as np
import pytest

from mnemoscope.audit.answers.reconstruction import Judged, Secret, centred_cosine
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.statistics.reconstruction import _difference, _mean


def test_one_yes_or_no_a_model_is_counted_exactly() -> None:
    trials = [np.array([float(k < 7)]) for k in range(10)]
    estimate = _mean(trials, 0.95)
    assert estimate.ci == clopper_pearson(7, 10)
    assert (estimate.value, estimate.k, estimate.n, estimate.reason) == (0.7, 7, 10, None)
    one = _mean([np.repeat([1.0, 0.0], [9, 1])], 0.95)
    assert one.ci == clopper_pearson(9, 10)
    assert "one model" in one.reason


def test_models_that_are_all_alike_count_as_so_many_trials_and_no_more() -> None:
    sure = _mean([np.ones(50)] * 4, 0.95)
    assert sure.ci == clopper_pearson(4, 4)
    assert _mean([np.full(3, 0.5)] * 4, 0.95).ci is None
    assert _mean([np.array([0.3])], 0.95).ci is None


def test_student_by_hand() -> None:
    estimate = _mean([np.array([v]) for v in (1.0, 2.0, 4.0)], 0.95)
    # Mean 7/3, s = sqrt(7/3), t(2, .975) = 4.302653: half width 4.302653 sqrt(7) / 3.
    assert estimate.value == pytest.approx(7 / 3)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(4.302653 * np.sqrt(7) / 3, rel=1e-6)


def coverage(pooled: bool) -> float:
    """Share of 95 % intervals that hold the truth 0, with trials that share their model's luck."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        trials = [rng.normal() + rng.normal(0, 0.5, size=rng.integers(5, 15)) for _ in range(12)]
        estimate = _mean([np.concatenate(trials)] if pooled else trials, 0.95)
        hits += estimate.low <= 0 <= estimate.high
    return hits / 400


def test_intervals_hold_where_trials_share_a_model_and_pooling_would_not() -> None:
    assert 0.91 < coverage(pooled=False) < 0.98
    assert coverage(pooled=True) < 0.7


def test_paired_models_take_off_what_they_share() -> None:
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 5, 10)
    ours = [np.array([v + 1 + 0.1 * rng.normal()]) for v in luck]
    theirs = [np.array([v + 0.1 * rng.normal()]) for v in luck]
    paired = _difference(ours, theirs, 0.95)
    assert paired.value == pytest.approx(1, abs=0.15)
    assert 0.8 < paired.low < 1 < paired.high < 1.2
    apart = _difference(ours, theirs[:9], 0.95)
    assert apart.high - apart.low > 5


def test_centred_cosine_by_hand() -> None:
    a, b = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 3.0], [0.0, 1.0]])
    np.testing.assert_allclose(centred_cosine(a, b, np.array([1.0, 1.0])), [[0, -1], [0, 0]], atol=1e-15)


def test_secrets_must_fit_together() -> None:
    with pytest.raises(InvalidInput, match="as many ids"):
        Secret(np.arange(2), np.zeros((3, 1), np.float32), np.zeros(2, np.int64))
    assert Judged(np.zeros(1), np.zeros(1)).details == {}
