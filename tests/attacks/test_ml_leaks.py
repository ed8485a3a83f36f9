"""ML-Leaks: three adversaries; the transfer between data sets, and thresholds from records that are no members."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks.classifiers import fit_classifier
from mnemoscope.attacks.ml_leaks import STATISTICS, MLLeaks, MLLeaksUnsupervised, top_share
from mnemoscope.audit.answers.protocols import decision_threshold, score_fleet, score_target
from mnemoscope.audit.answers.views import Answers, Need, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet


def rng(seed=0):
    return np.random.default_rng(seed)


def auc(score, side):
    inside, outside = score[side == 1], np.sort(score[side == 0])
    return (np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")).mean() / (
        2 * outside.size
    )


def view_of(p, **more):
    p = np.asarray(p, np.float64)
    return View(np.arange(len(p)), np.zeros(len(p), np.int64), np.log(p)[:, None], **more)


def test_adversary_1_equals_a_naive_twin():
    fleet = toy_fleet(2.0)
    apart, view = fleet.without([0]), fleet.target(0)

    def top3(z):
        p = np.exp(z.astype(np.float64))
        return sorted(p / p.sum(), reverse=True)[:3]

    pairs = [(m, j) for m in range(17) for j in range(120) if apart.side[m, j] >= 0]
    features = np.array([top3(apart.logits[m, j, 0]) for m, j in pairs])
    member = np.array([apart.side[m, j] == 1 for m, j in pairs])
    fitted = fit_classifier("logistic", features, member, rng=rng())
    expected = fitted.log_odds(np.array([top3(z[0]) for z in view.logits]))
    # The rows stand in another order there: the optimiser stops within its tolerance, not at the same bits.
    np.testing.assert_allclose(score_target(MLLeaks(), apart, view, rng=rng()), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["logistic", "tree", "forest", "mlp"])
@pytest.mark.parametrize(("theirs", "ours"), [(3, 8), (8, 3), (5, 2)])
def test_adversary_2_carries_over_to_a_data_set_with_other_classes_and_other_records(theirs, ours, classifier):
    other = toy_fleet(4.0, n_classes=theirs, seed=1)
    target = toy_fleet(4.0, n_classes=ours, seed=2, n_records=150)
    apart = dataclasses.replace(other, ids=other.ids + 5000, before=None, population=None)
    attack = MLLeaks(adversary=2, classifier=classifier)
    scores = np.stack([score_target(attack, apart, target.target(k), rng=rng()) for k in range(6)])
    assert auc(scores, target.side[:6]) > 0.6
    with pytest.raises(InvalidInput, match=f"the target has {ours} classes and the shadow models {theirs}"):
        score_target(MLLeaks(), apart, target.target(0), rng=rng())


def test_adversary_2_finds_nothing_in_a_target_that_remembers_nothing():
    other = toy_fleet(4.0, n_classes=3, seed=1)
    target = toy_fleet(0.0, n_classes=8, seed=2, n_models=24, n_records=300)
    fitted = MLLeaks(adversary=2).fit(other, rng=rng())
    scores = np.stack([fitted.score(target.target(k)) for k in range(24)])
    assert abs(auc(scores, target.side) - 0.5) < 0.02  # 2400 scores a side: standard error 0.008


def test_within_one_data_set_adversary_2_is_adversary_1():
    fleet = toy_fleet(2.0)
    one, two = (score_fleet(MLLeaks(adversary=a), fleet, rng=rng()) for a in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_largest_three_know_no_class():
    """Classes permuted in the target: the same scores."""
    fleet = toy_fleet(3.0, n_classes=5)
    view = fleet.target(0)
    moved = View(view.ids, (view.labels + 2) % 5, np.roll(view.logits, 2, axis=-1))
    fitted = MLLeaks(classifier="forest").fit(fleet.without([0]), rng=rng())
    np.testing.assert_allclose(fitted.score(moved), fitted.score(view), atol=1e-12)


def test_adversary_3_reads_the_statistics_of_the_paper():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])
    view = view_of(p)
    np.testing.assert_allclose(STATISTICS["maximum"](view), np.log(p.max(axis=1)))
    np.testing.assert_allclose(STATISTICS["deviation"](view)[:2], np.log(p[:2].std(axis=1)))
    np.testing.assert_allclose(STATISTICS["entropy"](view), (p * np.log(p)).sum(axis=1))
    for statistic in STATISTICS:
        attack = MLLeaksUnsupervised(statistic)
        score = score_target(attack, toy_fleet(1.0).select([]), view, rng=rng())
        assert score[1] > score[0] > score[2], statistic
        assert np.isfinite(score).all()
        assert decision_threshold(attack.fit(toy_fleet(1.0), rng=rng())) is None
    # A label plays no part.
    wrong = dataclasses.replace(view, labels=np.array([2, 0, 1]), _signals={})
    np.testing.assert_array_equal(STATISTICS["maximum"](wrong), STATISTICS["maximum"](view))


def test_top_share_lets_at_most_its_share_through_ties_as_a_block():
    for seed in range(100):
        draw = rng(seed)
        values = draw.integers(0, 8, draw.integers(1, 40)).astype(np.float64)
        share = draw.uniform(0.02, 0.98)
        t = top_share(values, share)
        assert (values >= t).sum() <= share * values.size
        lower = values[values < t]
        if lower.size:
            assert (values >= lower.max()).sum() > share * values.size
    assert top_share(np.ones(10), 0.5) > 1.0


def test_a_threshold_from_the_population_has_its_rate_of_false_alarms():
    fleet = toy_fleet(0.0, n_records=600, n_population=1000)
    attack = MLLeaksUnsupervised(threshold_from="population", share=0.1)
    assert attack.name == "ml_leaks_3_population"
    assert attack.needs == Need.SCORES | Need.POPULATION
    score = score_fleet(attack, fleet, rng=rng())
    assert (score >= 0).mean() == pytest.approx(0.1, abs=0.02)
    plain = score_fleet(MLLeaksUnsupervised(), fleet, rng=rng())
    np.testing.assert_allclose(np.ptp(score - plain, axis=1), 0.0, atol=1e-10)  # the same order within a model
    with pytest.raises(MissingNeed, match="needs population records"):
        score_target(attack, fleet, dataclasses.replace(fleet.target(0), population=None), rng=rng())
    own = dataclasses.replace(fleet.target(0), population=Answers(fleet.ids, fleet.labels, fleet.logits[0]))
    with pytest.raises(InvalidInput, match="both audited and population"):
        score_target(attack, fleet, own, rng=rng())


class Line:
    """A model of two inputs with logits (x_0 + x_1, 0), that can be asked: the noise's answers are known in law."""

    white_box, n_classes, predictions, gradients = False, 2, 0, 0

    def __init__(self, x):
        import torch

        self.x = torch.tensor(x, dtype=torch.float32)
        self.asked = []

    def inputs(self, ids):
        return self.x[ids]

    def logits(self, inputs):
        import torch

        self.asked.append(inputs.numpy())
        total = inputs.sum(dim=1)
        return torch.stack([total, torch.zeros_like(total)], dim=1)


