"""Unlearning of features, labels and records by one gradient step (Warnecke et al. 2023, arXiv 2108.11577).

    theta <- theta - tau ( sum over corrected records of grad l - sum over the same records as they were of grad l )

For a deletion the corrected records are none, and the step climbs the loss of what was deleted. No Hessian, no retained
record; tau is the unlearning rate. The sums are not divided by the number of records, so tau belongs to a size of
request. Networks are not convex, and all layers at once diverge: the authors change the last weight tensors alone, six
in their study of poisoned CIFAR-10.

Deviations: the loss is that of the model's own training, label smoothing included; batch normalisation is in eval mode.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.curvature import Weights, open_weights, sum_gradient
from mnemoscope.unlearning.base import Deletion, Method, evaluating
from mnemoscope.unlearning.closed_form import corrected, move, pairs, training_loss

__all__ = ["InfluenceFirstOrder", "check_tensors", "correction_gradient"]


@dataclass(frozen=True)
class InfluenceFirstOrder(Method):
    """One gradient step from the records as they were to the records as they ought to be (or to none).

    Attributes:
        tau: unlearning rate, at least 0; 2e-5 as in the study of CIFAR-10, for sums over 10,000 records.
        tensors: how many weight tensors, counted from the model's end, may change; None is all.
    """

    tau: float = 2e-5
    tensors: int | None = 6
    name = "influence_first_order"
    knobs = {"tau": (2e-5, 6e-5, 2e-4, 6e-4, 2e-3, 6e-3), "tensors": (6, None)}
    needs = Need.FORGET_DATA
    kinds = ("records", "class", "features", "labels")

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise InvalidInput(f"influence_first_order: tau={self.tau!r} must be 0 or more, and finite")
        check_tensors(self.name, self.tensors)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        with evaluating(work):
            move(work, correction_gradient(work, deletion, self.tensors), -self.tau)
        return work


def correction_gradient(work: nn.Module, deletion: Deletion, tensors: int | None) -> Weights:
    """Return the gradient of the corrected records' loss minus that of the records as they were, summed.

    Args:
        work: in eval mode.
        deletion: a deletion has no corrected records.
        tensors: for how many of the last weight tensors that may change; None is all.
    """
    loss, request = training_loss(deletion.recipe), deletion.request
    step = sum_gradient(work, loss, pairs(deletion, request.forget))
    names = list(open_weights(work))[0 if tensors is None else -tensors :]
    put = sum_gradient(work, loss, _put_right(deletion))
    return {name: put[name] - step[name] for name in names}


def _put_right(deletion: Deletion) -> Iterator[tuple[Tensor, Tensor]]:
    if deletion.request.corrects:
        yield from pairs(corrected(deletion), deletion.request.forget)


def check_tensors(name: str, tensors: int | None) -> None:
    """Refuse a number of weight tensors below one."""
    if tensors is not None and tensors < 1:
        raise InvalidInput(f"{name}: tensors={tensors!r} must be 1 or more, or None for all")
