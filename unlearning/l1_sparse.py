"""l1-sparse unlearning: fine-tuning on the retained records with a penalty that makes weights vanish.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu 2023, "Model Sparsity Can Simplify Machine Unlearning" (arXiv 2304.04934):
the gap of approximate methods to retraining shrinks with the number of weights, so fine-tuning gets a penalty ``alpha``
times the sum of absolute weights, which falls linearly to zero over the epochs, the last ``plain_epochs`` having none.

What differs, and why: nothing in the algorithm. Constant and rising penalties, which other work uses, are settings.
``alpha`` must be tuned. Published values with this schedule lie between 0.0001 and 0.0003; the default is the number of
arXiv 2503.00917, whose own schedule starts at twice of it, 2 - 2 e / E: 0.001 here does what is done there.

To know: the penalty covers every weight that may change, scales of normalisation layers and biases included, as
published, and costs one to three points of test accuracy. What it adds in all to a weight is at most rate x alpha x
steps: on a few hundred steps that is little, and the method is then fine-tuning.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["L1Sparse"]

Penalty = Literal["falling", "constant", "rising"]


@dataclass(frozen=True)
class L1Sparse(Method):
    """Fine-tune on the retained records with an l1 penalty on all weights, which falls to zero (l1-sparse).

    Where features or labels are to be corrected, the corrected records are among the retained.

    Attributes:
        epochs: passes over the retained records, at least 0.
        lr: constant learning rate of the user's own optimiser; None is a tenth of the recipe's (0.01 for 0.1).
        alpha: weight of the sum of absolute weights, at least 0.
        plain_epochs: epochs at the end without penalty, at least 0.
        penalty: "falling" from alpha linearly to 0 at the first plain epoch, "constant", or "rising" from 0 to alpha.
    """

    epochs: int = 10
    lr: float | None = None
    alpha: float = 5e-4
    plain_epochs: int = 0
    penalty: Penalty = "falling"
    name = "l1_sparse"
    knobs = {"alpha": (1e-5, 1e-4, 5e-4, 1e-3)}
    needs = Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.plain_epochs < 0:
            raise InvalidInput(
                f"l1_sparse: epochs={self.epochs!r} and plain_epochs={self.plain_epochs!r} must be at least 0"
            )
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InvalidInput(f"l1_sparse: lr={self.lr!r} must be positive and finite, or None")
        if not 0 <= self.alpha < math.inf:
            raise InvalidInput(f"l1_sparse: alpha={self.alpha!r} must be at least 0 and finite")
        if self.penalty not in get_args(Penalty):
            raise InvalidInput(f"l1_sparse: penalty={self.penalty!r} is unknown; allowed: falling, constant, rising")

    def weight(self, epoch: int) -> float:
        """Return the penalty's weight in an epoch, counted from 0."""
        penalised = self.epochs - self.plain_epochs
        if epoch >= penalised:
            return 0.0
        share = {"falling": 1 - epoch / penalised, "constant": 1.0, "rising": (epoch + 1) / penalised}
        return self.alpha * share[self.penalty]

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request = deletion.request
        deletion = dataclasses.replace(deletion, data=deletion.data.corrected(request))
        stream = deletion.stream(request.known)
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        for epoch in deletion.epochs(self.epochs):
            weight = self.weight(epoch)
            for batch in deletion.batches(stream):
                loss = deletion.loss(work, batch)
                deletion.descend(optimizer, loss + weight * _l1(work) if weight else loss)
        return work


def _l1(work: nn.Module) -> Tensor:
    return torch.stack([weight.abs().sum() for weight in work.parameters() if weight.requires_grad]).sum()
