"""No unlearning at all: the positive control, which every audit must catch."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.audit.answers.views import Need

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.request import Request

__all__ = ["NoOp"]


@dataclass(frozen=True)
class NoOp:
    """Return a copy of the model as it was."""

    name = "noop"
    needs = Need.NOTHING
    exact = False

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
        """Return a deep copy; request, recipe and data are not read."""
        return copy.deepcopy(model)
