"""Exact unlearning: train a new model on the retained records alone. The reference of every other method."""

from dataclasses import dataclass

from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["Retrain"]


@dataclass(frozen=True)
class Retrain(Method):
    """Train from new initial weights with the user's own recipe: same epochs, new seed, normalisation included.

    Weights and statistics of the given model are not read. Where features or labels are to be corrected, the corrected
    records are trained on too.
    """

    name = "retrain"
    needs = Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")
    exact = True

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        data, known = deletion.data.corrected(deletion.request), deletion.request.known
        return train_model(deletion.recipe, data, known, seed=deletion.seed(), runtime=deletion.runtime).module
