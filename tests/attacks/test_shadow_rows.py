"""Training rows of learned attackers: what they hold, the cap, and an order that depends on content alone."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks.posteriors import posteriors, top_posteriors
from mnemoscope.attacks.shadow_rows import canonical_models, quotas, shadow_rows
from mnemoscope.audit.answers.views import Answers, Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet


def rng(seed=0):
    return np.random.default_rng(seed)


def margin(view):
    return view.signal("margin")


def test_rows_are_the_pairs_on_a_side_and_no_others():
    fleet = toy_fleet(2.0)
    rows = shadow_rows(fleet, posteriors, rng=rng())
    assert rows.member.size == (fleet.side != Side.LEAVE_OUT).sum()
    at = fleet.positions(rows.ids)
    np.testing.assert_array_equal(rows.member, fleet.side[rows.model, at] == Side.IN)
    np.testing.assert_array_equal(rows.labels, fleet.labels[at])
    assert len(set(zip(rows.ids.tolist(), rows.model.tolist(), strict=True))) == rows.ids.size
    z = fleet.logits[rows.model, at, 0].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows.features, p, atol=1e-14)


def test_signals_already_computed_are_the_ones_of_the_rows():
    fleet = toy_fleet(2.0, n_queries=2)
    fresh = shadow_rows(fleet, margin, rng=rng())
    fleet.signal("margin")
    np.testing.assert_array_equal(shadow_rows(fleet, margin, rng=rng()).features, fresh.features)
    assert fresh.features.shape[1] == 2


def test_a_cap_shares_rows_evenly_over_models_and_sides():
    fleet = toy_fleet(2.0)
    rows = shadow_rows(fleet, posteriors, cap=181, rng=rng())
    assert rows.member.sum() == (~rows.member).sum() == 90
    for side in (True, False):
        counts = np.bincount(rows.model[rows.member == side], minlength=fleet.n_models)
        assert counts.min() == counts.max() == 5
    again = shadow_rows(fleet, posteriors, cap=181, rng=rng())
    np.testing.assert_array_equal(again.features, rows.features)
    other = shadow_rows(fleet, posteriors, cap=181, rng=rng(1))
    assert not np.array_equal(other.ids, rows.ids)


def test_quotas_share_what_is_there():
    assert quotas(np.array([3, 0, 2]), 5, rng=rng()).tolist() == [3, 0, 2]
    assert quotas(np.array([3, 0, 9]), 8, rng=rng()).tolist() == [3, 0, 5]
    for seed in range(200):
        draw = rng(seed)
        available = draw.integers(0, 20, 7)
        budget = int(draw.integers(1, 80))
        share = quotas(available, budget, rng=draw)
        assert (share <= available).all()
        assert share.sum() == min(budget, available.sum())
        held_back = share < available  # none of these may have got less than another one, by more than a row
        assert not held_back.any() or share[held_back].min() >= share.max() - 1


@pytest.mark.parametrize("cap", [None, 200])
def test_rows_do_not_depend_on_the_order_of_models_or_records(cap):
    fleet = toy_fleet(2.0)
    models, records = rng(1).permutation(fleet.n_models), rng(2).permutation(fleet.n_records)
    moved = dataclasses.replace(
        fleet.select(models),
        ids=fleet.ids[records],
        labels=fleet.labels[records],
        logits=fleet.logits[models][:, records],
        side=fleet.side[models][:, records],
        before=None,
        _signals={},
    )
    plain = shadow_rows(fleet, posteriors, cap=cap, rng=rng())
    other = shadow_rows(moved, posteriors, cap=cap, rng=rng())
    np.testing.assert_array_equal(other.features, plain.features)
    np.testing.assert_array_equal(other.member, plain.member)
    np.testing.assert_array_equal(models[other.model], plain.model)
    np.testing.assert_array_equal(models[canonical_models(moved)], canonical_models(fleet))


def test_the_answers_before_deletion_belong_to_the_same_record_and_model():
    fleet = toy_fleet(2.0)
    before = fleet.before
    order = rng(3).permutation(fleet.n_records)
    shuffled = dataclasses.replace(
        before, ids=before.ids[order], labels=before.labels[order], logits=before.logits[:, order],
        side=before.side[:, order], _signals={},
    )  # fmt: skip
    rows = shadow_rows(
        dataclasses.replace(fleet, before=shuffled),
        lambda view: np.hstack([view.signal("margin"), view.before.signal("margin")]),
        cap=100,
        rng=rng(),
    )
    at = fleet.positions(rows.ids)
    np.testing.assert_array_equal(rows.features[:, 0], fleet.signal("margin")[rows.model, at, 0])
    np.testing.assert_array_equal(rows.features[:, 1], before.signal("margin")[rows.model, at, 0])


def test_models_alike_after_deletion_are_told_apart_by_what_they_were_before():
    fleet = toy_fleet(2.0)
    same = dataclasses.replace(
        fleet, logits=np.broadcast_to(fleet.logits[:1], fleet.logits.shape), side=np.tile(fleet.side[:1], (18, 1))
    )
    back = np.arange(18)[::-1]
    np.testing.assert_array_equal(back[canonical_models(same.select(back))], canonical_models(same))


def test_one_side_alone_or_a_bad_feature_is_refused():
    fleet = toy_fleet(2.0)
    with pytest.raises(MissingNeed, match="lies on side OUT"):
        shadow_rows(fleet.with_side(np.where(fleet.side == 0, -1, fleet.side).astype(np.int8)), margin, rng=rng())
    with pytest.raises(InvalidInput, match="features must be finite"):
        shadow_rows(fleet, lambda view: margin(view)[:-1], rng=rng())
    with pytest.raises(InvalidInput, match="features must be finite"):
        shadow_rows(fleet, lambda view: margin(view) * np.nan, rng=rng())
    with pytest.raises(InvalidInput, match="cap=1"):
        shadow_rows(fleet, margin, cap=1, rng=rng())


def test_output_vectors_do_not_saturate_and_average_the_queries():
    ids = np.arange(2)
    one = np.array([[60.0, 1.0, -3.0], [0.0, 0.0, np.log(2.0)]])
    both = np.stack([one, one[:, ::-1]], axis=1)
    p = posteriors(Answers(ids, ids, both))
    np.testing.assert_allclose(p[1], [0.375, 0.25, 0.375])
    logp = posteriors(Answers(ids, ids, one[:, None]), "log")
    assert -1e-25 < logp[0, 0] < 0.0
    assert logp[0, 1] == pytest.approx(-59.0)
    np.testing.assert_allclose(top_posteriors(Answers(ids, ids, one[:, None]))[1], [0.5, 0.25, 0.25])
    two = Answers(ids, ids, one[:, None, :2])
    assert top_posteriors(two)[:, 2].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(top_posteriors(two, scale="log")[:, 2], top_posteriors(two, scale="log")[:, 1])
    with pytest.raises(InvalidInput, match="scale='square' is unknown; allowed: probability, log"):
        posteriors(two, "square")
    with pytest.raises(InvalidInput, match="one model at a time"):
        posteriors(Answers(ids, ids, np.zeros((3, 2, 1, 2))))


def test_blocks_change_nothing(monkeypatch):
    answers = toy_fleet(1.0, n_queries=2).target(0)
    whole = posteriors(answers)
    monkeypatch.setattr("mnemoscope.attacks.posteriors.BLOCK_VALUES", 30)
    np.testing.assert_array_equal(posteriors(answers), whole)
