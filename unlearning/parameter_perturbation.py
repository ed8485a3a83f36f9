"""Perturbation of few parameters, Top-K and Random-k (Zuo et al. 2024, arXiv 2401.04385): our reading of the abstract.

Known from the abstract: a small part of the weights is perturbed, the K that matter most or k at random, at a small
cost. Everything else here is ours, after a third party's code where that code does what it says:

1. choose. Random-k: each weight with probability ``share``. Top-K: the ``share`` of all weights whose squared gradient
   of the loss on one batch of forget records is largest, ranked over the whole model;
2. perturb: add ``noise`` times the standard deviation of the weight's own tensor times a standard normal draw;
3. repair: ``repair`` passes of as many steps as the forget records have batches, each on a batch of retained records
   with the recipe's optimiser.

Where we leave the third party's code: it compares *weights* with the threshold of gradients, so that its Top-K is
another set; here the mask is of squared gradients. Its noise has the standard deviation 0.1 for every tensor, which is
next to nothing in one layer and the end of another; ours is in units of the tensor's own (0.1 is about four of them in
its networks, whence the default). Its repair pulls the answers on forget records towards those of the original model
with weight 0.1: that rehearses what is to be forgotten, so it is off unless ``pull`` is given.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.curvature import open_weights, sum_gradient
from mnemoscope.unlearning.base import Deletion, Method, evaluating, still_norm
from mnemoscope.unlearning.closed_form import training_loss
from mnemoscope.unlearning.saliency import largest

__all__ = ["RandomKPerturbation", "TopKPerturbation", "symmetric_divergence"]


@dataclass(frozen=True)
class _Perturbation(Method):
    """What both ways of choosing share.

    Attributes:
        share: of the weights that is perturbed, in [0, 1].
        noise: standard deviation of what is added, in units of the tensor's own, at least 0.
        repair: passes of repair, at least 0.
        lr: of the repair; None is a tenth of the recipe's.
        pull: weight of the divergence from the original model's answers on forget records, at least 0.
    """

    share: float = 0.01
    noise: float = 4.0
    repair: int = 10
    lr: float | None = None
    pull: float = 0.0
    needs = Need.FORGET_DATA | Need.RETAIN_DATA
    reading: ClassVar[bool] = True
    knobs = {"share": (0.003, 0.01, 0.03), "noise": (1.0, 4.0)}

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"{self.name}: share={self.share!r} must be in [0, 1]")
        for field in ("noise", "pull"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InvalidInput(f"{self.name}: {field}={getattr(self, field)!r} must be 0 or more, and finite")
        if self.repair < 0 or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InvalidInput(
                f"{self.name}: repair={self.repair!r} must be 0 or more, lr={self.lr!r} positive, finite, or None"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        with evaluating(work):
            chosen = self._chosen(work, deletion)
        draw = deletion.generator()
        with torch.no_grad():
            for name, weight in work.named_parameters():
                if name in chosen:
                    noise = torch.randn(weight.shape, generator=draw).to(weight)
                    weight.add_(chosen[name] * self.noise * weight.std(correction=0) * noise)
        self._repair(work, deletion)
        return work

    @abstractmethod
    def _chosen(self, work: nn.Module, deletion: Deletion) -> dict[str, Tensor]:
        """Return a mask (bool) for each weight that may change."""

    def _repair(self, work: nn.Module, deletion: Deletion) -> None:
        request, recipe = deletion.request, deletion.recipe
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        retain = deletion.endless(deletion.stream(request.retain))
        forget = deletion.stream(request.forget)
        for _ in deletion.epochs(self.repair):
            for batch in deletion.batches(forget):
                kept = next(retain)
                # Not ``Deletion.loss``: where labels are smoothed it rounds otherwise than finished models did.
                loss = training_loss(recipe)(deletion.answer(work, kept.x), kept.y) / kept.y.numel()
                if self.pull:
                    with torch.no_grad():
                        before = deletion.answer(deletion.original, batch.x)
                    with still_norm(work):
                        loss = loss + self.pull * symmetric_divergence(deletion.answer(work, batch.x), before)
                deletion.descend(optimizer, loss)


@dataclass(frozen=True)
class TopKPerturbation(_Perturbation):
    """Perturb the weights that matter most for the forget records, then repair (our reading of an abstract).

    Attributes: as for ``_Perturbation``.
    """

    name = "top_k_perturbation_reading"

    def _chosen(self, work: nn.Module, deletion: Deletion) -> dict[str, Tensor]:
        batch = next(deletion.batches(deletion.stream(deletion.request.forget, augment=False)))
        slopes = sum_gradient(work, training_loss(deletion.recipe), iter([(batch.x, batch.y)]))
        number = round(self.share * sum(slope.numel() for slope in slopes.values()))
        return largest({name: slope.square() for name, slope in slopes.items()}, number)


@dataclass(frozen=True)
class RandomKPerturbation(_Perturbation):
    """Perturb weights drawn at random, then repair (our reading of an abstract).

    Attributes: as for ``_Perturbation``.
    """

    name = "random_k_perturbation_reading"

    def _chosen(self, work: nn.Module, deletion: Deletion) -> dict[str, Tensor]:
        draw = deletion.generator()
        return {
            name: (torch.rand(weight.shape, generator=draw) < self.share).to(weight.device)
            for name, weight in open_weights(work).items()
        }


def symmetric_divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return (KL(p || q) + KL(q || p)) / 2 in nats, the mean over records; logits (b, c) of p and q."""
    p, q = torch.log_softmax(one, dim=1), torch.log_softmax(other, dim=1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1).mean() / 2
