"""HopSkipJump against boundaries whose distance is known: a plane, several planes, an ellipsoid."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from mnemoscope.attacks.boundary_distance import BoundaryDistance, hop_skip_jump
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.testing import trained_fleet

DIM = 16


def points(n, seed=0):
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def test_distance_to_a_hyperplane_is_the_textbooks():
    x, w, b = points(40), points(1, 1)[0], 0.3

    def predict(z):
        return (z @ w + b > 0).long()

    found = hop_skip_jump(predict, x, predict(x), BoundaryDistance())
    true = ((x @ w + b).abs() / w.norm()).numpy()
    error = found.distance / true - 1
    assert error.min() > -1e-5  # a point of another class is never nearer than the plane
    assert error.max() < 0.02
    assert found.moved.all()
    poor = hop_skip_jump(predict, x, predict(x), BoundaryDistance(queries_per_record=400))
    assert (poor.distance - true).mean() > 3 * (found.distance - true).mean()


def test_distance_among_several_classes_is_to_the_nearest_rival():
    x, w = points(40), points(4, 2)

    def predict(z):
        return (z @ w.T).argmax(dim=1)

    y = predict(x)
    z = x @ w.T
    gap = (z.gather(1, y[:, None]) - z) / torch.linalg.vector_norm(w[y][:, None] - w[None], dim=-1)
    true = torch.where(torch.arange(4) == y[:, None], torch.inf, gap).min(dim=1).values.numpy()
    error = hop_skip_jump(predict, x, y, BoundaryDistance()).distance / true - 1
    assert error.min() > -1e-5
    assert np.median(error) < 0.03  # the search is local: some records end at another rival's plane


def test_distance_to_an_ellipsoid_is_its_numeric_optimum():
    axes = torch.linspace(0.5, 2.0, DIM)
    x = points(60, 3)
    level = (x / axes).square().sum(dim=1).median().item()

    def predict(z):
        return ((z / axes).square().sum(dim=1) > level).long()

    y = predict(x)
    outside = np.flatnonzero(y.numpy() == 1)
    assert outside.size > 25

    def nearest(p):
        # Stationary points of the distance: q_i = p_i a_i^2 / (a_i^2 + t), on the surface; unique t > 0 from outside.
        a2 = axes.double().numpy() ** 2
        t = brentq(lambda t: (p**2 * a2 / (a2 + t) ** 2).sum() - level, 0, 1e6)
        return np.linalg.norm(p - p * a2 / (a2 + t))

    true = np.array([nearest(p) for p in x[outside].double().numpy()])
    error = hop_skip_jump(predict, x, y, BoundaryDistance()).distance[outside] / true - 1
    assert error.min() > -1e-4
    assert np.median(error) < 0.02
    assert error.max() < 0.1


def test_wrong_records_lie_at_zero_and_cost_one_query():
    x, w = points(30), points(1, 1)[0]

    def predict(z):
        return (z @ w > 0).long()

    y = predict(x)
    y[::3] = 1 - y[::3]
    found = hop_skip_jump(predict, x, y, BoundaryDistance())
    wrong = np.arange(30) % 3 == 0
    assert (found.distance[wrong] == 0).all()
    assert (found.queries[wrong] == 1).all()
    assert (found.distance[~wrong] > 0).all()
    assert (found.queries[~wrong] > 1000).all()


def test_a_model_that_knows_one_class_gives_finite_distances():
    found = hop_skip_jump(
        lambda z: torch.zeros(len(z), dtype=torch.int64), points(5), torch.zeros(5), BoundaryDistance()
    )
    assert not found.moved.any()
    assert np.isfinite(found.distance).all()
    assert (found.queries == 21).all()


def test_where_noise_moves_nothing_another_record_is_the_start():
    """A small island of one class: noise never hits it, the record on it does."""
    x = points(20)
    island = x[7].clone()

    def predict(z):
        return ((z - island).norm(dim=1) < 0.5).long()

    found = hop_skip_jump(predict, x, predict(x), BoundaryDistance())
    away = (x - island).norm(dim=1).numpy() - 0.5
    others = np.arange(20) != 7
    assert found.moved.all()
    assert np.allclose(found.distance[others], away[others], rtol=0.02)
    assert 0.5 <= found.distance[7] < 0.52


@pytest.mark.parametrize("budget", [261, 300, 333, 400])
def test_the_budget_holds_where_steps_have_to_be_halved_many_times(budget):
    """Thin spikes of another class: whoever halves down to the last query must still pay for the segment's search."""
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(5))

    def predict(z):
        turn = torch.sin(40 * torch.atan2(z[:, 1], z[:, 0])) * torch.sin(37 * z[:, 2])
        return ((turn > 0.8) & (z.norm(dim=1) > 1.0)).long()

    found = hop_skip_jump(predict, x, torch.zeros(60, dtype=torch.int64), BoundaryDistance(queries_per_record=budget))
    assert found.queries.max() <= budget


@pytest.mark.parametrize("budget", [240, 1000, 2500])
def test_every_query_is_counted_and_the_budget_holds(budget):
    fleet = trained_fleet(True, white_box=False, labels_only=True)
    view = fleet.target(0)
    scorer = BoundaryDistance(queries_per_record=budget).fit(fleet.select([]), rng=np.random.default_rng(0))
    found = scorer.search(view)
    assert view.oracle.predictions == found.queries.sum()
    assert found.queries.max() <= budget
    right = view.signal("correctness")[:, 0] == 1
    assert (found.queries[right] > budget // 3).all()
    assert np.array_equal(found.distance > 0, right)
    scorer.score(view)
    assert view.oracle.predictions == found.queries.sum()  # one search serves every game


@pytest.mark.slow
def test_distances_do_not_depend_on_the_batches():
    fleet = trained_fleet(True)
    import mnemoscope.attacks.boundary_distance as module

    scorer = BoundaryDistance().fit(fleet, rng=np.random.default_rng(0))
    whole = scorer.score(fleet.target(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_VALUES", 5000)
        parts = scorer.score(trained_fleet(True).target(0))
    assert np.allclose(whole, parts, rtol=0.02)


@pytest.mark.parametrize("settings", [{"queries_per_record": 100}, {"directions": 0}, {"tries": 0}, {"seed": -1}])
def test_settings_that_allow_no_search_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        BoundaryDistance(**settings)
