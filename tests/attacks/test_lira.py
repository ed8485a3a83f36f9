"""LiRA: the reference's test vector, slow twins, the known world, and the faults of other tools."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from mnemoscope.attacks.lira import LiRA, lira_scores
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import InvalidInput

RNG = np.random.default_rng(0)


def two_class(phi):
    """Logits whose margin is phi: classes (phi, 0), label 0."""
    return np.stack([phi, np.zeros_like(phi)], axis=-1)[..., None, :]


def reference_of(phi, side, ids=None):
    n = phi.shape[1]
    return Reference(np.arange(n) if ids is None else ids, np.zeros(n, np.int64), two_class(phi), side=side)


def view_of(phi, ids=None):
    return View(np.arange(phi.size) if ids is None else ids, np.zeros(phi.size, np.int64), two_class(phi))


def balanced(m, n, ins, outs, rng):
    column = np.repeat(np.array([1, 0, -1], np.int8), [ins, outs, m - ins - outs])
    return rng.permuted(np.tile(column[:, None], (1, n)), axis=0)


def auc(inside, outside):
    return float((inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2)


def fleet_auc(scores, side):
    outside = np.sort(scores[side == 0])
    inside = scores[side == 1]
    twice = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(twice.mean() / (2 * outside.size))


def test_vector_of_the_reference():
    # IN = {3, 4, 5, 4}, OUT = {1, 0, 2, 1}, phi = 3.5; ddof = 1: online 4.5, offline z = 3.061862.
    phi = np.array([3.0, 4, 5, 4, 1, 0, 2, 1])[:, None]
    reference = reference_of(phi, np.array([1, 1, 1, 1, 0, 0, 0, 0], np.int8)[:, None])
    view = view_of(np.array([3.5]))
    online = LiRA(variance="per-record").fit(reference, rng=RNG).score(view)
    offline = LiRA(online=False, variance="per-record").fit(reference, rng=RNG).score(view)
    np.testing.assert_allclose(online, 4.5, atol=1e-12)
    np.testing.assert_allclose(offline, 3.061862, atol=1e-6)


def slow_scores(phi, side, x, online, variance):
    """Record by record, with numpy's own means and variances and scipy's densities."""
    ins = [phi[side[:, j] == 1, j] for j in range(x.size)]
    outs = [phi[side[:, j] == 0, j] for j in range(x.size)]

    def pooled(*groups):
        values = [v for group in groups for v in group]
        return sum(((v - v.mean()) ** 2).sum() for v in values) / sum(v.size - 1 for v in values)

    scores = np.empty(x.size)
    for j, (a, b) in enumerate(zip(ins, outs, strict=True)):
        if variance == "per-record":
            va, vb = (a.var(ddof=1) if online else None), b.var(ddof=1)
        elif variance == "shared":
            va, vb = pooled(ins), pooled(outs)
        else:
            sides = (a, b) if online else (b,)
            v0 = pooled(ins, outs) if online else pooled(outs)
            squares = 4 * v0 + sum(((v - v.mean()) ** 2).sum() for v in sides)
            s2 = squares / (4 + sum(v.size - 1 for v in sides))
            va, vb = s2 * (1 + 1 / a.size), s2 * (1 + 1 / b.size)
        if not online:
            scores[j] = (x[j] - b.mean()) / np.sqrt(vb)  # orders as norm.logcdf does
        else:
            scores[j] = norm.logpdf(x[j], a.mean(), np.sqrt(va)) - norm.logpdf(x[j], b.mean(), np.sqrt(vb))
            if variance == "shrunk":  # the counts' own term is left out, see _score
                scores[j] += np.log(va / vb) / 2
    return scores


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["shrunk", "shared", "per-record"])
def test_equals_its_slow_twin_and_leaves_one_out(online, variance):
    rng = np.random.default_rng(1)
    side = balanced(14, 9, 5, 4, rng)
    side[0, :4] = -1  # ragged counts
    phi = rng.normal(3, 2, 9) + side + rng.normal(size=(14, 9))
    x = rng.normal(3, 1, 9)
    attack = LiRA(online=online, variance=variance)
    fast = attack.fit(reference_of(phi, side), rng=rng).score(view_of(x))
    np.testing.assert_allclose(fast, slow_scores(phi, side, x, online, variance), atol=1e-9)
    closed = lira_scores(phi, side, online=online, variance=variance)
    for k in range(14):
        keep = np.arange(14) != k
        np.testing.assert_allclose(closed[k], slow_scores(phi[keep], side[keep], phi[k], online, variance), atol=1e-9)


def test_leave_one_out_keeps_its_digits_beside_an_outlier():
    # Down-dating the sum of squares of {1e7, small...} by the outlier leaves nothing but rounding.
    rng = np.random.default_rng(2)
    side = balanced(16, 5, 8, 8, rng)
    phi = rng.normal(size=(16, 5))
    phi[3] = 1e7
    closed = lira_scores(phi, side, variance="per-record")
    keep = np.arange(16) != 3
    exact = LiRA(variance="per-record").fit(reference_of(phi[keep], side[keep]), rng=rng).score(view_of(phi[3]))
    np.testing.assert_allclose(closed[3], exact, rtol=1e-9)
    member = side == 1
    count, x = member.sum(0), phi[3]
    naive = (np.where(member, phi**2, 0).sum(0) - x**2) / (count - 1) - (
        (np.where(member, phi, 0).sum(0) - x) / (count - 1)
    ) ** 2
    truth = np.array([phi[keep][member[keep, j], j].var() for j in range(5)])
    hit = member[3]
    assert (np.abs(naive - truth)[hit] > 1e-6).all()  # the textbook formula fails on this input


def test_several_queries_average_the_log_ratios():
    rng = np.random.default_rng(3)
    side = balanced(12, 6, 6, 6, rng)
    phi = rng.normal(size=(12, 6, 3))
    parts = [lira_scores(phi[..., q], side) for q in range(3)]
    np.testing.assert_allclose(lira_scores(phi, side), np.mean(parts, axis=0), atol=1e-12)


@pytest.mark.parametrize("online", [True, False])
def test_row_2_a_record_without_a_model_is_refused_by_id(online):
    rng = np.random.default_rng(4)
    side = balanced(8, 4, 4, 4, rng)
    side[:, 2] = np.array([1, 1, 1, 1, 1, 1, 1, 0])
    phi = rng.normal(size=(8, 4))
    ids = np.array([70, 71, 72, 73])
    with np.errstate(invalid="ignore", divide="ignore"):
        alone = np.where(side[:, 2] == 0, phi[:, 2], 0.0)
        faulty = (alone.sum() - alone[7]) / np.float64((side[:, 2] == 0).sum() - 1)
    assert np.isnan(faulty)  # the mean of nothing, as the other tool computes it
    with pytest.raises(InvalidInput, match=r"1 records have fewer than 2 OUT models: ids 72\b"):
        LiRA(online=online).score_fleet(reference_of(phi, side, ids), rng=rng)


def test_row_17_float32_softmax_ties_what_margins_order():
    gaps = np.linspace(40.0, 90.0, 200, dtype=np.float32)
    soft = np.exp(-gaps)
    p = (1 / (1 + soft)).astype(np.float32)
    faulty = np.log(p.astype(np.float64)) - np.log(np.maximum(1 - p.astype(np.float64), 1e-45))
    assert np.unique(faulty).size == 1
    logits = np.stack([gaps, np.zeros_like(gaps)], axis=-1)[:, None, :]
    view = View(np.arange(200), np.zeros(200, np.int64), logits)
    assert np.unique(view.signal("margin")).size == 200
    assert np.unique(view.signal("negative_loss")).size == 200


def test_row_20_fixed_variance_is_centred_and_each_side_has_its_own():
    # OUT models are twice as wide, records lie far apart, two records with opposite shifts.
    rng = np.random.default_rng(5)
    n, k = 400, 64
    mu = rng.normal(0, 30, n)
    side = np.repeat(np.array([1, 0], np.int8), k)[:, None] * np.ones((1, n), np.int8)
    spread = np.where(side == 1, 1.0, 2.0)
    phi = mu + side + spread * rng.normal(size=(2 * k, n))
    fitted = LiRA(variance="shared").fit(reference_of(phi, side), rng=rng).normals[0]
    sd_in, sd_out = np.sqrt(fitted.inside[1][0]), np.sqrt(fitted.outside[1][0])
    np.testing.assert_allclose([sd_in, sd_out], [1.0, 2.0], rtol=0.02)
    faulty = phi[:k].std()  # IN scores for both sides, not centred within the record
    assert faulty > 20 * sd_in


def test_row_20_the_offline_score_is_one_sided():
    rng = np.random.default_rng(6)
    n, k = 4000, 32
    mu, sd = rng.normal(4, 3, n), np.exp(rng.normal(0, 0.35, n))
    gap, member = rng.gamma(0.6, 1.2, n), rng.random(n) < 0.5
    phi = mu + sd * rng.normal(size=(k, n))
    x = mu + gap * member + sd * rng.normal(size=n)
    attack = LiRA(online=False, variance="per-record")
    z = attack.fit(reference_of(phi, np.zeros((k, n), np.int8)), rng=rng).score(view_of(x))
    faulty = -norm.logpdf(x, phi.mean(0), phi.std(0))
    low = np.argmin((x - mu) / sd)
    assert faulty[low] > np.quantile(faulty, 0.9)  # unusually LOW confidence passes for membership
    assert z[low] < np.quantile(z, 0.01)
    assert auc(z[member], z[~member]) > auc(faulty[member], faulty[~member]) + 0.02


def test_row_20_extreme_offline_scores_do_not_tie():
    reference = reference_of(np.random.default_rng(7).normal(size=(20, 50)), np.zeros((20, 50), np.int8))
    view = view_of(np.linspace(30, 60, 50))
    attack = LiRA(online=False, variance="shared")
    z = attack.fit(reference, rng=RNG).score(view)
    assert np.unique(norm.cdf(z)).size == 1
    assert np.unique(z).size == 50


def test_row_21_gaussians_on_correctness_in_sample_find_a_leak_that_is_not_there():
    rng = np.random.default_rng(8)
    side = balanced(16, 600, 8, 8, rng)
    correct = (rng.random((16, 600)) < 0.7).astype(np.float64)
    a, b = (np.where(side == s, correct, np.nan) for s in (1, 0))
    m1, m0 = np.nanmean(a, 0), np.nanmean(b, 0)
    v1, v0 = np.nanvar(a, 0) + 1e-3, np.nanvar(b, 0) + 1e-3
    faulty = -((correct - m1) ** 2) / v1 + (correct - m0) ** 2 / v0 + np.log(v0 / v1)
    assert fleet_auc(faulty, side) > 0.56
    phi = rng.normal(size=(16, 600))
    assert abs(fleet_auc(lira_scores(phi, side), side) - 0.5) < 0.02


def test_row_22_the_score_is_one_number_per_record_not_a_mean_over_the_forget_set():
    """A peer's "LiRA" is a mean of density ratios over the forget set: one record of 200 decides it."""
    rng = np.random.default_rng(9)
    n, side = 200, balanced(32, 200, 16, 16, rng)
    phi = rng.normal(size=(32, n))  # nothing leaks
    reference, target = reference_of(phi, side), rng.normal(size=n)
    forgotten = np.arange(n) < n // 2

    def ours(values):
        score = LiRA().fit(reference, rng=rng).score(view_of(values))
        assert score.shape == (n,)
        return auc(score[forgotten], score[~forgotten])

    def faulty(values):
        with np.errstate(all="ignore"):
            ratios = [
                gaussian_kde(phi[side[:, j] == 1, j])(values[j]) / gaussian_kde(phi[side[:, j] == 0, j])(values[j])
                for j in np.flatnonzero(forgotten)
            ]
        return float(np.mean(ratios))

    def check(figure):
        moved = target.copy()
        moved[0] = 5.0
        assert 0 <= figure(moved) <= 1
        assert abs(figure(moved) - figure(target)) <= 1 / forgotten.sum()

    check(ours)
    with pytest.raises(AssertionError):
        check(faulty)


