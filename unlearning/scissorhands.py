"""Scissorhands: the late weights that matter for the forget records start anew, and ascent keeps its direction.

Wu and Harandi 2024, "Scissorhands: Scrub Data Influence via Connections in Networks" (ECCV; arXiv 2401.06187), and the
authors' code.

1. trim: on a batch of forget records, the saliency ``|gradient x weight|`` of every weight; of the share of all weights
   with the largest (3 %), those in linear maps and convolutions of the late layers get fresh values, biases zero;
2. repair: steps on ``CE(retained batch) - lam CE(forget batch)``, and on retained batches alone when the forget records
   of an epoch are through. In each epoch gradients of ``-CE`` are noted on batches of forget records; where the
   gradient of a step would lower the loss of these again (a negative product), it is projected in the late layers, as
   in GEM (Lopez-Paz and Ranzato 2017, arXiv 1706.08840): ``g + G v``, ``v`` the solution of
   ``min v'(G'G + eps) v / 2 + g'G v`` with every ``v_i`` at least a margin.

Deviations. Late are the last layers in a forward pass, in the share that layer3, layer4 and the last linear layer have
of ResNet-18 (11 of 21). Of the ranking, exactly the share is taken; published code falls back to another threshold
where saliencies are below 1e-12, as they are for records known by heart. Saliency is taken in eval mode. Normalisation
is left out of the fresh start, that of shortcuts too, which published code catches by their names. Passes on forget
records normalise by the batch and leave no trace in running statistics. With several memories each is the gradient of
its own batch; published code, run with one, would add them up. Rate and optimiser are the user's own: 5e-3 for a
training at 0.1 (1e-3 and lam 0.01 were taken to forget half of CIFAR-10, lam 1 for CIFAR-100).

Pitfall: the loss of forget records is raised without a bound; ``lam`` and the number of steps decide how far.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.unlearning.base import Deletion, Method, unrecorded_norm
from mnemoscope.unlearning.layers import last_layers
from mnemoscope.unlearning.masks import prunable
from mnemoscope.unlearning.saliency import forget_gradient, top_share

__all__ = ["Scissorhands", "projected", "trim"]

RATE = 0.05
"""Published rate as a share of the training's: 5e-3 of 0.1."""

RIDGE = 1e-3
"""Added to the diagonal of the projection's quadratic program, as in GEM's code."""


@dataclass(frozen=True)
class Scissorhands(Method):
    """Start late weights anew that matter for the forget records, then descend on retained and ascend on those.

    Attributes:
        epochs: passes over the retained records, at least 0; 0 leaves the model as it is.
        lr: constant rate of the user's own optimiser; None is 0.05 times the recipe's.
        sparsity: share of the weights that cannot start anew, in [0, 1]; 1 trims nothing.
        lam: weight of the forget records' loss, at least 0.
        project: whether steps that would lower the loss of forget records are projected.
        margin: least weight of a memory in the projection, at least 0.
        memories: batches of forget records whose gradients are noted in an epoch, at least 1.
        trim_batches: batches of forget records that saliency is summed over, at least 1.
        late: share of the layers, counted from the output, that are trimmed and projected in, in (0, 1].
    """

    epochs: int = 10
    lr: float | None = None
    sparsity: float = 0.97
    lam: float = 0.05
    project: bool = True
    margin: float = 0.5
    memories: int = 1
    trim_batches: int = 1
    late: float = 0.52
    name = "scissorhands"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA
    knobs = {"sparsity": (0.9, 0.97, 0.99), "lam": (0.01, 0.05, 0.2, 1.0)}

    def __post_init__(self) -> None:
        for field, least in (("epochs", 0), ("lam", 0), ("margin", 0), ("memories", 1), ("trim_batches", 1)):
            if not least <= getattr(self, field) < math.inf:
                raise InvalidInput(
                    f"{self.name}: {field}={getattr(self, field)!r} must be at least {least}, and finite"
                )
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InvalidInput(f"{self.name}: lr={self.lr!r} must be positive and finite, or None")
        if not 0 <= self.sparsity <= 1 or not 0 < self.late <= 1:
            raise InvalidInput(
                f"{self.name}: sparsity={self.sparsity!r} must be in [0, 1] and late={self.late!r} in (0, 1]"
            )

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        if not self.epochs:
            return work
        recipe, request = deletion.recipe, deletion.request
        late = self._late(work, deletion)
        trim(work, deletion, late, share=1 - self.sparsity, batches=self.trim_batches)
        weights = {name: weight for name, weight in work.named_parameters() if weight.requires_grad and name in late}
        retain, forget = deletion.stream(request.retain), deletion.stream(request.forget)
        optimizer = deletion.optimizer(work, RATE * recipe.lr if self.lr is None else self.lr)
        for _ in deletion.epochs(self.epochs):
            ascent = self._memories(work, deletion, weights) if self.project else None
            gone = deletion.batches(forget)
            for batch in deletion.batches(retain):
                loss, against, change = deletion.loss(work, batch), next(gone, None), None
                if against is not None:
                    with unrecorded_norm(work):
                        loss = loss - self.lam * deletion.loss(work, against)
                    if ascent is not None:
                        change = partial(_project, weights, ascent, self.margin)
                deletion.descend(optimizer, loss, change=change)
        return work

    def _late(self, work: nn.Module, deletion: Deletion) -> frozenset[str]:
        first = deletion.data.inputs(deletion.data.positions(deletion.request.retain[:1]))
        total = last_layers(work, first, 1).total
        number = max(1, round(self.late * total))
        late = last_layers(work, first, number).weights
        if not late.intersection(prunable(work)):
            raise UnsupportedModel(
                f"{self.name}: the weights of the last {number} of {total} layers are frozen (requires_grad is False), "
                "and these are what starts anew; unfreeze some, or raise late"
            )
        return late

    def _memories(self, work: nn.Module, deletion: Deletion, weights: dict[str, nn.Parameter]) -> Tensor:
        """Gradients of -CE on batches of forget records, (memories, entries of the weights)."""
        found = []
        for _ in range(self.memories):
            gradient = forget_gradient(work, deletion, _batch(deletion))
            found.append(-torch.cat([gradient[name].reshape(-1) for name in weights]))
        return torch.stack(found)


