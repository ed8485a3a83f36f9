"""Difficulty calibration, the offset attack, Attack-S and Attack-R: slow twins, ties, thresholds, the known world."""

import numpy as np
import pytest

from mnemoscope.attacks.difficulty import Difficulty
from mnemoscope.attacks.lira import LiRA
from mnemoscope.attacks.population import Population
from mnemoscope.attacks.sablayrolles import Sablayrolles
from mnemoscope.attacks.ye import AttackR, AttackS
from mnemoscope.audit.answers.protocols import decision_threshold, fleet_thresholds
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.testing import toy_fleet

RNG = np.random.default_rng(0)


def of_loss(loss):
    """Two-class logits whose cross-entropy on class 0 is the given loss, exact for losses from 1e-300 to 700."""
    loss = np.asarray(loss, np.float64)
    with np.errstate(divide="ignore"):
        other = np.log(np.expm1(np.minimum(loss, 500.0)))
    return np.stack([np.where(loss > 500, -loss, np.where(loss > 0, -other, 800.0)), np.zeros_like(loss)], -1)[
        ..., None, :
    ]


def reference_of(loss, side):
    n = np.shape(loss)[1]
    return Reference(np.arange(n), np.zeros(n, np.int64), of_loss(loss), side=side)


def view_of(loss):
    n = np.size(loss)
    return View(np.arange(n), np.zeros(n, np.int64), of_loss(loss))


def auc(score, member):
    inside, outside = score[member], score[~member]
    return float((inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2)


def balanced(m, n, ins, outs, rng):
    column = np.repeat(np.array([1, 0, -1], np.int8), [ins, outs, m - ins - outs])
    return rng.permuted(np.tile(column[:, None], (1, n)), axis=0)


def test_difficulty_and_offset_by_hand():
    loss = np.array([[2.0, 0.5], [1.0, 0.3], [0.2, 0.1], [0.4, 40.0]])
    side = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], np.int8)
    view = view_of(np.array([0.6, 0.2]))
    difficulty = Difficulty().fit(reference_of(loss, side), rng=RNG).score(view)
    np.testing.assert_allclose(difficulty, [1.5 - 0.6, 0.4 - 0.2], rtol=1e-9)
    offset = Sablayrolles().fit(reference_of(loss, side), rng=RNG).score(view)
    # The loss of 40 counts 30.
    np.testing.assert_allclose(offset, [(1.5 + 0.3) / 2 - 0.6, (0.4 + (0.1 + 30) / 2) / 2 - 0.2], rtol=1e-9)


@pytest.mark.parametrize("attack", [Difficulty(), Sablayrolles(), Difficulty(signal="margin")])
def test_closed_form_equals_a_loop(attack):
    rng = np.random.default_rng(1)
    side, loss = balanced(12, 20, 5, 4, rng), rng.gamma(0.5, 2.0, (12, 20))
    reference = reference_of(loss, side)
    phi = np.clip(reference.signal(attack.signal)[..., 0], -30, 30)
    closed = attack.score_fleet(reference, rng=rng)
    for k in range(12):
        for j in range(20):
            others = np.arange(12) != k
            out, inside = (phi[others & (side[:, j] == s), j].mean() for s in (0, 1))
            expected = phi[k, j] - ((out + inside) / 2 if attack.name == "sablayrolles" else out)
            assert closed[k, j] == pytest.approx(expected, rel=1e-9)


def test_the_offset_attack_orders_as_lira_does_with_one_variance_and_one_gap():
    """In a world with the same gap and spread for all records, both are the same test up to a positive factor."""
    rng = np.random.default_rng(2)
    n, m = 200, 60
    side = balanced(m, n, 30, 30, rng)
    phi = rng.normal(3, 2, n) + 2.0 * side + 0.01 * rng.normal(size=(m, n))
    logits = np.stack([phi, np.zeros_like(phi)], -1)[..., None, :]
    reference = Reference(np.arange(n), np.zeros(n, np.int64), logits, side=side)
    rest = reference.without([0])
    x = reference.target(0)
    ours = Sablayrolles(signal="margin").fit(rest, rng=rng).score(x)
    lira = LiRA(variance="shared").fit(rest, rng=rng).score(x)
    np.testing.assert_array_equal(ours > 0, side[0] == 1)
    np.testing.assert_array_equal(lira > 0, ours > 0)


def test_one_capped_reference_does_not_decide_the_mean():
    rng = np.random.default_rng(3)
    n = 2000
    base = rng.gamma(1.0, 1.0, n)
    loss = base + 0.2 * rng.random((4, n))
    loss[0, rng.random(n) < 0.05] = 400.0
    member = rng.random(n) < 0.5
    target = view_of(np.maximum(base + 0.2 * rng.random(n) - 0.15 * member, 1e-6))
    reference = reference_of(loss, np.zeros((4, n), np.int8))
    capped, open_ = (Difficulty(limit=c).fit(reference, rng=rng).score(target) for c in (5.0, 1e6))
    assert capped.max() < 5
    assert auc(capped, member) >= auc(open_, member) - 1e-3
    outside = ~member
    assert np.quantile(open_[outside], 0.99) > 20 > np.quantile(capped[outside], 0.99)


def smoothed(loss, known):
    """The release's cumulative distribution: sentinels 0 and 1000, straight lines, no ties."""
    points = np.concatenate([[0.0], np.sort(known), [1000.0]])
    return np.interp(loss, points, np.arange(points.size) / (points.size - 1.0))


FEWEST = 5


