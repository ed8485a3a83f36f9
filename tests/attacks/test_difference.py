"""The attack on two versions: features by hand, a textbook twin, and worlds in which what was deleted is known."""

import dataclasses

import numpy as np
import pytest
from scipy.special import logit
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.difference import FEATURES, Difference, difference_features
from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.audit.answers.defences import parse_defence
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.testing import toy_fleet

CLASSES = 5
NEVER, KEPT = GAMES["difference-never"], GAMES["difference-kept"]


def rng(seed=0):
    return np.random.default_rng(seed)


def pooled_auc(scores, side):
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def world(unlearning, *, leak=2.0, noise=0.7, models=24, records=150, seed=0):
    """Draw (before, after, roles): the true-class logit is higher by ``leak`` in models that trained on the record.

    ``unlearning``: "retrain" (new noise, deleted records lose the leak), "no-op", or "reseed" (new noise, nothing is
    deleted). Each record is KEPT, FORGOTTEN and NEVER in a third of the models of each fold.
    """
    draw = rng(seed)
    third = np.repeat(np.array([Role.KEPT, Role.FORGOTTEN, Role.NEVER], np.int8), models // 6)[:, None]
    role = np.concatenate([draw.permuted(np.tile(third, (1, records)), axis=0) for _ in range(2)])
    ids, fold = draw.permutation(records) + 500, np.repeat(np.array([0, 1], np.int8), models // 2)
    labels = ids % CLASSES
    hard = draw.normal(0.5, 1.0, records)

    def logits(trained):
        z = draw.normal(0.0, noise, (models, records, 1, CLASSES))
        z += (hard + leak * trained)[..., None, None] * (labels[:, None] == np.arange(CLASSES))[:, None, :]
        return z.astype(np.float32)

    first = logits(role != Role.NEVER)
    second = {
        "retrain": lambda: logits(role == Role.KEPT),
        "reseed": lambda: logits(role != Role.NEVER),
        "no-op": lambda: first,
    }[unlearning]()
    return (ids, labels, first, second, fold), role


def fleet(parts, role, game):
    ids, labels, first, second, fold = parts
    side = game.side(role)
    before = Reference(ids, labels, first, side=side, fold=fold)
    return Reference(ids, labels, second, side=side, fold=fold, before=before)


def fleet_auc(attack, parts, role, game):
    reference = fleet(parts, role, game)
    return pooled_auc(score_fleet(attack, reference, rng=rng()), reference.side)


def test_features_of_a_hand_written_pair():
    before, after = np.array([[0.2, 0.7, 0.1]]), np.array([[0.3, 0.5, 0.2]])
    found = {name: difference_features(before, after, name)[0] for name in FEATURES}
    assert found["direct_diff"] == pytest.approx([-0.1, 0.2, -0.1])
    assert found["sorted_diff"] == pytest.approx([-0.1, -0.1, 0.2])  # ascending order of before: classes 2, 0, 1
    assert found["direct_concat"] == pytest.approx([0.2, 0.7, 0.1, 0.3, 0.5, 0.2])
    assert found["sorted_concat"] == pytest.approx([0.1, 0.2, 0.7, 0.2, 0.3, 0.5])
    assert found["l2_distance"] == pytest.approx([np.sqrt(0.01 + 0.04 + 0.01)])
    assert found["basic"] == pytest.approx([0.2, 0.7, 0.1])
    assert found["sorted_basic"] == pytest.approx([0.1, 0.2, 0.7])


@pytest.mark.parametrize("feature", [name for name in FEATURES if not name.startswith(("direct", "basic"))])
def test_sorted_features_do_not_know_the_numbers_of_classes(feature):
    """Also where the posterior before has ties, as truncated and label-only answers do."""
    draw = rng(1)
    before, after = draw.dirichlet(np.ones(6), 40), draw.dirichlet(np.ones(6), 40)
    before[:20] = np.sort(before[:20], axis=1)
    before[:20, :4] = before[:20, :4].mean(axis=1, keepdims=True)
    order = draw.permutation(6)
    plain = difference_features(before, after, feature)
    assert difference_features(before[:, order], after[:, order], feature) == pytest.approx(plain, abs=1e-15)
    if feature == "sorted_diff":  # the release's order of ties is that of the classes
        release = np.argsort(before, axis=1, kind="stable")
        moved = np.argsort(before[:, order], axis=1, kind="stable")
        ours, theirs = np.take_along_axis(after, release, 1), np.take_along_axis(after[:, order], moved, 1)
        assert np.abs(ours - theirs).max() > 0.1


@pytest.mark.parametrize("feature", ["sorted_concat", "sorted_diff", "l2_distance", "sorted_basic"])
def test_known_answer_of_the_logistic_attack(feature):
    """The fit is the textbook's: the paper's feature of all rows, standardised, into scikit-learn's own regression."""
    parts, role = world("retrain", models=12, records=60)
    reference = fleet(parts, role, NEVER)
    attack = Difference(feature)
    mine = score_target(attack, reference.without([0]), reference.target(0), rng=rng())

    def softmax(z):
        e = np.exp(z[:, 0].astype(np.float64) - z[:, 0].max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    written = {
        "sorted_concat": lambda a, b: [*a[np.argsort(a)], *b[np.argsort(a)]],
        "sorted_diff": lambda a, b: (a - b)[np.argsort(a)],
        "l2_distance": lambda a, b: [sum((a - b) ** 2) ** 0.5],
        "sorted_basic": lambda a, b: sorted(a),
    }[feature]

    def rows(k):
        first, second = softmax(parts[2][k]), softmax(parts[3][k])
        return np.stack([written(a, b) for a, b in zip(first, second, strict=True)])

    used = [k for k in range(12) if k != 0]
    x = np.concatenate([rows(k)[reference.side[k] >= 0] for k in used])
    y = np.concatenate([reference.side[k][reference.side[k] >= 0] for k in used])
    scaler = StandardScaler().fit(x)
    twin = LogisticRegression(max_iter=2000, tol=1e-10).fit(scaler.transform(x), y)
    expected = twin.decision_function(scaler.transform(rows(0))) - np.log(y.mean() / (1 - y.mean()))
    assert mine == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["tree", "forest", "mlp"])
@pytest.mark.parametrize("feature", ["direct_diff", "direct_concat", "sorted_concat"])
def test_known_answer_of_the_other_classifiers(feature, classifier):
    """Scikit-learn's own with the release's settings gives the same odds, up to the pseudo-count of pure leaves."""
    draw = rng(5)
    first, second = draw.dirichlet(np.ones(4), (2, 400))
    member = draw.random(400) < 0.3 + 0.4 * (first.max(axis=1) > second.max(axis=1))
    scorer = Difference(feature, classifier).fit_posteriors(first, second, member, rng=rng(7))
    seed = int(rng(7).integers(2**31 - 1))
    twin = {
        "tree": DecisionTreeClassifier(max_leaf_nodes=10, random_state=seed),
        "forest": RandomForestClassifier(40, min_samples_leaf=30, random_state=seed),
        "mlp": MLPClassifier(early_stopping=True, learning_rate_init=0.01, random_state=seed),
    }[classifier]
    x = difference_features(first, second, feature)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    p = twin.fit(x, member).predict_proba(x)[:, 1]
    share = member.mean()
    if classifier == "tree":
        size = np.bincount(twin.apply(x))[twin.apply(x)]
        p = (p * size + share) / (size + 1)
    if classifier == "forest":
        p = (p * 40 + share) / 41
    expected = logit(p) - logit(share)
    assert scorer.score_posteriors(first, second) == pytest.approx(expected, abs=1e-6)


def test_the_scaler_is_the_training_rows_own():
    """The release fits it anew on the rows it scores: a record's score then depends on who is scored with it."""
    parts, role = world("retrain")
    reference = fleet(parts, role, NEVER)
    attack = Difference("sorted_diff")
    scorer = attack.fit(reference.without([0]), rng=rng())
    view = reference.target(0)
    few = np.flatnonzero(view.labels == 0)[:10]

    def cut(answers, at):
        return dataclasses.replace(
            answers, ids=answers.ids[at], labels=answers.labels[at], logits=answers.logits[at], _signals={}
        )

    together = scorer.score(view)
    alone = scorer.score(dataclasses.replace(cut(view, few), before=cut(view.before, few)))
    assert alone == pytest.approx(together[few], abs=1e-12)

    def refitted(view):
        x = difference_features(posteriors(view.before), posteriors(view), "sorted_diff")
        return scorer.fitted.raw(StandardScaler().fit_transform(x))

    faulty = refitted(dataclasses.replace(cut(view, few), before=cut(view.before, few)))
    assert np.abs(faulty - refitted(view)[few]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["logistic", "tree", "forest", "mlp"])
@pytest.mark.parametrize("feature", ["direct_diff", "sorted_diff", "l2_distance"])
def test_one_version_twice_scores_one_half_exactly(feature, classifier):
    """Nothing tells which records were named: every difference is zero, and ties count half."""
    parts, role = world("no-op", records=60, models=12)
    assert fleet_auc(Difference(feature, classifier, trees=5), parts, role, KEPT) == 0.5
    assert fleet_auc(Difference(feature, classifier, trees=5), parts, role, NEVER) == 0.5


def test_one_version_twice_is_the_classical_attack_to_a_concatenation():
    """In difference-kept that is nothing; in difference-never exactly what the first version alone gives away."""
    parts, role = world("no-op", records=300)
    both, first = Difference("sorted_concat"), Difference("sorted_basic")
    assert fleet_auc(both, parts, role, KEPT) == pytest.approx(0.5, abs=0.02)
    classical = fleet_auc(first, parts, role, NEVER)
    assert classical > 0.65
    assert fleet_auc(both, parts, role, NEVER) == pytest.approx(classical, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in ATTACKS if name.startswith("difference")))
def test_exact_retraining_leaks_in_both_games(name):
    parts, role = world("retrain", leak=3.0)
    attack = ATTACKS[name]()
    if not name.endswith("basic"):
        assert fleet_auc(attack, parts, role, KEPT) > 0.6
    assert fleet_auc(attack, parts, role, NEVER) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in ATTACKS if name.startswith("difference")))
