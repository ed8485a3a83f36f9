"""Replay of the last part of training without the forget records: our reading of Mini-Unlearning (arXiv 2406.16986).

Of the paper we know the abstract: weights after unlearning and after retraining are related by a contraction, so that a
small part of the gradients of training, its history, is enough to get from one to the other. Its formulas, the length
of that part and its figures are not known to us. What is done here is DeltaGrad (Wu, Dobriban and Davidson 2020,
arXiv 2006.14755) on the last steps of training, its choice of settings included:

- Start from the weights and the optimiser's state before the last steps. What earlier steps owe to the forget records
  is left as it is; if steps contract, it fades.
- Make each of these steps again without the forget records of its batch. In the first ones, and then in every few, the
  gradient of the retained records of the batch is computed at the new weights. In the others it is the gradient of the
  batch that training computed, less the part of the forget records, and moved to the new weights by a quasi-Newton
  product (limited memory; Byrd, Nocedal and Schnabel 1994) of the Hessian with the distance from the old weights.
- A computed gradient shows how wrong its estimate would have been. Where that is too much, the next one is computed
  too: in a network old and new weights part after a while, and what was remembered of one says nothing of the other.

Deviations from DeltaGrad. The gradient of the forget records is taken at the old weights, where training was, and not
at the new ones: both are right to first order, but the product sees only a few directions, and in the others the
gradient at the new weights, subtracted, is ascent on the forget records that feeds on itself; a network of ours was
destroyed by it. The optimiser is the user's own, momentum included, and is fed the estimated gradients. Pairs that show
no positive curvature are left out, because networks are not convex. A batch that held forget records alone makes no
step. Nothing is stored in training: the training is made once more, and old and new weights go side by side, at the
memory of a few models. Stored gradients would save that time and take one model of memory a step.

To know: a schedule that ends near zero makes the last steps small, whatever they hold. Then little is forgotten unless
the part that is replayed is long. Estimates serve where old and new weights stay near each other: on small networks
trained at a moderate rate, half of the gradients gave weights 5 to 15 % as far from the replay with all of them as the
original is. Where the forget records are wrongly labelled and learned by heart at a high rate, no estimate is trusted,
all gradients are computed, and nothing is saved. The part of the forget records is taken in eval mode, and running
statistics move in computed steps only: with batch normalisation or dropout, both are one more approximation.
"""

import copy
import math
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import Batch as Step
from mnemoscope.audit.models.training import batch_stream, make_optimizer
from mnemoscope.audit.rng import child_seed
from mnemoscope.unlearning.base import Batch, Deletion, Method, evaluating

__all__ = ["MiniUnlearning", "hessian_product"]

FLAT = 1e-10
"""Curvature along a pair, in units of its squared length, at which it tells nothing."""


