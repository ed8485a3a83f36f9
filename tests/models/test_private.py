"""DP-SGD: the gradient is the clipped sum plus noise, batches are Poisson, epsilon is what the noise allows."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import nn

pytest.importorskip("opacus")

from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.private import PoissonStream, dp_epsilon
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.stacking import stack_obstacle
from mnemoscope.audit.models.training import batch_stream, fit, fresh_model, train_model

RUNTIME = Runtime(device="cpu")
IDS = np.arange(100, 160)
ONE_STEP = Recipe(
    "mlp:8", lr=1.0, momentum=0.0, schedule="constant", epochs=1, batch_size=60, dp_clip=0.7, dp_noise=0.0
)


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def record_gradients(module: nn.Module, data: DeviceData, ids: np.ndarray, smoothing: float = 0.0) -> torch.Tensor:
    """(n, weights), one backward pass a record: the naive twin."""
    rows = []
    for position in data.positions(ids):
        module.zero_grad()
        logits = module(data.inputs(position[None]))
        nn.functional.cross_entropy(logits, data.y[position][None], label_smoothing=smoothing).backward()
        rows.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    module.zero_grad()
    return torch.stack(rows)


@pytest.mark.parametrize("architecture", ["mlp:8", "small_cnn"])
@pytest.mark.parametrize("clip", [0.7, 1e6])
def test_one_step_is_the_mean_of_clipped_gradients(digits, architecture, clip):
    data = DeviceData(digits)
    recipe = dataclasses.replace(ONE_STEP, architecture=architecture, dp_clip=clip, label_smoothing=0.1)
    start = fresh_model(recipe, data, seed=3)
    each = record_gradients(start, data, IDS, 0.1)
    norms = each.norm(dim=1)
    assert (norms > 0.7).sum() > 10
    assert (norms < 1e6).all()
    expected = (each * (clip / norms).clamp(max=1.0)[:, None]).mean(0)
    trained = train_model(recipe, data, IDS, seed=3, runtime=RUNTIME)
    torch.testing.assert_close(flat(start) - flat(trained.module), expected, rtol=1e-4, atol=2e-6)
    assert (trained.seen_ids == IDS).all()  # one step of all: every record with probability 1


def test_one_record_moves_a_step_by_no_more_than_the_clip(digits):
    """An outlier of any size: what DP-SGD promises, and what clipping the whole batch's gradient does not."""
    data = DeviceData(digits)
    data.x = data.x.to(torch.float32)
    data.x[data.positions(IDS[:1])] *= 1e4
    trained = [train_model(ONE_STEP, data, ids, seed=3, runtime=RUNTIME) for ids in (IDS, IDS[1:])]
    start = flat(fresh_model(ONE_STEP, data, seed=3))
    sums = [(start - flat(t.module)) * ids.size for t, ids in zip(trained, (IDS, IDS[1:]), strict=True)]
    assert 0.69 < float((sums[0] - sums[1]).norm()) <= 0.7001
    plain = dataclasses.replace(ONE_STEP, dp_clip=0.0)
    steps = []
    for ids in (IDS, IDS[1:]):
        module = fresh_model(plain, data, seed=3)
        fit(module, plain, data, ids, seed=3, runtime=RUNTIME, max_grad_norm=0.7)
        steps.append((start - flat(module)) * ids.size)
    assert float((steps[0] - steps[1]).norm()) > 5


def test_the_noise_has_the_stated_size_and_comes_from_the_seed(digits):
    data = DeviceData(digits)
    noisy = dataclasses.replace(ONE_STEP, architecture="mlp:64", dp_noise=2.0)
    quiet = flat(train_model(dataclasses.replace(noisy, dp_noise=0.0), data, IDS, seed=3, runtime=RUNTIME).module)
    first, again = (flat(train_model(noisy, data, IDS, seed=3, runtime=RUNTIME).module) for _ in range(2))
    assert torch.equal(first, again)
    noise = (first - quiet) * IDS.size
    z = noise / (2.0 * 0.7)
    n = z.numel()
    assert n > 4000
    assert abs(float(z.mean())) < 4 / math.sqrt(n)
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / n)