def test_null_is_one_half_in_thirds_with_left_out_models():
    """Nothing leaks: pooled AUC and both tails are at their nominal values, down to six models a side."""
    for k in (6, 24):
        aucs, high, low = [], [], []
        for seed in range(6):
            rng = np.random.default_rng([k, seed])
            side = balanced(3 * k, 400, k, k, rng)
            phi = rng.normal(4, 3, 400) + np.exp(rng.normal(0, 0.35, 400)) * rng.normal(size=(3 * k, 400))
            scores = lira_scores(phi, side)
            outside, inside = scores[side == 0], scores[side == 1]
            aucs.append(fleet_auc(scores, side))
            high.append((inside > np.quantile(outside, 0.99)).mean())
            low.append((inside < np.quantile(outside, 0.01)).mean())
        error = np.std(aucs, ddof=1) / np.sqrt(len(aucs))
        assert abs(np.mean(aucs) - 0.5) < max(0.008, 3 * error), k
        assert abs(np.mean(high) - 0.01) < 0.004
        assert abs(np.mean(low) - 0.01) < 0.004


def test_without_the_counts_term_few_models_betray_nothing_but_with_it_they_do():
    rng = np.random.default_rng(10)
    shifts = []
    for _ in range(20):
        side = balanced(18, 600, 6, 6, rng)
        phi = rng.normal(size=(18, 600))
        n1 = (side == 1).sum(0) - (side == 1)
        n0 = (side == 0).sum(0) - (side == 0)
        scores = lira_scores(phi, side)
        with_counts = scores + 0.5 * np.log((1 + 1 / n0) / (1 + 1 / n1))
        shifts.append((fleet_auc(scores, side), fleet_auc(with_counts, side)))
    plain, faulty = np.mean(shifts, axis=0)
    assert abs(plain - 0.5) < 0.01
    assert faulty < 0.485