@dataclass(frozen=True)
class MiniUnlearning(Method):
    """Make the last steps of training again without the forget records, most of them from remembered gradients.

    Attributes:
        share: of the training's steps, counted from its end, that are made again, in [0, 1].
        exact_first: steps at the start of these whose gradients are computed and not estimated, at least 1.
        exact_every: after those, one step in so many is computed, at least 1; 1 computes all.
        pairs: of weights and gradients behind the quasi-Newton product, at least 1.
        tolerance: error of an estimate, as a share of the computed gradient, above which the next step is computed too.
    """

    share: float = 0.5
    exact_first: int = 10
    exact_every: int = 5
    pairs: int = 2
    tolerance: float = 0.5
    name = "mini_unlearning_reading"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA | Need.HISTORY
    reading = True
    knobs = {"share": (0.1, 0.3, 0.5, 0.8, 1.0)}

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"mini_unlearning_reading: share={self.share!r} must lie in [0, 1]")
        if not 0 < self.tolerance < math.inf:
            raise InvalidInput(f"mini_unlearning_reading: tolerance={self.tolerance!r} must be positive and finite")
        if min(self.exact_first, self.exact_every, self.pairs) < 1:
            raise InvalidInput(
                f"mini_unlearning_reading: exact_first={self.exact_first!r}, exact_every={self.exact_every!r} and "
                f"pairs={self.pairs!r} must be at least 1"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        recipe, history = deletion.recipe, deletion.history
        assert history is not None
        if recipe.private:
            raise InvalidInput(
                "mini_unlearning_reading: gradients of DP-SGD are clipped record by record and noised, and cannot be "
                "divided into parts again; take another method, or a model trained without dp_clip"
            )
        trained = {name for name, w in history.initial(recipe, deletion.data).named_parameters() if w.requires_grad}
        frozen = sorted(trained - {name for name, weight in work.named_parameters() if weight.requires_grad})
        if frozen:
            raise UnsupportedModel(
                f"mini_unlearning_reading: {len(frozen)} weights are frozen (requires_grad is False) that the training "
                f"moved, the first {frozen[0]!r}; its steps cannot be made again without them: unfreeze them"
            )
        total = recipe.epochs * batch_stream(deletion.data, history.ids, recipe, history.seed).steps
        first = total - round(self.share * total)
        if first < total:
            replay = _Replay(self, work, deletion, first, total)
            history.replay(deletion.original, recipe, deletion.data, runtime=deletion.runtime, watcher=replay)
        return work


class _Replay:
    """Watches the training and, from its step ``first`` on, takes ``work`` along without the forget records."""

    def __init__(self, settings: MiniUnlearning, work: nn.Module, deletion: Deletion, first: int, total: int) -> None:
        self.settings, self.work, self.deletion, self.first = settings, work, deletion, first
        self.forget = deletion.data.positions(deletion.request.forget)
        self.seed, self.step = deletion.seed(), 0
        self.progress = steps(f"{deletion.method}: training once more", total)
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=settings.pairs)
        self.shadow: list[Tensor] | None = None
        self.old = self.inputs = torch.empty(0)
        self.part: Tensor | None = None
        self.trusted = True
        self.rate = 0.0

    def before_step(self, module: nn.Module, batch: Step, inputs: Tensor, rate: float) -> None:
        next(self.progress, None)
        self.rate, self.inputs = rate, inputs
        if self.shadow is None:
            self.shadow = [weight.detach().clone() for weight in _weights(module)]
            self.optimizer = make_optimizer(self.deletion.recipe, self.shadow)
        if self.step == self.first:
            self.work.load_state_dict(module.state_dict())
            state = copy.deepcopy(self.optimizer.state_dict())
            self.optimizer = make_optimizer(self.deletion.recipe, list(_weights(self.work)))
            self.optimizer.load_state_dict(state)
        if self.step >= self.first:
            weights, gone = _weights(module), torch.isin(batch.positions, self.forget)
            self.old = _flat(weights)
            self.part = self._gradient(module, batch, gone, still=True) if bool(gone.any()) else None

    def after_step(self, module: nn.Module, batch: Step) -> None:
        weights = _weights(module)
        gradient = _flat([weight.grad for weight in weights], weights)
        if self.step < self.first:
            assert self.shadow is not None
            self._move(self.shadow, gradient)  # for the state of the optimiser
        else:
            with seeded(child_seed(self.seed, self.step)):
                without = self._without(batch, gradient)
            if without is not None:
                self._move(_weights(self.work), without)
        self.step += 1

    def _without(self, batch: Step, gradient: Tensor) -> Tensor | None:
        """Gradient of the batch without its forget records at the new weights; None where nothing is left of it."""
        gone = torch.isin(batch.positions, self.forget)
        count, lost = batch.positions.numel(), int(gone.sum())
        if lost == count:
            return None
        apart = _flat(_weights(self.work)) - self.old
        there = gradient if self.part is None else (gradient * count - self.part * lost) / (count - lost)
        past, chosen = self.step - self.first, self.settings
        estimate = there + hessian_product(list(self.pairs), apart)
        if self.trusted and past >= chosen.exact_first and past % chosen.exact_every:
            return estimate
        rest = self._gradient(self.work, batch, ~gone, still=False)
        self.trusted = float((estimate - rest).norm()) <= chosen.tolerance * float(rest.norm())
        self._learn(apart, rest - there)
        return rest

    def _gradient(self, module: nn.Module, batch: Step, rows: Tensor, *, still: bool) -> Tensor:
        """Gradient of the mean loss of some records of the batch, by the user's own loss."""
        positions = batch.positions[rows]
        part = Batch(self.inputs[rows], self.deletion.data.y[positions], positions)
        weights = _weights(module)
        with evaluating(module) if still else nullcontext():
            loss = self.deletion.loss(module, part)
        return _flat(torch.autograd.grad(loss, weights, allow_unused=True), weights)

    def _learn(self, apart: Tensor, change: Tensor) -> None:
        square = float(apart.double().square().sum())
        if square > 0 and float((apart.double() * change.double()).sum()) > FLAT * square:
            self.pairs.append((apart, change))

    def _move(self, weights: list[Tensor], gradient: Tensor) -> None:
        at = 0
        for weight in weights:
            weight.grad = gradient[at : at + weight.numel()].view(weight.shape).clone()
            at += weight.numel()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        for weight in weights:
            weight.grad = None


def hessian_product(pairs: list[tuple[Tensor, Tensor]], vector: Tensor) -> Tensor:
    """Return the product of the quasi-Newton (BFGS) approximation of a Hessian with a vector.

    Args:
        pairs: of a change of weights s (d,) and the change y (d,) of the gradient along it, with positive s . y, the
            latest last; the approximation starts from s . y / s . s of the latest times the identity.
        vector: (d,).

    Returns:
        (d,); zero without any pair.
    """
    if not pairs:
        return torch.zeros_like(vector)
    s, y = (torch.stack([pair[side] for pair in pairs]).double() for side in (0, 1))
    v = vector.double()
    inner = s @ y.T
    scale = inner[-1, -1] / (s[-1] @ s[-1])
    lower = torch.tril(inner, diagonal=-1)
    middle = torch.cat(
        [torch.cat([scale * (s @ s.T), lower], dim=1), torch.cat([lower.T, -torch.diag(inner.diag())], dim=1)]
    )
    basis = torch.cat([scale * s, y])
    product: Tensor = scale * v - basis.T @ torch.linalg.solve(middle, basis @ v)
    return product.to(vector.dtype)


def _weights(module: nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.requires_grad]


def _flat(parts: Sequence[Tensor | None], like: Sequence[Tensor] = ()) -> Tensor:
    """Return one vector of tensors, detached; of what is None, zeros in the shape of ``like``."""
    filled = [part if part is not None else torch.zeros_like(like[place]) for place, part in enumerate(parts)]
    return torch.cat([part.detach().reshape(-1) for part in filled])
