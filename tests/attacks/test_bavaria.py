"""BaVarIA: the reference's vectors, a slow twin with scipy's densities, the null at few models, bad input."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm, t

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.bavaria import BaVarIA
from mnemoscope.attacks.moments import evened_counts
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed

RNG = np.random.default_rng(0)


def two_class(phi):
    """Logits whose margin is phi: classes (phi, 0), label 0."""
    return np.stack([phi, np.zeros_like(phi)], axis=-1)[..., None, :]


def reference_of(phi, side):
    n = phi.shape[1]
    return Reference(np.arange(n) + 10, np.zeros(n, np.int64), two_class(phi), side=side)


def view_of(phi):
    return View(np.arange(phi.size) + 10, np.zeros(phi.size, np.int64), two_class(phi))


def balanced(m, n, k, rng):
    column = np.repeat(np.array([1, 0, -1], np.int8), [k, k, m - 2 * k])
    return rng.permuted(np.tile(column[:, None], (1, n)), axis=0)


def fleet_auc(scores, side):
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    twice = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(twice.mean() / (2 * outside.size))


PHI = np.array([[3.0, 5, -1, 0], [6, 4, 2, 1], [1, 2, 0, -2]]).T
SIDE = np.array([1, 1, 0, 0], np.int8)[:, None] * np.ones((1, 3), np.int8)
VECTORS = {
    "bavaria_n": (4.715926, -0.286504, -0.897177),
    "bavaria_n_offline": (4.830996, 0.334212, -3.457343),
    "bavaria_t": (4.924761, 0.700514, -2.280348),
    "bavaria_t_offline": (4.612908, 1.038317, -2.879495),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_reference(name):
    scores = ATTACKS[name]().fit(reference_of(PHI, SIDE), rng=RNG).score(view_of(np.array([4.0, 3.0, -1.0])))
    np.testing.assert_allclose(scores, VECTORS[name], atol=6e-7)


def test_the_intermediate_values_of_the_reference():
    inside, outside = BaVarIA("t").fit(reference_of(PHI, SIDE), rng=RNG).densities[0]
    assert inside.location[0] == pytest.approx(3.833333, abs=1e-6)
    assert inside.scale2[0] == pytest.approx(16 / 9)
    assert inside.degrees[0] == 6
    assert outside.location[0] == pytest.approx(-1 / 3)
    gauss = BaVarIA("n").fit(reference_of(PHI, SIDE), rng=RNG).densities[0][0]
    assert (gauss.location[0], gauss.scale2[0]) == pytest.approx((4.0, 4.0))


def slow(phi, side, x, form, online):
    """Record by record with the published formulas and scipy's densities; counts as they are."""
    alpha0, prior = {"n": 1.0, "t": 2.0}[form], {}
    for s in (1, 0):
        values = phi[side == s]
        prior[s] = values.mean(), values.var()
    scores = np.empty(x.size)
    for j in range(x.size):
        log = {}
        for s in (1, 0):
            mu0, v = prior[s]
            own = phi[side[:, j] == s, j] if online or s == 0 else np.empty(0)
            k, m = own.size, own.mean() if own.size else mu0
            kappa, alpha = 1 + k, alpha0 + k / 2
            beta = v + ((own - m) ** 2).sum() / 2 + k * (m - mu0) ** 2 / (2 * kappa)
            if form == "n":
                log[s] = norm.logpdf(x[j], m, np.sqrt(beta / (alpha - 1) if alpha > 1 else beta))
            else:
                scale = np.sqrt(beta * (kappa + 1) / (alpha * kappa))
                log[s] = t.logpdf(x[j], 2 * alpha, (mu0 + k * m) / kappa, scale)
        scores[j] = log[1] - log[0]
    return scores


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("form", ["n", "t"])
def test_equals_its_slow_twin_where_counts_are_equal_or_ragged(form, online):
    rng = np.random.default_rng(1)
    even = balanced(12, 9, 5, rng)
    ragged = even.copy()
    ragged[:, ::2] = np.array([1] * 3 + [0] * 9, np.int8)[:, None]
    ragged[:, 1::2] = np.array([1] * 10 + [0] * 2, np.int8)[:, None]
    for side in (even, ragged):
        phi = rng.normal(3, 2, 9) + side + rng.normal(size=(12, 9))
        x = rng.normal(3, 1, 9)
        ours = BaVarIA(form, online).fit(reference_of(phi, side), rng=rng).score(view_of(x))
        np.testing.assert_allclose(ours, slow(phi, side, x, form, online), atol=1e-10)


def test_a_record_without_models_on_a_side_has_the_prior():
    rng = np.random.default_rng(2)
    side = balanced(12, 9, 5, rng)
    side[:, 4] = -1
    side[:, 5] = np.where(side[:, 5] == 1, -1, side[:, 5])
    phi, x = rng.normal(3, 2, (12, 9)), rng.normal(3, 2, 9)
    for form in ("n", "t"):
        ours = BaVarIA(form).fit(reference_of(phi, side), rng=rng).score(view_of(x))
        np.testing.assert_allclose(ours[[4, 5]], slow(phi, side, x, form, True)[[4, 5]], atol=1e-10)
        fleet = BaVarIA(form).score_fleet(reference_of(phi, side), rng=rng)
        assert np.isfinite(fleet).all()


