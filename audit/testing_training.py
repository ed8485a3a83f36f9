"""Training for toy fleets: models with one hidden layer, all at once, each on its own records, until known by heart."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["descended", "drawn_weights"]

RATE = 0.01


def drawn_weights(models: int, features: int, hidden: int, classes: int, *, seed: int) -> "dict[str, Tensor]":
    """Draw normal weights, scaled by their inputs, under the names of ``Sequential(Flatten, Linear, ..., Linear)``.

    Args:
        models: how many sets of weights, the first axis of every tensor.
        features: of a record.
        hidden: units of the one hidden layer.
        classes: of the answers.
        seed: of a generator of its own.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "1.weight": (hidden, features),
        "1.bias": (hidden,),
        "3.weight": (classes, hidden),
        "3.bias": (classes,),
    }
    return {name: torch.randn((models, *shape), generator=draw) / shape[-1] ** 0.5 for name, shape in shapes.items()}


def descended(
    start: "dict[str, Tensor]",
    x: "Tensor",
    y: "Tensor",
    mask: NDArray[np.bool_],
    *,
    steps: Sequence[int],
    activation: "Callable[[Tensor], Tensor]",
) -> "list[dict[str, Tensor]]":
    """Train with Adam on full batches, the mean cross-entropy of each model's own records.

    Args:
        start: weights as of ``drawn_weights``; they stay as they are.
        x: (n, f) float32 records.
        y: (n,) int64 labels.
        mask: (m, n) bool, which records each model is trained on.
        steps: how many steps to take before each time the weights are kept, in one run.
        activation: of the hidden layer.

    Returns:
        The weights after each of those runs of steps.
    """
    import torch

    models = mask.shape[0]
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    inputs, labels = x.expand(models, -1, -1), y.expand(models, -1)
    share = torch.from_numpy(mask / mask.sum(axis=1, keepdims=True)).to(torch.float32)
    optimizer = torch.optim.Adam(list(weights.values()), lr=RATE)
    kept = []
    for count in steps:
        for _ in range(count):
            hidden = activation(torch.baddbmm(weights["1.bias"][:, None], inputs, weights["1.weight"].mT))
            logits = torch.baddbmm(weights["3.bias"][:, None], hidden, weights["3.weight"].mT)
            losses = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none")
            optimizer.zero_grad()
            (losses * share).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        kept.append({name: value.detach().clone() for name, value in weights.items()})
    return kept
