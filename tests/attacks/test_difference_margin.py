"""The difference of margins: a textbook twin, a world in closed form, and what calibration is worth."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from mnemoscope.attacks.difference_margin import DifferenceMargin, DifferenceMarginAlone, difference_signal
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet

ALL = (
    DifferenceMargin(),
    DifferenceMargin(online=False),
    DifferenceMarginAlone(),
    DifferenceMarginAlone(by_class=True),
)


def rng(seed=0):
    return np.random.default_rng(seed)


def logits_of(margin):
    """Two classes, label 0: the margin is the first logit."""
    return np.stack([margin, np.zeros_like(margin)], axis=-1)[..., None, :].astype(np.float32)


def pooled_auc(scores, side):
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def gaussian_world(models, records, *, gap=1.5, spread=1.0, seed=0):
    """Margins before are N(6, 2) by record; the difference is N(centre, spread), higher by ``gap`` where deleted."""
    draw = rng(seed)
    half = np.repeat(np.array([1, 0], np.int8), models // 2)[:, None]
    side = draw.permuted(np.tile(half, (1, records)), axis=0)
    before = draw.normal(6.0, 2.0, records) + draw.normal(0.0, 1.0, (models, records))
    change = draw.normal(0.0, 1.0, records) + spread * (gap * side + draw.normal(0.0, 1.0, (models, records)))
    ids, labels = np.arange(records) + 7, np.zeros(records, np.int64)
    fold = (np.arange(models) % 2).astype(np.int8)
    earlier = Reference(ids, labels, logits_of(before), side=side, fold=fold)
    return Reference(ids, labels, logits_of(before - change), side=side, fold=fold, before=earlier)


def test_known_answer_against_a_loop_over_records():
    reference = gaussian_world(20, 30)
    attack = DifferenceMargin(variance="per-record")
    others, target = reference.without([0]), reference.target(0)
    mine = score_target(attack, others, target, rng=rng())
    d = others.before.logits[:, :, 0, 0].astype(float) - others.logits[:, :, 0, 0].astype(float)
    x = target.before.logits[:, 0, 0].astype(float) - target.logits[:, 0, 0].astype(float)
    for j in range(30):
        inside, outside = d[others.side[:, j] == 1, j], d[others.side[:, j] == 0, j]
        expected = norm.logpdf(x[j], inside.mean(), inside.std(ddof=1)) - norm.logpdf(
            x[j], outside.mean(), outside.std(ddof=1)
        )
        assert mine[j] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    fleet = score_fleet(attack, reference, rng=rng())
    assert fleet[0] == pytest.approx(mine, rel=1e-9, abs=1e-9)


def test_offline_is_the_distance_from_pairs_in_which_the_record_was_not_deleted():
    reference = gaussian_world(20, 30)
    attack = DifferenceMargin(online=False, variance="per-record")
    mine = score_fleet(attack, reference, rng=rng())
    d = reference.before.logits[:, :, 0, 0].astype(float) - reference.logits[:, :, 0, 0].astype(float)
    for k in (0, 7):
        for j in range(30):
            others = np.delete(d[:, j], k)[np.delete(reference.side[:, j], k) == 0]
            expected = (d[k, j] - others.mean()) / others.std(ddof=1)
            assert mine[k, j] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_auc_of_a_world_in_closed_form():
    """Both sides normal with one variance: AUC = Phi(gap / (sd sqrt 2)), less what 128 models leave unknown."""
    for gap in (0.0, 1.0, 2.0):
        reference = gaussian_world(128, 300, gap=gap)
        found = pooled_auc(score_fleet(DifferenceMargin(), reference, rng=rng()), reference.side)
        assert found == pytest.approx(norm.cdf(gap / np.sqrt(2)), abs=0.01)


def test_margins_do_not_saturate():
    """Logits of 40 and 50 are one posterior in float64 and a difference of ten margins here."""
    ids, labels = np.arange(2), np.zeros(2, np.int64)
    before = View(ids, labels, logits_of(np.array([50.0, 45.0])))
    after = View(ids, labels, logits_of(np.array([40.0, 45.0])), before=before)
    assert difference_signal(after)[:, 0] == pytest.approx([10.0, 0.0])
    assert DifferenceMarginAlone().score(after) == pytest.approx([10.0, 0.0])


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_one_version_twice_scores_one_half_exactly(attack):
    reference = toy_fleet(4.0)
    same = dataclasses.replace(reference.before, before=reference.before)
    scores = score_fleet(attack, same, rng=rng())
    assert pooled_auc(scores, reference.side) == 0.5


def test_calibration_finds_quiet_records_among_noisy_ones():
    """Deletion moves all margins alike; in half the records retraining noise is twenty times that of the others."""
    spread = np.where(np.arange(300) % 2, 20.0, 1.0)
    reference = gaussian_world(64, 300, gap=2.0 / spread, spread=spread)

    def hits(attack):
        scores = score_fleet(attack, reference, rng=rng())
        return float((scores[reference.side == 1] > np.quantile(scores[reference.side == 0], 0.99)).mean())

    assert hits(DifferenceMargin(variance="per-record")) > 0.15  # half of the quiet ones at 2 % of theirs: 0.24
    assert hits(DifferenceMarginAlone()) < 0.03


def test_by_class_is_standardised_by_hand_counted_medians():
    ids, labels = np.arange(6), np.array([0, 0, 0, 1, 1, 1])
    change = np.array([1.0, 2.0, 6.0, -3.0, 0.0, 3.0])
    z = np.zeros((6, 1, 3), np.float32)

    def at(margins):
        logits = z.copy()
        logits[np.arange(6), 0, labels] = margins
        return logits

    before = View(ids, labels, at(change))
    after = View(ids, labels, at(np.zeros(6)), before=before)
    score = DifferenceMarginAlone(by_class=True, least=3).score(after)
    # medians 2 and 0; absolute deviations (1, 0, 4) and (3, 0, 3)
    spread = 1.4826 * np.repeat([1.0, 3.0], 3)
    assert score == pytest.approx(np.array([-1.0, 0.0, 4.0, -3.0, 0.0, 3.0]) / spread)
    overall = DifferenceMarginAlone(by_class=True, least=4).score(after)
    middle, deviation = np.median(change), np.median(np.abs(change - np.median(change)))
    assert overall == pytest.approx((change - middle) / (1.4826 * deviation))


def test_answers_before_are_matched_by_id():
    reference = toy_fleet(4.0)
    order = rng(3).permutation(reference.n_records)
    old = reference.before
    moved = dataclasses.replace(
        old,
        ids=old.ids[order],
        labels=old.labels[order],
        logits=old.logits[:, order],
        side=old.side[:, order],
        _signals={},
    )
    for attack in ALL:
        plain = score_fleet(attack, reference, rng=rng())
        assert score_fleet(attack, dataclasses.replace(reference, before=moved), rng=rng()) == pytest.approx(plain)


def test_bad_input_is_named():
    with pytest.raises(InvalidInput, match="variance='pooled'"):
        DifferenceMargin(variance="pooled")
    for kind in (DifferenceMargin, DifferenceMarginAlone):
        with pytest.raises(InvalidInput, match="signal='logit' is unknown"):
            kind(signal="logit")
    with pytest.raises(InvalidInput, match="least=1"):
        DifferenceMarginAlone(least=1)
    reference = toy_fleet(2.0)
    for attack in ALL:
        with pytest.raises(MissingNeed, match="before deletion"):
            score_fleet(attack, dataclasses.replace(reference, before=None), rng=rng())
