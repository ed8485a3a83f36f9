"""Dataset condensation driven unlearning: fewer retained records, and a network trained in three parts.

Khan 2024, "Dataset Condensation Driven Machine Unlearning" (arXiv 2402.00195), and the author's code.

1. Clusters: the records of each class are clustered by K-means on features of the given model.
2. Condensed inputs: each cluster becomes one input, by "fast distribution matching" (``condense.condensed``).
3. The network is cut into a beginning, an intermediate and a final part. Offline, in alternation: the final part, each
   time from the original's weights, learns the remembrance set (a few records of each class); then the intermediate
   part learns all records with the final part held.
4. The reduced retain set is the condensed inputs of clusters without a forget record, and the retained records
   themselves of all other clusters.
5. Online, epoch after epoch: the beginning learns the reduced set, and in the first epochs the final part makes a few
   steps on the whole remembrance set; at last the intermediate part learns the reduced set once.

Everything is Adam with fresh state, without augmentation; batch normalisation is in train mode throughout.

Pitfall avoided: published code takes the remembrance set from the test images, which then count as never seen, and
takes it from a forgotten class too. Here it comes from the retained records.

Deviations and choices:

- The parts are found in any network by the order in which its layers are called, in shares of ResNet-18's parts (10, 5
  and 6 of 21 layers; they also give the published parts of the MLP of three layers and the CNN of five, not of VGG-16
  and the ViT, which were cut elsewhere). A network of two layers has no intermediate part.
- Features are what enters the last layer (published but for VGG-16), and the model that gives them is the given one, in
  eval mode. Published code condenses after the offline stage by the very network that it changed, in train mode.
- The final part starts from the original at every alternation, as in the code for ResNet-18; in that for the MLP the
  weights are shared with the original by mistake and go on.
- Offline the final part learns the remembrance set, as in the code.
- The offline stage is meant for the time before anybody asks, so it reads all records, forgotten ones too
  (``offline_records="all"``). Here it is part of each call; its passes cost more than training again, and
  ``alternations=0`` leaves it out. The clusters are made with the forget records too, and only what is made of clusters
  without them is used.
- A pass over the remembrance set is cut into steps of nearly equal size, so no small last batch counts as much as a
  whole one. The recipe's label smoothing is part of the loss.
- Condensation by an inverted network, the paper's other way, is not offered: its one network is trained on all
  clusters together, so the inputs that it makes for clusters without forget records depend on these nonetheless.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.unlearning.base import Batch, Deletion, Ids, Method
from mnemoscope.unlearning.condense import clusters_of, condensed
from mnemoscope.unlearning.joined import Joined
from mnemoscope.unlearning.network_parts import Parts, three_parts

__all__ = ["Condensation", "Stage", "reduced_set"]

SLOW, SLOWEST = 0.1, 0.01
"""Rates of the other stages as shares of the first one's: 1e-4 (final part offline, intermediate part online) and 1e-5
(intermediate part offline) of 1e-3."""

REMEMBERED_BATCH = 32
"""Records of the remembrance set in a forward pass, at most, as published."""

LEAST = {
    "epochs": 0,
    "clusters": 1,
    "condensation_epochs": 0,
    "remembered": 1,
    "alternations": 0,
    "offline_epochs": 0,
    "final_epochs": 0,
    "final_steps": 0,
    "intermediate_epochs": 0,
    "batch_size": 1,
}
"""Least value of each setting that counts something; ``clusters`` and ``batch_size`` may also be None."""


@dataclass(frozen=True)
class Condensation(Method):
    """Train the first layers on condensed retained records and the last ones on a few remembered ones (DC-U).

    Attributes:
        epochs: online epochs, at least 0; 0 leaves the model as it is.
        lr: rate of Adam for the beginning and the final part online; the published 1e-3. A tenth of it is that of the
            final part offline and the intermediate part online, a hundredth that of the intermediate part offline.
        clusters: of each class; None is one for 11.1 records (450 for 5,000, as published).
        condensation_epochs: steps that learn the weights of a cluster's inputs, at least 0.
        condensation_lr: their rate.
        remembered: retained records of each class in the remembrance set, at least 1.
        alternations: of the offline stage, at least 0.
        offline_epochs: passes of each part in an alternation, at least 0.
        offline_records: "all" as published, or "retained", that the intermediate part learns offline.
        final_epochs: in how many of the first online epochs the final part is trained, at least 0.
        final_steps: its steps on the whole remembrance set in such an epoch, at least 0.
        intermediate_epochs: passes of the intermediate part over the reduced set at the end, at least 0.
        beginning: share of the layers in the beginning part, in (0, 1).
        intermediate: share of the layers in the intermediate part, positive; both together below 1.
        batch_size: records a step; None is the recipe's.
    """

    epochs: int = 30
    lr: float = 1e-3
    clusters: int | None = None
    condensation_epochs: int = 100
    condensation_lr: float = 1e-3
    remembered: int = 10
    alternations: int = 10
    offline_epochs: int = 20
    offline_records: Literal["all", "retained"] = "all"
    final_epochs: int = 15
    final_steps: int = 15
    intermediate_epochs: int = 1
    beginning: float = 0.48
    intermediate: float = 0.24
    batch_size: int | None = None
    name = "condensation"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        for field, least in LEAST.items():
            value = getattr(self, field)
            if not (value is None and field in ("clusters", "batch_size")) and not value >= least:
                raise InvalidInput(f"{self.name}: {field}={value!r} must be at least {least}")
        for name in ("lr", "condensation_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"{self.name}: {name}={getattr(self, name)!r} must be positive and finite")
        if not (self.beginning > 0 and self.intermediate > 0 and self.beginning + self.intermediate < 1):
            raise InvalidInput(
                f"{self.name}: beginning={self.beginning!r} and intermediate={self.intermediate!r} must be positive "
                "shares of the layers, together below 1"
            )
        if self.offline_records not in ("all", "retained"):
            raise InvalidInput(
                f"{self.name}: offline_records={self.offline_records!r} is unknown; allowed: 'all', 'retained'"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        request, data = deletion.request, deletion.data
        first = data.inputs(data.positions(request.retain[:1]))
        parts = three_parts(work, first, beginning=self.beginning, intermediate=self.intermediate)
        if not parts.weights(work, parts.beginning):
            raise UnsupportedModel(
                f"{self.name}: every weight of the beginning part is frozen (requires_grad is False), and that part is "
                "the one that forgets; unfreeze some of its weights, or raise beginning"
            )
        found = clusters_of(
            deletion.original,
            data,
            np.union1d(request.forget, request.retain),
            clusters=self.clusters,
            rng=deletion.rng,
            batch_size=deletion.runtime.inference_batch,
        )
        kept, residual = reduced_set(found, request.forget)
        inputs = condensed(
            deletion.original,
            data,
            kept,
            epochs=self.condensation_epochs,
            lr=self.condensation_lr,
            batch_size=deletion.runtime.inference_batch,
        )
        size = deletion.recipe.batch_size if self.batch_size is None else self.batch_size
        labels = data.y[data.positions(np.array([one[0] for one in kept], np.int64))]
        reduced = Joined(deletion, inputs, labels, residual, size)
        few = deletion.per_class(self.remembered)
        self._offline(work, deletion, parts, few, size)
        self._online(work, deletion, parts, few, reduced)
        return work

    def _offline(self, work: nn.Module, deletion: Deletion, parts: Parts, few: Ids, size: int) -> None:
        """Alternate between the final part, anew from the original's weights, and the intermediate part."""
        if not self.alternations or not self.offline_epochs:
            return
        request, start = deletion.request, deletion.original.state_dict()
        ids = np.union1d(request.forget, request.retain) if self.offline_records == "all" else request.retain
        remembered = deletion.stream(few, batch_size=REMEMBERED_BATCH, augment=False)
        real = deletion.stream(ids, batch_size=size, augment=False)
        for _ in deletion.epochs(self.alternations):
            with torch.no_grad():
                for name, value in work.state_dict().items():
                    if name in parts.final:
                        value.copy_(start[name])
            for part, stream, share in ((parts.final, remembered, SLOW), (parts.intermediate, real, SLOWEST)):
                stage = Stage(work, deletion, parts.weights(work, part), self.lr * share)
                for _ in range(self.offline_epochs):
                    stage.learn(deletion.batches(stream))

    def _online(self, work: nn.Module, deletion: Deletion, parts: Parts, few: Ids, reduced: Joined) -> None:
        """Train the beginning on the reduced set and the final part on the remembrance set, then the intermediate."""
        remembered = deletion.stream(few, batch_size=REMEMBERED_BATCH, augment=False)
        beginning = Stage(work, deletion, parts.weights(work, parts.beginning), self.lr)
        final = Stage(work, deletion, parts.weights(work, parts.final), self.lr)
        intermediate = Stage(work, deletion, parts.weights(work, parts.intermediate), self.lr * SLOW)
        for epoch in deletion.epochs(self.epochs):
            beginning.learn(reduced.batches())
            for _ in range(self.final_steps if epoch < self.final_epochs else 0):
                final.learn_together(deletion.batches(remembered))
        for _ in deletion.epochs(self.intermediate_epochs):
            intermediate.learn(reduced.batches())


