"""Training of originals that are robust to adversarial examples: for methods that use such examples, as AMUN does.

"pgd": the loss at the worst point that a projected ascent finds in an l_inf ball (Madry et al. 2018, arXiv 1706.06083).
"trades": the loss at the record plus ``beta`` times KL(p(x) || p(x')), x' the point where that divergence is largest
(Zhang et al. 2019, arXiv 1901.08573). All else is the recipe's own training: order, augmentation, schedule.

TRADES starts its ascent at the record plus 0.001 times a normal draw, PGD at a uniform point of the ball. Bounds are in
pixels of [0, 1] where images are bytes, else in the model's inputs. Which norm and radius AMUN's authors trained their
robust originals with is not known to us; the defaults are TRADES' own for CIFAR-10.

To know: in a ball that is too wide for the data the model gives some records up, and a record that it is wrong about
has its adversarial example at distance zero. "pgd" does so first: on small digits at a bound of 0.25 it was wrong
about a tenth of what it was trained on, and examples were on average no farther than an MLP's without it; at 0.1 they
were.
"""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime, learning_rate
from mnemoscope.audit.models.steps import steps as counted
from mnemoscope.audit.models.training import BatchStream, Trained, check_finite, fresh_model, make_optimizer
from mnemoscope.audit.rng import child_seed
from mnemoscope.unlearning.adversarial_examples import Space, input_space
from mnemoscope.unlearning.base import evaluating

__all__ = ["train_robust"]

Kind = Literal["trades", "pgd"]


def train_robust(
    recipe: Recipe,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    seed: int,
    runtime: Runtime,
    kind: Kind = "trades",
    bound: float = 8 / 255,
    step: float = 2 / 255,
    ascents: int = 10,
    beta: float = 6.0,
) -> Trained:
    """Train a model from scratch so that its answers hold in an l_inf ball around each record.

    The seed decides the bits, as in ``train_model``; initial weights and order are those of ``train_model`` too.

    Args:
        recipe: architecture, optimiser, schedule, batches, augmentation; in fp32, without DP-SGD.
        data: the records.
        ids: (k,) int64 ids to train on, each once.
        seed: of initial weights, order, augmentation, starts and dropout.
        runtime: threads.
        kind: "trades" or "pgd".
        bound: radius of the ball, in pixels of [0, 1] where images are bytes, else in inputs.
        step: length of a step of the ascent.
        ascents: steps of it, at least 1.
        beta: "trades": weight of the divergence.

    Raises:
        InvalidInput: impossible settings, or a recipe that does not fit.
        AuditError: the loss stopped being finite.
    """
    if kind not in ("trades", "pgd"):
        raise InvalidInput(f"kind={kind!r} of robust training is unknown; allowed: 'trades', 'pgd'")
    if not (0 < bound < math.inf and 0 < step < math.inf and 0 <= beta < math.inf) or ascents < 1:
        raise InvalidInput(
            f"robust training: bound={bound!r} and step={step!r} must be positive, beta={beta!r} at least 0 (all "
            f"finite), and ascents={ascents!r} at least 1"
        )
    if recipe.precision != "fp32" or recipe.private:
        raise InvalidInput("robust training is in fp32 and without DP-SGD; change the recipe's precision or dp_clip")
    module = fresh_model(recipe, data, seed=seed).to(data.device)
    stream, space = BatchStream(data, ids, recipe, seed), input_space(data)
    weights: list[Tensor] = list(module.parameters())
    optimizer = make_optimizer(recipe, weights)
    draw = torch.Generator().manual_seed(child_seed(seed, "starts"))
    total, made, losses = recipe.epochs * stream.steps, 0, []
    with runtime.scope(), seeded(child_seed(seed, "noise")):
        for epoch in counted("robust training: epochs", recipe.epochs):
            module.train()
            summed = torch.zeros((), device=data.device)
            for batch in stream.epoch():
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, made, total)
                x, y = data.inputs(batch.positions, flip=batch.flip, shift=batch.shift), data.y[batch.positions]
                worst = _worst(module, space, x, y, draw, kind=kind, bound=bound, step=step, ascents=ascents)
                if kind == "pgd":
                    loss = nn.functional.cross_entropy(module(worst), y, label_smoothing=recipe.label_smoothing)
                else:
                    plain = module(x)
                    loss = nn.functional.cross_entropy(plain, y, label_smoothing=recipe.label_smoothing)
                    loss = loss + beta * _divergence(plain, module(worst)) / len(y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                summed += loss.detach() * len(y)
                made += 1
            losses.append(float(summed) / stream.n)
            check_finite(losses[-1], epoch + 1, recipe, seed, None)
        optimizer.zero_grad(set_to_none=True)
    return Trained(module.eval(), np.unique(np.asarray(ids, np.int64)), tuple(losses))


def _worst(
    module: nn.Module,
    space: Space,
    x: Tensor,
    y: Tensor,
    draw: torch.Generator,
    *,
    kind: Kind,
    bound: float,
    step: float,
    ascents: int,
) -> Tensor:
    """Inputs of the points where loss or divergence is largest, as far as the ascent goes; found in eval mode."""
    start = space.enter(x)
    noise = torch.randn(start.shape, generator=draw) if kind == "trades" else torch.rand(start.shape, generator=draw)
    first = 0.001 * noise if kind == "trades" else bound * (2 * noise - 1)
    point = space.keep(start + first.to(start))
    with evaluating(module):
        with torch.no_grad():
            plain = module(x)
        for _ in range(ascents):
            point = point.detach().requires_grad_()
            logits = module(space.leave(point))
            worse = _divergence(plain, logits) if kind == "trades" else nn.functional.cross_entropy(logits, y)
            (gradient,) = torch.autograd.grad(worse, point)
            moved = point.detach() + step * gradient.sign()
            point = space.keep(start + (moved - start).clamp(-bound, bound))
    return space.leave(point.detach())


def _divergence(plain: Tensor, moved: Tensor) -> Tensor:
    """Sum over records of KL(p(x) || p(x'))."""
    return nn.functional.kl_div(moved.log_softmax(dim=1), plain.log_softmax(dim=1), reduction="sum", log_target=True)
