"""Efficacy by epistemic uncertainty (Becker & Liebig 2022, arXiv 2208.10836): how little a model still says of records.

The information score of a set D is the trace of the empirical Fisher information, i = mean over D of
|d log p(y | x) / d theta|^2; the efficacy of forgetting D_f is 1 / i, and 1 / |mean of the gradients|^2 bounds it from
above. No retrained model is needed, which is the measure's point and its weakness: a model that is sure of a record
and right has a tiny gradient there, so the *original*, which knows its forget records by heart, scores highest of all.
A number means something beside that of retrained models, which ``relative`` gives.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.gradients import GradientRoute, log_norms, mean_gradient
from mnemoscope.audit.models.recipes import Runtime
from mnemoscope.unlearning.base import evaluating

__all__ = ["EpistemicEfficacy", "epistemic_efficacy"]


@dataclass(frozen=True, eq=False)
class EpistemicEfficacy:
    """What a model still says of some records; logarithms, for the numbers span hundreds of orders of magnitude.

    Attributes:
        log_information: natural logarithm of i, the mean squared gradient norm.
        log_upper_bound: of 1 / |gradient of the mean loss|^2, at least ``log_efficacy``; infinity where it vanishes.
        per_record: (n,) float64, natural logarithm of each record's squared gradient norm, in the order of the ids.
    """

    log_information: float
    log_upper_bound: float
    per_record: NDArray[np.float64]

    @property
    def information(self) -> float:
        """The information score i; 0 where it is smaller than any float."""
        return math.exp(self.log_information) if self.log_information < 709 else math.inf

    @property
    def log_efficacy(self) -> float:
        """Natural logarithm of the efficacy 1 / i: higher where the model says less of the records."""
        return -self.log_information

    @property
    def efficacy(self) -> float:
        """The efficacy 1 / i; infinity where it is larger than any float."""
        return math.exp(self.log_efficacy) if self.log_efficacy < 709 else math.inf

    def relative(self, retrained: "EpistemicEfficacy") -> float:
        """Return the logarithm of this efficacy over a retrained model's: 0 where they agree."""
        return self.log_efficacy - retrained.log_efficacy


def epistemic_efficacy(
    module: nn.Module,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    runtime: Runtime,
    route: GradientRoute = "auto",
) -> EpistemicEfficacy:
    """Measure what a model still says of the ids.

    Args:
        module: asked in eval mode; its modes are restored.
        data: records on the device.
        ids: (n,) int64, e.g. the forget set.
        runtime: threads, records at a time.
        route: to the gradient norms, see ``audit.models.gradients.log_norms``.

    Raises:
        InvalidInput: no records, unknown ids.
        UnsupportedModel: no gradients of single records.
    """
    positions = data.positions(np.asarray(ids, np.int64))
    with evaluating(module.to(data.device)), runtime.scope():
        parts = [
            log_norms(module, data.inputs(rows), data.y[rows], route=route)
            for rows in torch.split(positions, runtime.inference_batch)
        ]
        squares = 2 * torch.cat(parts)
        information = float(torch.logsumexp(squares, dim=0)) - math.log(squares.numel())
        bound = -_log_square(mean_gradient(module, data.inputs(positions), data.y[positions]))
    return EpistemicEfficacy(information, max(bound, -information), np.asarray(squares.cpu().numpy(), np.float64))


def _log_square(gradient: dict[str, Tensor]) -> float:
    square = sum(float(part.double().square().sum()) for part in gradient.values())
    return math.log(square) if square > 0 else -math.inf
