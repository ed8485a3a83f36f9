"""AMUN: fine-tuning on adversarial examples of the forget records.

Ebrahimpour-Boroojeny et al. 2025, arXiv 2503.00917, and the authors' code.

A retrained model is less sure of a record that it never saw, and still mostly right about it. So AMUN forces no wrong
label on the record: it asks the model for the nearest point that it puts into another class, and teaches it just that
point with just that class, so that only the boundary next to the record moves.

1. for each forget record (x, y): the nearest adversarial x' with class y' (``adversarial_examples``), on the model as
   it is given; D_A is the pairs (x', y');
2. fine-tune on D_r, D_f and D_A together, D_f with its true labels; without retained records on D_f and D_A; for very
   large forget sets on D_A alone (``forgotten=False``).

What the paper's ablations found is kept: the pair (x', y') is whole, never x with y' or x' with another label.
D_A is not augmented, D_r and D_f are as in training. Requests one after another: each call searches on the model that
it is given, which is the paper's adaptive variant (AMUN-A). A model that was trained to be robust
(``adversarial_training.train_robust``) has its examples farther away; nothing else changes.

Deviations. The paper's rate decays every 1 or 5 epochs: 5 here. Distances of CIFAR-10 images start at 0.04 in the
authors' code; here a probe of forget records sets the first radius, for data of any kind. Without retained records the
running statistics of batch normalisation stay as they are. A record whose class does not change at any distance has
no row in D_A. The search is in float32 whatever the recipe's precision. The paper forgets records, not classes: a
model retrained without a class is wrong about it, and AMUN's premise falls, so requests of a class are refused.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.training import BatchStream
from mnemoscope.unlearning.adversarial_examples import (
    Neighbours,
    calibrate_radius,
    check_search,
    nearest_adversarial,
)
from mnemoscope.unlearning.base import Deletion, Method, still_norm
from mnemoscope.unlearning.saliency import only, saliency_mask

__all__ = ["Amun"]

PROBE = 100
"""Forget records that the first radius is set on, at most."""


@dataclass(frozen=True)
class Amun(Method):
    """Teach the model the nearest adversarial example of each forget record, with the class it has there.

    Attributes:
        epochs: passes over all records that are trained on, at least 0.
        lr: learning rate; None is a tenth of the recipe's (0.01 for the paper's 0.1). The paper tunes it from 1e-6 to
            1e-1.
        decay_every: epochs after which the rate is multiplied by ``decay``.
        decay: the factor, in (0, 1].
        retained: train on the retained records too, where the request has some.
        forgotten: train on the forget records with their true labels too.
        search: "restart" (the paper's algorithm) or "continue" (the authors' code, nearer examples).
        radius: first radius of the search, in pixels of [0, 1] for images; None sets it on a probe.
        steps: of a run of the search.
        keep: share of the weights, those most salient for the forget records, that may change (AMUN + SalUn; the
            paper tries 0.1 to 0.9); None trains them all.
    """

    epochs: int = 10
    lr: float | None = None
    decay_every: int = 5
    decay: float = 0.1
    retained: bool = True
    forgotten: bool = True
    search: Literal["restart", "continue"] = "restart"
    radius: float | None = None
    steps: int = 50
    keep: float | None = None
    name = "amun"
    needs = Need.FORGET_DATA
    optional = Need.RETAIN_DATA
    kinds = ("records",)

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.decay_every < 1:
            raise InvalidInput(
                f"amun: epochs={self.epochs!r} must be at least 0, decay_every={self.decay_every!r} at least 1"
            )
        if not 0 < self.decay <= 1 or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InvalidInput(f"amun: decay={self.decay!r} must be in (0, 1], lr={self.lr!r} positive or None")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InvalidInput(f"amun: keep={self.keep!r} must be a share in (0, 1], or None (all weights)")
        check_search(self.name, self.radius, self.search, self.steps)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        near = self._examples(deletion)
        request = deletion.request
        parts = [request.retain] * self.retained + [request.forget] * self.forgotten
        real = np.concatenate([np.empty(0, np.int64), *parts])
        stream = deletion.stream(real) if real.size else None
        draw = deletion.generator()
        lr = deletion.rate(self.lr)
        optimizer = deletion.optimizer(work, lr)
        with ExitStack() as during:
            if self.keep is not None:
                during.enter_context(only(saliency_mask(work, deletion, self.keep), work, optimizer))
            if not (self.retained and request.retain.size):
                during.enter_context(still_norm(work))
            self._train(work, deletion, near, stream, draw, optimizer, lr)
        return work

    def _examples(self, deletion: Deletion) -> Neighbours:
        data, batch_size = deletion.data, deletion.runtime.inference_batch
        positions = data.positions(np.sort(deletion.request.forget))
        radius = self.radius
        if radius is None:
            order = torch.randperm(positions.numel(), generator=deletion.generator())[:PROBE]
            probe = positions[order.sort().values.to(positions.device)]
            radius = calibrate_radius(
                deletion.original, data, probe, search=self.search, steps=self.steps, batch_size=batch_size
            )
        near = nearest_adversarial(
            deletion.original,
            data,
            positions,
            radius=radius,
            search=self.search,
            steps=self.steps,
            batch_size=batch_size,
        )
        if not bool(near.found.any()):
            raise AuditError(
                f"amun: the model gives all {positions.numel()} forget records their label at every distance that was "
                "tried: there are no adversarial examples to teach it"
            )
        return near

    def _train(
        self,
        work: nn.Module,
        deletion: Deletion,
        near: Neighbours,
        stream: BatchStream | None,
        draw: torch.Generator,
        optimizer: torch.optim.Optimizer,
        lr: float,
    ) -> None:
        for epoch in deletion.epochs(self.epochs):
            for group in optimizer.param_groups:
                group["lr"] = lr * self.decay ** (epoch // self.decay_every)
            for x, y in _mixed(deletion, stream, near.x[near.found], near.y[near.found], draw):
                logits = deletion.answer(work, x)
                loss = nn.functional.cross_entropy(logits, y, label_smoothing=deletion.recipe.label_smoothing)
                deletion.descend(optimizer, loss)


def _mixed(
    deletion: Deletion, stream: BatchStream | None, x: Tensor, y: Tensor, draw: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of the stream's records, augmented, and of the examples, as they are, shuffled together."""
    data = deletion.data
    batches = stream.epoch() if stream is not None else []
    rows = torch.cat([batch.positions for batch in batches]) if batches else data.positions(np.empty(0, np.int64))
    flips = [batch.flip for batch in batches if batch.flip is not None]
    shifts = [batch.shift for batch in batches if batch.shift is not None]
    flip, shift = (torch.cat(draws) if draws else None for draws in (flips, shifts))
    total = rows.numel() + y.numel()
    order = torch.randperm(total, generator=draw).to(data.device)
    for part in torch.tensor_split(order, math.ceil(total / deletion.recipe.batch_size)):
        real, made = part[part < rows.numel()], part[part >= rows.numel()] - rows.numel()
        inputs, labels = [x[made]], [y[made]]
        if real.numel():
            at = rows[real]
            moved = data.inputs(
                at, flip=None if flip is None else flip[real], shift=None if shift is None else shift[real]
            )
            inputs, labels = [moved, *inputs], [data.y[at], *labels]
        yield torch.cat(inputs), torch.cat(labels)
