"""RMIA: exact counts, the worked example of the reference, leave-one-out by safe sums, faults of other tools."""

import math
import tracemalloc

import numpy as np
import pytest

from mnemoscope.attacks.rmia import RMIA, rmia_counts, rmia_scores
from mnemoscope.audit.answers.views import Answers, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet


def logits_of(p):
    """Two-class logits whose softmax at temperature 1 gives class 0 the probability p."""
    p = np.asarray(p, np.float64)
    return np.stack([np.log(p), np.log1p(-p)], axis=-1)[..., None, :]


def answers(p, first=0):
    ids = np.arange(np.shape(p)[-1]) + first
    return Answers(ids, np.zeros(ids.size, np.int64), logits_of(p))


def test_worked_example_of_the_reference():
    # P(x|theta) = 0.9, mean OUT = 0.5, a = 0.3 -> P(x) = 0.675, ratio 4/3; beats {1.2, 0.5, 0.66} of four at gamma 1.
    z = np.array([1.2, 0.5, 0.66, 2.0])
    ratio = np.log([0.9 / 0.675])
    assert rmia_counts(ratio, np.log(z), 0.0)[0] == 3
    assert rmia_counts(ratio, np.log(z), math.log(2.0))[0] == 2
    reference = Reference(
        np.array([0]),
        np.zeros(1, np.int64),
        logits_of([[0.4], [0.6]]),
        side=np.zeros((2, 1), np.int8),
        population=answers([[0.5], [0.5]], first=10),
    )
    scorer = RMIA(online=False, temperature=1.0).fit(reference, rng=np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(scorer.normaliser), [[0.675]])
    np.testing.assert_allclose(np.exp(scorer.normaliser_z), [[0.675]])


def matrix_counts(log_x, log_z, log_gamma):
    return (log_x[:, None] - log_gamma > log_z).sum(axis=1)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_row_10_counts_equal_the_matrix_without_building_it(gamma):
    rng = np.random.default_rng(1)
    # Rounded values make ties: equality must not count as beaten.
    x, z = rng.normal(size=700).round(1), rng.normal(size=300).round(1)
    expected = matrix_counts(x, z, math.log(gamma))
    np.testing.assert_array_equal(rmia_counts(x, z, math.log(gamma)), expected)
    assert (expected != (x[:, None] - math.log(gamma) >= z).sum(axis=1)).any() or gamma != 1.0
    big_x, big_z = rng.normal(size=20_000), rng.normal(size=5_000)
    tracemalloc.start()
    rmia_counts(big_x, big_z)
    ours = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    matrix_counts(big_x[:2_000], big_z, 0.0)
    matrix = 10 * tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ours <= 64 * 25_000 < matrix


def test_scores_equal_the_definition_and_ties_are_ordered_by_the_ratio():
    fleet = toy_fleet(2.0, n_queries=2)
    attack = RMIA()
    scores = attack.score_fleet(fleet, rng=np.random.default_rng(0))
    p = np.exp(fleet.signal("negative_loss", temperature=2.0))
    pz = np.exp(fleet.population.signal("negative_loss", temperature=2.0))
    for k in range(fleet.n_models):
        others = np.arange(fleet.n_models) != k
        side = fleet.side[others]
        mean = lambda s, side=side, others=others: (  # noqa: E731
            np.where((side == s)[..., None], p[others], 0).sum(0) / (side == s).sum(0)[:, None]
        )
        ratio = np.log(p[k] / ((mean(1) + mean(0)) / 2)).mean(axis=-1)
        ratio_z = np.log(pz[k] / pz[others].mean(axis=0)).mean(axis=-1)
        counts = matrix_counts(ratio, ratio_z, math.log(2.0))
        np.testing.assert_array_equal(np.floor(scores[k] * (ratio_z.size + 1)).astype(int), counts)
        np.testing.assert_array_equal(np.argsort(scores[k]), np.argsort(ratio))
    assert np.unique(counts).size < 100 < np.unique(scores[k]).size