def test_leaving_a_model_out_takes_it_from_the_prior_too():
    """Down-dated sums equal a refit; a prior that keeps the target does not."""
    rng = np.random.default_rng(3)
    side = balanced(9, 4, 3, rng)
    phi = rng.normal(3, 2, 4) + 2.0 * side + rng.normal(size=(9, 4))
    phi[0] += 20.0
    attack, reference = BaVarIA("n"), reference_of(phi, side)
    closed = attack.score_fleet(reference, rng=rng)
    for k in range(9):
        refit = attack.fit(reference.without([k]), rng=rng).score(reference.target(k))
        np.testing.assert_allclose(closed[k], refit, rtol=1e-9, atol=1e-9)
    whole = attack.fit(reference, rng=rng).score(reference.target(0))
    assert np.abs(whole - closed[0]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("k", [3, 6])
def test_few_models_betray_nothing_where_nothing_leaks(name, k):
    """The published variances fall with the count, and the count of a left-out target's side is one less."""
    aucs, naive = [], []
    for seed in range(6):
        rng = np.random.default_rng([k, seed])
        side = balanced(3 * k, 400, k, rng)
        phi = rng.normal(4, 3, 400) + np.exp(rng.normal(0, 0.35, 400)) * rng.normal(size=(3 * k, 400))
        reference = reference_of(phi, side)
        aucs.append(fleet_auc(score_fleet(ATTACKS[name](), reference, rng=rng), side))
        if name == "bavaria_n":
            few, target = reference.without([0]), phi[0]
            naive.append(fleet_auc(slow(phi[1:], few.side, target, "n", True)[None], side[:1]))
    assert abs(np.mean(aucs) - 0.5) < 0.015
    if naive:
        assert np.mean(naive) < 0.35, "the published formula alone names the side of the left-out target"


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize(("ins", "outs"), [(2, 2), (2, 6)])
def test_two_models_a_side_betray_nothing_where_nothing_leaks(name, ins, outs):
    """One model has no spread and two have one: whichever is left after the target must not be told by its width."""
    aucs = []
    for seed in range(3):
        rng = np.random.default_rng([ins, outs, seed])
        column = np.repeat(np.array([1, 0], np.int8), [ins, outs])
        side = rng.permuted(np.tile(column[:, None], (1, 2000)), axis=0)
        phi = rng.normal(2, 2, 2000) + np.exp(rng.normal(0, 0.35, 2000)) * rng.normal(size=side.shape)
        aucs.append(fleet_auc(score_fleet(ATTACKS[name](), reference_of(phi, side), rng=rng), side))
    # The variance of one model's mean around the prior is left: a little below one half, never a leak out of nothing.
    assert 0.475 < np.mean(aucs) < 0.515, aucs


def test_counts_are_evened_only_where_a_left_out_target_made_them_unequal():
    inside, outside = evened_counts(np.array([5.0, 6.0, 6.0]), np.array([6.0, 5.0, 5.0]))
    np.testing.assert_allclose(inside + outside, 11.0)
    np.testing.assert_allclose(inside, 11 * 17 / 33)
    for pair in (([4.0, 4.0], [4.0, 4.0]), ([0.0, 0.0], [3.0, 4.0]), ([9.0, 1.0], [1.0, 9.0])):
        a, b = (np.array(p) for p in pair)
        np.testing.assert_array_equal(evened_counts(a, b), (a, b))


def test_one_infinite_margin_is_no_ones_variance():
    rng = np.random.default_rng(5)
    side = balanced(12, 50, 6, rng)
    phi = rng.normal(3, 2, (12, 50)) + 3.0 * side
    phi[3, 7] = 5e8
    scores = BaVarIA().score_fleet(reference_of(phi, side), rng=rng)
    rest = np.arange(50) != 7
    assert fleet_auc(scores[:, rest], side[:, rest]) > 0.7
    wide = dataclasses.replace(BaVarIA(), limit=1e12)
    assert fleet_auc(wide.score_fleet(reference_of(phi, side), rng=rng)[:, rest], side[:, rest]) != fleet_auc(
        scores[:, rest], side[:, rest]
    )


def test_a_side_that_no_model_has_is_refused():
    reference = reference_of(PHI, np.where(SIDE == 1, np.int8(-1), SIDE))
    with pytest.raises(MissingNeed, match="shadow models trained with the audited records"):
        score_fleet(BaVarIA(online=False), reference, rng=RNG)
    with pytest.raises(InvalidInput, match="prior of the IN side needs at least 1 models"):
        BaVarIA(online=False).fit(reference, rng=RNG)


@pytest.mark.parametrize("settings", [{"form": "x"}, {"signal": "loss"}, {"limit": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        BaVarIA(**settings)
