"""SVM attacks of the unlearning literature: features, both ways to learn, the printed figure, and its faults."""

import dataclasses

import numpy as np
import pytest
from sklearn.svm import SVC

from mnemoscope.attacks import svm
from mnemoscope.attacks.lira import LiRA
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.attacks.svm import SVM, SVM_FEATURES, mia_efficacy, modified_entropy_as_published, training_privacy
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Answers, Known, Need, Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.testing import toy_fleet

RIGHT = [name for name in SVM_FEATURES if not name.endswith("published")]


def rng(seed=0):
    return np.random.default_rng(seed)


def auc(score, side):
    inside, outside = score[side == 1], np.sort(score[side == 0])
    return (np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")).mean() / (
        2 * outside.size
    )


def answers(p, labels, first=0):
    p = np.asarray(p, np.float64)
    return Answers(np.arange(len(p)) + first, np.asarray(labels), np.log(p)[:, None])


def binary(p, first=0):
    """Answers with the given probabilities of the true class 0."""
    p = np.asarray(p, np.float64)
    return answers(np.stack([p, 1 - p], axis=1), np.zeros(p.size, np.int64), first)


def released(p, labels):
    """The release's function, transcribed to its effect: columns are indexed by all labels at once."""
    p = np.asarray(p, np.float64)
    log_p = np.where(p > 0, np.log(np.maximum(p, 1e-300)), np.log(1e-30))
    probs, logs = p.copy(), log_p.copy()
    probs[:, labels] = (1 - p)[:, labels]
    logs[:, labels] = log_p[:, labels]
    return -(probs * logs).sum(axis=1)


def song_mittal(p, y):
    return -(1 - p[y]) * np.log(p[y]) - sum(p[i] * np.log(1 - p[i]) for i in range(len(p)) if i != y)


VECTOR = [0.7, 0.2, 0.1]
EXACT = (0.162167, 2.140867, 2.959736)


def test_row_24_the_modified_entropy_is_song_and_mittals_and_the_faulty_one_has_its_own_name():
    three = answers([VECTOR] * 3, [0, 1, 2])
    ours = SVM_FEATURES["modified_entropy"](three)[:, 0]
    np.testing.assert_allclose(ours, EXACT, atol=1e-6)
    np.testing.assert_allclose(ours, [song_mittal(VECTOR, y) for y in range(3)], atol=1e-12)
    faulty = modified_entropy_as_published(three)
    np.testing.assert_allclose(faulty, released([VECTOR] * 3, [0, 1, 2]), atol=1e-12)
    # What a test of the exact formula demands, the faulty one fails, for every label, alone or in company.
    assert (np.abs(faulty - EXACT) > 0.3).all()
    for y in range(3):
        assert abs(modified_entropy_as_published(answers([VECTOR], [y]))[0] - EXACT[y]) > 0.1
    # First fault alone (log p for log(1 - p)): the wrong classes' terms are another function.
    first = -(1 - 0.7) * np.log(0.7) - 0.2 * np.log(0.2) - 0.1 * np.log(0.1)
    assert modified_entropy_as_published(answers([VECTOR], [0]))[0] == pytest.approx(first)
    # Second fault: with all classes in the batch a record's own label plays no part, and its company does.
    assert np.ptp(faulty) < 1e-12
    assert np.ptp(ours) > 2.0
    alone, company = answers([VECTOR], [0]), answers([VECTOR, VECTOR], [0, 1])
    assert modified_entropy_as_published(company)[0] != pytest.approx(modified_entropy_as_published(alone)[0])
    exact = SVM_FEATURES["modified_entropy"]
    assert exact(company)[0] == exact(alone)[0]


def test_row_24_the_faulty_function_equals_the_release_on_random_batches_and_saturated_ones():
    draw = rng(2)
    for _ in range(20):
        p = draw.dirichlet(np.full(6, 0.3), 30)
        p = np.maximum(p, 1e-20)
        p /= p.sum(axis=1, keepdims=True)
        labels = draw.integers(0, 4, 30)  # two classes do not occur
        np.testing.assert_allclose(
            modified_entropy_as_published(answers(p, labels)), released(p, labels), rtol=1e-9, atol=1e-9
        )
    sure = Answers(np.array([0]), np.array([1]), np.array([[[0.0, -200.0, -300.0]]]))
    assert modified_entropy_as_published(sure)[0] == pytest.approx(np.log(1e30))  # 1e-87 is zero to float32


