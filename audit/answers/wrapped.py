"""An oracle around another one that passes everything on: what stands between adversary and model overrides a part."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.answers.oracle import Oracle

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["WrappedOracle"]


class WrappedOracle:
    """Passes every question on, see ``Oracle`` for what each means; the inner oracle counts."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    @property
    def white_box(self) -> bool:
        """Whether ``module`` may be called."""
        return self._oracle.white_box

    @property
    def labels_only(self) -> bool:
        """Whether the model gives its predicted class and nothing else."""
        return bool(getattr(self._oracle, "labels_only", False))

    @property
    def n_classes(self) -> int:
        """Number of outputs."""
        return self._oracle.n_classes

    @property
    def predictions(self) -> int:
        """Inputs answered so far."""
        return self._oracle.predictions

    @property
    def gradients(self) -> int:
        """Inputs differentiated so far."""
        return self._oracle.gradients

    @property
    def device(self) -> "torch.device":
        """Where inputs and answers lie."""
        return self._oracle.device

    def inputs(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the records as the model takes them."""
        return self._oracle.inputs(ids)

    def labels(self, ids: NDArray[np.int64]) -> "Tensor":
        """Return the true classes."""
        return self._oracle.labels(ids)

    def logits(self, inputs: "Tensor") -> "Tensor":
        """Return logits; counted."""
        return self._oracle.logits(inputs)

    def predict(self, inputs: "Tensor") -> "Tensor":
        """Return predicted classes; counted."""
        return self._oracle.predict(inputs)

    def module(self) -> "nn.Module":
        """Return the model itself."""
        return self._oracle.module()

    def fresh_module(self, seed: int) -> "nn.Module":
        """Return an untrained model of the same architecture."""
        return self._oracle.fresh_module(seed)

    def count_gradients(self, number: int) -> None:
        """Add to ``gradients``."""
        self._oracle.count_gradients(number)

    def recall(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what was computed for the model under ``key``."""
        return self._oracle.recall(key, compute)