def test_a_threshold_from_noise_lies_at_the_share_of_its_answers():
    """Inputs in [0, 1] x [0, 2]: the noise's logit is the sum of two uniforms, with a known upper quantile."""
    draw = rng(5)
    x = draw.random((40, 2)) * [1.0, 2.0]
    x[:2] = [[0.0, 0.0], [1.0, 2.0]]
    logits = np.stack([x.sum(axis=1), np.zeros(40)], axis=1)[:, None]
    model = Line(x)
    view = View(np.arange(40), np.zeros(40, np.int64), logits, oracle=model)
    attack = MLLeaksUnsupervised(threshold_from="noise", share=0.125, noise_inputs=20_000)
    assert attack.needs == Need.SCORES | Need.ORACLE
    score = score_target(attack, toy_fleet(1.0).select([]), view, rng=rng())
    # P(sum > s) = (3 - s)^2 / 4 for s in [2, 3]: one eighth at s = 3 - sqrt(1/2).
    at = 3.0 - np.sqrt(0.5)
    expected = STATISTICS["maximum"](view) + np.log1p(np.exp(-at))
    np.testing.assert_allclose(score, expected, atol=0.002)
    (noise,) = model.asked
    assert noise.shape == (20_000, 2)
    assert noise.min() >= 0.0
    np.testing.assert_array_less(noise.max(axis=0), [1.0 + 1e-6, 2.0 + 1e-6])
    again = score_target(attack, toy_fleet(1.0).select([]), view, rng=rng())
    np.testing.assert_array_equal(again, score)
    order = rng(1).permutation(40)
    moved = View(view.ids[order], view.labels[order], view.logits[order], oracle=model)
    np.testing.assert_array_equal(score_target(attack, toy_fleet(1.0).select([]), moved, rng=rng()), score[order])
    with pytest.raises(MissingNeed, match="live access"):
        score_target(attack, toy_fleet(1.0).select([]), dataclasses.replace(view, oracle=None), rng=rng())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLLeaks(adversary=3), "adversary=3 must be 1 or 2"),
        (lambda: MLLeaks(rows=1), "rows=1"),
        (lambda: MLLeaks(classifier="svm"), "classifier='svm' is unknown"),
        (lambda: MLLeaksUnsupervised("mean"), "statistic='mean' is unknown; allowed: maximum, deviation, entropy"),
        (lambda: MLLeaksUnsupervised(threshold_from="luck"), "threshold_from='luck' is unknown"),
        (lambda: MLLeaksUnsupervised(share=0.0), "share=0.0"),
        (lambda: MLLeaksUnsupervised(noise_inputs=0), "noise_inputs=0"),
    ],
)
def test_settings_are_checked_at_birth(make, words):
    with pytest.raises(InvalidInput, match=words):
        make()
