"""What methods that move the weights once, by gradients and curvature alone, have in common."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.models.curvature import Objective, Weights, hessian_product, sum_gradient
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.unlearning.base import Deletion

__all__ = ["Curvature", "corrected", "move", "pairs", "removal_gradient", "training_loss"]

Ids = NDArray[np.int64]


def training_loss(recipe: Recipe) -> Objective:
    """Return the loss that the recipe trains with, summed over records, without its weight decay."""

    def total(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=recipe.label_smoothing)

    return total


def pairs(deletion: Deletion, ids: Ids, *, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels of the ids once, as they are."""
    for batch in deletion.in_order(ids, batch_size=batch_size):
        yield batch.x, batch.y


def corrected(deletion: Deletion) -> Deletion:
    """Return the same deletion on the records as they ought to be, for requests of features and labels."""
    return dataclasses.replace(deletion, data=deletion.data.corrected(deletion.request))


def move(work: nn.Module, step: Mapping[str, Tensor], factor: float = 1.0) -> None:
    """Add ``factor`` times the step to the weights that it names, in place."""
    with torch.no_grad():
        for name, weight in work.named_parameters():
            if name in step:
                weight.add_(factor * step[name].to(weight.dtype))


def removal_gradient(work: nn.Module, deletion: Deletion) -> Weights:
    """Return v = grad of the mean loss over all records, minus grad of the mean loss over the retained ones.

    = (1/N) sum over D_f of g_i - N_f / (N N_r) sum over D_r of g_i. Where training ended in a minimum of its loss, v is
    minus the retained records' gradient, so that H^{-1} v is the Newton step towards their minimum; where it did not,
    what training left undone cancels.
    """
    loss, request = training_loss(deletion.recipe), deletion.request
    forget = sum_gradient(work, loss, pairs(deletion, request.forget))
    retain = sum_gradient(work, loss, pairs(deletion, request.retain))
    n_f, n_r = request.forget.size, request.retain.size
    n = n_f + n_r
    return {name: forget[name] / n - (n_f / (n * n_r)) * retain[name] for name in forget}


@dataclasses.dataclass(frozen=True, eq=False)
class Curvature:
    """Products with the Hessian of the training loss, summed over some records, weight decay included.

    The decay is part of the loss for SGD alone; AdamW's does not follow a loss.

    Attributes:
        module: in eval mode.
        deletion: gives records and recipe.
        ids: the records that are summed over.
        batch_size: records a pass; None is the runtime's.
    """

    module: nn.Module
    deletion: Deletion
    ids: Ids
    batch_size: int | None = None

    def times(self, vector: Mapping[str, Tensor]) -> Weights:
        """Return the Hessian times a vector, over the weights that it names."""
        recipe = self.deletion.recipe
        batches = pairs(self.deletion, self.ids, batch_size=self.batch_size)
        product = hessian_product(self.module, training_loss(recipe), batches, vector)
        decay = recipe.weight_decay * self.ids.size if recipe.optimizer == "sgd" else 0.0
        return {name: value + decay * vector[name] for name, value in product.items()}
