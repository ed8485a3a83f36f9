"""Label-only attacks by altered copies: their questions, their vectors, and a world whose best score is known."""

import numpy as np
import pytest

from mnemoscope.attacks.label_augmentation import LabelAugmentation
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Reference, Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.queries import check_queries
from mnemoscope.audit.testing import toy_fleet

RNG = np.random.default_rng


def test_the_questions_are_those_of_the_paper():
    one = LabelAugmentation().queries
    assert one == ("identity", "shift:-1,0", "shift:0,-1", "shift:0,1", "shift:1,0")
    for d in (1, 2, 5):
        ring = LabelAugmentation(amount=d).queries
        assert len(set(ring)) == 4 * d + 1
        moved = [query.shift for query in check_queries(ring[1:], is_image=True)]
        assert {abs(x) + abs(y) for x, y in moved} == {d}
    turned = [query.degrees for query in check_queries(LabelAugmentation("rotations").queries[1:], is_image=True)]
    assert sorted([*turned, 0.0]) == [float(k) for k in range(-9, 10)]
    noise = check_queries(LabelAugmentation("noise", amount=0.3, draws=5).queries[1:], is_image=False)
    assert [(q.kind, q.amount, q.index) for q in noise] == [("noise", 0.3, k) for k in range(5)]
    assert len(check_queries(LabelAugmentation("flips").queries, is_image=False)) == 33


@pytest.mark.parametrize("family", ["shifts", "rotations", "noise", "flips"])
def test_the_count_is_of_right_answers_wherever_the_queries_lie(family):
    attack = LabelAugmentation(family=family, classifier="count")
    fleet = toy_fleet(1.0, queries=("flip", *attack.queries[::-1]))
    right = (fleet.logits.argmax(axis=-1) == fleet.labels[:, None])[:, :, 1:].sum(axis=-1)
    assert np.array_equal(score_fleet(attack, fleet, rng=RNG(0)), right)
    with pytest.raises(MissingNeed, match="queries were not asked"):
        score_fleet(attack, toy_fleet(1.0, n_queries=5), rng=RNG(0))


def bits_world(chance, n_models=24, n_records=100, seed=0):
    """Bits drawn one by one: P(right | side), for each query and side, (2, 5); the likelihood ratio is known."""
    rng = RNG(seed)
    base = toy_fleet(0.0, n_models=n_models, n_records=n_records, seed=seed)
    probability = np.where((base.side == Side.IN)[..., None], chance[1], chance[0])
    right = rng.random((n_models, n_records, 5)) < probability
    wrong = (base.labels + 1) % 4
    told = np.where(right, base.labels[:, None], wrong[:, None])
    logits = (told[..., None] == np.arange(4)).astype(np.float32)
    queries = LabelAugmentation().queries
    return Reference(base.ids, base.labels, logits, side=base.side, fold=base.fold, queries=queries, labels_only=True)


@pytest.mark.parametrize("classifier", ["logistic", "mlp"])
def test_the_classifier_finds_the_likelihood_ratio_of_independent_bits(classifier):
    """One query speaks against membership: a count cannot know, a classifier must."""
    chance = np.array([[0.5, 0.5, 0.5, 0.5, 0.8], [0.9, 0.8, 0.6, 0.5, 0.3]])
    fleet = bits_world(chance)
    attack = LabelAugmentation(classifier=classifier)
    scores = score_target(attack, fleet.without([0]), fleet.target(0), rng=RNG(0))
    bits = attack.vectors(fleet.target(0))
    weight = np.log(chance[1] / chance[0]), np.log((1 - chance[1]) / (1 - chance[0]))
    best = bits @ weight[0] + (1 - bits) @ weight[1]
    assert np.corrcoef(scores, best)[0, 1] > (0.98 if classifier == "logistic" else 0.95)
    assert np.abs(scores - best).mean() < (0.2 if classifier == "logistic" else 0.5)
    count = LabelAugmentation(classifier="count")
    assert np.corrcoef(score_target(count, fleet, fleet.target(0), rng=RNG(0)), best)[0, 1] < 0.9


def test_a_class_of_its_own_kind_gets_its_own_classifier():
    """In one class membership shows as right answers, in another as wrong ones."""
    fleet = bits_world(np.array([[0.3] * 5, [0.8] * 5]))
    odd = fleet.labels == 1
    logits = fleet.logits.copy()
    logits[:, odd] = logits[:, odd][..., [1, 2, 0, 3]]  # right and wrong change places
    fleet = Reference(
        fleet.ids, fleet.labels, logits, side=fleet.side, fold=fleet.fold, queries=fleet.queries, labels_only=True
    )
    pooled, own = (
        score_fleet(LabelAugmentation(classifier="logistic", by_class=flag), fleet, rng=RNG(0))
        for flag in (False, True)
    )
    for scores, low, high in ((pooled, 0.0, 0.35), (own, 0.85, 1.0)):
        inside, outside = scores[:, odd][fleet.side[:, odd] == 1], scores[:, odd][fleet.side[:, odd] == 0]
        auc = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
        assert low <= auc <= high


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "zoom"}, "family='zoom'"),
        ({"classifier": "svm"}, "classifier='svm'"),
        ({"classifier": "count", "by_class": True}, "by_class=True"),
        ({"amount": 1.5}, "whole pixels"),
        ({"draws": 3}, "whole pixels"),
        ({"family": "flips", "amount": 2.0}, "probability"),
        ({"family": "noise", "amount": float("inf")}, "finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        LabelAugmentation(**settings)
