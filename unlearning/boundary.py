"""Boundary unlearning: shrink the forget records' region, or expand it into a class that is then cut off.

Chen et al. 2023 ("Boundary Unlearning", CVPR), known to us from public ports of the authors' code. Made for whole
classes; on random records others found next to no effect at 10 % and collapse at 50 % (arXiv 2503.00917). Only forget
records are read.

Shrink: each forget record is pushed over the nearest boundary of the given model (FGSM), and the model is fine-tuned to
give the record, as it is, the class found there. Expand: the classifier gets one more class, the model is fine-tuned to
put all forget records into it, and the class is taken away again.

Deviations. Where the push does not change the class (a single step may fail), the published code teaches the record's
own label, which is the opposite of forgetting; here it is the best other class at the pushed point. Pushed records are
not rounded to whole pixels. They and the classes are found once, not anew in each epoch, since the given model does
not change. The port normalises by constants of its own; bounds here are in pixels of [0, 1], or in the inputs
where there are no pixels. Running statistics of batch normalisation stay as they are in both, as only forget
records are seen; the port moves them. The port's curvature term and sample weights, extras of its own, are left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.adversarial_examples import linf_examples
from mnemoscope.unlearning.base import Batch, Deletion, Method, still_norm
from mnemoscope.unlearning.heads import last_linear

__all__ = ["BoundaryExpand", "BoundaryShrink"]

RATE = 1e-4
"""Rate of unlearning as a share of the training's: 1e-5 in the port, for a training at 0.1."""


def _check(method: str, epochs: int, lr: float | None, batch_size: int) -> None:
    if epochs < 0 or batch_size < 1 or (lr is not None and not 0 < lr < math.inf):
        raise InvalidInput(
            f"{method}: epochs={epochs!r} must be at least 0, batch_size={batch_size!r} at least 1, and lr={lr!r} "
            "positive, finite, or None"
        )


def _descend(
    work: nn.Module,
    deletion: Deletion,
    targets: Callable[[Batch], Tensor],
    epochs: int,
    lr: float | None,
    batch_size: int,
) -> None:
    """Fine-tune on the forget records with other labels, as published without smoothing; statistics of norms stay."""
    optimizer = deletion.optimizer(
        work, deletion.recipe.lr * RATE if lr is None else lr, kind="sgd", momentum=0.9, weight_decay=0.0
    )
    stream = deletion.stream(deletion.request.forget, batch_size=batch_size, augment=False)
    with still_norm(work):
        for _ in deletion.epochs(epochs):
            for batch in deletion.batches(stream):
                loss = nn.functional.cross_entropy(deletion.answer(work, batch.x), targets(batch))
                deletion.descend(optimizer, loss)


@dataclass(frozen=True)
class BoundaryShrink(Method):
    """Give each forget record the class across its nearest boundary, found by an adversarial push.

    Attributes:
        epochs: passes over the forget records, at least 0.
        lr: learning rate of SGD; None is the recipe's times 1e-4 (1e-5 for 0.1, as in the port). It decides
            everything, and is to be tuned.
        batch_size: forget records a step.
        push: "fgsm", one step of the bound's length, or "pgd", five of ``step``.
        bound: largest change of a value by the push, in pixels of [0, 1] for images.
        step: length of a step of "pgd".
    """

    epochs: int = 10
    lr: float | None = None
    batch_size: int = 64
    push: Literal["fgsm", "pgd"] = "fgsm"
    bound: float = 0.1
    step: float = 8 / 255
    name = "boundary_shrink"
    needs = Need.FORGET_DATA

    def __post_init__(self) -> None:
        _check(self.name, self.epochs, self.lr, self.batch_size)
        if self.push not in ("fgsm", "pgd"):
            raise InvalidInput(f"boundary_shrink: push={self.push!r} is unknown; allowed: 'fgsm', 'pgd'")
        if not (0 < self.bound < math.inf and 0 < self.step < math.inf):
            raise InvalidInput(f"boundary_shrink: bound={self.bound!r} and step={self.step!r} must be positive")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        data = deletion.data
        rows = data.positions(np.sort(deletion.request.forget))
        target = data.y.clone()
        target[rows] = self._neighbours(deletion, rows)
        _descend(work, deletion, lambda batch: target[batch.positions], self.epochs, self.lr, self.batch_size)
        return work

    def _neighbours(self, deletion: Deletion, rows: Tensor) -> Tensor:
        """The class of each record's pushed point, or the best other class there if that is still its own."""
        pushed = linf_examples(
            deletion.original,
            deletion.data,
            rows,
            bound=self.bound,
            step=self.bound if self.push == "fgsm" else self.step,
            steps=1 if self.push == "fgsm" else 5,
            batch_size=deletion.runtime.inference_batch,
        )
        logits = torch.cat([answers for _, answers in pushed])
        own = nn.functional.one_hot(deletion.data.y[rows], logits.shape[1]).bool()
        return logits.masked_fill(own, -torch.inf).argmax(dim=1)


@dataclass(frozen=True)
class BoundaryExpand(Method):
    """Put the forget records into one class more than there are, and take that class away again.

    The model's logits must be the output of a linear layer.

    Attributes:
        epochs: passes over the forget records, at least 0.
        lr: learning rate of SGD; None is the recipe's times 1e-4 (1e-5 for 0.1, as in the port). It decides
            everything, and is to be tuned.
        batch_size: forget records a step.
    """

    epochs: int = 10
    lr: float | None = None
    batch_size: int = 64
    name = "boundary_expand"
    needs = Need.FORGET_DATA

    def __post_init__(self) -> None:
        _check(self.name, self.epochs, self.lr, self.batch_size)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        place, layer = last_linear(work, deletion, self.name)
        wide = _Widened(layer)
        work = _replaced(work, place, wide)
        _descend(
            work,
            deletion,
            lambda batch: torch.full_like(batch.y, layer.out_features),
            self.epochs,
            self.lr,
            self.batch_size,
        )
        return _replaced(work, place, layer)


class _Widened(nn.Module):
    """A linear layer with one output more, in weights of its own: the layer itself is left when it is taken away."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        # Drawn on the CPU, so that it is the same on every device.
        self.extra = nn.Linear(layer.in_features, 1, bias=layer.bias is not None).to(layer.weight.device)

    def forward(self, h: Tensor) -> Tensor:
        """Map (b, d) to the layer's outputs and one more, (b, c + 1)."""
        return torch.cat([self.layer(h), self.extra(h)], dim=-1)


def _replaced(module: nn.Module, place: str, part: nn.Module) -> nn.Module:
    """Return the module with another part at a place; "" is the module itself."""
    if not place:
        return part
    parent, _, key = place.rpartition(".")
    setattr(module.get_submodule(parent), key, part)
    return module