def test_training_again_with_nothing_deleted_scores_one_half(name):
    """The control: another seed moves every answer a long way, and tells nothing about which records were named."""
    aucs = []
    for seed in range(2):
        parts, role = world("reseed", noise=1.5, seed=seed)
        gap = posteriors(Answers(parts[0], parts[1], parts[2][0])) - posteriors(
            Answers(parts[0], parts[1], parts[3][0])
        )
        assert np.linalg.norm(gap, axis=1).mean() > 0.3
        aucs.append(fleet_auc(ATTACKS[name](), parts, role, KEPT))
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.025)  # standard error below 0.006


def test_a_linear_attacker_is_blind_to_posteriors_in_the_order_of_classes():
    """Where classes are alike, the paper's baseline with a logistic classifier finds nothing, a sorted one does."""
    parts, role = world("retrain", leak=3.0, records=300)
    for feature in ("basic", "direct_diff", "direct_concat"):
        assert fleet_auc(Difference(feature), parts, role, NEVER) == pytest.approx(0.5, abs=0.06)
        assert fleet_auc(Difference(feature, "tree"), parts, role, NEVER) > 0.65
    assert fleet_auc(Difference("sorted_basic"), parts, role, NEVER) > 0.65


def test_a_baseline_never_reads_the_second_version():
    parts, role = world("retrain")
    other = (*parts[:3], rng(9).normal(0.0, 5.0, parts[3].shape).astype(np.float32), parts[4])
    for feature in ("basic", "sorted_basic"):
        # The canonical order of training rows comes from the second version; the fit agrees to its tolerance.
        a = score_fleet(Difference(feature), fleet(parts, role, NEVER), rng=rng())
        b = score_fleet(Difference(feature), fleet(other, role, NEVER), rng=rng())
        assert a == pytest.approx(b, abs=1e-4)


