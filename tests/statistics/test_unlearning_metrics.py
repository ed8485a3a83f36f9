"""Metrics of unlearning papers against their formulae, on answers whose value is known, and with their noise floors."""

import json

import numpy as np
import pytest
import torch

from mnemoscope.audit.answers.views import Answers
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.means import mean_estimate, paired_ratio, unpaired_ratio
from mnemoscope.audit.statistics.output_distances import (
    activation_distance,
    between_each_other,
    completeness,
    js_divergence,
    zrf,
    zrf_as_published,
)
from mnemoscope.audit.statistics.proportions import clopper_pearson, rate
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.statistics.unlearning import ModelAnswers, unlearning_metrics
from mnemoscope.audit.statistics.unlearning_scores import (
    accuracy,
    adaptive_unlearning_score,
    anamnesis_index,
    average_gap,
    forgetting_rate,
    retention_rate,
    tug_of_war,
    unlearning_accuracy,
)


def answers(logits, labels, *, start=0, **more):
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.int64)
    return Answers(np.arange(start, start + labels.size), labels, logits[:, None], **more)


def predicting(predicted, labels, *, classes=4, start=0, sure=3.0):
    logits = np.zeros((len(predicted), classes))
    logits[np.arange(len(predicted)), predicted] = sure
    return answers(logits, labels, start=start)