def test_row_24_the_faulty_attack_misses_a_leak_that_the_right_one_sees():
    """Members are right and others wrong, equally sure of it: the faulty value, blind to the label, sees nothing."""
    draw = rng(9)
    labels = np.arange(200) % 4
    side = (draw.random((6, 200)) < 0.5).astype(np.int8)
    said = np.where(side == 1, labels, (labels + draw.integers(1, 4, (6, 200))) % 4)
    logits = draw.normal(0, 0.3, (6, 200, 4)) + draw.normal(3, 1, (6, 200, 1)) * (said[..., None] == np.arange(4))
    fold = (np.arange(6) % 2).astype(np.int8)
    fleet = Reference(np.arange(200), labels, logits[:, :, None].astype(np.float32), side=side, fold=fold)
    assert auc(score_fleet(SVM("modified_entropy"), fleet, rng=rng()), side) > 0.95
    assert abs(auc(score_fleet(SVM("modified_entropy_as_published"), fleet, rng=rng()), side) - 0.5) < 0.06


def test_row_23_the_pooled_svm_is_weaker_than_an_attack_that_knows_the_record_where_difficulty_varies():
    """Difficulty spreads wider than the leak: row 23's only attack is nearly blind, the per-record one is not."""
    fleet = toy_fleet(1.5, n_models=24, n_records=300)
    logits = (
        fleet.logits
        + 6.0
        * rng(3).normal(size=fleet.n_records)[None, :, None, None]
        * (fleet.labels[:, None] == np.arange(4)).astype(np.float32)[None, :, None]
    )
    hard = dataclasses.replace(fleet, logits=logits.astype(np.float32), before=None, _signals={})
    pooled = auc(score_fleet(SVM("confidence"), hard, rng=rng()), hard.side)
    assert pooled < 0.62
    assert auc(score_fleet(LiRA(), hard, rng=rng()), hard.side) > pooled + 0.15


def test_features_are_those_of_the_literature():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    one = answers(p, [0, 2])
    np.testing.assert_array_equal(SVM_FEATURES["correctness"](one), [[1.0], [0.0]])
    np.testing.assert_allclose(SVM_FEATURES["confidence"](one), [[0.7], [0.3]])
    np.testing.assert_allclose(SVM_FEATURES["entropy"](one)[:, 0], -(p * np.log(p)).sum(axis=1))
    assert SVM_FEATURES["entropy"](one)[0, 0] == pytest.approx(0.801819, abs=1e-6)
    np.testing.assert_allclose(SVM_FEATURES["probability"](one), p)


@pytest.mark.parametrize("feature", list(SVM_FEATURES))
def test_scores_are_the_distance_from_the_boundary_of_the_published_machine(feature):
    fleet = toy_fleet(2.0)
    apart, view = fleet.without([0]), fleet.target(0)
    rows = shadow_rows(apart, SVM_FEATURES[feature], cap=400, rng=rng())
    machine = SVC(C=3, kernel="rbf", gamma="auto", random_state=0, tol=1e-6).fit(rows.features, rows.member)
    scorer = SVM(feature, rows=400).fit(apart, rng=rng())
    features = SVM_FEATURES[feature](view)
    # Rows in another order, equal ones merged: the same problem up to the solver's tolerance.
    np.testing.assert_allclose(scorer.score(view), machine.decision_function(features), atol=0.02)
    assert scorer.threshold == 0.0


def world(members, nonmembers):
    """Known records of one model with the given probabilities of the true class."""
    return Known(binary(members, 1000), binary(nonmembers, 2000))


def test_efficacy_is_the_share_called_non_members_with_its_exact_interval():
    draw = rng(1)
    known = world(draw.uniform(0.9, 0.99, 400), draw.uniform(0.2, 0.5, 700))
    forget = binary(np.concatenate([np.full(30, 0.95), np.full(12, 0.35)]))
    for feature in ("confidence", "entropy", "modified_entropy", "probability"):
        got = mia_efficacy(known, forget, feature=feature, rng=rng())
        assert (got.k, got.n, got.value) == (12, 42, 12 / 42), feature
    assert got.ci == clopper_pearson(12, 42)
    assert mia_efficacy(known, forget, feature="correctness", rng=rng()).k == 12
    assert mia_efficacy(known, binary(np.full(9, 0.95)), rng=rng(), level=0.9).ci == clopper_pearson(0, 9, 0.9)
    none = mia_efficacy(known, binary([]), rng=rng())
    assert none.value is None
    assert none.reason


