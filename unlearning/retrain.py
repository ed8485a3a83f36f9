"""Exact unlearning: train a new model on the retained records alone. The reference of every other method."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnemoscope.audit.answers.views import Need

if TYPE_CHECKING:
    from torch import nn

    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.recipes import Recipe, Runtime
    from mnemoscope.audit.records.request import Request

__all__ = ["Retrain"]


@dataclass(frozen=True)
class Retrain:
    """Train from new initial weights with the user's own recipe: same epochs, new seed, normalisation included."""

    name = "retrain"
    needs = Need.RETAIN_DATA
    exact = True

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
        """Return a model that never saw a forget record; weights and statistics of ``model`` are not read."""
        from mnemoscope.audit.models.training import train_model

        seed = int(rng.integers(2**63))
        trained = train_model(recipe, data, request.retain, seed=seed, runtime=runtime)
        for parameter, found in zip(trained.module.parameters(), model.parameters(), strict=True):
            parameter.requires_grad_(found.requires_grad)
            parameter.grad = None
        return trained.module.train(model.training)
