"""Amnesiac unlearning: take back the updates of every batch that held a forget record.

Graves, Nagisetty and Ganesh 2021, "Amnesiac Machine Learning" (arXiv 2010.10981): during training, the change of the
weights in each step whose batch holds a sensitive record is stored; to forget, all these changes are subtracted from
the final weights, and a few epochs on the retained records repair the damage.

What differs, and why:

- Nothing is stored during training. The training is made once more, bit by bit, and the changes are added up as they
  come: the memory is that of one model in float32 and one in float64 whatever the number of batches, and the cost one
  training. Stored changes would make a deletion cheap, at one model of storage for each batch.
- Repair trains at the user's own rate, with a fresh optimiser.
- Running statistics of batch normalisation are no weights: subtracting their changes could make a variance negative.
  They stay, and follow the repair.

To know: it is not exact. Updates after a removed one were computed at weights that contained it. And it is for few
records: with a share p of the records and b records a batch, a batch is spared with probability (1 - p)^b. At 10 % and
128 that is one in a million, all changes are taken back, and what is left is the network before its first step: the
repair is then a short retraining.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import Batch, fit
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["Amnesiac", "SensitiveUpdates"]


@dataclass(frozen=True)
class Amnesiac(Method):
    """Subtract the weight updates of all training batches that held a forget record, then repair (amnesiac).

    Attributes:
        repair_epochs: passes over the retained records afterwards, at least 0.
        lr: constant learning rate of the repair; None is the recipe's.
    """

    repair_epochs: int = 1
    lr: float | None = None
    name = "amnesiac"
    knobs = {"repair_epochs": (1, 3, 10)}
    needs = Need.HISTORY | Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if self.repair_epochs < 0 or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InvalidInput(
                f"amnesiac: repair_epochs={self.repair_epochs!r} must be at least 0, lr={self.lr!r} positive and "
                "finite, or None"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request, history, recipe = deletion.request, deletion.history, deletion.recipe
        if history is None:
            raise MissingNeed("amnesiac needs the model's training")
        total = recipe.epochs * math.ceil(history.ids.size / recipe.batch_size)
        updates = SensitiveUpdates(deletion.data.positions(request.forget), deletion.data.ids.size, total)
        history.replay(deletion.original, recipe, deletion.data, runtime=deletion.runtime, watcher=updates)
        with torch.no_grad():
            for name, weight in work.named_parameters():
                if weight.requires_grad and name in updates.total:
                    weight.copy_(weight.double() - updates.total[name])
        progress = steps(f"{self.name}: repair", self.repair_epochs)

        def epoch_done(*_: float) -> None:
            next(progress, None)

        fit(
            work,
            replace(recipe, schedule="constant", milestones=(), warmup=0.0),
            deletion.data,
            request.retain,
            seed=deletion.seed(),
            runtime=deletion.runtime,
            epochs=self.repair_epochs,
            lr=self.lr,
            on_epoch=epoch_done,
        )
        return work


class SensitiveUpdates:
    """Adds up what the steps with a sensitive record change; a watcher of a training.

    Attributes:
        total: the sum of changes in float64, for each weight by name; empty where no batch was sensitive.
        batches: number of sensitive batches.
    """

    def __init__(self, sensitive: Tensor, n_records: int, n_steps: int) -> None:
        """Name the sensitive records.

        Args:
            sensitive: (k,) int64 positions.
            n_records: number of records held.
            n_steps: of the training, for progress.
        """
        self._sensitive = torch.zeros(n_records, dtype=torch.bool, device=sensitive.device)
        self._sensitive[sensitive] = True
        self._before: dict[str, Tensor] | None = None
        self._progress = steps("amnesiac: training once more", n_steps)
        self.total: dict[str, Tensor] = {}
        self.batches = 0

    @torch.no_grad()
    def before_step(self, module: nn.Module, batch: Batch, inputs: Tensor, rate: float) -> None:
        """Keep the weights where the batch is sensitive."""
        next(self._progress, None)
        if bool(self._sensitive[batch.positions].any()):
            self._before = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def after_step(self, module: nn.Module, batch: Batch) -> None:
        """Add the change of the weights."""
        if self._before is None:
            return
        self.batches += 1
        for name, weight in module.named_parameters():
            change = weight.double() - self._before[name].double()
            self.total[name] = self.total[name].add_(change) if name in self.total else change
        self._before = None
