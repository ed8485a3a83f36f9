"""Gradient ascent on the forget records (NegGrad), with the bound that the plain objective lacks.

Baseline of Unlearn-Sparse (arXiv 2304.04934) and of Thudi et al. 2022 (arXiv 2109.13398). The plain method maximises
an unbounded loss: it either does nothing or destroys the model. Ours stops at a target loss.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import fit
from mnemoscope.unlearning.base import Deletion, Method

__all__ = ["GradientAscent"]

CLOSE = 0.1
"""Share of the target loss that counts as having reached it."""


@dataclass(frozen=True)
class GradientAscent(Method):
    """Climb the forget records' loss, one pass at a time, until it reaches the target.

    The target is ``stop_loss`` where given. Otherwise, for a request of records that comes with validation records,
    it is the given model's own mean loss on those (what unseen records look like); in every other case, a whole
    class above all, it is log of the number of classes (what a guess costs). A pass that ends more than a tenth past
    the target is taken back and the rate halved; until then the rate doubles after each pass. So the first rate
    matters little, where the plain method has a narrow window of rates, and none can run away.

    Attributes:
        epochs: passes over the forget records at most, at least 0, those taken back included.
        lr: learning rate of the first pass; None is a tenth of the recipe's.
        stop_loss: mean cross-entropy of the forget records to stop at, in nats.
        clip: largest norm of a step's gradient; running statistics of normalisation layers stay as they are.
    """

    epochs: int = 20
    lr: float | None = None
    stop_loss: float | None = None
    clip: float = 1.0
    name = "gradient_ascent"
    needs = Need.FORGET_DATA
    optional = Need.VALIDATION_DATA

    def __post_init__(self) -> None:
        for field, value in (("lr", self.lr), ("stop_loss", self.stop_loss), ("clip", self.clip)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"gradient_ascent: {field}={value!r} must be positive, finite, or None")
        if self.epochs < 0:
            raise InvalidInput(f"gradient_ascent: epochs={self.epochs!r} must be at least 0")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        recipe, forget = deletion.recipe, deletion.request.forget
        lr = deletion.rate(self.lr)
        # Decay would shrink all weights, and smoothing would pull to the uniform guess: neither is ascent.
        ascent = dataclasses.replace(
            recipe, schedule="constant", milestones=(), warmup=0.0, weight_decay=0.0, label_smoothing=0.0
        )
        growth, target = 2.0, self._target(work, deletion)
        loss = _mean_loss(work, deletion, forget)
        for _ in steps(f"{self.name}: passes", self.epochs):
            if loss >= target * (1 - CLOSE):
                break
            before = copy.deepcopy(work.state_dict())
            fit(
                work,
                ascent,
                deletion.data,
                forget,
                seed=deletion.seed(),
                runtime=deletion.runtime,
                loss_sign=-1.0,
                epochs=1,
                lr=lr,
                max_grad_norm=self.clip,
                freeze_norm=True,
            )
            reached = _mean_loss(work, deletion, forget)
            if reached > target * (1 + CLOSE):
                work.load_state_dict(before)
                lr, growth = lr / 2, 1.0
            else:
                loss, lr = reached, lr * growth
        return work

    def _target(self, work: nn.Module, deletion: Deletion) -> float:
        request = deletion.request
        if self.stop_loss is not None:
            return self.stop_loss
        if request.kind == "records" and request.validation.size:
            return _mean_loss(work, deletion, request.validation)
        return math.log(deletion.data.n_classes)


def _mean_loss(module: nn.Module, deletion: Deletion, ids: NDArray[np.int64]) -> float:
    logits = deletion.logits(module, ids)[:, None]
    return -float(compute_signal("negative_loss", logits, deletion.labels(ids)).mean())
