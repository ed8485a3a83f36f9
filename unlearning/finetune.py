"""Fine-tuning on the retained records: forgets, if at all, by not rehearsing (baseline of arXiv 2304.04934)."""

import dataclasses
from dataclasses import dataclass

from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import fit
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["FineTune"]


@dataclass(frozen=True)
class FineTune(Method):
    """Continue the user's training on the retained records at a constant, lower rate.

    Where features or labels are to be corrected, the corrected records are among them.

    Attributes:
        epochs: passes over the retained records, at least 0; 10 as in the paper's code.
        lr: learning rate; None is a tenth of the recipe's (0.01 for the paper's 0.1).
    """

    epochs: int = 10
    lr: float | None = None
    name = "finetune"
    needs = Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")

    def __post_init__(self) -> None:
        if self.epochs < 0 or (self.lr is not None and not self.lr > 0):
            raise InvalidInput(f"finetune: epochs={self.epochs!r} must be >= 0 and lr={self.lr!r} positive or None")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        request = deletion.request
        constant = dataclasses.replace(deletion.recipe, schedule="constant", milestones=(), warmup=0.0)
        progress = steps(f"{self.name}: epochs", self.epochs)

        def epoch_done(*_: float) -> None:
            next(progress, None)

        fit(
            work,
            constant,
            deletion.data.corrected(request),
            request.known,
            seed=deletion.seed(),
            runtime=deletion.runtime,
            epochs=self.epochs,
            lr=deletion.rate(self.lr),
            on_epoch=epoch_done,
        )
        return work
