"""Unlearning by a classification loss and a membership-leakage loss on weights and activations: our reading.

"Silver Linings in the Shadows: Harnessing Membership Inference for Machine Unlearning" (arXiv 2407.00866). Known to us
by its abstract alone: a loss for unlearning that combines the target's classification loss with a membership inference
loss, to rid weights and activations of what tells of the forget records, with interchangeable approximations of the
leak. Its formulas, its defaults and its numbers are not known to us. Everything below is ours:

    min over theta   E_r loss + weight * leak(h(forget), h(validation)) + decay / 2 * sum_i s_i theta_i^2

h are the inner answers of ``leakage.py`` (activations, logits, loss) and leak one of its three estimates: that is the
part on activations. The part on weights decays those that speak of the forget records rather than of the retained
ones: s = max(0, F_f - F_r) / (F_f + F_r), F the mean squared gradient of single records' losses in the given model.
An estimate that learns is fitted once more in each epoch, on retained against validation records.

Beside discriminative adversarial unlearning (``adversarial.py``), which sees outputs, this one sees activations, and
has no game within an epoch. Validation records take part in it: they are tainted. ``leakage_bounds.py`` is the
upper-bound analysis, in our reading too.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.curvature import label_ways, open_weights, squared_gradients
from mnemoscope.unlearning.base import Deletion, Method, evaluating
from mnemoscope.unlearning.game import meetings
from mnemoscope.unlearning.leakage import Estimate, Leakage, inner_answers, make_leakage
from mnemoscope.unlearning.network_parts import feature_layer

__all__ = ["SilverLiningsReading", "forget_share"]

FIT_ROWS = 2000
"""Records of each side at most that an estimate is fitted on."""


@dataclass(frozen=True)
class SilverLiningsReading(Method):
    """Train on the retained records while a membership leak in activations and weights is pressed down (our reading).

    Attributes:
        epochs: passes over the retained records, at least 0.
        lr: learning rate; None is a tenth of the recipe's.
        leakage: "network", "information" or "kernel", see ``leakage.py``.
        weight: of the leak in activations.
        decay: of the weights that speak of the forget records.
        fit_steps: training steps of the network in each epoch.
    """

    epochs: int = 10
    lr: float | None = None
    leakage: Estimate = "network"
    weight: float = 1.0
    decay: float = 1e-3
    fit_steps: int = 100
    name = "silver_linings_reading"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA | Need.VALIDATION_DATA
    reading = True
    knobs = {"weight": (0.3, 1.0, 3.0)}

    def __post_init__(self) -> None:
        if self.leakage not in get_args(Estimate):
            allowed = ", ".join(get_args(Estimate))
            raise InvalidInput(f"silver_linings_reading: leakage={self.leakage!r} is unknown; allowed: {allowed}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InvalidInput(f"silver_linings_reading: lr={self.lr!r} must be positive and finite, or None")
        for field in ("epochs", "weight", "decay", "fit_steps"):
            if not 0 <= getattr(self, field) < math.inf:
                raise InvalidInput(
                    f"silver_linings_reading: {field}={getattr(self, field)!r} must be 0 or more, and finite"
                )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        leak = make_leakage(self.leakage, seed=deletion.seed(), steps=self.fit_steps)
        optimizer = deletion.optimizer(work, deletion.rate(self.lr))
        share = forget_share(work, deletion) if self.decay and self.epochs else {}
        decayed = [(weight, share[name]) for name, weight in work.named_parameters() if name in share]
        pairs, retain = meetings(deletion), deletion.stream(deletion.request.retain)
        with evaluating(work):
            layer = feature_layer(work, next(deletion.in_order(deletion.request.forget[:1])).x)
        for _ in deletion.epochs(self.epochs):
            if self.weight:
                self._refit(leak, work, deletion, layer)
            for batch in deletion.batches(retain):
                loss = deletion.loss(work, batch)
                if self.weight:
                    forget, other = (inner_answers(work, b.x, b.y, layer) for b in next(pairs))
                    if self.leakage == "network" or len(forget) > 1:
                        loss = loss + self.weight * leak(forget, other).float()
                if decayed:
                    loss = loss + self.decay / 2 * torch.stack([(s * w.square()).sum() for w, s in decayed]).sum()
                deletion.descend(optimizer, loss)
        return work

    def _refit(self, leak: Leakage, work: nn.Module, deletion: Deletion, layer: nn.Linear) -> None:
        if self.leakage != "network":
            return
        retain = deletion.request.retain
        some = np.sort(deletion.rng.choice(retain, size=min(FIT_ROWS, retain.size), replace=False))
        other = deletion.request.validation
        seen = np.sort(deletion.rng.choice(other, size=min(FIT_ROWS, other.size), replace=False))
        sides = [_answers(work, deletion, ids, layer) for ids in (some, seen)]
        leak.refit(sides[0], sides[1])


@torch.no_grad()
def _answers(work: nn.Module, deletion: Deletion, ids: NDArray[np.int64], layer: nn.Linear) -> Tensor:
    return torch.cat([inner_answers(work, batch.x, batch.y, layer) for batch in deletion.in_order(ids)])


def forget_share(work: nn.Module, deletion: Deletion) -> dict[str, Tensor]:
    """Return s in [0, 1] for each weight that may change: how much more it says of forget than of retained records.

    s = max(0, F_f - F_r) / (F_f + F_r), F the mean squared gradient of single records' cross-entropies.
    """
    forget, retain = (_information(work, deletion, ids) for ids in (deletion.request.forget, deletion.request.retain))
    return {
        name: torch.nan_to_num((f - retain[name]).clamp_min(0.0) / (f + retain[name])) for name, f in forget.items()
    }


def _information(work: nn.Module, deletion: Deletion, ids: NDArray[np.int64]) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in open_weights(work).items()}
    with evaluating(work):
        for batch in deletion.in_order(ids):
            with torch.no_grad():
                ways = label_ways(work(batch.x), batch.y)
            for name, part in squared_gradients(work, batch.x, ways).items():
                total[name] += part.double()
    return {name: (value / ids.size).float() for name, value in total.items()}
