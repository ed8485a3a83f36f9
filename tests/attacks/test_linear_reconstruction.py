"""HRec: exact identities, public curvature, planted and absent leaks."""

import numpy as np
import pytest
from torch import nn

from mnemoscope.attacks import RECONSTRUCTIONS
from mnemoscope.attacks.linear_reconstruction import (
    LinearReconstruction,
    label_of_gradient,
    ridge_reconstruction,
    softmax_gradient,
    split_gradient,
)
from mnemoscope.audit.answers.defences import DefendedOracle, Round
from mnemoscope.audit.answers.reconstruction import Case, VersionPair
from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.oracle import ModelOracle
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.testing_reconstruction import (
    optimum_cases,
    softmax_fit,
    softmax_oracle,
    softmax_world,
    toy_dataset,
)

D, C, DECAY = 8, 4, 0.01


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def correlated(rng: np.random.Generator, n: int, mixing: np.ndarray) -> np.ndarray:
    return np.column_stack([rng.normal(size=(n, mixing.shape[0])) @ mixing, np.ones(n)])


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_ridge_identity_is_exact_and_public_curvature_comes_close(penalty: float) -> None:
    """Known answer: exact curvature 1 to 1e-8; public rows 100, 500, 5000: about .78, .94, .98; without far below."""
    reached: dict[str, list[float]] = {}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        # Correlation: eigenvalues from 1 down to 1/50, in a random frame.
        frame = np.linalg.qr(rng.normal(size=(50, 50)))[0]
        mixing = (frame * np.geomspace(1, 0.02, 50)) @ frame.T
        x = correlated(rng, 2000, mixing)
        y = x @ rng.normal(size=51) + rng.normal(size=2000)
        gone = 17

        def solve(rows: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            return np.linalg.solve(x[rows].T @ x[rows] + penalty * np.eye(51), x[rows].T @ y[rows])

        kept = np.delete(np.arange(2000), gone)
        before, after = solve(np.arange(2000)), solve(kept)
        exact = ridge_reconstruction(before, after, x[kept].T @ x[kept] + penalty * np.eye(51))
        assert abs(cosine(exact, x[gone])) > 1 - 1e-8
        np.testing.assert_allclose(exact / exact[-1], x[gone], rtol=1e-4, atol=1e-6)
        for z in (100, 500, 5000):
            public = correlated(rng, z, mixing)
            moment = 1999 * public.T @ public / z + penalty * np.eye(51)
            reached.setdefault(str(z), []).append(abs(cosine(ridge_reconstruction(before, after, moment), x[gone])))
        reached.setdefault("none", []).append(abs(cosine(before - after, x[gone])))
    means = {name: float(np.mean(values)) for name, values in reached.items()}
    assert 0.68 < means["100"] < 0.88
    assert 0.90 < means["500"] < 0.97
    assert means["5000"] > 0.97
    assert means["none"] < 0.3


def test_softmax_newton_step_equals_the_dense_hessian() -> None:
    """The fast curvature product is the full Hessian, written out, times the difference."""
    rng = np.random.default_rng(0)
    h = np.column_stack([rng.normal(size=(30, 5)), np.ones(30)])
    theta, difference = rng.normal(size=(2, C, 6))
    dense = np.zeros((C * 6, C * 6))
    for row in h:
        p = np.exp(theta @ row) / np.exp(theta @ row).sum()
        dense += np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row)) / 30
    expected = 99 * ((dense + 0.3 * np.eye(C * 6)) @ difference.ravel()).reshape(C, 6)
    np.testing.assert_allclose(softmax_gradient(difference, theta, h, 99, 0.3), expected, rtol=1e-10)


def test_softmax_regression_gives_label_and_input_back() -> None:
    x, y = softmax_world(1, 400)
    full = softmax_fit(x, y, DECAY)
    h = np.column_stack([x, np.ones(len(x))])
    for gone in (3, 50, 111):
        kept = np.delete(np.arange(400), gone)
        gradient = softmax_gradient(softmax_fit(x[kept], y[kept], DECAY) - full, full, h[kept], 399, DECAY)
        p = np.exp(full @ h[gone]) / np.exp(full @ h[gone]).sum()
        # One Newton step: the gradient itself comes back, not only its direction.
        np.testing.assert_allclose(gradient, np.outer(p - np.eye(C)[y[gone]], h[gone]), rtol=0.1, atol=0.05)
        assert label_of_gradient(gradient) == y[gone]
        assert cosine(split_gradient(gradient, 1)[0], x[gone]) > 0.999


def test_two_deletions_are_told_apart_by_their_directions() -> None:
    a, b = np.array([3.0, 0, 0, 1]), np.array([0, 2.0, 0, 1])
    residuals = np.array([[0.9, -0.9, 0, 0], [0, 0, -0.1, 0.1]])  # orthogonal and of different size
    rows = split_gradient(residuals.T @ np.stack([a, b]), 2)
    assert rows.shape == (2, 3)
    assert max(abs(cosine(rows[0], a[:3])), 0) > 0.95


@pytest.fixture(scope="module")
def pairs():
    """Ten worlds: the pair that lost record 7, and the control, two fits without it (on other kept records)."""
    return optimum_cases()


@pytest.mark.slow
def test_a_deleted_record_is_recovered_and_one_that_was_never_there_is_not(pairs) -> None:
    leaky, clean = pairs
    attack = LinearReconstruction(decay=DECAY)
    finding = run_reconstruction(attack, leaky, clean, rng=np.random.default_rng(0))
    assert finding.executed
    assert finding.n == finding.n_models == 10
    assert finding.success.value > 0.95
    assert finding.advantage.low > 0.05
    assert finding.success.low > finding.control.high + 0.3
    assert finding.control_advantage.low < 0 < finding.excess.value
    again = run_reconstruction(attack, leaky, clean, rng=np.random.default_rng(1))
    assert again.success.value == finding.success.value


def test_needs_and_shapes_are_checked_before_work(pairs) -> None:
    x, y = softmax_world(0, 60)
    x = x / np.abs(x).max()
    theta = np.zeros((C, D + 1))
    data = DeviceData(toy_dataset(x.astype(np.float32), y, C))
    one, two = (softmax_oracle(theta, data, white_box=False) for _ in range(2))
    closed = Case.of(VersionPair(one, two, np.arange(20, 60), 20, 1), np.array([3]))
    rng = np.random.default_rng(0)
    with pytest.raises(MissingNeed, match="parameters and gradients"):
        run_reconstruction(LinearReconstruction(), [closed], rng=rng)
    headless = ModelOracle(nn.Sequential(nn.Linear(D, C), nn.ReLU(), nn.Linear(C, C, bias=False)), data, Runtime())
    with pytest.raises(UnsupportedModel, match="linear layer with bias"):
        run_reconstruction(
            LinearReconstruction(),
            [Case.of(VersionPair(headless, headless, np.arange(20, 60), 20, 1), np.array([3]))],
            rng=rng,
        )
    defended = [DefendedOracle(oracle, Round(2)) for oracle in (pairs[0][0].pair.before, pairs[0][0].pair.after)]
    pair = VersionPair(*defended, np.arange(300, 700), 300, 1)
    with pytest.raises(MissingNeed, match="parameters and gradients"):
        run_reconstruction(LinearReconstruction(), [Case.of(pair, np.array([7]))], rng=rng)
    with pytest.raises(InvalidInput, match="decay"):
        LinearReconstruction(decay=-1)
    assert RECONSTRUCTIONS["linear_reconstruction"](decay=0.1) == LinearReconstruction(decay=0.1)