def test_leave_one_out_means_keep_small_probabilities():
    """One model sure, the others at 1e-30: a sum minus the sure one leaves zero, its logarithm minus infinity."""
    log_p = np.full((6, 1, 1), math.log(1e-30))
    log_p[0] = math.log(0.9)
    side = np.array([1, 1, 1, 0, 0, 0], np.int8)[:, None]
    log_z = np.log(np.linspace(0.1, 0.9, 6 * 20)).reshape(6, 20, 1)
    p = np.exp(log_p[:3, 0, 0])
    assert p.sum() - p[0] == 0.0  # the faulty formula
    scores = rmia_scores(log_p, log_z, side, RMIA())
    assert np.isfinite(scores).all()
    exact = (2e-30 / 2 + 1e-30) / 2
    ratio = math.log(0.9 / exact)
    tie = scores[0, 0] * 21 - 20
    assert tie == pytest.approx(0.5 + math.atan(ratio) / math.pi, rel=1e-9)


def test_saturated_and_vanishing_probabilities_stay_finite():
    rng = np.random.default_rng(2)
    logits = np.zeros((8, 20, 1, 3), np.float32)
    logits[..., 0] = rng.choice([-5e4, 0, 5e4], (8, 20, 1))
    side = rng.permuted(np.tile(np.repeat(np.array([1, 0], np.int8), 4)[:, None], (1, 20)), axis=0)
    ids, labels = np.arange(20), np.zeros(20, np.int64)
    population = Answers(ids + 100, labels, logits[:, ::-1])
    fleet = Reference(ids, labels, logits, side=side, population=population)
    for attack in (RMIA(), RMIA(online=False)):
        assert np.isfinite(attack.score_fleet(fleet, rng=rng)).all()


def test_population_that_is_audited_is_refused_by_id():
    fleet = toy_fleet(1.0)
    shared = Answers(fleet.population.ids + 950, fleet.population.labels, fleet.population.logits)
    bad = Reference(fleet.ids, fleet.labels, fleet.logits, side=fleet.side, population=shared)
    with pytest.raises(InvalidInput, match=r"50 records are both audited and population: ids 1000, 1001"):
        RMIA().score_fleet(bad, rng=np.random.default_rng(0))


def test_row_14_labels_travel_with_their_ids():
    """The population in another order for the target: matched by id, so the answer stays; by position it does not."""
    fleet = toy_fleet(3.0)
    reference, view = fleet.without([0]), fleet.target(0)
    scorer = RMIA().fit(reference, rng=np.random.default_rng(0))
    order = np.random.default_rng(3).permutation(view.population.n_records)
    moved_z = Answers(view.population.ids[order], view.population.labels[order], view.population.logits[order])
    moved = View(view.ids, view.labels, view.logits, population=moved_z)
    np.testing.assert_allclose(scorer.score(moved), scorer.score(view))
    faulty = moved_z.signal("negative_loss", temperature=2.0) - scorer.normaliser_z  # by position
    right = view.population.signal("negative_loss", temperature=2.0) - scorer.normaliser_z
    assert not np.allclose(np.sort(faulty, axis=0), np.sort(right, axis=0))


def test_row_14_nothing_is_tuned_on_the_labels_of_the_target():
    """Tuning the slope on labels picks another slope when the labels are another model's; ours has no such way in."""
    fleet = toy_fleet(1.5, n_records=300)
    log_p = fleet.signal("negative_loss", temperature=2.0)[..., 0]
    mean_out = np.array([np.exp(log_p[fleet.side[:, j] == 0, j]).mean() for j in range(300)])

    def tuned(labels):
        def auc(a):
            score = log_p[0] - np.log(((1 + a) * mean_out + 1 - a) / 2)
            return (score[labels == 1][:, None] > score[labels == 0]).mean()

        return max(np.arange(0, 1.01, 0.05), key=auc)

    assert tuned(fleet.side[0]) != tuned(fleet.side[1]), "the faulty way follows whatever labels it is given"
    lied_to = fleet.side.copy()
    lied_to[0] = fleet.side[0][::-1]
    plain = RMIA(online=False).score_fleet(fleet, rng=np.random.default_rng(0))
    again = RMIA(online=False).score_fleet(fleet.with_side(lied_to), rng=np.random.default_rng(0))
    np.testing.assert_allclose(again[0], plain[0], rtol=1e-12)


def test_missing_population_is_named():
    fleet = toy_fleet(1.0)
    bare = Reference(fleet.ids, fleet.labels, fleet.logits, side=fleet.side)
    with pytest.raises(MissingNeed, match="population"):
        RMIA().score_fleet(bare, rng=np.random.default_rng(0))


@pytest.mark.parametrize("settings", [{"gamma": 0.5}, {"offline_a": 1.5}, {"temperature": 0.0}, {"signal": "margin"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        RMIA(**settings)