def trim(work: nn.Module, deletion: Deletion, late: frozenset[str], *, share: float, batches: int) -> None:
    """Give fresh values to the late weights that are among the most salient of all for forget records, in place.

    Fresh values are uniform within one over the square root of the number of inputs (Kaiming's uniform rule with
    a = sqrt 5, as layers start by default); fresh biases are zero.

    Args:
        work: the network; the saliency is over its weights that may change.
        deletion: gives the forget records and the random draws.
        late: names of weights that may start anew; of these, those of linear maps, convolutions and attention do.
        share: of all weights that count as most salient, in [0, 1].
        batches: forget batches that absolute gradients are summed over.
    """
    total: dict[str, Tensor] = {}
    for _ in range(batches):
        for name, gradient in forget_gradient(work, deletion, _batch(deletion)).items():
            total[name] = total.get(name, 0) + gradient.abs()
    weights = dict(work.named_parameters())
    salient = top_share({name: size * weights[name].detach().abs() for name, size in total.items()}, share)
    maps = prunable(work)
    owners = {name.rpartition(".")[0] for name in maps}
    draw = deletion.generator()
    with torch.no_grad():
        for name, marked in salient.items():
            weight, (owner, _, kind) = weights[name], name.rpartition(".")
            if name not in late:
                continue
            if name in maps:
                bound = 1 / math.sqrt(weight[0].numel())
                fresh = (torch.rand(weight.shape, generator=draw) * 2 - 1) * bound
                weight.copy_(torch.where(marked, fresh.to(weight.device), weight))
            elif owner in owners and kind in ("bias", "in_proj_bias"):
                weight.masked_fill_(marked, 0.0)


def projected(gradient: Tensor, memories: Tensor, margin: float, ridge: float = RIDGE) -> Tensor:
    """Return the gradient moved so that a step down it goes against no memory (the projection of GEM).

    Args:
        gradient: (p,).
        memories: (m, p) gradients whose losses are not to rise.
        margin: least weight of each memory.
        ridge: added to the diagonal of the program.

    Returns:
        (p,) in the gradient's type; the gradient itself where its product with no memory is negative.

    >>> projected(torch.tensor([1.0, -2.0]), torch.tensor([[0.0, 1.0]]), 0.0, ridge=0.0).tolist()
    [1.0, 0.0]
    >>> projected(torch.tensor([1.0, 2.0]), torch.tensor([[0.0, 1.0]]), 0.5).tolist()
    [1.0, 2.0]
    """
    from scipy.optimize import nnls

    wide, kept = gradient.double(), memories.double()
    products = kept @ wide
    if bool((products >= 0).all()):
        return gradient
    matrix: NDArray[np.float64] = (kept @ kept.T).cpu().numpy() + ridge * np.eye(len(memories))
    # min v'Pv/2 - q'v over v >= h, with u = v - h and P = LL': min |L'u - L^-1 (q - P h)|^2 over u >= 0.
    least = np.full(len(memories), margin)
    lower = np.linalg.cholesky(matrix)
    above, _ = nnls(lower.T, np.linalg.solve(lower, -products.cpu().numpy() - matrix @ least))
    weight = torch.from_numpy(above + least).to(kept.device)
    return (wide + weight @ kept).to(gradient.dtype)


def _project(weights: dict[str, nn.Parameter], memories: Tensor, margin: float) -> None:
    """Project the gradients of some weights together, in place."""
    given = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights.values()]
    flat = projected(torch.cat([gradient.reshape(-1) for gradient in given]), memories, margin)
    parts = torch.split(flat, [gradient.numel() for gradient in given])
    for weight, part in zip(weights.values(), parts, strict=True):
        weight.grad = part.view_as(weight)


def _batch(deletion: Deletion) -> NDArray[np.int64]:
    """Draw forget records, as many as in a batch."""
    drawn: NDArray[np.int64] = deletion.rng.permutation(deletion.request.forget)[: deletion.recipe.batch_size]
    return np.sort(drawn)
