import numpy as np
import pytest
from scipy.stats import norm

from mnemoscope.attacks.lira import lira_scores
from mnemoscope.attacks.u_lira import ULiRA, membership_probability, right_at_even_odds
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference, Side
from mnemoscope.audit.errors import InvalidInput

RNG = np.random.default_rng(0)


def fleet_of(phi: np.ndarray, side: np.ndarray) -> Reference:
    logits = np.stack([phi, np.zeros_like(phi)], axis=-1)[:, :, None].astype(np.float32)
    return Reference(np.arange(phi.shape[1]), np.zeros(phi.shape[1], np.int64), logits, side=side)


def balanced(k: int, n: int, rng: np.random.Generator) -> np.ndarray:
    side = np.repeat(np.array([Side.IN, Side.OUT], np.int8), k)
    return rng.permuted(np.tile(side[:, None], (1, n)), axis=0)


def auc(scores: np.ndarray, side: np.ndarray) -> float:
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def world(loc: float, scale: float, *, k: int = 24, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unlearned margins are N(difficulty + loc, scale), never-seen ones N(difficulty, 1)."""
    rng = np.random.default_rng(seed)
    side = balanced(k, n, rng)
    noise = rng.normal(size=side.shape)
    return rng.normal(3, 2, n) + np.where(side == 1, loc + scale * noise, noise), side


def test_naive_twin_fits_both_gaussians_without_the_target():
    phi, side = world(0.7, 0.6, k=6, n=9)
    phi = phi.astype(np.float32).astype(np.float64)
    found = score_fleet(ULiRA(variance="per-record"), fleet_of(phi, side), rng=RNG)
    for k in range(12):
        for j in range(9):
            others = np.arange(12) != k
            sides = [phi[others & (side[:, j] == s), j] for s in (1, 0)]
            one, two = (norm.logpdf(phi[k, j], x.mean(), x.std(ddof=1)) for x in sides)
            assert found[k, j] == pytest.approx(one - two, rel=1e-6, abs=1e-6)
    assert membership_probability(np.array([0.0, np.log(3.0), -800.0])) == pytest.approx([0.5, 0.75, 0.0])


@pytest.mark.parametrize(("k", "published"), [(4, 0.69), (8, 0.62), (16, 0.58), (64, 0.54)])
def test_in_sample_accuracy_is_the_published_artefact_and_ours_is_one_half(k, published):
    """Fitted and scored on the same models, Gaussians find a leak where there is none."""
    phi, side = world(0.0, 1.0, k=k, n=3000)
    in_sample = np.zeros(phi.shape)
    for s, sign in ((1, 1.0), (0, -1.0)):
        x = np.where(side == s, phi, np.nan)
        in_sample += sign * norm.logpdf(phi, np.nanmean(x, 0), np.nanstd(x, 0, ddof=1))
    assert right_at_even_odds(in_sample, side).mean() == pytest.approx(published, abs=0.015)
    ours = score_fleet(ULiRA(variance="per-record"), fleet_of(phi, side), rng=RNG)
    assert right_at_even_odds(ours, side).mean() < 0.512
    # The target's own side has one model fewer, which costs it a little where models are few.
    assert right_at_even_odds(ours, side).mean() > (0.45 if k == 4 else 0.488)


def test_row_21_gaussians_on_correctness_in_sample_find_a_leak_that_is_not_there():
    """A peer fits Gaussians to 0/1 correctness and scores the models it fitted, dividing by deviations of zero."""
    rng = np.random.default_rng(3)
    side = balanced(8, 1500, rng)
    phi = rng.normal(1.0, 1.0, 1500) + rng.normal(size=side.shape)  # nothing leaks

    def faulty(phi, side):
        correct = (phi > 0).astype(np.float64)
        with np.errstate(all="ignore"):
            x = [np.where(side == s, correct, np.nan) for s in (1, 0)]
            one, two = (norm.logpdf(correct, np.nanmean(v, 0), np.nanstd(v, 0)) for v in x)
            return one - two

    def ours(phi, side):
        return score_fleet(ULiRA(), fleet_of(phi, side), rng=rng)

    def check(scores):
        assert np.isfinite(scores).all()
        assert abs(auc(scores, side) - 0.5) < 0.02

    check(ours(phi, side))
    scores = faulty(phi, side)
    with pytest.raises(AssertionError):
        check(scores)
    assert auc(np.nan_to_num(scores), side) > 0.55  # also with its NaN repaired


@pytest.mark.parametrize(("loc", "scale", "least"), [(1.0, 1.0, 0.7), (-1.0, 1.0, 0.7), (0.0, 0.4, 0.65)])
def test_over_forgotten_and_narrower_records_are_found_too(loc, scale, least):
    phi, side = world(loc, scale)
    ours = auc(score_fleet(ULiRA(), fleet_of(phi, side), rng=RNG), side)
    assert ours > least
    if loc < 0:
        assert auc(phi - phi.mean(axis=0), side) < 0.5  # a one-sided attack calls it private
    if loc == 0:
        assert auc(lira_scores(phi, side), side) < ours - 0.08  # one variance for both sides does not see it


def test_few_models_share_a_variance_and_say_so():
    phi, side = world(1.0, 1.0, k=6, n=60)
    few = fleet_of(phi, side)
    attack = ULiRA()
    assert "8 are needed" in attack.flags(few)[0]
    assert attack.fit(few, rng=RNG).flags == attack.flags(few)
    shared = score_fleet(ULiRA(variance="shared"), few, rng=RNG)
    np.testing.assert_array_equal(score_fleet(attack, few, rng=RNG), shared)
    many = fleet_of(*world(1.0, 1.0, k=9, n=20))
    assert attack.flags(many) == attack.flags(many, left_out=True) == ()
    own = score_fleet(ULiRA(variance="per-record"), many, rng=RNG)
    np.testing.assert_array_equal(score_fleet(attack, many, rng=RNG), own)


@pytest.mark.parametrize("settings", [{"variance": "mine"}, {"signal": "loss"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="allowed|known"):
        ULiRA(**settings)
