"""Selective synaptic dampening (Foster, Schoepf & Brintrup 2024, arXiv 2308.07707), and its label-free form.

No training: weights that matter more for the forget records than for all records are shrunk,

    where I_f > alpha I_D:   theta <- theta min(lambda I_D / I_f, 1)

The importance I of a set is the mean over its batches of the squared gradient of the batch's mean loss, D being all
records, forgotten ones included. The label-free form (LFSSD, Foster et al. 2024, arXiv 2402.19308) takes the absolute
gradient of the mean squared norm of the logits instead.

Squares of batch gradients depend on the size of the batches: signs cancel before they are squared. The published code
gives the last and often only batch of a small forget set as many records as there are; here both importances use
batches of one size, at most that of the forget set, and shuffled, so that a data set sorted by class makes no
difference. With ``batch_size=1`` the importance is the paper's formula, the diagonal of the empirical Fisher
information; the published numbers come from batches. The rule is abrupt in alpha, and needs classes: for random
records I_f and I_D hardly differ, and nothing is selected.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.curvature import (
    Weights,
    label_ways,
    open_weights,
    record_gradients,
    squared_gradients,
    sum_gradient,
)
from mnemoscope.unlearning.base import Batch, Deletion, Method, evaluating

__all__ = ["SSD", "SSDLabelFree"]


@dataclass(frozen=True)
class SSD(Method):
    """Shrink weights that matter more for the forget records than for all records; no training.

    Attributes:
        alpha: how many times more important a weight must be to be shrunk, positive.
        dampening: lambda, factor on the shrinking, at least 0; a weight never grows.
        exponent: of the ratio of importances, positive.
        batch_size: records whose gradients are averaged before they are squared; None is the recipe's.
    """

    alpha: float = 10.0
    dampening: float = 1.0
    exponent: float = 1.0
    batch_size: int | None = None
    name = "ssd"
    knobs = {"alpha": (1.0, 2.0, 5.0, 10.0, 25.0, 50.0), "dampening": (0.1, 0.5, 1.0)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA
    power: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for field in ("alpha", "exponent"):
            if not 0 < getattr(self, field) < math.inf:
                raise InvalidInput(f"{self.name}: {field}={getattr(self, field)!r} must be positive and finite")
        if not 0 <= self.dampening < math.inf:
            raise InvalidInput(f"{self.name}: dampening={self.dampening!r} must be 0 or more, and finite")
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidInput(f"{self.name}: batch_size={self.batch_size!r} must be 1 or more, or None")

    @staticmethod
    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, summed over records."""
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request = deletion.request
        size = deletion.recipe.batch_size if self.batch_size is None else self.batch_size
        size = min(size, request.forget.size)
        with evaluating(work):
            of_forget = self._importance(work, deletion, request.forget, size)
            of_all = self._importance(work, deletion, np.union1d(request.forget, request.retain), size)
        with torch.no_grad():
            for name, weight in work.named_parameters():
                if name in of_all:
                    ours, theirs = of_forget[name], of_all[name]
                    ratio = (self.dampening * theirs / ours.clamp_min(torch.finfo(ours.dtype).tiny)).pow(self.exponent)
                    weight.mul_(torch.where(ours > self.alpha * theirs, ratio.clamp(max=1.0), 1.0))
        return work

    def _importance(self, work: nn.Module, deletion: Deletion, ids: NDArray[np.int64], size: int) -> Weights:
        total = {name: torch.zeros_like(weight) for name, weight in open_weights(work).items()}
        stream = deletion.stream(ids, batch_size=size if size > 1 else None, augment=False)
        for batch in deletion.batches(stream):
            if size == 1:
                part = self._of_records(work, batch)
            else:
                whole = sum_gradient(work, self.objective, iter([(batch.x, batch.y)]))
                part = {name: (g / batch.y.numel()).abs().pow(self.power) for name, g in whole.items()}
            for name, value in part.items():
                total[name] += value
        count = ids.size if size == 1 else stream.steps
        return {name: value / count for name, value in total.items()}

    def _of_records(self, work: nn.Module, batch: Batch) -> Weights:
        """Return the sum over single records of squared gradients."""
        with torch.no_grad():
            ways = label_ways(work(batch.x), batch.y)
        return squared_gradients(work, batch.x, ways)


@dataclass(frozen=True)
class SSDLabelFree(SSD):
    """Shrink weights that matter more for the forget records' logits than for all records'; reads no label.

    Attributes:
        alpha: as in ``SSD``.
        dampening: as in ``SSD``.
        exponent: as in ``SSD``.
        batch_size: as in ``SSD``.
    """

    name = "ssd_label_free"
    power: ClassVar[int] = 1

    @staticmethod
    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        """Return the squared norm of the logits, summed over records."""
        return logits.square().sum()

    def _of_records(self, work: nn.Module, batch: Batch) -> Weights:
        total = {name: torch.zeros_like(weight) for name, weight in open_weights(work).items()}
        for part in record_gradients(work, self.objective, batch.x, batch.y):
            for name, value in part.items():
                total[name] += value.abs().sum(dim=0)
        return total
