"""Live access to one model, counted: what label-only and white-box attacks use beside recorded answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Oracle"]


class Oracle(Protocol):
    """One model that can be asked again. Every attack run holds the same oracle for a model; counts add up."""

    @property
    def white_box(self) -> bool:
        """Whether ``module`` may be called."""
        ...

    @property
    def n_classes(self) -> int:
        """Number of outputs."""
        ...

    @property
    def predictions(self) -> int:
        """Inputs answered so far."""
        ...

    @property
    def gradients(self) -> int:
        """Inputs differentiated so far; those who differentiate report them by ``count_gradients``."""
        ...

    @property
    def device(self) -> "torch.device":
        """Where inputs and answers lie."""
        ...

    def inputs(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the records as the model takes them, (k, ...) float32 on the device, normalised."""
        ...

    def labels(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the true classes, (k,) int64 on the device."""
        ...

    def logits(self, inputs: "Tensor") -> "Tensor":
        """Return logits (k, c) float32 for inputs (k, ...), in eval mode, in batches, without gradient; counted.

        Raises:
            MissingNeed: the model answers with labels only.
        """
        ...

    def predict(self, inputs: "Tensor") -> "Tensor":
        """Return predicted classes (k,) int64 for inputs (k, ...), in batches; counted."""
        ...

    def module(self) -> "nn.Module":
        """Return the model itself in eval mode, not to be changed; copy it before training.

        Raises:
            MissingNeed: the adversary has no white-box access.
        """
        ...

    def fresh_module(self, seed: int) -> "nn.Module":
        """Return an untrained model of the same architecture on the device; its weights depend on the seed alone.

        The architecture is public knowledge of every adversary, the weights are not: no white-box access is needed.
        """
        ...

    def count_gradients(self, number: int) -> None:
        """Add to ``gradients``."""
        ...

    def recall(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what was computed for this model under ``key``, computing it the first time; read-only.

        The key names everything that the value depends on: the attack's settings and the ids.
        """
        ...