def test_batches_are_drawn_by_poisson_sampling_and_marked_as_drawn(digits):
    data = DeviceData(digits)
    recipe = dataclasses.replace(ONE_STEP, batch_size=15)
    stream = batch_stream(data, IDS, recipe, 0)
    assert isinstance(stream, PoissonStream)
    assert stream.steps == 4
    drawn = np.zeros((2000, data.ids.size), bool)
    for step, batch in enumerate(b for _ in range(500) for b in stream.epoch()):
        drawn[step, batch.positions.numpy()] = True
    inside = drawn[:, data.positions(IDS).numpy()]
    assert drawn.sum() == inside.sum()
    # 120,000 independent coins of 1/4: the total, and the variance of batch sizes (shuffled batches have none).
    assert abs(inside.mean() - 0.25) < 4 * math.sqrt(0.1875 / inside.size)
    assert abs(inside.sum(1).var() / (60 * 0.1875) - 1) < 4 * math.sqrt(2 / 2000)
    pairs = np.corrcoef(inside[:, :20].T)[np.triu_indices(20, 1)]
    assert abs(pairs.mean()) < 4 / math.sqrt(2000 * pairs.size)
    plain = batch_stream(data, IDS, dataclasses.replace(recipe, dp_clip=0.0), 0)
    assert type(plain) is not PoissonStream


def test_seen_records_are_those_the_optimiser_drew_and_empty_batches_are_steps(digits):
    class Spy(DeviceData):
        def inputs(self, positions, *, flip=None, shift=None):
            asked.append(positions.clone())
            return super().inputs(positions, flip=flip, shift=shift)

    asked: list[torch.Tensor] = []
    data = Spy(digits)
    recipe = dataclasses.replace(ONE_STEP, batch_size=1, dp_noise=1.0, epochs=1)
    ids = IDS[:12]
    trained = train_model(recipe, data, ids, seed=1, runtime=RUNTIME)
    assert len(asked) == 12
    sizes = [positions.numel() for positions in asked]
    assert 0 in sizes  # (1 - 1/12)^12 = 0.35 of the steps draw nobody
    seen = np.unique(data.ids[torch.cat(asked).numpy()])
    assert 0 < seen.size < ids.size
    assert (trained.seen_ids == seen).all()
    assert np.isfinite(trained.loss).all()
    # Steps that draw nobody still add noise, or the accounting would not hold.
    moved = flat(fresh_model(recipe, data, seed=1)) - flat(trained.module)
    assert float(moved.norm()) > 0.7 * math.sqrt(moved.numel()) * 1.0 * math.sqrt(6)


def test_training_leaves_nothing_of_its_own_on_the_module(digits, colour):
    data = DeviceData(colour)
    recipe = dataclasses.replace(
        ONE_STEP, architecture="small_cnn", batch_size=50, dp_noise=0.5, augmentation="flip-crop", epochs=2
    )
    module = train_model(recipe, data, np.arange(100), seed=0, runtime=RUNTIME).module
    plain = fresh_model(recipe, data, seed=0)
    assert module.state_dict().keys() == plain.state_dict().keys()
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._backward_hooks
        assert not hasattr(part, "activations")
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())
    assert not hasattr(module, "autograd_grad_sample_hooks")
    again = train_model(recipe, data, np.arange(100), seed=0, runtime=RUNTIME).module
    assert torch.equal(flat(module), flat(again))
    assert not any(hasattr(part, "ft_compute_sample_grad") for part in module.modules())
    fit(module, dataclasses.replace(recipe, dp_clip=0.0, dp_noise=0.0), data, np.arange(50), seed=1, runtime=RUNTIME)


