import numpy as np
import pytest

from mnemoscope.attacks.klom import Klom, gaussian_divergence, histogram_divergence
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.contrasts import contrast, jackknifed
from mnemoscope.audit.testing_worlds import toy_worlds

RNG = np.random.default_rng(0)


def naive(p: np.ndarray, q: np.ndarray, *, drop_highest: bool = False) -> float:
    p, q = np.clip(p, -100, 100), np.clip(q, -100, 100)
    edges = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 21)
    if drop_highest:  # the release: digitize puts the highest value outside
        a, b = (np.bincount(np.digitize(x, edges), minlength=22)[1:21].astype(float) for x in (p, q))
    else:
        a, b = (np.histogram(x, edges)[0].astype(float) for x in (p, q))
    a, b = a / a.sum(), b / b.sum()
    b = np.where(a > 0, np.maximum(b, 1e-5), b)
    b /= b.sum()
    return float((a[a > 0] * np.log(a[a > 0] / b[a > 0])).sum())


def all_of(x: np.ndarray) -> np.ndarray:
    return np.ones(x.shape, np.bool_)


def test_naive_twin_also_with_cells_that_do_not_count():
    rng = np.random.default_rng(1)
    p, q = rng.normal(0, 2, (12, 30)), rng.normal(0.5, 1, (17, 30)) + np.array([0.0, 200.0, -7.0] * 10)
    a, b = rng.random(p.shape) < 0.7, rng.random(q.shape) < 0.7
    found = histogram_divergence(p, a, q, b)
    gauss = gaussian_divergence(p, a, q, b)
    for j in range(30):
        x, y = p[a[:, j], j], q[b[:, j], j]
        assert found[j] == pytest.approx(naive(x, y), abs=1e-9)
        v, w = x.var(ddof=1), y.var(ddof=1)
        slow = np.log(np.sqrt(w / v)) + (v + (x.mean() - y.mean()) ** 2) / (2 * w) - 0.5
        assert gauss[j] == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize(
    ("models", "published", "closed", "shifted"),
    [(20, 3.0, 3.07, None), (50, 0.88, 0.90, None), (100, 0.337, 0.355, 0.57), (200, 0.14, 0.151, None)],
)
def test_null_values_are_the_known_ones(models, published, closed, shifted):
    """Identical Gaussian margins: the release's figure where the highest is dropped, a little more where it is kept."""
    rng = np.random.default_rng(models)
    p, q = rng.normal(size=(2, models, 1500))
    ours = histogram_divergence(p, all_of(p), q, all_of(q)).mean()
    assert ours == pytest.approx(closed, rel=0.04)
    dropped = np.mean([naive(p[:, j], q[:, j], drop_highest=True) for j in range(1500)])
    assert dropped == pytest.approx(published, rel=0.06)
    if shifted:
        assert histogram_divergence(p + 0.5, all_of(p), q, all_of(q)).mean() == pytest.approx(shifted, rel=0.08)


def test_the_gaussian_plug_in_has_its_bias_and_its_value():
    rng = np.random.default_rng(3)
    p, q = rng.normal(size=(2, 100, 4000))
    assert gaussian_divergence(p, all_of(p), q, all_of(q)).mean() * 100 == pytest.approx(2.0, abs=0.15)
    p, q = rng.normal(size=(2, 20000, 20))
    found = gaussian_divergence(2 * p + 1, all_of(p), q, all_of(q)).mean()
    assert found == pytest.approx(-np.log(2) + (4 + 1) / 2 - 0.5, rel=0.02)


def test_equal_values_and_ceiling():
    same = np.ones((4, 1))
    assert histogram_divergence(same, all_of(same), same, all_of(same))[0] == 0.0
    assert gaussian_divergence(same, all_of(same), same, all_of(same))[0] == 0.0
    far = histogram_divergence(same, all_of(same), -same, all_of(same))[0]
    assert far == pytest.approx(np.log(1e5), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["histogram", "gaussian"])
def test_intervals_hold_and_the_excess_is_null_without_a_leak(estimator):
    """Over many worlds the standard error is that of the values, and the paired difference covers zero."""
    found = [Klom(estimator).measure(toy_worlds(0.0, seed=seed, n_records=40), rng=RNG) for seed in range(40)]
    for part in ("value", "floor", "excess"):
        estimates = [getattr(f, part) for f in found]
        spread = np.std([e.value for e in estimates], ddof=1)
        error = np.mean([(e.high - e.low) / 2 / 2.2 for e in estimates])  # t with 11 degrees of freedom
        assert 0.75 < error / spread < 1.9, part
    assert np.mean([f.excess.low <= 0 <= f.excess.high for f in found]) >= 0.9
    assert abs(np.mean([f.excess.value for f in found])) < 3 * np.std([f.excess.value for f in found]) / 40**0.5


def test_the_twins_alone_have_the_higher_floor():
    worlds = toy_worlds(0.0)
    unseen, twins = (Klom(oracles=o).measure(worlds, rng=RNG).floor.value for o in ("unseen", "forgotten"))
    assert twins > unseen + 1


def test_records_of_too_few_models_are_refused_by_id():
    worlds = toy_worlds(0.0)
    role = worlds.role.copy()
    role[:, 4][role[:, 4] == Role.FORGOTTEN] = Role.KEPT
    role[:2, 4] = Role.FORGOTTEN
    with pytest.raises(InvalidInput, match=f"ids {worlds.after.ids[4]}"):
        Klom().measure(type(worlds)(worlds.after, worlds.retrained, worlds.control, worlds.before, role), rng=RNG)
    role[role == Role.FORGOTTEN] = Role.KEPT
    with pytest.raises(InvalidInput, match="no record"):
        contrast(
            type(worlds)(worlds.after, worlds.retrained, worlds.control, worlds.before, role), histogram_divergence
        )


def test_the_jackknife_of_a_mean_is_the_two_way_variance():
    """For a plain mean of cells the closed form is known: by model plus by record minus by cell."""
    rng = np.random.default_rng(5)
    m, n = 30, 50
    cells = rng.normal(size=(m, n)) + rng.normal(size=(m, 1)) + 0.5 * rng.normal(size=n)
    deleted = np.stack([np.delete(cells, k, axis=0).mean(axis=0) for k in range(m)])
    found = jackknifed(cells.mean(axis=0), deleted, 0.95)
    centred = cells - cells.mean(axis=0)
    by_model = centred.mean(axis=1)
    v_model = by_model @ by_model / (m * (m - 1))
    v_cell = (centred**2).sum() / (m * (m - 1) * n**2)
    v_record = cells.mean(axis=0).var(ddof=1) / n
    from scipy.stats import t

    half = t.ppf(0.975, min(m, n) - 1) * np.sqrt(v_record + v_model - v_cell)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("settings", [{"estimator": "kde"}, {"oracles": "all"}, {"signal": "loss"}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match="allowed|known"):
        Klom(**settings)