def _world():
    path = Path(__file__).parents[2] / "benchmarks" / "gaussian_world.py"
    spec = importlib.util.spec_from_file_location("gaussian_world", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 16])
def test_known_world_gives_the_known_power(k):
    """The table of the reference: within 0.006 AUC and one point of TPR at 0.1 % FPR."""
    world = _world()
    for attack in world.ATTACKS:
        values = []
        for repeat in range(6):
            rng = np.random.default_rng([k, repeat])
            reference, view, member, _ = world.draw(k, rng)
            values.append(world.auc_and_tpr(attack.fit(reference, rng=rng).score(view), member))
        mean, error = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
        gap = np.abs(mean - world.TABLE[attack.name, k])
        assert (gap <= np.array(world.TOLERANCE) + 2 * error).all(), (attack.name, mean)


@pytest.mark.slow
def test_with_many_models_the_oracle_is_reached():
    world = _world()
    rng = np.random.default_rng(11)
    reference, view, member, oracle = world.draw(512, rng, n=4000)
    reached = world.auc_and_tpr(LiRA(variance="per-record").fit(reference, rng=rng).score(view), member)[0]
    best = world.auc_and_tpr(oracle, member)[0]
    assert best - 0.006 < reached <= best + 0.004


def test_one_reference_still_ranks():
    """A single OUT model shows no variance; the score is then the difference to it (difficulty calibration)."""
    rng = np.random.default_rng(12)
    phi, x = rng.normal(size=(1, 20)), rng.normal(size=20)
    attack = LiRA(online=False)
    score = attack.fit(reference_of(phi, np.zeros((1, 20), np.int8)), rng=rng).score(view_of(x))
    np.testing.assert_array_equal(np.argsort(score), np.argsort(x - phi[0]))


def test_records_are_matched_by_id():
    rng = np.random.default_rng(13)
    side = balanced(12, 8, 6, 6, rng)
    scorer = LiRA().fit(reference_of(rng.normal(size=(12, 8)), side, np.arange(8) + 50), rng=rng)
    x = rng.normal(size=8)
    part = scorer.score(view_of(x[[6, 1]], np.array([56, 51])))
    np.testing.assert_allclose(part, scorer.score(view_of(x, np.arange(8) + 50))[[6, 1]])
    with pytest.raises(InvalidInput, match="1 records have no answers here: ids 99"):
        scorer.score(view_of(x[:1], np.array([99])))


@pytest.mark.parametrize("settings", [{"variance": "global"}, {"signal": "loss"}])
def test_unknown_settings_are_refused_with_what_is_allowed(settings):
    with pytest.raises(InvalidInput, match="allowed|known"):
        LiRA(**settings)
