"""Pseudo-probability unlearning, our reading of its abstract (arXiv 2411.02622).

The abstract says: replace the outputs for forget records by pseudo-probabilities, uniform or aligned with the model's
overall distribution; refine them so that the change is small and what is retained is kept; update the weights to give
them. Its equations are not known to us. What follows is ours:

1. targets. For a forget record x with label y: q = (1 - a) p' + a r, where p' is the given model's own answer with the
   probability of y taken out and the rest scaled to one, r is uniform over the other classes, or the mean answer over
   the retained records likewise without y, and a is ``smoothing``;
2. refinement: the targets stay as they are, and the weights are to meet them as closely as the retained records permit:

       minimise   mean KL(q || p) over forget records
       subject to mean cross-entropy over retained records <= its value under the given model + ``slack``

   by gradient steps on the Lagrangian KL + m (CE_r - bound), and ascent of the dual variable m >= 0 by
   ``dual_rate`` times the violation. Each step is divided by 1 + m: the direction is the same, and a large m makes no
   large step. While nothing is violated m falls to 0 and no retained gradient is used.

Where the other classes have no probability in the given model's answer that float64 can tell, p' comes from the
logits, which always can. Outputs without the true class are a mark of their own: who compares both versions, or
looks for records that the model is too sure not to be of a class, sees them. The published reviews say so of the method
itself.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["PseudoProbability"]


@dataclass(frozen=True)
class PseudoProbability(Method):
    """Teach forget records the model's own answer without their class, as far as the retained loss permits.

    Attributes:
        epochs: passes over the forget records, at least 0; each step also takes a batch of retained ones.
        lr: learning rate; None is a tenth of the recipe's.
        smoothing: weight of the reference in the targets, in [0, 1].
        reference: "uniform" over the other classes, or "overall", the mean answer over the retained records.
        slack: how far the mean loss of the retained records may rise above the given model's, in nats.
        dual_rate: step of the dual variable for each nat of violation, positive.
    """

    epochs: int = 10
    lr: float | None = None
    smoothing: float = 0.5
    reference: Literal["uniform", "overall"] = "uniform"
    slack: float = 0.05
    dual_rate: float = 1.0
    name = "pseudo_probability_reading"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA
    reading = True

    def __post_init__(self) -> None:
        if self.epochs < 0 or not 0 <= self.smoothing <= 1:
            raise InvalidInput(
                f"{self.name}: epochs={self.epochs!r} must be at least 0 and smoothing={self.smoothing!r} in [0, 1]"
            )
        if self.reference not in ("uniform", "overall"):
            raise InvalidInput(f"{self.name}: reference={self.reference!r} is unknown; allowed: 'uniform', 'overall'")
        for field, value in (("lr", self.lr), ("dual_rate", self.dual_rate)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"{self.name}: {field}={value!r} must be positive and finite")
        if not 0 <= self.slack < math.inf:
            raise InvalidInput(f"{self.name}: slack={self.slack!r} must be at least 0 and finite")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        forget, retain = np.sort(deletion.request.forget), np.sort(deletion.request.retain)
        answers, known = (self._answers(deletion, ids) for ids in (forget, retain))
        rows = deletion.data.positions(forget)
        goal = torch.zeros(deletion.data.ids.size, answers.shape[1], device=rows.device)
        labels, reference = torch.from_numpy(deletion.labels(forget)), known.softmax(dim=1).mean(dim=0)
        if self.reference == "uniform":
            reference = torch.full_like(reference, 1 / reference.numel())
        goal[rows] = pseudo_probabilities(answers, labels, reference, self.smoothing).to(goal)
        truth = torch.from_numpy(deletion.labels(retain))
        bound = float(nn.functional.cross_entropy(known, truth)) + self.slack

        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        retained = deletion.endless(deletion.stream(retain))
        stream = deletion.stream(forget)
        dual = 1.0
        for _ in deletion.epochs(self.epochs):
            for batch in deletion.batches(stream):
                kept = next(retained)
                logits = deletion.answer(work, torch.cat([batch.x, kept.x]))
                gone, stays = torch.split(logits, [batch.y.numel(), kept.y.numel()])
                change = nn.functional.kl_div(gone.log_softmax(dim=1), goal[batch.positions], reduction="batchmean")
                loss = nn.functional.cross_entropy(stays, kept.y)
                deletion.descend(optimizer, (change + dual * loss) / (1 + dual))
                dual = max(0.0, dual + self.dual_rate * (float(loss.detach()) - bound))
        return work

    @staticmethod
    def _answers(deletion: Deletion, ids: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Tensor:
        """Logits of the given model, (n, c) float64 on the CPU."""
        return torch.from_numpy(deletion.logits(deletion.original, ids)).double()


def pseudo_probabilities(logits: Tensor, labels: Tensor, reference: Tensor, smoothing: float) -> Tensor:
    """Return targets (n, c) that leave nothing to the label: the answer without it, mixed with a reference without it.

    Args:
        logits: (n, c) float64.
        labels: (n,) int64.
        reference: (c,) probabilities.
        smoothing: weight of the reference.

    >>> logits = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    >>> reference = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    >>> pseudo_probabilities(logits, torch.tensor([0]), reference, 0.5).tolist()
    [[0.0, 0.45, 0.55]]
    """
    own = nn.functional.one_hot(labels, logits.shape[1]).bool()
    rest = logits.masked_fill(own, -torch.inf).softmax(dim=1)
    other = reference.to(logits).expand_as(logits).masked_fill(own, 0.0)
    total = other.sum(dim=1, keepdim=True)
    # A reference that gives its all to the label says nothing about the others.
    even = (~own).to(logits) / (logits.shape[1] - 1)
    other = torch.where(total > 0, other / total.clamp_min(torch.finfo(logits.dtype).tiny), even)
    return (1 - smoothing) * rest + smoothing * other
