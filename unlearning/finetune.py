"""Fine-tuning on the retained records: forgets, if at all, by not rehearsing (baseline of arXiv 2304.04934)."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.request import Request

__all__ = ["FineTune"]


@dataclass(frozen=True)
class FineTune:
    """Continue the user's training on the retained records at a constant, lower rate.

    Attributes:
        epochs: passes over the retained records, at least 0; 10 as in the paper's code.
        lr: learning rate; None is a tenth of the recipe's (0.01 for the paper's 0.1).
    """

    epochs: int = 10
    lr: float | None = None
    name = "finetune"
    needs = Need.RETAIN_DATA
    exact = False

    def __post_init__(self) -> None:
        if self.epochs < 0 or (self.lr is not None and not self.lr > 0):
            raise InvalidInput(f"finetune: epochs={self.epochs!r} must be >= 0 and lr={self.lr!r} positive or None")

    def unlearn(
        self,
        model: "nn.Module",
        request: "Request",
        *,
        recipe: "Recipe",
        data: "DeviceData",
        runtime: "Runtime",
        rng: np.random.Generator,
    ) -> "nn.Module":
        """Return a copy that was trained on ``request.retain``; the forget records are not read."""
        from mnemoscope.audit.models.training import fit

        lr = recipe.lr / 10 if self.lr is None else self.lr
        constant = dataclasses.replace(recipe, schedule="constant", milestones=(), warmup=0.0)
        seed = int(rng.integers(2**63))
        work = copy.deepcopy(model)
        fit(work, constant, data, request.retain, seed=seed, runtime=runtime, epochs=self.epochs, lr=lr)
        work.zero_grad(set_to_none=True)
        return work