def test_features_are_made_from_what_a_defence_lets_through():
    """The release leaves the baseline and the direct concatenation undefended."""
    parts, _ = world("retrain")
    defence = parse_defence("label-only")
    first, second = (posteriors(Answers(*parts[:2], defence.apply(z[0]))) for z in parts[2:4])
    for feature in FEATURES:
        x = difference_features(first, second, feature)
        assert len(np.unique(x.round(9), axis=0)) <= CLASSES * CLASSES
    undefended = difference_features(posteriors(Answers(*parts[:2], parts[2][0])), second, "basic")
    assert len(np.unique(undefended.round(9), axis=0)) == parts[0].size


def test_pairs_of_rows_give_the_same_scores_as_a_fleet():
    parts, role = world("retrain", models=12, records=60)
    reference = fleet(parts, role, KEPT)
    attack = Difference()
    rest, target = reference.without([3]), reference.target(3)
    scorer = attack.fit(rest, rng=rng())
    model, record = np.nonzero(rest.side >= 0)
    first = np.stack([posteriors(rest.before.target(k)) for k in range(rest.n_models)])
    second = np.stack([posteriors(rest.target(k)) for k in range(rest.n_models)])
    rows = attack.fit_posteriors(first[model, record], second[model, record], rest.side[model, record] == 1, rng=rng())
    mine = rows.score_posteriors(posteriors(target.before), posteriors(target))
    assert mine == pytest.approx(scorer.score(target), abs=1e-4)
    probability = scorer.probability(mine)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_answers_before_are_matched_by_id():
    reference = toy_fleet(4.0)
    plain = score_target(Difference(), reference.without([0]), reference.target(0), rng=rng())
    order = rng(2).permutation(reference.n_records)

    def moved(before):
        return dataclasses.replace(
            before,
            ids=before.ids[order],
            labels=before.labels[order],
            logits=before.logits[:, order],
            side=before.side[:, order],
            _signals={},
        )

    shuffled = dataclasses.replace(reference, before=moved(reference.before))
    again = score_target(Difference(), shuffled.without([0]), shuffled.target(0), rng=rng())
    assert again == pytest.approx(plain, abs=1e-12)


def test_bad_input_is_named():
    for settings, message in (
        ({"feature": "diff"}, "feature='diff' is unknown; allowed: direct_diff"),
        ({"classifier": "svm"}, "classifier='svm' is unknown"),
        ({"trees": 0}, "trees=0"),
        ({"cap": 1}, "cap=1"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Difference(**settings)
    reference = toy_fleet(2.0)
    with pytest.raises(MissingNeed, match="before deletion"):
        score_fleet(Difference(), dataclasses.replace(reference, before=None), rng=rng())
    fewer = dataclasses.replace(reference, logits=reference.logits[..., :3].copy(), _signals={})
    with pytest.raises(InvalidInput, match=r"before deletion has 4 classes and the model after it 3"):
        score_fleet(Difference(), fewer, rng=rng())
    with pytest.raises(InvalidInput, match="must both be"):
        difference_features(np.ones((2, 3)), np.ones((2, 4)), "l2_distance")
