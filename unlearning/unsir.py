"""UNSIR: noise that a model is surest is not of a class, taught as that class, and repair.

Tarun, Chundawat, Mandal and Kankanhalli 2023, "Fast Yet Effective Machine Unlearning" (IEEE TNNLS; arXiv 2111.08947),
and the authors' code. A class is forgotten without any of its records:

1. noise: a batch of standard normal inputs is moved by Adam to where the given model's cross-entropy for the class is
   largest, ``min_N -CE(f(N), class) + penalty * mean ||N||^2``;
2. impair: one pass over copies of the noise, labelled as the class, and a part of the retained records, at a high rate;
3. repair: one pass over these retained records.

Copies of the noise are about as many as the class has records (20 batches of 256 for 5,000).

Deviations. The noise is learnt on the model in eval mode: in train mode, as published, running statistics of batch
normalisation would be those of noise. The rates are relative to the user's own and so is the optimiser, without weight
decay: published are 0.02 and 0.01 for a training at 0.01, with Adam throughout. The retained records are drawn at
random, where published code takes the first of each class. For several classes that code labels all noise as the
first of them; here one class is forgotten at a time.

Pitfalls. The noise is far from any record: what is unlearnt is an answer to it, and how well that carries over to the
class depends on the rate, which is to be tuned. On small networks without normalisation noise as it was drawn did as
much as learnt noise, and harmed the other classes less (measured on 240 images of digits). In the impair pass the
running statistics see the noise, as published, and a short repair pass does not wash it out. The features of the class
stay in the network: it hides the class, and should be audited as that.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.joined import Joined

__all__ = ["UNSIR", "error_maximising_noise"]

IMPAIR, REPAIR = 2.0, 1.0
"""Published rates as shares of the training's: 0.02 and 0.01 of 0.01."""


@dataclass(frozen=True)
class UNSIR(Method):
    """Teach noise that the model is surest is not of a class as that class, then repair on retained records (UNSIR).

    Attributes:
        lr: rate of the impair pass by the user's own optimiser; None is twice the recipe's.
        repair_lr: rate of the repair pass; None is half of the impair pass's.
        impair_epochs: passes over noise and retained records, at least 0.
        repair_epochs: passes over the retained records, at least 0.
        records: retained records of each class that are read, at least 1.
        noise_steps: of Adam on the noise, at least 0; 40 in the authors' code, 25 in others'.
        noise_lr: their rate.
        penalty: of the noise's mean squared norm, at least 0.
        noise_batch: noise inputs that are learnt; None is the recipe's batch size.
        copies: of the noise in the impair pass, at least 1; None is as many as give the number of forget records.
    """

    lr: float | None = None
    repair_lr: float | None = None
    impair_epochs: int = 1
    repair_epochs: int = 1
    records: int = 1000
    noise_steps: int = 40
    noise_lr: float = 0.1
    penalty: float = 0.1
    noise_batch: int | None = None
    copies: int | None = None
    name = "unsir"
    needs = Need.RETAIN_DATA
    kinds = ("class",)

    def __post_init__(self) -> None:
        for field, value, least in (
            ("impair_epochs", self.impair_epochs, 0),
            ("repair_epochs", self.repair_epochs, 0),
            ("records", self.records, 1),
            ("noise_steps", self.noise_steps, 0),
            ("penalty", self.penalty, 0),
            ("noise_batch", self.noise_batch, 1),
            ("copies", self.copies, 1),
        ):
            if value is not None and not least <= value < math.inf:
                raise InvalidInput(f"{self.name}: {field}={value!r} must be at least {least}, and finite")
        for field, rate in (("lr", self.lr), ("repair_lr", self.repair_lr), ("noise_lr", self.noise_lr)):
            if rate is not None and not 0 < rate < math.inf:
                raise InvalidInput(f"{self.name}: {field}={rate!r} must be positive and finite")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        forget, recipe = deletion.request.forget, deletion.recipe
        label, size = int(deletion.labels(forget[:1])[0]), recipe.batch_size
        rate = IMPAIR * recipe.lr if self.lr is None else self.lr
        kept = deletion.per_class(self.records)
        if self.impair_epochs:
            noise = error_maximising_noise(
                deletion,
                label,
                number=size if self.noise_batch is None else self.noise_batch,
                steps=self.noise_steps,
                lr=self.noise_lr,
                penalty=self.penalty,
            )
            copies = max(1, round(forget.size / len(noise))) if self.copies is None else self.copies
            made = noise.repeat(copies, *(1,) * (noise.ndim - 1))
            labels = torch.full((len(made),), label, device=made.device)
            joined = Joined(deletion, made, labels, kept, size)
            optimizer = deletion.optimizer(work, rate, weight_decay=0.0)
            for _ in deletion.epochs(self.impair_epochs):
                for batch in joined.batches():
                    deletion.descend(optimizer, deletion.loss(work, batch))
        rate = rate * REPAIR / IMPAIR if self.repair_lr is None else self.repair_lr
        optimizer = deletion.optimizer(work, rate, weight_decay=0.0)
        stream = deletion.stream(kept, augment=False)
        for _ in deletion.epochs(self.repair_epochs):
            for batch in deletion.batches(stream):
                deletion.descend(optimizer, deletion.loss(work, batch))
        return work


def error_maximising_noise(
    deletion: Deletion, label: int, *, number: int, steps: int, lr: float, penalty: float
) -> Tensor:
    """Learn inputs that the given model is surest are not of a class.

    Args:
        deletion: gives the original model and the random draws.
        label: the class.
        number: of inputs, at least 1.
        steps: of Adam.
        lr: its rate.
        penalty: of the mean squared norm of the inputs.

    Returns:
        (number, ...) float32 inputs on the data's device.

    Raises:
        AuditError: the noise diverged.
    """
    shape = (number, *deletion.data.input_shape)
    start = torch.randn(shape, generator=deletion.generator()).to(deletion.data.device)
    noise = start.requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=lr)
    labels = torch.full((number,), label, device=noise.device)
    for _ in range(steps):
        loss = -nn.functional.cross_entropy(deletion.original(noise).float(), labels)
        loss = loss + penalty * noise.square().flatten(1).sum(dim=1).mean()
        (noise.grad,) = torch.autograd.grad(loss, [noise])
        optimizer.step()
    if not bool(noise.isfinite().all()):
        raise AuditError("unsir: the noise is not finite any more; lower noise_lr")
    return noise.detach()
