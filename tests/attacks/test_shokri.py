"""Shadow classifiers: a class of its own, the fallback for thin classes, and worlds with a known best attack."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks.classifiers import fit_classifier
from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.attacks.shadow_rows import shadow_rows
from mnemoscope.attacks.shokri import Shokri, own_class_first
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet

KINDS = ["logistic", "tree", "forest", "mlp"]


def rng(seed=0):
    return np.random.default_rng(seed)


def auc(score, side):
    inside, outside = score[side == 1], np.sort(score[side == 0])
    return (np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")).mean() / (
        2 * outside.size
    )


def opposite(n=1200, models=4, seed=0, gap=1.0):
    """Members of class 0 have a *higher* p_0, members of class 1 a *lower* p_1; class 2 leaks nothing.

    The signal of a record is N(0, 1), or N(gap, 1) with its class's sign for members: the best attack of a class is a
    threshold of known balanced accuracy, and one classifier that ignores classes cannot have it.
    """
    draw = rng(seed)
    labels = np.arange(n) % 3
    side = (draw.random((models, n)) < 0.5).astype(np.int8)
    signal = draw.normal(0, 1, (models, n)) + gap * np.array([1.0, -1.0, 0.0])[labels] * side
    logits = np.zeros((models, n, 1, 3), np.float32)
    logits[:, np.arange(n), 0, labels] = signal
    return Reference(np.arange(n), labels, logits, side=side, fold=(np.arange(models) % 2).astype(np.int8))


def naive(reference, view, kind):
    """One classifier for each class, by a loop over pairs in the order that the attack fixes."""
    rows = shadow_rows(reference, posteriors, rng=rng())
    draw, scores = rng(), np.empty(view.n_records)
    for label in range(reference.n_classes):
        at = [i for i in range(rows.member.size) if rows.labels[i] == label]
        fitted = fit_classifier(kind, rows.features[at], rows.member[at], rng=draw)
        for j in np.flatnonzero(view.labels == label):
            z = view.logits[j, 0].astype(np.float64)
            scores[j] = fitted.log_odds((np.exp(z) / np.exp(z).sum())[None])[0]
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_naive_twin(kind):
    fleet = opposite(n=900)
    scored = Shokri(kind).fit(fleet.without([0]), rng=rng()).score(fleet.target(0))
    np.testing.assert_allclose(scored, naive(fleet.without([0]), fleet.target(0), kind), atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_class_has_an_attack_of_its_own(kind):
    """Best balanced accuracy per class is Phi(gap / 2); with gap 3 that is 0.933, and an AUC of 0.983."""
    fleet = opposite(n=2400, gap=3.0)
    score = score_fleet(Shokri(kind), fleet, rng=rng())
    for label, expected in ((0, 0.983), (1, 0.983), (2, 0.5)):
        own = fleet.labels == label
        assert auc(score[:, own], fleet.side[:, own]) == pytest.approx(expected, abs=0.035), label
    decided = score[:, fleet.labels < 2] >= 0.0
    side = fleet.side[:, fleet.labels < 2]
    assert (decided[side == 1].mean() + 1 - decided[side == 0].mean()) / 2 == pytest.approx(0.933, abs=0.02)
    # One classifier for all classes, the faulty reading of the attack, finds nothing.
    rows = shadow_rows(fleet.select([0, 1]), posteriors, rng=rng())
    pooled = fit_classifier("logistic", own_class_first(rows.features, rows.labels), rows.member, rng=rng())
    view = fleet.target(2)
    judged = view.labels < 2
    blind = pooled.log_odds(own_class_first(posteriors(view), view.labels))
    assert abs(auc(blind[judged], fleet.side[2][judged]) - 0.5) < 0.06


def test_a_class_with_few_rows_or_one_side_is_served_by_the_model_of_all_classes():
    fleet = toy_fleet(4.0)
    side = fleet.side.copy()
    side[:, (fleet.labels == 1) & (fleet.ids % 8 != 1)] = -1  # class 1: few rows
    side[:, fleet.labels == 2] = np.minimum(side[:, fleet.labels == 2], 0)  # class 2: no member
    scorer = Shokri(least=100).fit(fleet.with_side(side), rng=rng())
    assert [fitted is None for fitted in scorer.by_class] == [False, True, True, False]
    assert scorer.pooled is not None
    view = fleet.target(0)
    score = scorer.score(view)
    judged = np.isin(fleet.labels, (1, 2))
    expected = scorer.pooled.log_odds(own_class_first(posteriors(view), view.labels))
    np.testing.assert_allclose(score[judged], expected[judged], atol=1e-12)
    assert auc(score[judged], fleet.side[0][judged]) > 0.75
    # With enough rows everywhere no pooled model is fitted.
    assert Shokri(least=100).fit(fleet, rng=rng()).pooled is None


def test_calibration_records_of_a_single_class_still_serve_every_class():
    fleet = toy_fleet(4.0)
    one = np.where(fleet.labels == 3, fleet.side, -1).astype(np.int8)
    scorer = Shokri().fit(fleet.with_side(one), rng=rng())
    assert [fitted is None for fitted in scorer.by_class] == [True, True, True, False]
    score = scorer.score(fleet.target(0))
    assert np.isfinite(score).all()
    others = fleet.labels != 3
    assert auc(score[others], fleet.side[0][others]) > 0.75


def test_labelled_answers_on_other_records_are_enough():
    """A reference of other ids: nothing is looked up by record."""
    fleet = toy_fleet(4.0)
    other = toy_fleet(4.0, seed=1)
    other = dataclasses.replace(other, ids=other.ids + 10_000, before=None, population=None)
    score = score_target(Shokri(), other, fleet.target(0), rng=rng())
    assert auc(score, fleet.side[0]) > 0.75
    assert Shokri.any_records


def test_models_that_answer_all_records_alike_score_zero_everywhere():
    fleet = toy_fleet(2.0)
    flat = dataclasses.replace(fleet, logits=np.zeros_like(fleet.logits), before=None)
    for kind in KINDS:
        score = score_target(Shokri(kind, least=10), flat.without([0]), flat.target(0), rng=rng())
        for label in range(4):
            assert np.unique(score[fleet.labels == label]).size == 1
        np.testing.assert_allclose(score, 0.0, atol=0.15 if kind == "forest" else 1e-3)


def test_one_side_or_other_classes_or_labels_alone_are_refused():
    fleet = toy_fleet(2.0)
    alone = fleet.with_side(np.where(fleet.side == 1, 1, -1).astype(np.int8))
    with pytest.raises(MissingNeed, match="shokri needs reference models trained without the audited records"):
        score_target(Shokri(), alone, fleet.target(0), rng=rng())
    with pytest.raises(MissingNeed, match="lies on side OUT"):
        Shokri().fit(alone, rng=rng())
    other = toy_fleet(2.0, n_classes=6)
    with pytest.raises(InvalidInput, match="the target has 6 classes and the shadow models 4"):
        Shokri().fit(fleet, rng=rng()).score(other.target(0))
    labels = dataclasses.replace(fleet.target(0), labels_only=True)
    with pytest.raises(MissingNeed, match="answers with labels only"):
        score_target(Shokri(), fleet, labels, rng=rng())
    assert Need.SCORES in Shokri().needs


def test_the_log_scale_orders_what_probabilities_tie():
    """Margins of 40 and more: every probability is one in float64, and members lie higher: AUC Phi(6 / (3 sqrt 2))."""
    draw = rng(3)
    side = (draw.random((6, 400)) < 0.5).astype(np.int8)
    logits = np.zeros((6, 400, 1, 2))
    logits[:, :, 0, 0] = 60.0 + draw.normal(0, 3, (6, 400)) + 6 * side
    fleet = Reference(np.arange(400), np.zeros(400, np.int64), logits, side=side)
    plain, log = Shokri(), Shokri(scale="log")
    found = auc(log.fit(fleet.without([0]), rng=rng()).score(fleet.target(0)), side[0])
    assert found == pytest.approx(0.921, abs=0.04)  # standard error 0.014
    assert np.unique(posteriors(fleet.target(0))[:, 0]).size == 1
    assert plain.name == "shokri"
    assert log.name == "shokri_log"


def test_the_cap_on_rows_is_obeyed(monkeypatch):
    seen = []
    real = fit_classifier

    def noting(kind, features, member, *, rng):
        seen.append(member.size)
        return real(kind, features, member, rng=rng)

    monkeypatch.setattr("mnemoscope.attacks.shokri.fit_classifier", noting)
    Shokri(rows=300, least=5).fit(toy_fleet(2.0), rng=rng())
    assert sum(seen) == 300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classifier": "svc"}, "classifier='svc' is unknown; allowed: logistic"),
        ({"scale": "cubic"}, "scale='cubic' is unknown"),
        ({"rows": 1}, "rows=1 must be at least 2"),
        ({"least": 0}, "least=0 must be at least 1"),
    ],
)
def test_settings_are_checked_at_birth(settings, words):
    with pytest.raises(InvalidInput, match=words):
        Shokri(**settings)
