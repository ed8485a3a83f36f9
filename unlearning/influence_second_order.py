"""Unlearning of features, labels and records by one Newton step (Warnecke et al. 2023, arXiv 2108.11577, second order).

    theta <- theta - H^{-1} ( sum over corrected records of grad l - sum over the same records as they were of grad l )

H is the Hessian of the training loss, summed over the records that the model is to know (corrected where they are to
be corrected, without those deleted), weight decay of SGD included. H^{-1} v comes from LiSSA (Agarwal et al. 2017,
arXiv 1602.03943), one batch of records a step:

    u <- v;   u <- v + (1 - damping) u - (H_batch u) / scale;   in the end u / scale

which converges to (H + damping scale)^{-1} v if scale exceeds H's largest eigenvalue. Cut short, it is a step between
first and second order: directions of curvature below scale / steps are moved as by a gradient step.

Deviations. The authors' scale (2e5 in their study of CIFAR-10) has to be found by trial; ours is measured unless given:
twice the largest eigenvalue on one batch, by power iteration. Their H_batch is the sum over the batch, whatever the
number of records; ours is multiplied by N / batch, so that its mean is H. As theirs, it stops early once the update has
not shrunk for ``patience`` steps; it also stops with an error once u is not finite. As theirs for networks, only the
last weight tensors change.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.curvature import Weights
from mnemoscope.audit.models.steps import steps
from mnemoscope.unlearning.base import Deletion, Method, evaluating
from mnemoscope.unlearning.closed_form import Curvature, corrected, move
from mnemoscope.unlearning.influence_first_order import check_tensors, correction_gradient

__all__ = ["InfluenceSecondOrder", "top_eigenvalue"]

POWER_STEPS = 20
"""Power iterations for the scale: the largest eigenvalue within a few per cent, and twice that is taken."""


@dataclass(frozen=True)
class InfluenceSecondOrder(Method):
    """One Newton step from the records as they were to the records as they ought to be (or to none), by LiSSA.

    Attributes:
        iterations: LiSSA steps at most, at least 1; 10 as in the study of CIFAR-10.
        batch_size: records of a Hessian product, at least 1.
        damping: share of the scale that is added to the Hessian, in [0, 1).
        scale: at least H's largest eigenvalue; None measures it.
        patience: steps without a smaller update before stopping.
        repetitions: runs that are averaged, each with an order of its own.
        tensors: how many weight tensors, counted from the model's end, may change; None is all.
    """

    iterations: int = 10
    batch_size: int = 1024
    damping: float = 1e-4
    scale: float | None = None
    patience: int = 20
    repetitions: int = 1
    tensors: int | None = 6
    name = "influence_second_order"
    knobs = {"iterations": (10, 30, 100), "tensors": (2, 6, None)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")

    def __post_init__(self) -> None:
        for field in ("iterations", "batch_size", "patience", "repetitions"):
            if getattr(self, field) < 1:
                raise InvalidInput(f"influence_second_order: {field}={getattr(self, field)!r} must be 1 or more")
        if not 0 <= self.damping < 1:
            raise InvalidInput(f"influence_second_order: damping={self.damping!r} must be in [0, 1)")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise InvalidInput(f"influence_second_order: scale={self.scale!r} must be positive, finite, or None")
        check_tensors(self.name, self.tensors)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        right, known = corrected(deletion), deletion.request.known
        with evaluating(work):
            v = correction_gradient(work, deletion, self.tensors)
            scale = self.scale
            if scale is None:
                batch = next(self._parts(deletion, known))
                scale = 2 * top_eigenvalue(Curvature(work, right, batch), v, deletion.generator())
                scale *= known.size / batch.size
            runs = [self._lissa(work, right, known, v, scale) for _ in range(self.repetitions)]
            for run in runs:
                move(work, run, -1 / self.repetitions)
        return work

    def _parts(self, deletion: Deletion, ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield batches of the ids in one random order, again and again."""
        order = deletion.rng.permutation(np.sort(ids))
        parts = np.array_split(order, math.ceil(ids.size / self.batch_size))
        while True:
            yield from parts

    def _lissa(
        self, work: nn.Module, deletion: Deletion, known: NDArray[np.int64], v: Weights, scale: float
    ) -> Weights:
        u, parts = dict(v), self._parts(deletion, known)
        if scale == 0 or _length(v) == 0:
            return {name: torch.zeros_like(value) for name, value in v.items()}
        least, stale = math.inf, 0
        for _ in steps(f"{self.name}: LiSSA steps", self.iterations):
            part = next(parts)
            share = known.size / part.size / scale
            bent = Curvature(work, deletion, part).times(u)
            new = {name: v[name] + (1 - self.damping) * u[name] - share * bent[name] for name in v}
            change = sum(float((new[name] - u[name]).abs().sum()) for name in v)
            if not math.isfinite(change):
                raise AuditError(
                    f"influence_second_order diverged: scale={scale:g} is below the Hessian's largest eigenvalue, or "
                    "the loss is not convex in so many layers; raise scale, or lower tensors or iterations"
                )
            u = new
            stale = 0 if change < least else stale + 1
            least = min(least, change)
            if stale >= self.patience:
                break
        return {name: value / scale for name, value in u.items()}


def top_eigenvalue(curvature: Curvature, like: Mapping[str, Tensor], draw: torch.Generator) -> float:
    """Return the size of the Hessian's eigenvalue that is largest in size, by power iteration, from below.

    Args:
        curvature: the Hessian.
        like: names and shapes of the weights.
        draw: of the first vector, on the CPU.
    """
    vector = {name: torch.randn(value.shape, generator=draw).to(value) for name, value in like.items()}
    size = 0.0
    for _ in range(POWER_STEPS):
        length = _length(vector)
        if length == 0:
            break
        vector = curvature.times({name: value / length for name, value in vector.items()})
        size = _length(vector)
    return size


def _length(vector: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in vector.values()))