@pytest.mark.slow
def test_private_training_learns_and_is_never_stacked(digits):
    data = DeviceData(digits)
    recipe = Recipe("mlp:32", lr=0.5, momentum=0.0, epochs=8, batch_size=64, dp_clip=1.0, dp_noise=0.8)
    assert stack_obstacle(recipe, data) == "DP-SGD is trained one by one"
    trained = train_model(recipe, data, np.arange(1000), seed=0, runtime=RUNTIME)
    rest = data.positions(np.arange(1000, 1797))
    accuracy = float((trained.module(data.inputs(rest)).argmax(1) == data.y[rest]).float().mean())
    assert accuracy > 0.75
    assert trained.loss[-1] < trained.loss[0]


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of the Gaussian mechanism (Balle and Wang 2018, arXiv 1805.06530, theorem 8)."""

    def excess(eps: float) -> float:
        return math.exp(log_ndtr(mu / 2 - eps / mu)) - math.exp(eps + log_ndtr(-mu / 2 - eps / mu)) - delta

    return float(brentq(excess, 0, 500))


@pytest.mark.parametrize(("noise", "epochs", "delta"), [(1.0, 1, 1e-5), (4.0, 10, 1e-5), (20.0, 100, 1e-6)])
def test_epsilon_without_subsampling_bounds_the_exact_gaussian(noise, epochs, delta):
    """All records in every step: T Gaussian mechanisms in a row are one, with mu = sqrt(T) / noise."""
    recipe = Recipe("mlp:8", epochs=epochs, batch_size=1000, dp_clip=1.0, dp_noise=noise)
    exact = gaussian_epsilon(math.sqrt(epochs) / noise, delta)
    reported = dp_epsilon(recipe, 1000, delta)
    assert exact <= reported < 1.15 * exact
    # Clipping at another norm scales the noise with it and changes nothing.
    assert dp_epsilon(dataclasses.replace(recipe, dp_clip=9.0), 1000, delta) == reported
    # The mistake of counting epochs as if each record were drawn once by chance: subsampling must be counted.
    assert dp_epsilon(dataclasses.replace(recipe, batch_size=100), 1000, delta) != reported


def test_epsilon_with_subsampling_grows_with_steps_and_falls_with_noise():
    recipe = Recipe("mlp:8", epochs=30, batch_size=100, dp_clip=1.0, dp_noise=1.0)
    epsilon = dp_epsilon(recipe, 10_000, 1e-5)
    # The Renyi divergence of the subsampled Gaussian at whole orders (Mironov et al. 2019, arXiv 1908.10530, eq. 5),
    # turned to epsilon (Balle et al. 2020, arXiv 1905.09982, theorem 21): the naive twin, which has fewer orders.
    twins = []
    for order in range(2, 30):
        terms = [
            math.comb(order, k) * 0.99 ** (order - k) * 0.01**k * math.exp(k * (k - 1) / 2) for k in range(order + 1)
        ]
        renyi = 3000 * math.log(math.fsum(terms)) / (order - 1)
        twins.append(renyi + math.log1p(-1 / order) - (math.log(1e-5) + math.log(order)) / (order - 1))
    assert 0.99 * min(twins) < epsilon <= min(twins) * (1 + 1e-9)
    assert dp_epsilon(dataclasses.replace(recipe, epochs=60), 10_000, 1e-5) > epsilon
    assert dp_epsilon(dataclasses.replace(recipe, dp_noise=2.0), 10_000, 1e-5) < epsilon
    assert dp_epsilon(dataclasses.replace(recipe, dp_noise=0.0), 10_000, 1e-5) == math.inf
    assert dp_epsilon(dataclasses.replace(recipe, epochs=0), 10_000, 1e-5) == 0
    assert dp_epsilon(dataclasses.replace(recipe, dp_noise=1e4), 10_000, 1e-5) < 0.3
    for bad in ({"n_records": 0, "delta": 1e-5}, {"n_records": 10, "delta": 0.0}):
        with pytest.raises(InvalidInput, match="delta"):
            dp_epsilon(recipe, **bad)
    with pytest.raises(InvalidInput, match="dp_clip=0"):
        dp_epsilon(dataclasses.replace(recipe, dp_clip=0.0, dp_noise=0.0), 10, 1e-5)


def test_batch_normalisation_and_half_precision_are_refused(colour):
    data = DeviceData(colour)
    recipe = dataclasses.replace(ONE_STEP, architecture="resnet18")
    with pytest.raises(UnsupportedModel, match=r"batch normalisation \(bn1 and 19 more\).*GroupNorm"):
        train_model(recipe, data, np.arange(20), seed=0, runtime=RUNTIME)
    with pytest.raises(InvalidInput, match=r"precision='bf16'.*DP-SGD"):
        dataclasses.replace(ONE_STEP, precision="bf16")


def test_without_the_extra_the_remedy_is_named(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    data = DeviceData(digits)
    for call in (
        lambda: train_model(ONE_STEP, data, IDS, seed=0, runtime=RUNTIME),
        lambda: dp_epsilon(ONE_STEP, 60, 1e-5),
    ):
        with pytest.raises(MissingNeed, match=r"pip install 'mnemoscope\[dp\]'"):
            call()
