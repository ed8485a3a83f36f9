"""Unrolling SGD (Thudi, Deza, Chandrasekaran & Papernot 2022, arXiv 2109.13398): single-gradient unlearning.

To first order around its initial weights w_0, training adds -eta grad L(w_0, b) for each use of a batch b. What the
forget records added is taken back with one gradient at w_0:

    theta <- theta + eta m grad L(w_0, b_f),   m = how often b_f was used

Here a forget record lies in batches with others, and the rate has a schedule, so eta m becomes a number for each
record: the sum, over the steps that used it, of the step's rate over the batch's size. Order and rates follow from the
history's seed without training again. With momentum a gradient goes on moving the weights in later steps, and the
rates of those steps count with it (mu^j for the j-th step after), Nesterov's form included: the paper's formula has
none, and this is the same expansion for heavy-ball SGD. Weight decay has no part at first order. Augmentation has, but
is left out: gradients are those of the records as they are.

Limits, as the authors say: the expansion holds for few steps of small size from w_0, a pre-trained model that is tuned
on. From random weights over many epochs it is far from training, and the step destroys the model; ``scale`` shortens
it. Only SGD is expanded: other optimisers are refused, DP-SGD too. Layers with batch normalisation normalise by the
forget batch at w_0, where their running statistics say nothing yet.

``unlearning_error`` and ``deviation_loss`` are the paper's two other parts: a proxy for the distance to retraining that
needs none, and a loss for training that keeps it small.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.curvature import Weights, sum_gradient
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.recipes import Recipe, learning_rate
from mnemoscope.audit.models.training import BatchStream
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.closed_form import move

__all__ = ["UnrollingSGD", "deviation_loss", "rate_of_records", "unlearning_error"]


@dataclass(frozen=True)
class UnrollingSGD(Method):
    """Take back what the forget records added to the weights, by one gradient at the initial weights.

    Attributes:
        scale: factor on the step, at least 0; 1 is the paper's. 0 changes nothing.
    """

    scale: float = 1.0
    name = "unrolling_sgd"
    knobs = {"scale": (0.01, 0.03, 0.1, 0.3, 1.0)}
    needs = Need.FORGET_DATA | Need.HISTORY

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise InvalidInput(f"unrolling_sgd: scale={self.scale!r} must be 0 or more, and finite")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        recipe, data, history = deletion.recipe, deletion.data, deletion.history
        assert history is not None
        if recipe.optimizer != "sgd" or recipe.private:
            given = "DP-SGD" if recipe.private else recipe.optimizer
            raise UnsupportedModel(
                f"unrolling_sgd expands the steps of SGD; the model was trained with {given}. Take another method, or "
                "train with optimizer 'sgd' and without DP"
            )
        forget = np.sort(deletion.request.forget)
        rates = rate_of_records(history, recipe, data)[np.searchsorted(np.sort(history.ids), forget)]
        initial = history.initial(recipe, data)
        for (name, weight), (_, ours) in zip(initial.named_parameters(), work.named_parameters(), strict=True):
            if weight.shape != ours.shape:
                raise UnsupportedModel(f"unrolling_sgd: {name!r} is not as the recipe builds it; give the own recipe")
            weight.requires_grad_(ours.requires_grad)
        move(work, _along(initial, deletion, forget, rates), self.scale)
        return work


def rate_of_records(history: History, recipe: Recipe, data: DeviceData) -> NDArray[np.float64]:
    """Return how far training moved the weights along each record's gradient at w_0, to first order.

    The sum, over the uses of the record, of rate / batch size, the rates of later steps counting with momentum's
    share. The order of the batches is drawn again from the seed; nothing is trained.

    Returns:
        (k,) float64, in the ascending order of the history's ids.
    """
    stream = BatchStream(data, history.ids, recipe, history.seed)
    ids, total = np.sort(history.ids), recipe.epochs * stream.steps
    carried = _carried([learning_rate(recipe, step, total) for step in range(total)], recipe)
    rates = np.zeros(ids.size)
    for epoch in range(recipe.epochs):
        for number, batch in enumerate(stream.epoch()):
            places = np.searchsorted(ids, data.ids[batch.positions.cpu().numpy()])
            rates[places] += carried[epoch * stream.steps + number] / batch.positions.numel()
    return rates


def _carried(rates: list[float], recipe: Recipe) -> list[float]:
    """Return, for each step, by what its gradient moves the weights in this and all later steps together."""
    carried, later = [], 0.0
    for rate in reversed(rates):
        later = rate + recipe.momentum * later  # sum over s >= t of rate_s momentum^(s - t)
        carried.append(rate + recipe.momentum * later if recipe.nesterov else later)
    return carried[::-1]


def _along(initial: nn.Module, deletion: Deletion, ids: NDArray[np.int64], rates: NDArray[np.float64]) -> Weights:
    """Return the sum of the records' gradients at the initial weights, each times its rate."""
    initial.eval()
    if ids.size > 1:  # one record has no variance to normalise by
        for part in initial.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()
    total: Weights = {}
    # As large as in training, and none with one record alone.
    parts = min(math.ceil(ids.size / deletion.recipe.batch_size), max(1, ids.size // 2))
    for places in np.array_split(deletion.rng.permutation(ids.size), parts):
        rows = deletion.data.positions(ids[places])
        factor = torch.from_numpy(rates[places]).to(deletion.data.device, torch.float32)

        def loss(logits: Tensor, labels: Tensor, factor: Tensor = factor) -> Tensor:
            each = nn.functional.cross_entropy(
                logits, labels, reduction="none", label_smoothing=deletion.recipe.label_smoothing
            )
            return (factor * each).sum()

        added = sum_gradient(initial, loss, iter([(deletion.data.inputs(rows), deletion.data.y[rows])]))
        total = {name: value + total[name] if name in total else value for name, value in added.items()}
    return total


def unlearning_error(rate: float, steps: int, distance: float, sigma: float) -> float:
    """Return the paper's proxy for the distance between the unlearned and the retrained weights.

    eta^2 ((t^2 - t) / 2) (|w_t - w_0| / t) sigma: the second term of the expansion, for t steps of one rate in which
    the weights moved evenly. The released code has t / 2 in the place of (t - 1) / 2.

    Args:
        rate: eta, of every step.
        steps: t, at least 1.
        distance: |w_t - w_0|, Euclidean over all weights.
        sigma: largest singular value of the loss's Hessian, averaged along the training (the released code takes the
            square root of its largest eigenvalue). ``influence_second_order.top_eigenvalue`` of a batch, divided by the
            batch's records, over which its loss is summed, measures it at one point.

    >>> unlearning_error(0.5, 3, 2.0, 4.0)
    2.0
    """
    if steps < 1 or not (rate >= 0 and distance >= 0 and sigma >= 0):
        raise InvalidInput(
            f"unlearning_error: steps={steps!r} must be 1 or more, rate={rate!r}, distance={distance!r} and "
            f"sigma={sigma!r} 0 or more"
        )
    return rate**2 * (steps - 1) / 2 * distance * sigma


def deviation_loss(logits: Tensor, labels: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return the SD loss: cross-entropy plus gamma times the mean standard deviation of a record's logits.

    Trained with it, weights move less, and the first-order step stays nearer to retraining. The released code divides
    the second term by the number of classes as well; with gamma / c in the place of gamma it is the same.

    Args:
        logits: (b, c).
        labels: (b,) int64.
        gamma: weight of the second term, at least 0.
    """
    return nn.functional.cross_entropy(logits, labels) + gamma * logits.std(dim=1).mean()
