"""How a model came to be: enough to train it once more, bit by bit, and to watch every step of it.

Methods that undo training need what happened in it: initial weights, the updates of certain batches, the gradient of
every record. None of that is kept for every model; it is had again by the same training, for the seed decides the bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.errors import StaleArtifact
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.training import Watcher, fresh_model, train_model

__all__ = ["History", "Watcher"]


@dataclass(frozen=True, eq=False)
class History:
    """The training of one model, alone (not in a stack, whose rounding differs).

    Attributes:
        ids: (k,) int64 ids it was trained on.
        seed: of its training.
    """

    ids: NDArray[np.int64]
    seed: int

    def initial(self, recipe: Recipe, data: DeviceData) -> nn.Module:
        """Return the model before its first step, on the data's device, in eval mode."""
        return fresh_model(recipe, data, seed=self.seed).to(data.device).eval()

    def replay(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: DeviceData,
        *,
        runtime: Runtime,
        watcher: Watcher,
    ) -> None:
        """Train the model again, with somebody watching.

        Args:
            model: what the training must arrive at; left as it is.
            recipe: how it was trained.
            data: with all records it was trained on.
            runtime: as in the training.
            watcher: told of every step.

        Raises:
            StaleArtifact: the training arrives at other weights, so this is not the model's history.
        """
        again = train_model(
            recipe, data, self.ids, seed=self.seed, runtime=runtime, watcher=watcher
        ).module.state_dict()
        for name, value in model.state_dict().items():
            if name not in again or not bool((again[name].to(value.device) == value).all()):
                raise StaleArtifact(
                    f"training again from seed {self.seed} on {self.ids.size} records does not give this model "
                    f"({name!r} differs): the history is another model's, or recipe, data, threads or versions "
                    "changed since. Train the model again, one by one, and unlearn from that"
                )
