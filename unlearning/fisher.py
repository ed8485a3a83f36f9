"""Fisher forgetting (Golatkar, Achille & Soatto 2020, "Eternal Sunshine of the Spotless Net", arXiv 1911.04933).

Gaussian noise is added to every weight, the more the less the retained records' Fisher information says of it, so that
what they do not need is destroyed:

1. F = diagonal of the Fisher information over D_r, labels drawn from the model: mean of sum_y p_y (d l(x, y))^2;
2. variance 1 / (F + 1e-8), at most 1e3 (1e2 in the layer of the logits), times alpha;
3. in tensors of two axes and more, its mean over the second axis: one level for an output unit;
4. for a class: mean 0 and variance 1e-4 in the class's row of the layer of the logits;
5. ten times the variance in the layer of the logits and in all one-axis tensors (biases, normalisation);
6. theta <- mean + sqrt(variance) times a standard normal draw.

F is exact, record by record and class by class, where ports square the gradient of a batch of 32 (which averages signs
before squaring). No loop runs over records. In class-wise forgetting the only thing read of the forget records is their
label; where no linear layer makes the logits there is no row of the class, and the request is refused. In convolutions
the mean of step 3 is one level for an output channel and place of the kernel. Weights known to be frozen stay. Known
limits: of random records it forgets nothing until it destroys the model; alpha decides which, and has to be tuned.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.curvature import (
    Weights,
    expected_ways,
    label_ways,
    logit_layer,
    open_weights,
    squared_gradients,
)
from mnemoscope.audit.models.steps import steps
from mnemoscope.unlearning.base import Deletion, Method, evaluating

__all__ = ["Fisher", "fisher_diagonal"]

CAP, LOGIT_CAP, ROW, WIDER = 1e3, 1e2, 1e-4, 10.0
"""Of steps 2, 4 and 5."""


@dataclass(frozen=True)
class Fisher(Method):
    """Add noise where the retained records do not mind it (Fisher forgetting, labels drawn from the model).

    Attributes:
        alpha: factor on the variance, at least 0; 1e-6 as in the authors' runs. 0 changes nothing.
    """

    alpha: float = 1e-6
    name = "fisher"
    knobs = {"alpha": (1e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 1e-4)}
    needs = Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise InvalidInput(f"fisher: alpha={self.alpha!r} must be 0 or more, and finite")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if self.alpha == 0:
            return work
        information, head = fisher_diagonal(work, deletion, expected=True)
        gone = int(deletion.labels(deletion.request.forget)[0]) if deletion.request.kind == "class" else None
        if gone is not None and not head:
            raise UnsupportedModel(
                "fisher: no linear layer makes this model's logits, so no row of it stands for the class. Use a model "
                "that ends in nn.Linear, or another method (ssd, amnesiac)"
            )
        draw = deletion.generator()
        with torch.no_grad():
            for name, weight in work.named_parameters():
                if name not in information:
                    continue
                variance = self._variance(information[name], name in head)
                if name in head and gone is not None:
                    weight[gone] = 0.0
                    variance[gone] = ROW
                if name in head or weight.ndim == 1:
                    variance = variance * WIDER
                weight.add_(variance.sqrt() * torch.randn(weight.shape, generator=draw).to(weight))
        return work

    def _variance(self, information: Tensor, of_logits: bool) -> Tensor:
        variance = self.alpha * (1 / (information + 1e-8)).clamp(max=LOGIT_CAP if of_logits else CAP)
        if variance.ndim > 1:
            variance = variance.mean(dim=1, keepdim=True).expand_as(variance).clone()
        return variance


def fisher_diagonal(work: nn.Module, deletion: Deletion, *, expected: bool) -> tuple[Weights, tuple[str, ...]]:
    """Return the diagonal of the Fisher information over the retained records, and the names of the logits' layer.

    Args:
        work: any mode; left as it is.
        deletion: gives the records.
        expected: over labels drawn from the model (the Fisher information); otherwise over the records' own (the
            empirical one).

    Raises:
        UnsupportedModel: neither layer by layer nor by ``torch.func.vmap`` are there gradients of single records.
    """
    retain = deletion.request.retain
    total = {name: torch.zeros_like(weight) for name, weight in open_weights(work).items()}
    batches = list(range(0, retain.size, deletion.runtime.inference_batch))
    progress = steps(f"{deletion.method}: batches", len(batches))
    with evaluating(work):
        head = logit_layer(work, next(deletion.in_order(retain, batch_size=1)).x)
        for batch, _ in zip(deletion.in_order(retain), progress, strict=False):
            with torch.no_grad():
                logits = work(batch.x)
            ways = expected_ways(logits) if expected else label_ways(logits, batch.y)
            for name, part in squared_gradients(work, batch.x, ways).items():
                total[name] += part
    next(progress, None)
    return {name: value / retain.size for name, value in total.items()}, head
