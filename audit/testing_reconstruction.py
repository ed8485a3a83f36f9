"""Toy pairs of versions for attacks that recover data: what was deleted is known, and so is where nothing was.

Torch and scikit-learn's digits are loaded when a pair is made.
"""

import copy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.reconstruction import Case, VersionPair
from mnemoscope.audit.records.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.oracle import ModelOracle

__all__ = [
    "PUBLIC",
    "ascended",
    "class_cases",
    "digits_data",
    "digits_models",
    "digits_trained",
    "optimum_cases",
    "oracle_of",
    "softmax_fit",
    "softmax_oracle",
    "softmax_world",
    "step_cases",
    "table_cases",
    "toy_dataset",
]

Floats = NDArray[np.float64]
Cases = tuple[list[Case], list[Case]]

PUBLIC = np.arange(1000, 1700)
"""Digits that no model here is trained on."""
FEATURES, CLASSES, DECAY = 8, 4, 0.01
"""Of the softmax regressions that are fitted to their optimum."""


def toy_dataset(values: NDArray[np.generic], labels: NDArray[np.generic], n_classes: int) -> Dataset:
    """Return a data set of these values, ids and keys 0..n-1; images are four-dimensional."""
    n, kind = len(values), "image" if values.ndim == 4 else "table"
    names, keys = tuple(str(k) for k in range(n_classes)), tuple(str(i) for i in range(n))
    digests = np.zeros((n, 32), np.uint8)
    return Dataset("world", kind, np.arange(n), keys, labels.astype(np.int64), names, digests, values)  # type: ignore[arg-type]


def oracle_of(module: "nn.Module", data: "DeviceData", *, white_box: bool = True) -> "ModelOracle":
    """Return the oracle of a module on the CPU."""
    from mnemoscope.audit.models.oracle import ModelOracle
    from mnemoscope.audit.models.recipes import Runtime

    return ModelOracle(module, data, Runtime(device="cpu"), white_box=white_box)


def digits_data() -> "DeviceData":
    """Return scikit-learn's 1,797 handwritten digits as images of 8 x 8."""
    from sklearn.datasets import load_digits

    from mnemoscope.audit.models.data import DeviceData

    bunch = load_digits()
    return DeviceData(toy_dataset((bunch.images * 15).astype(np.uint8)[..., None], bunch.target, 10))


def digits_trained(data: "DeviceData", ids: NDArray[np.int64], seed: int, epochs: int = 8) -> "nn.Module":
    """Return a small MLP trained on these digits."""
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.models.training import train_model

    recipe = Recipe("mlp:32", lr=0.1, epochs=epochs, batch_size=32)
    return train_model(recipe, data, ids, seed=seed, runtime=Runtime(device="cpu")).module


def digits_models(data: "DeviceData") -> "list[nn.Module]":
    """Return four models of up to 300 digits, each with one fewer than the last."""
    return [digits_trained(data, np.arange(300)[k:], seed=k, epochs=2) for k in range(4)]


def ascended(module: "nn.Module", data: "DeviceData", ids: NDArray[np.int64], rate: float) -> "nn.Module":
    """Return a copy after first-order unlearning: one step up the deleted records' loss."""
    import torch

    moved, positions = copy.deepcopy(module), data.positions(ids)
    loss = torch.nn.functional.cross_entropy(moved(data.inputs(positions)), data.y[positions], reduction="sum")
    gradients = torch.autograd.grad(loss, list(moved.parameters()))
    with torch.no_grad():
        for p, g in zip(moved.parameters(), gradients, strict=True):
            p.add_(g, alpha=rate)
    return moved


def step_cases(
    data: "DeviceData", models: "list[nn.Module]", *, n_cases: int = 4, first: int = 10, rate: float, white_box: bool
) -> Cases:
    """Return models that took one step up a record's loss; and beside them two trainings that never had the secret.

    Args:
        data: the digits.
        models: as ``digits_models`` gives them.
        n_cases: pairs.
        first: the first pair's deleted record; each pair deletes the next one.
        rate: of the step.
        white_box: whether the oracles hand out their module.
    """
    leaky, clean = [], []
    for k in range(n_cases):
        model, other = models[k % len(models)], models[(k - 1 if white_box else k + 1) % len(models)]
        gone = np.array([first + k])
        before = oracle_of(model, data, white_box=white_box)
        after = oracle_of(ascended(model, data, gone, rate), data, white_box=white_box)
        leaky.append(Case.of(VersionPair(before, after, PUBLIC, 300, 1), gone))
        # Two trainings that never had the secret: nothing was deleted that could be found.
        apart = oracle_of(other, data, white_box=white_box)
        clean.append(Case.of(VersionPair(before, apart, PUBLIC, 300, 1), np.array([900 + k])))
    return leaky, clean