def test_efficacy_equals_the_published_procedure_written_out():
    draw = rng(4)
    known = world(draw.beta(5, 1, 300), draw.beta(3, 2, 300))
    forget = binary(draw.beta(4, 1, 200))
    got = mia_efficacy(known, forget, rng=rng())
    x = np.concatenate([SVM_FEATURES["confidence"](a) for a in (known.members, known.nonmembers)])
    machine = SVC(C=3, gamma="auto", kernel="rbf").fit(x, np.repeat([1, 0], 300))
    predicted = machine.predict(SVM_FEATURES["confidence"](forget))
    assert got.value == pytest.approx(1 - predicted.mean(), abs=0.011)  # two records may lie at the boundary


def test_efficacy_draws_members_at_random_and_not_the_first_ones():
    """The first members of the loader are easy ones: the release's slice learns another boundary than a draw."""
    draw = rng(5)
    members = np.concatenate([np.full(300, 0.99), draw.uniform(0.5, 0.99, 900)])
    known = world(members, draw.uniform(0.2, 0.6, 300))
    forget = binary(draw.uniform(0.55, 0.98, 400))
    ours = mia_efficacy(known, forget, rng=rng()).value
    part = known.members
    first = Answers(part.ids[:300], part.labels[:300], part.logits[:300])
    sliced = mia_efficacy(Known(first, known.nonmembers), forget, rng=rng()).value
    assert sliced > ours + 0.1
    shuffled = rng(6).permutation(1200)
    moved = Answers(part.ids[shuffled], part.labels[shuffled], part.logits[shuffled])
    assert mia_efficacy(Known(moved, known.nonmembers), forget, rng=rng()).value == ours


@pytest.mark.slow
def test_training_privacy_is_one_half_without_a_leak_and_high_with_one():
    draw = rng(7)
    values, covered = [], 0
    for seed in range(60):
        got = training_privacy(world(draw.beta(4, 1, 150), draw.beta(4, 1, 200)), rng=rng(seed))
        assert got.n == 150
        values.append(got.value)
        covered += got.low <= 0.5 <= got.high
    assert abs(np.mean(values) - 0.5) < 0.025  # standard error 0.005
    assert covered >= 54
    got = training_privacy(world(draw.uniform(0.9, 0.99, 101), draw.uniform(0.1, 0.5, 300)), rng=rng())
    assert (got.value, got.k, got.n) == (1.0, 102, 102)
    # Tested on the records it was trained on, the same machine would look better than one half.
    known = world(draw.beta(4, 1, 60), draw.beta(4, 1, 60))
    x = np.concatenate([SVM_FEATURES["probability"](a) for a in (known.members, known.nonmembers)])
    machine = SVC(C=3, gamma=200.0).fit(x, np.repeat([1, 0], 60))
    assert machine.score(x, np.repeat([1, 0], 60)) > 0.55
    with pytest.raises(InvalidInput, match="needs 2 at least"):
        training_privacy(world([0.5], [0.5]), rng=rng())


def test_learning_on_known_records_of_the_target():
    draw = rng(8)
    known = world(draw.uniform(0.8, 0.99, 200), draw.uniform(0.2, 0.7, 200))
    audited = binary(np.concatenate([np.full(20, 0.93), np.full(20, 0.4)]))
    view = View(audited.ids, audited.labels, audited.logits, known=known)
    attack = SVM("confidence", known=True)
    assert attack.name == "svm_confidence_known"
    assert attack.needs == Need.SCORES | Need.KNOWN
    assert not attack.any_records
    bare = toy_fleet(1.0).select([])
    score = score_target(attack, bare, view, rng=rng())
    assert (score[:20] > 0).all()
    assert (score[20:] < 0).all()
    np.testing.assert_array_equal(score_target(attack, bare, view, rng=rng()), score)
    with pytest.raises(MissingNeed, match="records of the target with known membership"):
        score_target(attack, bare, dataclasses.replace(view, known=None), rng=rng())
    with pytest.raises(MissingNeed, match="known membership"):
        attack.fit(bare, rng=rng()).score(dataclasses.replace(view, known=None))
    with pytest.raises(InvalidInput, match="40 records are both audited and known"):
        score_target(attack, bare, dataclasses.replace(view, known=Known(audited, known.nonmembers)), rng=rng())
    with pytest.raises(InvalidInput, match="200 known members and 0 known non-members"):
        score_target(attack, bare, dataclasses.replace(view, known=Known(known.members, binary([]))), rng=rng())


