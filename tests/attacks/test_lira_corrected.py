"""Few-model LiRA: the finite pool, one level for all records, and the fallback where models are too few."""

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import norm, t

from mnemoscope.attacks import lira_corrected
from mnemoscope.attacks.lira import LiRA, Normals, lira_scores, log_ratio, shared_variance
from mnemoscope.attacks.lira_corrected import (
    LiRACalibrated,
    LiRAFinitePopulation,
    gaussian_power,
    normal_quantile,
    pool_factor,
)
from mnemoscope.attacks.moments import left_out_moments
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput

RNG = np.random.default_rng(0)


def two_class(phi):
    return np.stack([phi, np.zeros_like(phi)], axis=-1)[..., None, :]


def reference_of(phi, side):
    n = phi.shape[1]
    return Reference(np.arange(n) + 100, np.zeros(n, np.int64), two_class(phi), side=side)


def view_of(phi):
    return View(np.arange(phi.size) + 100, np.zeros(phi.size, np.int64), two_class(phi))


def balanced(m, n, ins, outs, rng):
    column = np.repeat(np.array([1, 0, -1], np.int8), [ins, outs, m - ins - outs])
    return rng.permuted(np.tile(column[:, None], (1, n)), axis=0)


def mean_release(pool, rng, d=200, models=400):
    """Answers <mean of the training set, x> of models trained on random halves of one pool of N records."""
    x = rng.normal(size=(pool, d))
    side = balanced(models, pool, models // 2, models // 2, rng)
    share = (side == 1) / (side == 1).sum(axis=1, keepdims=True)
    return x, side, share @ x @ x.T


@pytest.mark.parametrize("pool", [200, 1000])
def test_models_of_one_pool_vary_less_and_the_factor_says_by_how_much(pool):
    """The reference: deviation ratio 0.699 and 0.706 where sqrt(1 - n / (N - 1)) is 0.705 and 0.707."""
    rng = np.random.default_rng(pool)
    x, side, phi = mean_release(pool, rng)
    n = pool / 2
    true = np.sqrt((x**2).sum(axis=1) / n)
    seen = np.array([phi[side[:, j] == 0, j].std(ddof=1) for j in range(pool)])
    expected = np.sqrt(pool_factor(n / (pool - 1)))
    assert np.mean(seen / true) == pytest.approx(expected, abs=0.02)
    # The scorer's variances, widened, are the population's.
    fitted = LiRAFinitePopulation().fit(reference_of(phi, side), rng=rng).normals[0].outside[1]
    plain = LiRA(variance="per-record").fit(reference_of(phi, side), rng=rng).normals[0].outside[1]
    np.testing.assert_allclose(fitted, plain * 2, rtol=1e-9)
    assert np.mean(np.sqrt(fitted) / true) == pytest.approx(1.0, abs=0.03)
    assert np.mean(np.sqrt(plain) / true) < 0.75


def test_power_is_overstated_by_the_pool():
    """The reference, N = 200: mean power at 1 % 0.387 by the pool's variances, 0.183 by the population's."""
    rng = np.random.default_rng(3)
    _, side, phi = mean_release(200, rng, models=600)
    inside, outside = ([phi[side[:, j] == s, j] for j in range(200)] for s in (1, 0))
    gap = np.array([a.mean() - b.mean() for a, b in zip(inside, outside, strict=True)])
    spread = np.array([b.var(ddof=1) for b in outside])
    assert gaussian_power(gap, spread, 0.01).mean() == pytest.approx(0.387, abs=0.05)
    assert gaussian_power(gap, spread / pool_factor(100 / 199), 0.01).mean() == pytest.approx(0.183, abs=0.03)


def test_the_factor_and_its_seed_share():
    np.testing.assert_allclose(pool_factor(np.array([0.0, 0.1, 0.5])), [1.0, 0.9, 0.5])
    assert pool_factor(0.5, seed_share=1.0) == 1.0
    assert pool_factor(0.5, seed_share=0.4) == pytest.approx(0.7)
    rng = np.random.default_rng(4)
    side = balanced(20, 30, 4, 12, rng)
    phi = rng.normal(size=(20, 30)) + side
    x = rng.normal(size=30)
    for attack, factor in (
        (LiRAFinitePopulation(), 0.75),
        (LiRAFinitePopulation(inclusion=0.2), 0.8),
        (LiRAFinitePopulation(inclusion=0.2, seed_share=0.5), 0.9),
    ):
        score = attack.fit(reference_of(phi, side), rng=rng).score(view_of(x))
        for j in (0, 7):
            a, b = (phi[side[:, j] == s, j] for s in (1, 0))
            sd = [np.sqrt(v.var(ddof=1) / factor) for v in (a, b)]
            expected = norm.logpdf(x[j], a.mean(), sd[0]) - norm.logpdf(x[j], b.mean(), sd[1])
            assert score[j] == pytest.approx(expected, abs=1e-9)


def test_with_a_common_variance_the_pool_only_scales_the_score():
    rng = np.random.default_rng(5)
    side = balanced(16, 30, 8, 8, rng)
    reference = reference_of(rng.normal(size=(16, 30)) + side, side)
    ours = LiRAFinitePopulation(variance="shrunk", inclusion=0.5).score_fleet(reference, rng=rng)
    np.testing.assert_allclose(ours, LiRA().score_fleet(reference, rng=rng) / 2, rtol=1e-9)


def rates(direction, k, alpha=0.01, repeats=4, n=4000):
    """Realised false-positive rates, by the spread of the records, of one threshold for all; nothing leaks."""
    hits, low, raw = [], [], []
    for seed in range(repeats):
        rng = np.random.default_rng([k, seed])
        sd = np.exp(rng.normal(0, 0.8, n))
        side = np.repeat(np.array([1, 0], np.int8), k)[:, None] * np.ones((1, n), np.int8)
        mu = rng.normal(4, 3, n)
        phi, x = mu + sd * rng.normal(size=(2 * k, n)), mu + sd * rng.normal(size=n)
        u = LiRACalibrated(direction).fit(reference_of(phi, side), rng=rng).score(view_of(x))
        hits.append((u >= norm.ppf(1 - alpha)).mean())
        low.append((u <= norm.ppf(alpha)).mean())
        b = phi[k:]
        raw.append(((x - b.mean(0)) / b.std(0) >= norm.ppf(1 - alpha)).mean())
    return np.mean(hits), np.mean(low), np.mean(raw)


@pytest.mark.parametrize("k", [4, 8, 32])
def test_one_threshold_has_its_rate_at_every_number_of_models(k):
    """The reference: with standard scores (ddof 0) 1 % becomes 8.5 %, 4.0 % and 1.6 % for 4, 8 and 32 OUT models."""
    high, low, raw = rates("up", k)
    error = 3 * np.sqrt(0.01 / 16_000)
    assert abs(high - 0.01) < error
    assert abs(low - 0.01) < error
    assert raw == pytest.approx({4: 0.085, 8: 0.040, 32: 0.016}[k], abs=0.004)


def test_the_sign_of_the_same_means_breaks_the_rate():
    """mu0 stands in the sign and in the score: where nothing leaks their product leans upwards."""
    assert rates("record", 8)[0] > 0.0135
    assert abs(rates("up", 8)[0] - 0.01) < 0.0025


def test_pooled_ratios_give_records_rates_of_their_own_and_calibrated_scores_do_not():
    rng = np.random.default_rng(6)
    n, k = 6000, 64
    leak = np.where(np.arange(n) < n // 2, 3.0, 0.3)
    mu = rng.normal(4, 3, n)
    side = np.repeat(np.array([1, 0], np.int8), k)[:, None] * np.ones((1, n), np.int8)
    phi = mu + leak * side + rng.normal(size=(2 * k, n))
    outside = mu + rng.normal(size=n)
    for attack, apart in ((LiRA(), True), (LiRACalibrated(), False)):
        score = attack.fit(reference_of(phi, side), rng=rng).score(view_of(outside))
        level = np.quantile(score, 0.99)
        strong, weak = (score[: n // 2] > level).mean(), (score[n // 2 :] > level).mean()
        # All false alarms of the ratio come from the records that leak most: their own rate is twice the nominal one.
        assert (strong > 4 * weak) == apart, (attack.name, strong, weak)


def test_normal_quantile_has_the_tail_of_student_in_both_directions():
    u = np.array([-40.0, -3.0, -1e-9, 0.0, 1e-9, 2.0, 7.0, 1e5, 1e12, 1e200])
    for degrees in (1.0, 3.0, 30.0):
        z = normal_quantile(u, np.full(u.size, degrees))
        np.testing.assert_allclose(norm.logsf(np.abs(z))[:8], t.logsf(np.abs(u), degrees)[:8], rtol=1e-8)
        assert (np.diff(z) >= 0).all()
        assert np.isfinite(z).all()
    far = np.geomspace(1e3, 1e30, 500)
    assert (np.diff(normal_quantile(far, np.full(500, 60.0))) > 0).all()


@pytest.mark.parametrize("degrees", [60.0, 1e3, 1e5, 1e7])
def test_normal_quantile_is_right_far_out_with_many_degrees_of_freedom(degrees):
    u = np.concatenate([np.linspace(33.0, 60.0, 400), [1e3, 1e5, 1e200]])
    z = normal_quantile(u, np.full(u.size, degrees))
    assert np.isfinite(z).all()
    assert (np.diff(z) > 0).all()  # across the switch to the series too
    # Between the places that float64 reaches and the series, log tails are smooth: no step where the series begins.
    gaps = np.diff(norm.logsf(z[:400]))
    assert np.abs(np.diff(gaps)).max() < 0.05
    # With so many degrees the tail is the Gaussian's but for u^4 / (4 degrees).
    if degrees >= 1e5:
        np.testing.assert_allclose(z[:400], u[:400], rtol=2.0 * 60.0**2 / (4.0 * degrees))

    def first_term_alone(u):  # nu / u^2 in the place of nu / (nu + u^2): above one where u is small beside nu
        log_x = np.log(degrees) - 2.0 * np.log(u)
        return degrees / 2.0 * log_x - np.log(degrees) - betaln(degrees / 2.0, 0.5)

    if degrees >= 1e5:
        assert first_term_alone(40.0) > 0  # the logarithm of a probability


def test_a_margin_far_out_is_finite_where_few_models_share_one_variance():
    reference = few(np.random.default_rng(9), n=20_000)
    phi = reference.signal("margin")[..., 0].copy()
    phi[0, :5] += [1e2, 1e3, 1e4, -1e2, -1e4]
    far = reference_of(phi, reference.side)
    score = LiRACalibrated().score_fleet(far, rng=np.random.default_rng(0))
    assert np.isfinite(score).all()
    assert score[0, 2] > score[0, 1] > score[0, 0] > 30 > -30 > score[0, 3] > score[0, 4]


def few(rng, ins=2, outs=2, m=6, n=40):
    side = balanced(m, n, ins, outs, rng)
    return reference_of(rng.normal(4, 3, n) + 2.0 * side + rng.normal(size=(m, n)), side)


@pytest.mark.parametrize("attack", [LiRA(variance="per-record"), LiRAFinitePopulation(inclusion=0.5)])
def test_too_few_models_fall_back_to_the_shared_variance_with_a_flag(attack):
    reference = few(np.random.default_rng(7))
    assert "shared variance: 40 records have fewer than 3 models" in attack.flags(reference, left_out=True)[0]
    assert attack.flags(reference) == ()
    fleet = score_fleet(attack, reference, rng=RNG)
    scorer = attack.fit(reference.without([0]), rng=RNG)
    assert len(scorer.flags) == 1
    assert "fewer than 2 models on a side" in scorer.flags[0]
    assert "ids 10" in scorer.flags[0]
    np.testing.assert_allclose(scorer.score(reference.target(0)), fleet[0], rtol=1e-9)
    if isinstance(attack, LiRA):
        shared = lira_scores(reference.signal("margin"), reference.side, variance="shared")
        np.testing.assert_allclose(fleet, shared, rtol=1e-9, atol=1e-10)
        assert LiRA().flags(reference, left_out=True) == ()
    enough = few(np.random.default_rng(8), ins=4, outs=4, m=8)
    assert attack.flags(enough, left_out=True) == ()
    assert attack.fit(enough, rng=RNG).flags == ()


def test_one_record_with_too_few_models_is_named():
    reference = few(np.random.default_rng(9), ins=4, outs=4, m=8)
    side = reference.side.copy()
    side[:, 5] = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.int8)
    flags = LiRA(variance="per-record").flags(reference.with_side(side), left_out=True)
    assert "1 records have fewer than 3 models" in flags[0]
    assert "(ids 105)" in flags[0]


def test_the_fallback_is_for_all_records_of_a_model_alike():
    """Falling back for single records would name the side that a left-out target came from."""
    rng = np.random.default_rng(10)
    ours, by_record = [], []
    for _ in range(6):
        side = balanced(6, 600, 2, 2, rng)
        plain = reference_of(rng.normal(size=(6, 600)), side)
        phi, spread, mean = plain.signal("margin")[..., 0], [], []
        for s in (1, 0):
            own = left_out_moments(phi, side == s)
            pooled = shared_variance(own)
            single = own.squares / np.maximum(own.number - 1, 1)
            spread.append(np.maximum(np.where(own.number < 2, pooled, single), 1e-6))
            mean.append(own.mean)
        faulty = log_ratio(phi, Normals((mean[0], spread[0]), (mean[1], spread[1]), False))
        for scores, kept in ((LiRA(variance="per-record").score_fleet(plain, rng=rng), ours), (faulty, by_record)):
            inside, outside = scores[side == 1], np.sort(scores[side == 0])
            kept.append(np.searchsorted(outside, inside).mean() / outside.size)
    # Two models a side are too few for any exact null; a published variance costs up to 0.1 here.
    assert 0.4 < np.mean(ours) < 0.51
    assert np.mean(by_record) > 0.6, "a leak that is not there"


def test_calibrated_with_one_out_model_falls_back_too():
    reference = few(np.random.default_rng(11), ins=2, outs=2, m=6)
    attack = LiRACalibrated()
    assert attack.flags(reference, left_out=True)
    fleet = score_fleet(attack, reference, rng=RNG)
    assert np.isfinite(fleet).all()
    scorer = attack.fit(reference.without([2]), rng=RNG)
    np.testing.assert_allclose(scorer.score(reference.target(2)), fleet[2], rtol=1e-9)
    part = reference.target(2)
    some = View(part.ids[:5], part.labels[:5], part.logits[:5])
    np.testing.assert_allclose(scorer.score(some), fleet[2, :5], rtol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LiRAFinitePopulation(variance="x"),
        lambda: LiRAFinitePopulation(inclusion=1.0),
        lambda: LiRAFinitePopulation(seed_share=-1.0),
        lambda: LiRAFinitePopulation(signal="loss"),
        lambda: LiRACalibrated(direction="down"),
        lambda: LiRACalibrated(signal="loss"),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidInput, match="variance|inclusion|seed_share|signal|direction"):
        make()


def test_tables_of_normal_quantiles_are_the_quantiles_themselves():
    rng = np.random.default_rng(0)
    degrees = rng.integers(1, 41, (16, 4000)).astype(np.float64)
    u = rng.standard_t(2, degrees.shape) * 3
    u[0, :4] = 0.0, 16.0, -1e9, np.nextafter(16.0, 0.0)
    np.testing.assert_allclose(lira_corrected._Tables(1, 40)(u, degrees), normal_quantile(u, degrees), atol=1e-12)


def test_large_fleets_are_scored_by_tables(monkeypatch):
    rng = np.random.default_rng(0)
    side = rng.permuted(np.tile(np.repeat(np.array([1, 0], np.int8), 8)[:, None], (1, 300)), axis=0)
    logits = rng.normal(0, 2, (16, 300, 1, 3)).astype(np.float32)
    logits[0, 0] *= 1e4
    reference = Reference(np.arange(300), np.zeros(300, np.int64), logits, side=side)
    plain = LiRACalibrated().score_fleet(reference, rng=rng)
    calls, make = [], lira_corrected._Tables.__init__

    def counted(self, *degrees):
        calls.append(degrees)
        make(self, *degrees)

    monkeypatch.setattr(lira_corrected, "LEAST_CELLS", 0)
    monkeypatch.setattr(lira_corrected._Tables, "__init__", counted)
    np.testing.assert_allclose(LiRACalibrated().score_fleet(reference, rng=rng), plain, rtol=1e-11, atol=1e-12)
    assert calls == [(6, 7)]
