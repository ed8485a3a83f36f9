"""Classifiers of learned attackers: known odds, finite scores, clear refusals."""

import numpy as np
import pytest

from mnemoscope.attacks.classifiers import fit_classifier
from mnemoscope.audit.errors import InvalidInput

KINDS = ["logistic", "tree", "forest", "mlp"]


def rng(seed=0):
    return np.random.default_rng(seed)


def gaussians(n_in, n_out, gap=2.0, seed=0):
    """Members N(gap, 1), others N(0, 1): the true log odds are gap x - gap^2 / 2."""
    draw = rng(seed)
    x = np.concatenate([draw.normal(gap, 1, n_in), draw.normal(0, 1, n_out)])
    return x[:, None], np.arange(n_in + n_out) < n_in


@pytest.mark.parametrize("shares", [(4000, 4000), (2000, 6000)])
@pytest.mark.parametrize(("kind", "off"), [("logistic", 0.15), ("tree", 1.2), ("forest", 1.0), ("mlp", 0.4)])
def test_scores_are_the_log_odds_at_equal_shares(kind, off, shares):
    x, member = gaussians(*shares)
    at = np.linspace(0.0, 2.0, 21)[:, None]
    got = fit_classifier(kind, x, member, rng=rng()).log_odds(at)
    assert np.abs(got - (2.0 * at[:, 0] - 2.0)).max() < off


def test_without_the_prior_the_scores_of_unequal_shares_would_be_off_by_it():
    x, member = gaussians(2000, 6000)
    fitted = fit_classifier("logistic", x, member, rng=rng())
    assert fitted.prior == pytest.approx(np.log(1 / 3))
    at = np.array([[1.0]])
    assert abs(fitted.log_odds(at)[0]) < 0.15 < abs(fitted.log_odds(at)[0] + fitted.prior)


@pytest.mark.parametrize("kind", KINDS)
def test_separable_rows_and_far_rows_have_finite_scores_in_the_right_order(kind):
    x, member = gaussians(300, 300, gap=50.0)
    fitted = fit_classifier(kind, x, member, rng=rng())
    scores = fitted.log_odds(np.array([[-1e30], [0.0], [50.0], [1e30]]))
    assert np.isfinite(scores).all()
    assert scores[1] < 0.0 < scores[2]
    assert scores[0] <= scores[1]
    assert scores[3] >= scores[2]


def test_the_network_does_not_saturate_where_its_probability_does():
    x, member = gaussians(300, 300, gap=50.0)
    scores = fit_classifier("mlp", x, member, rng=rng()).log_odds(np.linspace(50, 5000, 50)[:, None])
    assert (1.0 / (1.0 + np.exp(-scores)) == 1.0).sum() > 25
    assert np.unique(scores).size == 50


@pytest.mark.parametrize("kind", KINDS)
def test_constant_features_say_nothing(kind):
    x = np.full((60, 2), 0.1 + 0.2)
    fitted = fit_classifier(kind, x, np.arange(60) < 20, rng=rng())
    off = 0.1 if kind == "forest" else 1e-3  # its trees see resampled shares
    np.testing.assert_allclose(fitted.log_odds(x), 0.0, atol=off)


@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter_and_the_scaler_knows_the_training_rows_alone(kind):
    x, member = gaussians(200, 200)
    at = np.linspace(-1, 3, 9)[:, None]
    plain = fit_classifier(kind, x, member, rng=rng())
    other = fit_classifier(kind, 1024.0 * x, member, rng=rng())  # a power of two: no rounding
    np.testing.assert_allclose(other.log_odds(1024.0 * at), plain.log_odds(at), atol=1e-9)
    assert plain.mean == pytest.approx(x.mean(axis=0))
    far = np.concatenate([at, [[1e9]]])
    np.testing.assert_allclose(plain.log_odds(far)[:-1], plain.log_odds(at), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_everything(kind):
    x, member = gaussians(100, 100)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is being tested
    first = fit_classifier(kind, x, member, rng=rng()).log_odds(x)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(fit_classifier(kind, x, member, rng=rng()).log_odds(x), first)


def test_one_side_other_widths_and_unknown_kinds_are_refused():
    x, member = gaussians(10, 10)
    with pytest.raises(InvalidInput, match="0 member and 20 non-member rows"):
        fit_classifier("logistic", x, np.zeros(20, bool), rng=rng())
    with pytest.raises(InvalidInput, match="classifier='boosting' is unknown; allowed: logistic, tree"):
        fit_classifier("boosting", x, member, rng=rng())
    with pytest.raises(InvalidInput, match="must be finite"):
        fit_classifier("logistic", x * np.inf, member, rng=rng())
    fitted = fit_classifier("logistic", x, member, rng=rng())
    with pytest.raises(InvalidInput, match=r"must be \(rows, 1\)"):
        fitted.log_odds(np.zeros((3, 2)))
    assert fitted.log_odds(np.zeros((0, 1))).shape == (0,)


def test_the_joint_walk_equals_the_trees_one_by_one(monkeypatch):
    from sklearn.ensemble import RandomForestClassifier

    from mnemoscope.attacks.classifiers import joint_forest

    draw = rng()
    x = draw.normal(size=(400, 3)).round(1)  # many rows lie exactly on a cut
    for leaf, y in [(1, draw.random(400) < 0.5), (30, x[:, 0] > 0), (300, x[:, 0] > 0)]:
        model = RandomForestClassifier(7, min_samples_leaf=leaf, random_state=1).fit(x, y)
        monkeypatch.setattr("mnemoscope.attacks.classifiers.BLOCK_ROWS", 64)
        np.testing.assert_allclose(joint_forest(model)(x), model.predict_proba(x)[:, 1], atol=1e-14)
