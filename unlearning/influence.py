"""Influence unlearning by WoodFisher, as evaluated with Unlearn-Sparse (Jia, Liu et al. 2023, arXiv 2304.04934).

Removing records moves the weights by about the inverse Hessian times their gradient (Koh & Liang 2017, arXiv
1703.04730). Here the inverse is that of an empirical Fisher matrix, built from single retained records g_1, ..., g_M
by rank-one updates: with o = g_1, k = v, for each next record

    t = o.g;   k <- k - (k.g) / (M + t) o;   o <- o - t / (M + t) o

and theta <- theta + alpha k. The true WoodFisher update (Singh & Alistarh 2020, arXiv 2004.14340) has the inverse so
far times *this* g in the place of o; the published code keeps two vectors instead of a matrix, and that is what this
method is: it is named for what was evaluated under it, not for the inverse. Both vectors stay in the span of v and g_1:
o = s g_1 and k = v - c g_1, so that the recursion is one of the two numbers s and c once all inner products g_1.g_i
and v.g_i are known. Those are taken by ``torch.func.vmap``, and no record has a step of its own. Where the gradients of
single records are small against M, as those of a model that knows its records, k hardly leaves v: what acts is alpha,
along the difference of two gradients.

Pitfalls avoided: the M records are drawn (the published code reads the first of an unshuffled list); label smoothing of
the training is part of the loss; sums run in float64. Batch normalisation is in eval mode, as published.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.curvature import Weights, gradient_dots, sum_gradient
from mnemoscope.unlearning.base import Deletion, Method, evaluating
from mnemoscope.unlearning.closed_form import move, pairs, removal_gradient, training_loss

__all__ = ["Influence"]


@dataclass(frozen=True)
class Influence(Method):
    """One influence step (IU): the inverse is WoodFisher's two-vector approximation, in the span of two gradients.

    Attributes:
        alpha: length of the step, at least 0; the theory's is 1, evaluations tune it: 10 for CIFAR-10, 20 for
            CIFAR-100 (arXiv 2401.06187).
        records: retained records M of the recursion, at least 1; all where there are fewer.
    """

    alpha: float = 10.0
    records: int = 1000
    name = "influence"
    knobs = {"alpha": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf or self.records < 1:
            raise InvalidInput(
                f"influence: alpha={self.alpha!r} must be 0 or more and finite, records={self.records!r} 1 or more"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        retain = deletion.request.retain
        chosen = deletion.rng.choice(np.sort(retain), size=min(self.records, retain.size), replace=False)
        with evaluating(work):
            v = removal_gradient(work, deletion)
            move(work, _two_vectors(work, deletion, v, chosen), self.alpha)
        return work


def _two_vectors(work: nn.Module, deletion: Deletion, v: Weights, chosen: np.ndarray) -> Weights:
    """Return k after the recursion over the chosen records, in their order."""
    loss = training_loss(deletion.recipe)
    batch = next(pairs(deletion, chosen[:1]))
    first = sum_gradient(work, loss, iter([batch]))
    positions = deletion.data.positions(chosen)
    dots = [
        gradient_dots(work, loss, deletion.data.inputs(part), deletion.data.y[part], (first, v))
        for part in torch.split(positions, deletion.runtime.inference_batch)
    ]
    along_first, along_v = torch.cat(dots).T.tolist()
    m, s, c = chosen.size, 1.0, 0.0
    for a, b in zip(along_first[1:], along_v[1:], strict=True):
        t = s * a
        c += (b - c * a) / (m + t) * s
        s -= t / (m + t) * s
    return {name: v[name] - c * first[name] for name in v}
