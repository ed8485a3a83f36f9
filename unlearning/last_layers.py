"""CF-k and EU-k: unlearn in the last k layers alone.

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru 2022, "Towards Adversarial Evaluations for Inexact Machine Unlearning"
(arXiv 2201.06640). Both freeze everything before the last k layers. CF-k ("catastrophically forgetting") goes on
training those on the retained records; EU-k ("exact unlearning" of k layers) gives them fresh random weights first.

What differs, and why:

- What a layer is, and which are last, is found in a forward pass (see ``layers.last_layers``), for any network.
- Frozen layers stay as they are altogether: their batch normalisation keeps its running statistics, which published
  code lets move. So nothing before the last k layers can forget: what it holds of the forget records stays.
- Fresh weights of EU-k come from a network that is built anew by the user's own recipe, not from whatever layers happen
  to have a method that resets them.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.training import fresh_model
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.layers import LastLayers, last_layers

__all__ = ["CFk", "EUk"]


@dataclass(frozen=True)
class CFk(Method):
    """Fine-tune the last k layers on the retained records, all others frozen (CF-k).

    Where features or labels are to be corrected, the corrected records are among the retained.

    Attributes:
        k: number of layers, counted from the output, at least 1.
        epochs: passes over the retained records, at least 0.
        lr: constant learning rate of the user's own optimiser; None is a tenth of the recipe's (0.01 for 0.1).
    """

    k: int = 1
    epochs: int = 10
    lr: float | None = None
    name = "cf_k"
    knobs = {"k": (1, 2)}
    needs = Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")

    def __post_init__(self) -> None:
        if self.k < 1 or self.epochs < 0:
            raise InvalidInput(f"{self.name}: k={self.k!r} must be at least 1, epochs={self.epochs!r} at least 0")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InvalidInput(f"{self.name}: lr={self.lr!r} must be positive and finite, or None")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request, ids = deletion.request, deletion.request.known
        if not self.epochs:
            return work
        deletion = dataclasses.replace(deletion, data=deletion.data.corrected(request))
        last = last_layers(work, deletion.data.inputs(deletion.data.positions(ids[:1])), self.k)
        for name, weight in work.named_parameters():
            weight.requires_grad_(weight.requires_grad and name in last.weights)
        if not any(weight.requires_grad for weight in work.parameters()):
            raise UnsupportedModel(
                f"{self.name}: every weight of the last {self.k} of {last.total} layers is frozen (requires_grad is "
                "False); unfreeze some, or raise k"
            )
        for name, part in work.named_modules():
            if name not in last.modules and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        self._begin(work, deletion, last)
        stream = deletion.stream(ids)
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        for _ in deletion.epochs(self.epochs):
            for batch in deletion.batches(stream):
                deletion.descend(optimizer, deletion.loss(work, batch))
        return work

    def _begin(self, work: nn.Module, deletion: Deletion, last: LastLayers) -> None:
        """Start from the weights as they are."""


@dataclass(frozen=True)
class EUk(CFk):
    """Give the last k layers fresh weights and train them on the retained records, all others frozen (EU-k).

    Attributes: as for ``cf_k``.
    """

    name = "eu_k"

    @torch.no_grad()
    def _begin(self, work: nn.Module, deletion: Deletion, last: LastLayers) -> None:
        """Start from the weights and statistics of an untrained network in the last layers."""
        fresh = fresh_model(deletion.recipe, deletion.data, seed=deletion.seed()).state_dict()
        # Shared weights have several names, and are frozen under all of them.
        frozen = {name for name, w in work.named_parameters(remove_duplicate=False) if not w.requires_grad}
        for name, value in work.state_dict().items():
            if name in last.weights and name not in frozen:
                value.copy_(fresh[name])