@pytest.mark.slow
def test_it_can_tell_members_from_others_only_where_they_differ():
    aucs = {}
    for leak in (0.0, 4.0):
        fleet = toy_fleet(leak, n_models=24, n_records=200)
        aucs[leak] = [auc(score_fleet(SVM(feature), fleet, rng=rng()), fleet.side) for feature in RIGHT]
    assert min(aucs[4.0]) > 0.6
    assert np.abs(np.array(aucs[0.0]) - 0.5).max() < 0.03


def test_answers_all_alike_give_one_score():
    fleet = toy_fleet(2.0)
    flat = dataclasses.replace(fleet, logits=np.zeros_like(fleet.logits), before=None)
    for feature in SVM_FEATURES:
        score = score_target(SVM(feature), flat.without([0]), flat.target(0), rng=rng())
        expected = 2 if feature == "correctness" else 1  # the arg-max of a tie is the first class
        assert np.unique(score).size <= expected, feature


def test_correctness_needs_no_scores_and_the_rest_do():
    fleet = toy_fleet(4.0)
    labels = dataclasses.replace(fleet, labels_only=True, before=None, population=None)
    score = score_target(SVM("correctness"), labels.without([0]), labels.target(0), rng=rng())
    np.testing.assert_array_equal(np.unique(score).size, 2)
    correct = labels.target(0).signal("correctness")[:, 0] == 1
    assert score[correct].min() > score[~correct].max()
    with pytest.raises(MissingNeed, match="answers with labels only"):
        score_target(SVM("confidence"), labels.without([0]), labels.target(0), rng=rng())


def test_one_side_other_classes_and_unknown_features_are_refused():
    fleet = toy_fleet(2.0)
    alone = fleet.with_side(np.where(fleet.side == 0, 0, -1).astype(np.int8))
    with pytest.raises(MissingNeed, match="lies on side IN"):
        SVM().fit(alone, rng=rng())
    other = toy_fleet(2.0, n_classes=6).target(0)
    with pytest.raises(InvalidInput, match="the target has 6 classes and the shadow models 4"):
        SVM("probability").fit(fleet, rng=rng()).score(other)
    assert np.isfinite(SVM("confidence").fit(fleet, rng=rng()).score(other)).all()
    for make in (
        lambda: SVM("margin"),
        lambda: mia_efficacy(world([0.5], [0.5]), binary([0.5]), feature="margin", rng=rng()),
    ):
        with pytest.raises(InvalidInput, match="feature='margin' is unknown; allowed: correctness, confidence"):
            make()
    with pytest.raises(InvalidInput, match="rows=1"):
        SVM(rows=1)
    with pytest.raises(InvalidInput, match="1 records are both audited and known"):
        mia_efficacy(Known(binary([0.5, 0.6]), binary([0.5], 10)), binary([0.5]), rng=rng())


def test_the_state_of_numpy_is_left_alone():
    np.random.seed(3)  # noqa: NPY002 - the global state is what is being tested
    before = np.random.get_state()[2]  # noqa: NPY002
    svm.SVM().fit(toy_fleet(2.0), rng=rng())
    assert np.random.get_state()[2] == before  # noqa: NPY002


@pytest.mark.parametrize("feature", ["confidence", "entropy", "modified_entropy", "modified_entropy_as_published"])
def test_the_series_equals_the_sum_over_support_vectors_inside_and_outside_the_training_range(feature, monkeypatch):
    fleet = toy_fleet(4.0)
    calls = []
    real = svm._quick

    def quick(exact, trained):
        decision = real(exact, trained)
        x = np.concatenate([np.linspace(trained.min() - 3, trained.max() + 3, 501), trained])[:, None]
        np.testing.assert_allclose(decision(x), exact(x), atol=3e-8)
        calls.append(decision is not exact)
        return decision

    monkeypatch.setattr(svm, "_quick", quick)
    SVM(feature).fit(fleet, rng=rng())
    assert calls == [True]


def test_a_feature_too_wide_for_the_series_is_summed_as_it_stands():
    def step(x):
        return np.sign(x[:, 0] - 0.3)

    for trained in (np.array([0.0, 1.0]), np.array([0.0, 1e6]), np.array([0.5, 0.5])):
        assert svm._quick(step, trained) is step
