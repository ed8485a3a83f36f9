"""Influence unlearning with the exact Hessian (Koh & Liang 2017, arXiv 1703.04730), for models that are small enough.

theta <- theta + alpha (H + damping)^{-1} v, where v is the gradient of the mean loss over all records minus that over
the retained ones, and H the Hessian of the mean training loss over the retained records (weight decay of SGD
included). For a quadratic loss at its minimum, alpha = 1 and no damping arrive at the retained records' minimum: the
step is Newton's. Koh & Liang take the Hessian over all records, which agrees to first order in the share forgotten.

The system is solved by conjugate gradients with exact Hessian products in float64 (Pearlmutter 1994), so the matrix is
never stored. Where the loss is not convex, a step along negative curvature would climb: as soon as the search meets
some, the damping is raised above it and the search starts again. So the damping given is the least one.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.curvature import Weights, open_weights
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.steps import steps
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.closed_form import Curvature, move, removal_gradient

__all__ = ["InfluenceExact", "conjugate_gradients"]

RAISES = 40
"""Restarts with more damping at most; each at least doubles it."""


@dataclass(frozen=True)
class InfluenceExact(Method):
    """One Newton step with the damped exact Hessian of the retained records; for small models.

    Attributes:
        alpha: length of the step, at least 0; 1 is Newton's.
        damping: least value added to the Hessian's diagonal, at least 0; 0.01 as Koh & Liang for networks.
        tolerance: of the linear system, as a share of v's norm, in (0, 1).
        iterations: of the solver at most, for one damping.
        max_weights: more weights that may change than this are refused; each iteration is a pass over the retained
            records in float64.
    """

    alpha: float = 1.0
    damping: float = 0.01
    tolerance: float = 1e-3
    iterations: int = 500
    max_weights: int = 200_000
    name = "influence_exact"
    knobs = {"alpha": (0.25, 0.5, 1.0, 2.0, 4.0), "damping": (0.003, 0.01, 0.03, 0.1)}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        for field in ("alpha", "damping"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InvalidInput(f"influence_exact: {field}={getattr(self, field)!r} must be 0 or more, and finite")
        if not 0 < self.tolerance < 1:
            raise InvalidInput(f"influence_exact: tolerance={self.tolerance!r} must be in (0, 1)")
        if self.iterations < 1 or self.max_weights < 1:
            raise InvalidInput(
                f"influence_exact: iterations={self.iterations!r} and max_weights={self.max_weights!r} "
                "must be 1 or more"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        size = sum(weight.numel() for weight in open_weights(work).values())
        if size > self.max_weights:
            raise UnsupportedModel(
                f"influence_exact: {size} weights may change, the limit is max_weights={self.max_weights}; freeze "
                "layers with requires_grad_(False), take 'influence' instead, or raise the limit and wait"
            )
        if deletion.data.device.type == "mps":
            raise UnsupportedModel("influence_exact computes in float64, which this device lacks; use device='cpu'")
        if self.alpha == 0:
            return work
        module, exact = copy.deepcopy(work).double().eval(), _in_float64(deletion)
        retain = deletion.request.retain
        v = removal_gradient(module, exact)
        curvature = Curvature(module, exact, retain)

        def product(vector: Mapping[str, Tensor]) -> Weights:
            return {name: value / retain.size for name, value in curvature.times(vector).items()}

        move(work, self._solve(product, v), self.alpha)
        return work

    def _solve(self, product: Callable[[Mapping[str, Tensor]], Weights], v: Weights) -> Weights:
        damping = self.damping
        for _ in range(RAISES):
            solution, curvature = conjugate_gradients(
                product, v, damping=damping, tolerance=self.tolerance, iterations=self.iterations, what=self.name
            )
            if solution is not None:
                return solution
            if curvature is None:
                raise AuditError(
                    f"influence_exact: no solution within {self.iterations} iterations at damping {damping:g} "
                    f"(residual above {self.tolerance:g}); give more iterations, more damping, or a larger tolerance"
                )
            damping = max(2 * damping, 1.5 * (damping - curvature))
        raise AuditError(f"influence_exact: the Hessian has curvature below -{damping:g}; this is no trained model")


def conjugate_gradients(
    product: Callable[[Mapping[str, Tensor]], Weights],
    v: Mapping[str, Tensor],
    *,
    damping: float,
    tolerance: float,
    iterations: int,
    what: str,
) -> tuple[Weights | None, float | None]:
    """Solve (H + damping) x = v.

    Args:
        product: maps a vector to H times it.
        v: right side, a tensor a weight.
        damping: added to the diagonal.
        tolerance: residual at the end, as a share of v's norm.
        iterations: at most.
        what: name in progress.

    Returns:
        (x, None) when solved; (None, curvature) when a direction p was met with p.(H + damping)p / p.p = curvature not
        above zero; (None, None) when the iterations ran out.
    """
    x: Weights = {name: torch.zeros_like(value) for name, value in v.items()}
    r, p = dict(v), dict(v)
    square = _dot(r, r)
    goal = tolerance**2 * square
    if square == 0:
        return x, None
    for _ in steps(f"{what}: conjugate gradients", iterations):
        image = product(p)
        q = {name: image[name] + damping * p[name] for name in p}
        length = _dot(p, p)
        bend = _dot(p, q)
        if bend <= 1e-14 * length:
            return None, bend / length
        pace = square / bend
        x = {name: x[name] + pace * p[name] for name in x}
        r = {name: r[name] - pace * q[name] for name in r}
        before, square = square, _dot(r, r)
        if square <= goal:
            return x, None
        p = {name: r[name] + square / before * p[name] for name in p}
    return None, None


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return float(torch.stack([(a[name] * b[name]).sum() for name in a]).sum())


class _Doubled(DeviceData):
    """The same records with inputs in float64."""

    def __init__(self, data: DeviceData) -> None:
        self.__dict__.update(data.__dict__)

    def inputs(
        self, positions: Tensor, *, flip: Tensor | None = None, shift: Tensor | None = None, degrees: float = 0.0
    ) -> Tensor:
        return super().inputs(positions, flip=flip, shift=shift, degrees=degrees).double()


def _in_float64(deletion: Deletion) -> Deletion:
    return dataclasses.replace(deletion, data=_Doubled(deletion.data))