def class_cases(data: "DeviceData") -> Cases:
    """Return a model that was trained on all ten digits and one that never was; the secret is what digits look like."""
    from mnemoscope.audit.models.architectures import build_model

    secret = np.arange(100)
    untrained = oracle_of(build_model("mlp:32", input_shape=(1, 8, 8), n_classes=10, seed=5), data)
    learned = oracle_of(digits_trained(data, np.arange(600), seed=0), data)
    leaky = Case.of(VersionPair(untrained, learned, PUBLIC, 600, 100), secret)
    return [leaky], [Case.of(VersionPair(learned, untrained, PUBLIC, 600, 100), secret)]


def table_cases(held: bool = True) -> Cases:
    """Return one model that is sure of the labels of 100 records, bit for bit; the controls ask of 200 others.

    Of twelve yes-or-no columns, column 0 follows column 1 in 80 % and, with the label, in a few more.

    Args:
        held: False for a model that is sure of nothing.
    """
    import torch
    from torch import Tensor, nn

    from mnemoscope.audit.models.data import DeviceData

    class ByHeart(nn.Module):
        """Sure of the label of a record that it holds, bit for bit, and of nothing else."""

        def __init__(self, records: Tensor, labels: Tensor) -> None:
            super().__init__()
            self.records, self.known = records, labels

        def forward(self, x: Tensor) -> Tensor:
            held = (x[:, None] - self.records).abs().sum(-1).min(dim=1)
            sure = nn.functional.one_hot(self.known[held.indices], 2).float()
            return 8.0 * (held.values < 1e-6)[:, None] * sure

    rng = np.random.default_rng(3)
    x = (rng.random((900, 12)) < 0.5).astype(np.float32)
    x[:, 0] = np.where(rng.random(900) < 0.8, x[:, 1], 1 - x[:, 1])
    y = np.where(rng.random(900) < 0.7, x[:, 0], 1 - x[:, 0])
    data, members, never = DeviceData(toy_dataset(x, y, 2)), np.arange(100), np.arange(100, 300)
    at = data.positions(members)
    known = data.inputs(at) if held else torch.full((at.numel(), 12), 9.0)
    model = oracle_of(ByHeart(known, data.y[at]), data, white_box=False)
    pair = VersionPair(model, model, np.arange(300, 900), 100, 10)
    return [Case.of(pair, members)], [Case.of(pair, never)]


def softmax_world(seed: int, n: int) -> tuple[Floats, NDArray[np.int64]]:
    """Draw correlated inputs (n, 8) and labels of a softmax regression with 4 classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES)) @ (np.eye(FEATURES) + 0.5 * rng.normal(size=(FEATURES, FEATURES)))
    odds = np.exp(x[:, :CLASSES])
    y = np.array([rng.choice(CLASSES, p=p) for p in odds / odds.sum(axis=1, keepdims=True)])
    return x, y


def softmax_fit(x: Floats, y: NDArray[np.int64], decay: float) -> Floats:
    """Return the optimum (c, d + 1) of mean cross-entropy + decay / 2 |theta|^2."""
    from scipy.optimize import minimize

    with_bias, onehot = np.column_stack([x, np.ones(len(x))]), np.eye(CLASSES)[y]

    def loss(flat: Floats) -> tuple[float, Floats]:
        theta = flat.reshape(CLASSES, -1)
        z = with_bias @ theta.T
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        gradient = (np.exp(log_p) - onehot).T @ with_bias / len(x) + decay * theta
        return -(log_p * onehot).sum() / len(x) + decay / 2 * (flat @ flat), gradient.ravel()

    start = np.zeros(CLASSES * (x.shape[1] + 1))
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    theta: Floats = found.x.reshape(CLASSES, -1)
    return theta


def softmax_oracle(theta: Floats, data: "DeviceData", *, white_box: bool = True) -> "ModelOracle":
    """Return the oracle of a linear layer with these weights and biases (c, d + 1)."""
    import torch
    from torch import nn

    layer = nn.Linear(theta.shape[1] - 1, theta.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(theta[:, :-1]))
        layer.bias.copy_(torch.from_numpy(theta[:, -1]))
    return oracle_of(nn.Sequential(nn.Flatten(), layer), data, white_box=white_box)


def optimum_cases(n_cases: int = 10) -> Cases:
    """Return softmax regressions refitted to their optimum without record 7; controls lost another record instead."""
    from mnemoscope.audit.models.data import DeviceData

    leaky, clean = [], []
    for seed in range(n_cases):
        x, y = softmax_world(seed, 700)
        x = x / np.abs(x).max()  # a table within [-1, 1] is used as it is
        data = DeviceData(toy_dataset(x.astype(np.float32), y, CLASSES))
        train, public = np.arange(300), np.arange(300, 700)
        kept, other = train[train != 7], train[(train != 7) & (train != 8)]
        full, gone, less = (softmax_oracle(softmax_fit(x[at], y[at], DECAY), data) for at in (train, kept, other))
        leaky.append(Case.of(VersionPair(full, gone, public, 300, 1), np.array([7])))
        # Here another record was deleted; the secret, record 7, was in neither version.
        clean.append(Case.of(VersionPair(gone, less, public, 299, 1), np.array([7])))
    return leaky, clean