def softmax(z):
    e = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def drawn(n=40, c=5, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return answers(rng.normal(0, scale, (n, c)), rng.integers(0, c, n))


def test_accuracies_are_counts():
    some = predicting([0, 1, 2, 3, 0], [0, 1, 2, 0, 3])
    assert (accuracy(some).k, accuracy(some).n, accuracy(some).value) == (3, 5, 0.6)
    assert accuracy(some).ci == clopper_pearson(3, 5)
    assert (unlearning_accuracy(some).k, unlearning_accuracy(some).n) == (2, 5)
    # Without the forgotten class: records of its label go, whatever is predicted for the others.
    left = accuracy(some, without=0)
    assert (left.k, left.n) == (2, 3)
    assert accuracy(some, without=1).k == 2
    only = accuracy(predicting([0], [0]), without=0)
    assert only.value is None
    assert only.reason


def test_classes_are_those_of_the_answers_not_of_the_batch():
    one = predicting([2, 2], [2, 2], classes=30)
    assert accuracy(one).value == 1.0
    assert js_divergence(one, [predicting([2, 2], [2, 2], classes=30)]).value == pytest.approx(0, abs=1e-12)


def test_average_gap_is_the_printed_formula():
    u = [{"ua": 0.10, "ra": 0.99, "ta": 0.90, "mia": 0.20}]
    r = [{"ua": 0.05, "ra": 1.00, "ta": 0.93, "mia": 0.12}, {"ua": 0.07, "ra": 1.00, "ta": 0.95, "mia": 0.14}]
    gap = average_gap(u, r)
    assert gap.value.value == pytest.approx((4 + 1 + 4 + 7) / 4)
    assert gap.printed == pytest.approx(gap.value.value)
    assert gap.signed == pytest.approx({"ua": 4.0, "ra": -1.0, "ta": -4.0, "mia": 7.0})
    assert gap.floor.value == pytest.approx((2 + 0 + 2 + 2) / 4)
    alone = average_gap(u, r[:1])
    assert alone.floor.value is None
    assert alone.excess.value is None
    assert "two retrained models" in alone.floor.reason
    for wrong in ([{**u[0], "ua": 10.0}], [{"ua": 0.1}], []):
        with pytest.raises(InvalidInput):
            average_gap(wrong, r)


@pytest.mark.slow
def test_retrained_models_in_the_place_of_unlearned_ones_have_no_excess():
    """The gap alone is positive for perfect unlearning; value minus floor is not, with any number of models."""
    rng = np.random.default_rng(0)
    for models in (2, 3, 5):
        gaps = []
        for _ in range(1500):
            side = [
                [dict(zip("abc", 0.5 + 0.02 * rng.normal(size=3), strict=True)) for _ in range(models)] for _ in "ur"
            ]
            gaps.append(average_gap(*side))
        excess = np.array([gap.excess.value for gap in gaps])
        assert abs(excess.mean()) < 4 * excess.std() / len(excess) ** 0.5
        assert np.mean([gap.value.value for gap in gaps]) > 1.0


def test_forgetting_rate_tells_too_little_from_too_much():
    labels = np.zeros(100, np.int64)
    original = predicting(np.zeros(100, int), labels)
    retrained = [predicting((np.arange(100) < k).astype(int), labels) for k in (15, 25)]
    for wrong, value in ((0, 0.0), (10, 0.5), (20, 1.0), (100, 5.0)):
        found = forgetting_rate(original, predicting((np.arange(100) < wrong).astype(int), labels), retrained)
        assert found.value == pytest.approx(value)
        assert found.n == 100
        if wrong:
            assert found.low <= value <= found.high
    none = forgetting_rate(original, original, [original])
    assert none.value is None
    assert "no rate" in none.reason
    with pytest.raises(InvalidInput, match="same records"):
        forgetting_rate(original, predicting([0] * 100, labels, start=1), retrained)


def test_retention_rate_is_the_share_of_accuracy_kept():
    labels = np.zeros(50, np.int64)
    before = predicting((np.arange(50) < 10).astype(int), labels)
    after = predicting((np.arange(50) < 18).astype(int), labels)
    assert retention_rate(before, after).value == pytest.approx(32 / 40)
    assert retention_rate(before, before).value == 1.0


@pytest.mark.slow
def test_ratios_have_limits_that_hold():
    rng, hits, both, n = np.random.default_rng(1), [], [], 60
    for _ in range(1500):
        shared = rng.normal(size=n)
        a, b = 1.5 + shared + rng.normal(size=n), 1.0 + shared
        found, apart = paired_ratio(a, b, of="records"), unpaired_ratio(a, 1.0 + rng.normal(size=n), of="models")
        hits.append(found.ci is not None and found.low <= 1.5 <= found.high)
        both.append(apart.ci is not None and apart.low <= 1.5 <= apart.high)
    for covered in (np.mean(hits), np.mean(both)):
        assert 0.935 <= covered <= 0.97
    assert paired_ratio([1.0, 2.0], [1.0, -1.0], of="records").value is None
    assert paired_ratio([1.0, 2.0], [3.0, -1.0], of="records").ci is None
    assert unpaired_ratio([2.0], [4.0], of="models").value == 0.5
    with pytest.raises(InvalidInput, match="as many"):
        paired_ratio([1.0], [1.0, 2.0], of="records")


def test_means_do_not_claim_what_they_cannot_know():
    assert mean_estimate([], of="models").value is None
    assert mean_estimate([0.3], of="models").ci is None
    assert mean_estimate([0.3, 0.3], of="models").ci is None
    wide = mean_estimate([0.0, 0.9], of="models", low=0.0, high=1.0)
    assert (wide.low, wide.high) == (0.0, 1.0)
    with pytest.raises(InvalidInput, match="finite"):
        mean_estimate([np.nan], of="models")


def test_js_divergence_and_activation_distance_are_their_definitions():
    own, others = drawn(seed=1), [drawn(seed=2), drawn(seed=3)]
    p = softmax(own.logits[:, 0])
    js, l1, l2 = [], [], []
    for other in others:
        q = softmax(other.logits[:, 0])
        for record in range(len(p)):
            m = (p[record] + q[record]) / 2
            kl = [sum(d[k] * np.log(d[k] / m[k]) for k in range(5)) for d in (p[record], q[record])]
            js.append(sum(kl) / 2)
            l1.append(sum(abs(p[record, k] - q[record, k]) for k in range(5)))
            l2.append(sum((p[record, k] - q[record, k]) ** 2 for k in range(5)) ** 0.5)
    assert js_divergence(own, others).value == pytest.approx(np.mean(js), rel=1e-9)
    assert activation_distance(own, others).value == pytest.approx(np.mean(l2), rel=1e-9)
    assert activation_distance(own, others, norm="l1").value == pytest.approx(np.mean(l1), rel=1e-9)
    assert js_divergence(own, [own]).value == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(InvalidInput, match="norm"):
        activation_distance(own, others, norm="l3")


def test_answers_that_saturate_a_softmax_have_finite_distances():
    sure, wrong = predicting([0, 1], [0, 1], sure=5000.0), predicting([1, 0], [0, 1], sure=5000.0)
    assert js_divergence(sure, [wrong]).value == pytest.approx(np.log(2))
    assert activation_distance(sure, [wrong]).value == pytest.approx(2**0.5)
    assert zrf(sure, [wrong]).value == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(zrf_as_published(sure, [wrong]).value)


def test_zrf_as_published_is_the_release_and_zrf_is_its_formula():
    own, untrained = drawn(seed=4), drawn(seed=5, scale=0.1)
    p, q = (torch.from_numpy(softmax(a.logits[:, 0])) for a in (own, untrained))
    m = (p + q) / 2
    # Their call averages over all elements, which torch now spells out only with "none".
    parts = [torch.nn.functional.kl_div(d.log(), m, reduction="none").mean() for d in (p, q)]
    release = 0.5 * parts[0] + 0.5 * parts[1]
    assert zrf_as_published(own, [untrained]).value == pytest.approx(1 - float(release), rel=1e-9)
    true = 1 - js_divergence(own, [untrained]).value / np.log(2)
    assert zrf(own, [untrained]).value == pytest.approx(true, rel=1e-9)
    # With many classes the published scale says 1 of answers that have nothing in common.
    sure = [predicting([place, place + 1], [0, 1], classes=100, sure=20.0) for place in (0, 50)]
    assert zrf(sure[0], sure[1:]).value < 0.01
    assert zrf_as_published(sure[0], sure[1:]).value > 0.8


def test_completeness_is_agreement():
    own = predicting([0, 1, 2, 3], [0, 0, 0, 0])
    others = [predicting([0, 1, 0, 0], [0] * 4), predicting([0, 1, 2, 0], [0] * 4)]
    one = completeness(own, others[:1])
    assert (one.k, one.n, one.ci) == (2, 4, clopper_pearson(2, 4))
    assert completeness(own, others).value == pytest.approx((2 + 3) / 8)
    assert between_each_other("completeness", others).value == pytest.approx(3 / 4)
    assert between_each_other("js_divergence", others[:1]).value is None
    with pytest.raises(InvalidInput, match="unknown"):
        between_each_other("distance", others)


def test_tug_of_war_is_the_product_and_has_a_floor():
    r = [{"forget": 0.9, "retain": 1.0, "test": 0.8}, {"forget": 0.8, "retain": 1.0, "test": 0.9}]
    value, floor = tug_of_war([{"forget": 0.5, "retain": 0.9, "test": 0.75}], r)
    assert value.value == pytest.approx((1 - 0.35) * (1 - 0.1) * (1 - 0.1))
    assert floor.value == pytest.approx(0.9 * 1.0 * 0.9)
    assert tug_of_war(r[:1], r[:1])[0].value == 1.0
    assert tug_of_war(r[:1], r[:1])[1].value is None


def test_adaptive_unlearning_score_for_records_and_classes():
    assert adaptive_unlearning_score(0.9, 0.85, 0.95) == pytest.approx((1 - 0.05) / (1 + 0.1))
    assert adaptive_unlearning_score(0.9, 0.85, 0.1, of_class=True) == pytest.approx((1 - 0.05) / 1.1)
    with pytest.raises(InvalidInput, match="test_after"):
        adaptive_unlearning_score(0.9, 85, 0.1)


def test_anamnesis_index_of_times():
    found = anamnesis_index([4, 6], [10, 10, 10])
    assert found.value == pytest.approx(0.5)
    assert anamnesis_index([20, 30], [10, 10]).value > 1
    capped = anamnesis_index([101, 50], [100, 50], cap=100)
    assert capped.value == pytest.approx(1.0)
    assert "1 of 2 models and 0 of 2 retrained ones" in capped.reason
    assert anamnesis_index([101], [101], cap=100).value is None
    assert "at once" in anamnesis_index([3.0], [0.0]).reason
    for wrong in ([], [-1.0], [np.nan]):
        with pytest.raises(InvalidInput, match="relearn times"):
            anamnesis_index(wrong, [1.0])


def test_what_is_no_logits_of_one_model_is_refused():
    own = drawn()
    p = answers(softmax(own.logits[:, 0]), own.labels)
    with pytest.raises(InvalidInput, match="probabilities"):
        js_divergence(own, [p])
    with pytest.raises(InvalidInput, match="probabilities"):
        ModelAnswers(
            p, answers(own.logits[:, 0], own.labels, start=100), answers(own.logits[:, 0], own.labels, start=200)
        )
    labels_only = answers(own.logits[:, 0], own.labels, labels_only=True)
    assert accuracy(labels_only).n == 40
    assert completeness(labels_only, [own]).n == 40
    with pytest.raises(MissingNeed, match="labels only"):
        js_divergence(labels_only, [own])
    with pytest.raises(InvalidInput, match="one order"):
        js_divergence(own, [answers(own.logits[:, 0], own.labels, start=1)])
    with pytest.raises(InvalidInput, match="one at least"):
        js_divergence(own, [])
    with pytest.raises(InvalidInput, match="of one model"):
        accuracy(Answers(own.ids, own.labels, own.logits[None]))


def world(wrong_on_forget, seed, *, forget_label=None, mia=None):
    """A model that is wrong on so many of 100 forget records, on none retained, and on 20 of 200 test records."""
    rng = np.random.default_rng(seed)

    def part(n, wrong, start, label=None):
        labels = np.random.default_rng(start).integers(0, 4, n) if label is None else np.full(n, label)
        predicted = np.where(np.arange(n) < wrong, (labels + 1) % 4, labels)
        logits = rng.normal(0, 0.3, (n, 4))
        logits[np.arange(n), predicted] += 4.0
        return answers(logits, labels, start=start)

    share = None if mia is None else rate(mia, 100)
    return ModelAnswers(
        part(100, wrong_on_forget, 0, forget_label), part(300, 0, 1000), part(200, 20 + seed, 2000), share
    )


def test_a_row_holds_every_metric_beside_the_value_to_reach():
    original, retrained = world(0, 0), [world(k, s) for s, k in ((1, 8), (2, 10), (3, 12))]
    incompetent = [drawn(100, 4, seed=9, scale=0.1)]
    row = unlearning_metrics(
        original,
        [world(10, 4), world(30, 5)],
        retrained,
        incompetent=incompetent,
        relearn=([5, 6], [9, 11, 10]),
        seconds=([60, 120], [600, 600, 600]),
    )
    assert row.ua.after.value == pytest.approx(0.2)
    assert (row.ua.after.k, row.ua.after.n) == (40, 200)
    assert row.ua.retrained.value == pytest.approx(0.1)
    assert row.ra.after.value == 1.0
    assert row.gap_of == ("ua", "ra", "ta")
    tests = np.array([24 / 200, 25 / 200]) - np.mean([21, 22, 23]) / 200
    assert row.gap.printed == pytest.approx(100 * (0.1 + 0 + abs(tests.mean())) / 3)
    assert row.forgetting_rate.value == pytest.approx(2.0)
    assert row.retention_rate.value == 1.0
    assert row.ain.value == pytest.approx(0.55)
    assert row.minutes.value == pytest.approx(1.5)
    assert row.cost.value == pytest.approx(0.15)
    assert row.mia.after.value is None
    assert row.js.after.value > row.js.retrained.value > 0
    assert row.zrf.after.value == pytest.approx(row.zrf.retrained.value, abs=0.05)
    assert (row.unlearned_models, row.retrained_models) == (2, 3)
    written = json.loads(json.dumps(row.as_json(), allow_nan=False))
    assert written["ua"]["after"]["k"] == 40
    assert written["gap"]["signed"]["ua"] == pytest.approx(10.0)
    assert written["mia"]["after"] == {
        "value": None,
        "ci": None,
        "k": None,
        "n": 2,
        "reason": written["mia"]["after"]["reason"],
    }


def test_a_row_of_doing_nothing_and_of_retraining():
    original, retrained = world(0, 0), [world(k, s) for s, k in ((1, 8), (2, 10), (3, 12))]
    nothing = unlearning_metrics(original, [original], retrained)
    assert nothing.forgetting_rate.value == 0.0
    assert nothing.retention_rate.value == 1.0
    assert nothing.zrf.after.value is None
    assert nothing.zrf.after.reason
    assert nothing.ua.after.ci == clopper_pearson(0, 100)
    assert nothing.tow.after.value < nothing.tow.retrained.value
    perfect = unlearning_metrics(original, [world(10, 2)], retrained)
    assert perfect.forgetting_rate.value == pytest.approx(1.0)
    assert perfect.gap.excess.value < nothing.gap.excess.value
    assert perfect.gap.excess.value <= 0.1


def test_a_row_of_a_class_leaves_it_out_of_the_test_set():
    sides = [[world(k, s, forget_label=2, mia=m)] for k, s, m in ((0, 0, None), (90, 1, 95), (100, 2, 100))]
    row = unlearning_metrics(sides[0][0], sides[1], sides[2], forgotten_class=2)
    kept = sides[1][0].test.labels != 2
    assert row.ta.after.n == kept.sum() < 200
    assert row.gap_of == ("ua", "ra", "ta", "mia")
    assert row.gap.signed["mia"] == pytest.approx(-5.0)
    assert row.mia.after == rate(95, 100)
    before = accuracy(sides[0][0].test, without=2).value
    assert row.aus.after.value == pytest.approx((1 - (before - row.ta.after.value)) / (1 + 0.1))
    with pytest.raises(InvalidInput, match="forgotten_class=1"):
        unlearning_metrics(sides[0][0], sides[1], sides[2], forgotten_class=1)


def test_rows_of_models_that_do_not_fit_are_refused():
    original = world(0, 0)
    with pytest.raises(InvalidInput, match="one of each"):
        unlearning_metrics(original, [], [original])
    swapped = ModelAnswers(original.forget, original.test, original.retain)
    with pytest.raises(InvalidInput, match="retain: all models must answer"):
        unlearning_metrics(original, [swapped], [original])
    with pytest.raises(InvalidInput, match="both audited and retain|shares|both"):
        ModelAnswers(original.forget, original.forget, original.test)
    with pytest.raises(InvalidInput, match="mia"):
        ModelAnswers(original.forget, original.retain, original.test, Estimate(95.0))
