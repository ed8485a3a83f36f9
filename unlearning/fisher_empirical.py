"""Fisher forgetting with the empirical Fisher information (Becker & Liebig 2022, arXiv 2208.10836).

The noise of ``fisher`` with the records' own labels in the place of labels drawn from the model:

    theta <- theta + min(sqrt(alpha / F), cap) times a standard normal draw, F = mean over D_r of (d log p(y) + 1e-8)^2

and ten times as much in the layer of the logits. In the published code this factor is given to tensors whose *last*
axis has the length of the number of classes: in PyTorch the logits' biases without their weights, and any other tensor
that happens to have that width. Here the layer itself gets it, weights and biases. The cap of 1e-3 binds for every
weight with F below alpha * 1e6: at the default that is nearly every weight of a trained network, and the method is then
plain noise of standard deviation 1e-3.

No loop runs over records. The small constant is added to F as its square, not inside of it: for a sum of squares the
two differ by less than rounding. Frozen weights stay.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.fisher import fisher_diagonal

__all__ = ["FisherEmpirical"]

WIDER = 10.0
"""Factor on the noise of the layer of the logits."""


@dataclass(frozen=True)
class FisherEmpirical(Method):
    """Add noise where the retained records do not mind it (Fisher forgetting, the records' own labels).

    Attributes:
        alpha: factor on the variance, at least 0; 0.2 is the published code's default. 0 changes nothing.
        cap: largest standard deviation, before the factor for the layer of the logits.
    """

    alpha: float = 0.2
    cap: float = 1e-3
    name = "fisher_empirical"
    knobs = {"alpha": (0.02, 0.2, 2.0, 20.0), "cap": (1e-3, 1e-2, 3e-2, 0.1)}
    needs = Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf or not 0 <= self.cap < math.inf:
            raise InvalidInput(
                f"fisher_empirical: alpha={self.alpha!r} and cap={self.cap!r} must be 0 or more, and finite"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if self.alpha == 0 or self.cap == 0:
            return work
        information, head = fisher_diagonal(work, deletion, expected=False)
        draw = deletion.generator()
        with torch.no_grad():
            for name, weight in work.named_parameters():
                if name in information:
                    noise = (self.alpha / (information[name] + 1e-16)).sqrt().clamp(max=self.cap)
                    noise = noise * WIDER if name in head else noise
                    weight.add_(noise * torch.randn(weight.shape, generator=draw).to(weight))
        return work
