import numpy as np
import pytest

from mnemoscope.attacks.forgetting_quality import ForgettingQuality, competition_epsilon, competition_points
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.testing_worlds import toy_worlds

RNG = np.random.default_rng(0)


def naive(unlearned: np.ndarray, retrained: np.ndarray, steps: int, delta: float = 1e-5) -> float:
    """Every rule of the release with its own comparison of every value: models x thresholds arrays."""
    sides = (unlearned, retrained)
    narrow, wide = sorted(sides, key=np.ptp)
    if np.ptp(narrow) < 0.01 * np.ptp(wide):
        return 50.0
    high, low = sorted(sides, key=np.median, reverse=True)
    start, end = min(x.min() for x in sides), max(x.max() for x in sides)
    grid = start + np.arange(int(np.floor((end - start) * steps)) + 1) / steps
    rules = [((low[:, None] >= grid).mean(0), 1 - (high[:, None] >= grid).mean(0))]
    for i in range(4 * steps + 1):
        right = narrow.max() - 2 + i / steps
        left = narrow.max() - np.ptp(narrow) - 4 + (i + np.arange(4 * steps + 1)) / steps
        inside = [((x[:, None] >= left) & (x[:, None] <= right)).mean(0) for x in (wide, narrow)]
        rules.append((inside[0], 1 - inside[1]))
    fpr, fnr = (np.concatenate(parts) for parts in zip(*rules, strict=True))
    fpr, fnr = np.round(fpr, 12), np.round(fnr, 12)
    if ((fpr == 0) & (fnr == 0)).any():
        return 50.0
    kept = (fpr > 0) & (fnr > 0)
    if not kept.any():
        return 0.0
    with np.errstate(all="ignore"):
        one = np.log(1 - delta - fpr[kept]) - np.log(fnr[kept])
        two = np.log(1 - delta - fnr[kept]) - np.log(fpr[kept])
    return float(np.clip(np.nanmax(np.concatenate([one, two, [0.0]])), 0, 50))


@pytest.mark.parametrize("seed", range(12))
def test_sorted_counts_equal_every_rule_tried_one_by_one(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(3, 30, 2)
    unlearned = rng.normal(rng.normal(), np.exp(rng.normal(0, 0.7)), a)
    retrained = rng.normal(0, 1, b)
    assert competition_epsilon(unlearned, retrained, steps=20) == pytest.approx(naive(unlearned, retrained, 20))


@pytest.mark.parametrize("models", [32, 128])
def test_identical_gaussians_score_the_known_null(models):
    """Perfect forgetting reads about 1.57 and 0.18 points, whatever the number of models."""
    rng = np.random.default_rng(models)
    epsilon = [competition_epsilon(*rng.normal(size=(2, models)), steps=25) for _ in range(500)]
    assert np.mean(epsilon) == pytest.approx(1.57, abs=0.1)
    assert np.std(epsilon) == pytest.approx(0.42, abs=0.07)
    assert 0.165 < np.mean([competition_points(e, models) for e in epsilon]) < 0.205


@pytest.mark.parametrize(("models", "shift", "epsilon"), [(32, 0.5, 1.77), (128, 0.5, 2.06), (32, 1.0, 2.31)])
def test_shifts_score_the_known_values(models, shift, epsilon):
    rng = np.random.default_rng(7)
    found = [
        competition_epsilon(rng.normal(size=models) + shift, rng.normal(size=models), steps=25) for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(epsilon, abs=0.09)


def test_points_of_the_competition():
    points = [competition_points(e, 512) for e in (0.0, 0.49, 0.5, 1.2, 6.9, 7.0, 50.0)]
    assert points == [1.0, 1.0, 0.5, 0.25, 2.0**-13, 0.0, 0.0]
    assert competition_points(0.0, 2) == 0.0


def test_ends():
    assert competition_epsilon(np.arange(4.0), np.arange(4.0) + 10) == 50.0  # told apart
    assert competition_epsilon(np.ones(4), np.arange(4.0)) == 50.0  # far narrower
    assert competition_epsilon(np.ones(4), np.ones(4)) == 0.0  # nothing to tell
    with pytest.raises(InvalidInput, match="0 unlearned"):
        competition_epsilon(np.zeros(0), np.ones(3))


@pytest.mark.slow
def test_row_32_two_fleets_retrained_alike_read_above_one_and_only_the_floor_says_that_it_is_nothing():
    """A peer prints the figure alone; ours has that of another retrained fleet beside it, and the difference."""

    def alone(found):
        return found.value.low, found.value.high

    def ours(found):
        return found.excess.low, found.excess.high

    def check(interval):
        clean = [ForgettingQuality(steps=25).measure(toy_worlds(0.0, seed=s, n_records=20), rng=RNG) for s in range(4)]
        assert sum(low <= 0 <= high for low, high in map(interval, clean)) >= 3
        leaky = ForgettingQuality(steps=25).measure(toy_worlds(1.2, n_records=30), rng=RNG)
        assert interval(leaky)[0] > 0

    check(ours)
    with pytest.raises(AssertionError):
        check(alone)


@pytest.mark.slow
def test_points_are_the_same_figure_turned_round():
    worlds = toy_worlds(1.0, n_records=20)
    epsilon, points = (ForgettingQuality(f, steps=25).measure(worlds, rng=RNG) for f in ("epsilon", "points"))
    turned = [competition_points(e, 12) for e in epsilon.per_record]
    np.testing.assert_array_equal(points.per_record, turned)
    assert points.excess.value < 0 < epsilon.excess.value
    assert f"competition points {np.mean(turned):.3g}" in epsilon.note


@pytest.mark.parametrize("settings", [{"figure": "F"}, {"oracles": "all"}, {"steps": 0}, {"signal": "loss"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="allowed|known|must lie"):
        ForgettingQuality(**settings)


def test_a_range_of_thousands_of_logits_costs_no_more_than_its_values():
    rng = np.random.default_rng(3)
    for scale in (1e2, 3e3):
        one, two = (scale * rng.normal(size=24) for _ in range(2))
        assert competition_epsilon(one, two, steps=5) == pytest.approx(naive(one, two, 5), abs=1e-9)
    far = 1e38 * rng.normal(size=(2, 24))  # a grid of 1e40 points, had all of them to be written down
    assert 0.0 <= competition_epsilon(*far) <= 50.0