def test_attack_r_is_the_releases_interpolation():
    rng = np.random.default_rng(4)
    side, loss = balanced(14, 30, 5, 6, rng), rng.gamma(0.4, 2.0, (14, 30))
    reference = reference_of(loss, side)
    exact = -reference.signal("negative_loss")[..., 0]
    given_up: dict[int, set[float]] = {}
    closed = AttackR().score_fleet(reference, rng=rng)
    single = AttackR().fit(reference.without([3]), rng=rng).score(reference.target(3))
    for k in range(14):
        others = np.arange(14) != k
        for j in range(30):
            known = exact[others & (side[:, j] == 0), j]
            # A record with one reference more than the target's others gives one up: five are left in every case.
            few = [known] if known.size == FEWEST else [np.delete(known, at) for at in range(known.size)]
            assert all(part.size == FEWEST for part in few)
            expected = [-smoothed(exact[k, j], part) for part in few]
            fits = np.abs(np.array(expected) - closed[k, j]) < 1e-12
            assert fits.any()
            if len(few) > 1:
                given_up[j] = given_up.get(j, set(known)) & set(known[fits])
            if k == 3:
                assert single[j] == pytest.approx(closed[k, j], abs=1e-12)
    # Which one depends on the losses alone: one and the same explains the scores of every target.
    assert all(given_up.values())
    assert min(len(which) for which in given_up.values()) == 1
    # The release decides "in" where the loss is below the linear alpha quantile: the same decision.
    for alpha in (0.1, 0.37):
        for j in range(30):
            known = exact[4:, j][side[4:, j] == 0]
            level = np.quantile(np.concatenate([[0.0], known, [1000.0]]), alpha)
            assert (smoothed(exact[0, j], known) <= alpha) == (exact[0, j] <= level)


def test_attack_r_counts_ties_half_and_orders_the_best_fitted_records():
    known = np.array([[0.0, 0.0, 1.0, 1.0, 1.0, 3.0]]).T * np.ones((1, 5))
    reference = reference_of(known, np.zeros((6, 5), np.int8))
    exact = -reference.signal("negative_loss")[:, 0, 0]
    np.testing.assert_allclose(exact, known[:, 0], atol=1e-12)
    view = view_of(np.array([0.0, 1.0, 2.0, 3.0, 1e4]))
    # 0: block of places 0, 1, 2. 1: places 3, 4, 5. 2: half-way from 5 to 6. 3: 6. Beyond 1000: the last, 7.
    np.testing.assert_allclose(
        AttackR().fit(reference, rng=RNG).score(view), -np.array([1.0, 4.0, 5.5, 6.0, 7.0]) / 7, atol=1e-9
    )
    tiny = view_of(np.array([1e-250, 1e-200, 1e-30, 1e-17, 1e-16]))
    known = reference_of(np.ones((6, 5)), np.zeros((6, 5), np.int8))
    score = AttackR().fit(known, rng=RNG).score(tiny)
    assert (np.diff(score) < 0).all()
    assert np.unique(1.0 + score).size < 5  # one minus the share ties them


def test_attack_r_leaves_itself_out_also_where_losses_are_tied():
    rng = np.random.default_rng(5)
    side = balanced(12, 40, 5, 6, rng)
    loss = rng.integers(0, 4, (12, 40)).astype(np.float64)
    reference = reference_of(loss, side)
    closed = AttackR().score_fleet(reference, rng=rng)
    for k in range(12):
        single = AttackR().fit(reference.without([k]), rng=rng).score(reference.target(k))
        np.testing.assert_allclose(closed[k], single, atol=1e-12)


def test_attack_s_ranks_as_the_loss_and_holds_its_rate_on_other_models():
    fleet = toy_fleet(1.0, n_models=12, n_records=3000, seed=6)
    for alpha in (0.05, 0.2):
        attack = AttackS(fpr=alpha)
        np.testing.assert_array_equal(attack.score_fleet(fleet, rng=RNG), fleet.signal("negative_loss").mean(axis=-1))
        thresholds = fleet_thresholds(attack, fleet, rng=RNG)
        out = fleet.side == 0
        realised = (attack.score_fleet(fleet, rng=RNG) >= thresholds[:, None])[out].mean()
        assert abs(realised - alpha) < 0.01
    tied = fleet.without([])
    constant = Reference(tied.ids, tied.labels, np.zeros_like(tied.logits), side=tied.side)
    scorer = AttackS().fit(constant, rng=RNG)
    threshold = decision_threshold(scorer)
    assert (scorer.score(constant.target(0)) >= threshold).sum() == 0


def test_the_record_beats_the_model_beats_nothing():
    """Ye et al.'s order: a threshold that knows the record is the stronger one where records differ in difficulty."""
    rng = np.random.default_rng(7)
    n, k = 4000, 16
    hard = np.exp(rng.normal(-1, 1.5, n))
    loss = hard * rng.gamma(4.0, 0.25, (k, n))
    member = rng.random(n) < 0.5
    target = hard * np.where(member, 0.5, 1.0) * rng.gamma(4.0, 0.25, n)
    z = np.exp(rng.normal(-1, 1.5, 1000)) * rng.gamma(4.0, 0.25, 1000)
    population = View(np.arange(1000) + 10_000, np.zeros(1000, np.int64), of_loss(z))
    view = View(np.arange(n), np.zeros(n, np.int64), of_loss(target), population=population)
    reference = reference_of(loss, np.zeros((k, n), np.int8))
    r, s, p, d = (
        auc(attack.fit(reference, rng=rng).score(view), member)
        for attack in (AttackR(), AttackS(), Population(), Difficulty())
    )
    assert r > 0.75 > 0.65 > max(s, p) > 0.55
    assert abs(s - p) < 0.01
    assert d > max(s, p)


@pytest.mark.parametrize("make", [lambda: AttackS(fpr=0.0), lambda: Difficulty(limit=0), lambda: Sablayrolles("loss")])
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidInput, match="fpr|limit|signal"):
        make()
