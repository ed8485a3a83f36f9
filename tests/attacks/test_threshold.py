"""Threshold attacks and Attack-P: exact searches, exact p-values, and the faults of other tools."""

import numpy as np
import pytest

from mnemoscope.attacks.population import Population
from mnemoscope.attacks.threshold import RULES, Threshold, best_threshold
from mnemoscope.audit.answers.protocols import fleet_thresholds, score_fleet, score_target
from mnemoscope.audit.answers.views import Answers, Reference, View
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet

RNG = np.random.default_rng(0)


def balanced_accuracy(inside, outside, t):
    return ((inside >= t).mean() + (outside < t).mean()) / 2


def test_search_equals_trying_every_value():
    rng = np.random.default_rng(1)
    for _ in range(200):
        inside = rng.normal(0.5, 1, rng.integers(1, 30)).round(1)
        outside = rng.normal(0, 1, rng.integers(1, 30)).round(1)
        tried = {t: balanced_accuracy(inside, outside, t) for t in [*inside, *outside]}
        best = max(tried.values())
        found = best_threshold(inside, outside)
        assert tried[found] == pytest.approx(best, abs=1e-12)
        assert found == max(t for t, a in tried.items() if a >= best - 1e-12)


def by_label(shift, n=600, seed=0, models=2):
    """Two classes whose signals lie 6 apart; members are higher by ``shift``; class 2 has no member."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    side = (rng.random((models, n)) < 0.5).astype(np.int8)
    side[:, labels == 2] = 0
    margin = 6.0 * labels + shift * side + rng.normal(0, 0.5, (models, n))
    logits = np.zeros((models, n, 1, 3), np.float64)
    logits[:, np.arange(n), 0, labels] = margin
    return Reference(np.arange(n), labels, logits, side=side), side


@pytest.mark.parametrize("rule", ["loss", "confidence"])
def test_class_thresholds_make_the_pooled_curve_the_class_dependent_attack(rule):
    fleet, side = by_label(2.0)
    judged = fleet.labels < 2

    def auc(score):
        inside, outside = score[judged & (side[1] == 1)], score[judged & (side[1] == 0)]
        return (inside[:, None] > outside).mean()

    scorer = Threshold(rule, by_class=True).fit(fleet.select([0]), rng=RNG)
    assert scorer.threshold == 0.0
    by_class = scorer.score(fleet.target(1))
    assert auc(by_class) > auc(Threshold(rule).fit(fleet.select([0]), rng=RNG).score(fleet.target(1))) + 0.1
    decided = by_class >= scorer.threshold
    accuracy = (decided[judged & (side[1] == 1)].mean() + 1 - decided[judged & (side[1] == 0)].mean()) / 2
    assert accuracy > 0.9


@pytest.mark.parametrize("rule", sorted(RULES))
def test_by_class_is_the_distance_from_the_threshold_of_an_exhaustive_search(rule):
    fleet = toy_fleet(2.0)
    rest, view = fleet.without([0]), fleet.target(0)
    signal, expected = rest.signal(RULES[rule])[..., 0], np.empty(view.n_records)
    own = view.signal(RULES[rule])[:, 0]
    for label in np.unique(view.labels):
        column = np.flatnonzero(rest.labels == label)
        inside, outside = (signal[:, column][rest.side[:, column] == side] for side in (1, 0))
        tried = {t: balanced_accuracy(inside, outside, t) for t in [*inside, *outside]}
        best = max(t for t, a in tried.items() if a >= max(tried.values()) - 1e-12)
        expected[view.labels == label] = own[view.labels == label] - best
    scored = score_target(Threshold(rule, by_class=True), rest, view, rng=RNG)
    np.testing.assert_allclose(scored, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(scored >= 0, expected >= 0)


@pytest.mark.parametrize("rule", ["confidence", "loss", "entropy", "modified_entropy"])
def test_by_class_orders_records_surer_than_double_precision_tells_from_one(rule):
    n = 400
    labels = np.repeat([0, 1], n // 2)
    logits = np.zeros((3, n, 1, 3))
    height = np.tile(np.linspace(20, 600, n // 2), 2)
    logits[:, np.arange(n), 0, labels] = height
    side = np.tile(np.arange(n) % 2, (3, 1)).astype(np.int8)
    logits[:, labels == 1, 0, 2] = np.where(side[0, labels == 1], 3.0, 8.0)
    fleet = Reference(np.arange(n), labels, logits, side=side)
    view = View(np.arange(n), labels, logits[0])
    scorer = Threshold(rule, by_class=True).fit(fleet, rng=RNG)
    scores = scorer.score(view)
    for label in (0, 1):
        mine = labels == label
        own = view.averaged(RULES[rule])[mine]
        np.testing.assert_array_equal(np.argsort(scores[mine]), np.argsort(own))
        assert np.unique(scores[mine]).size == np.unique(own).size > n // 4
        np.testing.assert_array_equal(scores[mine] >= scorer.threshold, own >= scorer.by_class[label])


def test_by_class_takes_a_loss_of_exactly_zero():
    logits = np.zeros((2, 4, 1, 2))
    logits[:, :, 0, 0] = [1.0, 2.0, 3.0, 1e6]
    side = np.array([[0, 1, 0, 1]] * 2, np.int8)
    fleet = Reference(np.arange(4), np.zeros(4, np.int64), logits, side=side)
    scores = Threshold("loss", by_class=True).fit(fleet, rng=RNG).score(View(np.arange(4), np.zeros(4, int), logits[0]))
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_a_class_without_members_inherits_the_global_threshold():
    fleet, _ = by_label(2.0)
    one = fleet.select([0])
    scorer = Threshold("loss", by_class=True).fit(one, rng=RNG)
    overall = Threshold("loss").fit(one, rng=RNG).threshold
    assert scorer.by_class[2] == overall != 0.0
    assert (scorer.by_class[:2] != overall).any()


def test_global_rules_rank_without_any_shadow_model_and_name_no_threshold():
    fleet = toy_fleet(3.0)
    bare = fleet.select([])
    for rule, signal in RULES.items():
        scores = score_target(Threshold(rule), bare, fleet.target(0), rng=RNG)
        np.testing.assert_allclose(scores, fleet.target(0).signal(signal).mean(axis=-1), atol=1e-10)
        assert Threshold(rule).fit(bare, rng=RNG).threshold is None
    with pytest.raises(MissingNeed, match="loss_by_class needs shadow models"):
        score_target(Threshold("loss", by_class=True), bare, fleet.target(0), rng=RNG)


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("loss", (-0.356675, -1.609438, -2.302585)),
        ("confidence", (0.847298, -1.386294, -2.197225)),  # log odds: the order of 0.7, 0.2, 0.1
        ("entropy", (-0.801819, -0.801819, -0.801819)),
        ("modified_entropy", (-0.162167, -2.140867, -2.959736)),
        ("correctness", (1.0, 0.0, 0.0)),
    ],
)
def test_global_rules_give_the_vectors_of_the_reference(rule, values):
    view = View(np.arange(3), np.arange(3), np.log(np.tile([0.7, 0.2, 0.1], (3, 1, 1))))
    scores = score_target(Threshold(rule), toy_fleet(1.0).select([]), view, rng=RNG)
    np.testing.assert_allclose(scores, values, atol=1e-6)


def test_fleet_thresholds_come_from_other_models_and_global_scores_from_none():
    fleet = toy_fleet(3.0)
    attack = Threshold("loss")
    thresholds = fleet_thresholds(attack, fleet, rng=RNG)
    for fold in (0, 1):
        held = np.flatnonzero(fleet.fold == fold)
        np.testing.assert_array_equal(thresholds[held], attack.fit(fleet.without(held), rng=RNG).threshold)
    assert thresholds[0] != thresholds[-1]
    single = Reference(fleet.ids, fleet.labels, fleet.logits, side=fleet.side)
    np.testing.assert_array_equal(score_fleet(attack, single, rng=RNG), score_fleet(attack, fleet, rng=RNG))
    with pytest.raises(AuditError, match="at least 2 folds"):
        score_fleet(Threshold("loss", by_class=True), single, rng=RNG)
    assert fleet_thresholds(Population(), fleet, rng=RNG) is None


def test_thresholds_are_optimistic_only_where_they_were_searched():
    """Nothing leaks: in-sample balanced accuracy of class thresholds exceeds one half, on another model it does not."""
    inside, outside = [], []
    for seed in range(20):
        fleet, side = by_label(0.0, n=300, seed=seed)
        scorer = Threshold("loss", by_class=True).fit(fleet.select([0]), rng=RNG)
        for model, into in ((0, inside), (1, outside)):
            decided = scorer.score(fleet.target(model)) >= 0
            judged = fleet.labels < 2
            into.append(balanced_accuracy(*(decided[judged & (side[model] == s)] for s in (1, 0)), 1))
    assert np.mean(inside) > 0.54
    assert abs(np.mean(outside) - 0.5) < 0.02


def test_confidence_ranks_where_probabilities_are_all_one():
    logits = np.zeros((50, 1, 3))
    logits[:, 0, 0] = np.linspace(40, 90, 50)
    view = View(np.arange(50), np.zeros(50, np.int64), logits)
    assert np.unique(view.signal("confidence")).size == 1
    for rule in ("confidence", "loss", "entropy", "modified_entropy"):
        score = Threshold(rule).fit(toy_fleet(1.0).select([]), rng=RNG).score(view)
        assert (np.diff(score) > 0).all(), rule


@pytest.mark.parametrize("rule", ["loss", "entropy", "modified_entropy"])
def test_scores_of_sure_records_keep_the_digits_of_their_signal(rule):
    rng = np.random.default_rng(0)
    m, n = 4, 2000
    side = rng.permuted(np.tile(np.repeat([1, 0], m // 2)[:, None], (1, n)), axis=0).astype(np.int8)
    logits = rng.normal(size=(m, n, 1, 10)).astype(np.float32)
    logits[:, :, 0, 0] += 22.0 + 2.0 * side  # sure of every record, and surer of those it saw
    fleet = Reference(np.arange(n), np.zeros(n, np.int64), logits, side=side, fold=np.array([0, 1, 0, 1], np.int8))
    attack = Threshold(rule)
    scores, signal = score_fleet(attack, fleet, rng=rng), fleet.averaged(RULES[rule])
    np.testing.assert_array_equal(scores, signal)
    assert np.unique(scores).size > 0.99 * scores.size
    thresholds = fleet_thresholds(attack, fleet, rng=rng)
    said = (scores >= thresholds[:, None])[side == 0].mean()
    assert said < 0.5, "a threshold learned on the signal decides on the signal"


def test_row_7_the_loss_attack_points_the_right_way():
    fleet = toy_fleet(4.0)
    score = score_fleet(Threshold("loss"), fleet, rng=RNG)
    faulty = -np.exp(score)  # the true-class probability, negated

    def auc(s):
        inside, outside = s[fleet.side == 1], s[fleet.side == 0]
        return (inside[:, None] > outside).mean()

    assert auc(faulty) < 0.4
    assert auc(score) > 0.6


def test_population_gives_exact_p_values():
    z = np.array([0.1, 0.2, 0.3, 0.4])
    x = np.array([0.05, 0.3, 0.35, 0.9])

    def answers(p, first):
        logits = np.stack([np.log(p), np.log1p(-p)], axis=-1)[:, None, :]
        return np.arange(p.size) + first, np.zeros(p.size, np.int64), logits

    view = View(*answers(x, 0), population=Answers(*answers(z, 10)))
    scorer = Population().fit(toy_fleet(1.0).select([]), rng=RNG)
    np.testing.assert_allclose(scorer.p_values(view), [1.0, 3 / 5, 2 / 5, 1 / 5])
    np.testing.assert_allclose(scorer.score(view), [-1.0, -0.6, -0.4, -0.2])


def test_row_19_p_values_hold_their_level_because_the_population_is_not_the_audited():
    rng = np.random.default_rng(4)
    rates = []
    for _ in range(200):
        logits = rng.normal(size=(500, 1, 3))
        ids, labels = np.arange(500), np.zeros(500, np.int64)
        population = Answers(ids[100:] + 1000, labels[100:], logits[100:])
        view = View(ids[:100], labels[:100], logits[:100], population=population)
        scorer = Population().fit(toy_fleet(1.0).select([]), rng=rng)
        rates.append((scorer.p_values(view) <= 0.05).mean())
    assert abs(np.mean(rates) - 0.05) < 0.006
    bad = View(ids[:100], labels[:100], logits[:100], population=Answers(ids[:50], labels[:50], logits[:50]))
    with pytest.raises(InvalidInput, match="50 records are both audited and population"):
        scorer.score(bad)


def test_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="rule='margin' is unknown; allowed: correctness, loss"):
        Threshold("margin")
