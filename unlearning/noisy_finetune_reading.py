"""Noisy fine-tuning for as long as the hardest record needs: our reading of Sepahvand et al. 2025 (arXiv 2505.18786).

Of the paper we know the abstract: fine-tuning with noise on the retained records, its length chosen by the privacy
losses of the very records to forget instead of by a worst-case bound; the choice is said to carry over to fine-tuning
without noise. How losses become a number of steps here is in ``per_instance_privacy``; step size, noise, order and
target are ours. The target is reached when the bound of every forget record is below it, or the number of epochs ends.

The accounting replays the training once: that is bookkeeping to be done while training, and no part of the deletion's
cost, but this implementation pays for it each time.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.per_instance_privacy import privacy_account

__all__ = ["NoisyFineTune"]


@dataclass(frozen=True)
class NoisyFineTune(Method):
    """Fine-tune on the retained records with noise on the gradient, longer where a record is harder to forget.

    Attributes:
        target: nats, Renyi divergence of the chosen order to which the bound of every forget record is brought. At a
            noise that the model survives this is far from any guarantee; it sets the pace.
        noise: standard deviation of the noise on each entry of the averaged gradient.
        order: of the Renyi divergence, above 1.
        epochs: passes over the retained records at most, at least 0.
        lr: learning rate; None is the recipe's own, because noise at a lower one hides less.
        every: gradient norms are measured at every so manyth use of a record in training, and kept for those between.
    """

    target: float = 1000.0
    noise: float = 0.003
    order: float = 2.0
    epochs: int = 50
    lr: float | None = None
    every: int = 1
    name = "noisy_finetune_reading"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA | Need.HISTORY
    reading = True

    def __post_init__(self) -> None:
        for field, value in (("target", self.target), ("noise", self.noise), ("lr", self.lr)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"noisy_finetune_reading: {field}={value!r} must be positive and finite")
        if self.epochs < 0 or self.every < 1 or not 1 < self.order < math.inf:
            raise InvalidInput(
                f"noisy_finetune_reading: epochs={self.epochs!r} must be at least 0, every={self.every!r} at least 1 "
                f"and order={self.order!r} above 1"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        assert deletion.history is not None
        lr = deletion.recipe.lr if self.lr is None else self.lr
        account = privacy_account(
            deletion.original,
            deletion.history,
            deletion.request.forget,
            recipe=deletion.recipe,
            data=deletion.data,
            runtime=deletion.runtime,
            lr=lr,
            order=self.order,
            noise=self.noise,
            every=self.every,
        )
        stream = deletion.stream(deletion.request.retain)
        left = account.steps_for(self.target, most=self.epochs * stream.steps)
        optimizer, draws = deletion.optimizer(work, lr), deletion.generator()

        def add_noise() -> None:
            for weight in work.parameters():
                if weight.grad is not None:
                    drawn = torch.randn(weight.shape, generator=draws)
                    weight.grad += self.noise * drawn.to(weight.device)

        for _ in deletion.epochs(math.ceil(left / stream.steps)):
            for batch in deletion.batches(stream):
                if left:
                    deletion.descend(optimizer, deletion.loss(work, batch), change=add_noise)
                    left -= 1
        return work