class Stage:
    """One part of a network in training, with an optimiser of its own; all other weights are held.

    A part without weights that may change learns nothing.

    Args:
        work: the network.
        deletion: gives the loss.
        weights: of the part.
        lr: of Adam.
    """

    def __init__(self, work: nn.Module, deletion: Deletion, weights: list[nn.Parameter], lr: float) -> None:
        self._work, self._deletion, self._weights = work, deletion, weights
        self._optimizer = torch.optim.Adam(weights, lr=lr) if weights else None

    def learn(self, batches: Iterable[Batch]) -> None:
        """Make a step on each batch."""
        if self._optimizer is not None:
            with self._alone():
                for batch in batches:
                    self._deletion.descend(self._optimizer, self._deletion.loss(self._work, batch))

    def learn_together(self, batches: Iterable[Batch]) -> None:
        """Make one step on the mean loss of all batches."""
        if self._optimizer is not None:
            with self._alone():
                losses = [self._deletion.loss(self._work, batch) for batch in batches]
                self._deletion.descend(self._optimizer, torch.stack(losses).mean())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold all other weights for a block; that also spares their gradients."""
        flags = [(weight, weight.requires_grad) for weight in self._work.parameters()]
        ours = {id(weight) for weight in self._weights}
        for weight, _ in flags:
            weight.requires_grad_(id(weight) in ours)
        try:
            yield
        finally:
            for weight, flag in flags:
                weight.requires_grad_(flag)


def reduced_set(clusters: Sequence[Ids], forget: Ids) -> tuple[list[Ids], Ids]:
    """Divide what is retained: clusters without a forget record, and the retained records of all others.

    Args:
        clusters: ids of each; every id in one of them.
        forget: ids to forget.

    Returns:
        The clusters that are condensed, and the ids (r,) ascending that are taken as they are.

    >>> kept, residual = reduced_set([np.array([0, 4]), np.array([1, 2, 3])], np.array([2]))
    >>> [one.tolist() for one in kept], residual.tolist()
    ([[0, 4]], [1, 3])
    """
    touched = [bool(np.isin(one, forget).any()) for one in clusters]
    kept = [one for one, hit in zip(clusters, touched, strict=True) if not hit]
    mixed = [one for one, hit in zip(clusters, touched, strict=True) if hit]
    residual = np.setdiff1d(np.concatenate(mixed), forget) if mixed else np.empty(0, np.int64)
    return kept, residual
