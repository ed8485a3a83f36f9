"""Relabelling: train on with the forget records under random labels.

Graves, Nagisetty and Ganesh 2021, "Amnesiac Machine Learning" (arXiv 2010.10981), where it is called "unlearning": the
forget records get labels drawn at random among the wrong ones, and training goes on with the whole set so modified.
Later work draws among all labels, afresh in each epoch, and takes the forget records first (the "RL" rows of
arXiv 2304.04934 and 2310.12508; SalUn builds on it). Both are settings here; ``Relabelled`` is the common part.

What differs, and why:

- Optimiser, rate and epochs are those of the common protocol of arXiv 2304.04934 (the user's own optimiser at a tenth
  of its rate, 10 epochs); the first paper's depend on the network.
- A pass on forget records alone uses the running statistics of batch normalisation and leaves them as they are.
- A forget record may be left with an answer that no unseen record gets: confident and wrong. That is the method.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Batch, Deletion, Method, still_norm

__all__ = ["Labels", "Order", "RandomLabels", "Relabelled", "draw_labels"]

Labels = Literal["wrong", "any"]
"""Which labels a forget record may get: any but its own, or any."""

Order = Literal["mixed", "forget_first"]
"""How an epoch goes: all records shuffled, or one pass over the forget records and then one over the retained."""


def draw_labels(labels: Tensor, n_classes: int, choice: Labels, generator: torch.Generator) -> Tensor:
    """Draw a label for each record, uniformly among the ``choice``.

    Args:
        labels: (k,) int64 true labels.
        n_classes: number of classes, at least 2.
        choice: "wrong" or "any".
        generator: on the CPU, so that the draws are the same on every device.

    Returns:
        (k,) int64 on the device of ``labels``.
    """
    low = 1 if choice == "wrong" else 0
    drawn = torch.randint(low, n_classes, labels.shape, generator=generator).to(labels.device)
    return (labels + drawn) % n_classes


class Relabelled:
    """Epochs of a deletion's records with the forget records under drawn labels."""

    def __init__(self, deletion: Deletion, *, labels: Labels, order: Order, redraw: bool) -> None:
        """Start the streams.

        Args:
            deletion: gives the records and the randomness.
            labels: among which the forget records' labels are drawn.
            order: of an epoch.
            redraw: whether every epoch draws anew.
        """
        request = deletion.request
        self._deletion, self._labels, self._redraw = deletion, labels, redraw
        self._forget = deletion.data.positions(np.sort(request.forget))
        self._generator = deletion.generator()
        ids = (np.union1d(request.forget, request.retain),) if order == "mixed" else (request.forget, request.retain)
        self._streams = [deletion.stream(part) for part in ids]
        self._apart = order == "forget_first"
        self._drawn: Tensor | None = None

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return sum(stream.steps for stream in self._streams)

    def epoch(self) -> Iterator[tuple[Batch, bool]]:
        """Yield the batches of the next epoch, and whether a batch holds forget records alone."""
        if self._drawn is None or self._redraw:
            data = self._deletion.data
            self._drawn = data.y.clone()
            own = data.y[self._forget]
            self._drawn[self._forget] = draw_labels(own, data.n_classes, self._labels, self._generator)
        for place, stream in enumerate(self._streams):
            for batch in self._deletion.batches(stream):
                yield replace(batch, y=self._drawn[batch.positions]), self._apart and place == 0


def loss_of(work: nn.Module, deletion: Deletion, batch: Batch, *, alone: bool) -> Tensor:
    """Return the user's own loss of a batch; normalisation statistics stay still on forget records ``alone``."""
    if alone:
        with still_norm(work):
            return deletion.loss(work, batch)
    return deletion.loss(work, batch)


@dataclass(frozen=True)
class RandomLabels(Method):
    """Train on with the forget records under random labels and the retained ones under their own.

    Attributes:
        epochs: passes over all records, at least 0.
        lr: constant learning rate of the user's own optimiser; None is a tenth of the recipe's.
        labels: "wrong" draws among the labels that are not the record's own, "any" among all.
        order: "mixed" shuffles forget and retained records, "forget_first" takes one after the other.
        redraw: draw new labels in every epoch; otherwise once.
    """

    epochs: int = 10
    lr: float | None = None
    labels: Labels = "wrong"
    order: Order = "mixed"
    redraw: bool = False
    name = "random_labels"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if self.epochs < 0 or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InvalidInput(
                f"random_labels: epochs={self.epochs!r} must be at least 0, lr={self.lr!r} positive and finite, or None"
            )
        for field, value, allowed in (
            ("labels", self.labels, get_args(Labels)),
            ("order", self.order, get_args(Order)),
        ):
            if value not in allowed:
                raise InvalidInput(f"random_labels: {field}={value!r} is unknown; allowed: {', '.join(allowed)}")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        records = Relabelled(deletion, labels=self.labels, order=self.order, redraw=self.redraw)
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        for _ in deletion.epochs(self.epochs):
            for batch, alone in records.epoch():
                deletion.descend(optimizer, loss_of(work, deletion, batch, alone=alone))
        return work
