"""NegGrad+: down the retained records' loss and up the forget records' loss in one step.

Kurmanji, Triantafillou, Hayes and Triantafillou 2023, "Towards Unbounded Machine Unlearning" (arXiv 2302.09880), where
it is the strongest baseline: each step takes a batch of retained and a batch of forget records and descends
``alpha * loss(retained) - (1 - alpha) * loss(forget)``; the forget records are gone round again and again until the
retained ones are through.

What differs from the paper, and why:

- The pass on forget records uses the running statistics of batch normalisation and leaves them as they are; the
  published code lets forget records write into statistics that the final model keeps.
- The published objective has no bound: forget records can end up with a loss that no unseen record has, which a
  two-sided attack sees. ``ceiling`` bounds it; it is off by default, as in the paper.
- Labels of retained records are smoothed where the recipe smooths them, those of forget records are not.
- ``anchor`` is the pull to the original weights that a later audit of this method adds (Naderloui et al. 2025,
  arXiv 2506.13009). Ours pulls to the frozen original: where that is the working model itself, the pull is always zero.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, Method, still_norm

__all__ = ["NegGradPlus"]


@dataclass(frozen=True)
class NegGradPlus(Method):
    """Descend on retained and ascend on forget records in the same step (NegGrad+).

    Attributes:
        epochs: passes over the retained records, at least 0.
        lr: constant learning rate of the user's own optimiser; None is a tenth of the recipe's (0.01 for 0.1).
        alpha: weight of the retained loss in (0, 1]; the forget loss has 1 - alpha.
        forget_batch: forget records a step; None is the recipe's batch size.
        ceiling: mean loss of a forget batch, in nats, above which it is pushed no further; None is no bound.
        anchor: weight of half the squared distance to the original weights, at least 0.
    """

    epochs: int = 10
    lr: float | None = None
    alpha: float = 0.95
    forget_batch: int | None = None
    ceiling: float | None = None
    anchor: float = 0.0
    name = "neggrad_plus"
    knobs = {"alpha": (0.9, 0.95, 0.99)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        for field, value in (("lr", self.lr), ("ceiling", self.ceiling)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"neggrad_plus: {field}={value!r} must be positive, finite, or None")
        if self.epochs < 0 or (self.forget_batch is not None and self.forget_batch < 1):
            raise InvalidInput(
                f"neggrad_plus: epochs={self.epochs!r} must be at least 0, forget_batch={self.forget_batch!r} at "
                "least 1 or None"
            )
        if not 0 < self.alpha <= 1 or not 0 <= self.anchor < math.inf:
            raise InvalidInput(
                f"neggrad_plus: alpha={self.alpha!r} must be in (0, 1], anchor={self.anchor!r} at least 0 and finite"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request = deletion.request
        retained = deletion.stream(request.retain)
        forget = deletion.endless(deletion.stream(request.forget, batch_size=self.forget_batch))
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        for _ in deletion.epochs(self.epochs):
            for batch in deletion.batches(retained):
                gone = next(forget)
                with still_norm(work):
                    forgotten = nn.functional.cross_entropy(deletion.answer(work, gone.x), gone.y)
                if self.ceiling is not None:
                    forgotten = forgotten.clamp(max=self.ceiling)
                loss = self.alpha * deletion.loss(work, batch) - (1 - self.alpha) * forgotten
                if self.anchor:
                    loss = loss + self.anchor / 2 * _square_distance(work, deletion.original)
                deletion.descend(optimizer, loss)
        return work


def _square_distance(work: nn.Module, original: nn.Module) -> Tensor:
    pairs = zip(work.parameters(), original.parameters(), strict=True)
    return torch.stack([(now - then).square().sum() for now, then in pairs if now.requires_grad]).sum()
