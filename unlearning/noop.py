"""No unlearning at all: the positive control, which every audit must catch."""

import copy
from dataclasses import dataclass

from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["NoOp"]


@dataclass(frozen=True)
class NoOp(Method):
    """Return a copy of the model as it was."""

    name = "noop"
    needs = Need.NOTHING
    kinds = ("records", "class", "features", "labels")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        return copy.deepcopy(deletion.original)
