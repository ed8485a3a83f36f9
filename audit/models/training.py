"""Training: one loop for fresh models and for unlearning methods, the seed decides the bits, seen records are noted."""

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model, seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import SUBJECT, Recipe, Runtime, learning_rate
from mnemoscope.audit.rng import child_seed

__all__ = [
    "Batch",
    "BatchStream",
    "Trained",
    "Watcher",
    "batch_stream",
    "fit",
    "fresh_model",
    "make_optimizer",
    "train_model",
]

OnEpoch = Callable[[int, float], None]


class Watcher(Protocol):
    """Sees every step of a training; it may read the module, and must leave weights and random states alone."""

    def before_step(self, module: nn.Module, batch: "Batch", inputs: Tensor, rate: float) -> None:
        """Called with the inputs of the batch, moved and mirrored as the step sees them, and the learning rate."""
        ...

    def after_step(self, module: nn.Module, batch: "Batch") -> None:
        """Called when the optimiser has moved the weights."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and what the optimiser saw.

    Attributes:
        module: in eval mode.
        seen_ids: (k,) int64 ascending: ids of records that took part in an optimiser step, marked step by step.
        loss: mean training loss of each epoch, as computed during the epoch.
    """

    module: nn.Module
    seen_ids: NDArray[np.int64]
    loss: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Positions (b,) of one step, with its draws: flip (b,) bool, shift (b, 2) int64, or None."""

    positions: Tensor
    flip: Tensor | None
    shift: Tensor | None


class BatchStream:
    """The order of records and the augmentation draws of one run: a function of ids, recipe and seed alone.

    Draws come from generators of their own on the CPU, a whole epoch at a time, so that they are the same on every
    device, whatever was trained before, and whether the model trains alone or in a stack.
    """

    def __init__(self, data: DeviceData, ids: NDArray[np.int64], recipe: Recipe, seed: int) -> None:
        ids = np.sort(np.asarray(ids, dtype=np.int64))
        if ids.size == 0:
            raise InvalidInput("no records to train on: the list of ids is empty")
        if (ids[1:] == ids[:-1]).any():
            twice = np.unique(ids[1:][ids[1:] == ids[:-1]])
            raise InvalidInput(f"{twice.size} record ids are given twice, e.g. {twice[0]}; each id counts once")
        if recipe.augmentation != "none" and not data.is_image:
            raise InvalidInput(
                f"recipe: augmentation={recipe.augmentation!r} is for images, "
                f"data set {data.name!r} has none; use 'none'"
            )
        self.n = int(ids.size)
        self.steps = math.ceil(self.n / recipe.batch_size)
        self._positions = data.positions(ids)
        self._kind = recipe.augmentation
        self._reach = max(1, max(data.input_shape[1:]) // 8) if data.is_image else 0
        self._order = torch.Generator().manual_seed(child_seed(seed, "order"))
        self._augment = torch.Generator().manual_seed(child_seed(seed, "augment"))

    def epoch(self) -> list[Batch]:
        """Return the batches of the next epoch; every record is in exactly one."""
        device = self._positions.device
        order = torch.randperm(self.n, generator=self._order)
        parts = torch.tensor_split(self._positions[order.to(device)], self.steps)
        flips: tuple[Tensor | None, ...] = (None,) * self.steps
        shifts: tuple[Tensor | None, ...] = (None,) * self.steps
        if self._kind != "none":
            flip = torch.rand(self.n, generator=self._augment) < 0.5
            flips = torch.tensor_split(flip.to(device), self.steps)
        if self._kind == "flip-crop":
            shift = torch.randint(-self._reach, self._reach + 1, (self.n, 2), generator=self._augment)
            shifts = torch.tensor_split(shift.to(device), self.steps)
        return [Batch(*triple) for triple in zip(parts, flips, shifts, strict=True)]


def batch_stream(data: DeviceData, ids: NDArray[np.int64], recipe: Recipe, seed: int) -> BatchStream:
    """Return the batches of one run: shuffled ones, or drawn by Poisson sampling where the recipe is DP-SGD."""
    if recipe.private:
        from mnemoscope.audit.models.private import PoissonStream

        return PoissonStream(data, ids, recipe, seed)
    return BatchStream(data, ids, recipe, seed)


def fresh_model(recipe: Recipe, data: DeviceData, *, seed: int) -> nn.Module:
    """Build the recipe's untrained model for the data, on the CPU; the weights depend on the seed alone."""
    if recipe.architecture != SUBJECT:
        return build_model(
            recipe.architecture,
            input_shape=data.input_shape,
            n_classes=data.n_classes,
            seed=child_seed(seed, "init"),
        )
    if data.subject is None:
        raise InvalidInput(
            "recipe: architecture='subject' needs the user's subject.py; "
            "give it to DeviceData(..., subject=load_subject(path))"
        )
    if data.subject.digest != recipe.subject:
        raise InvalidInput(
            f"recipe: subject={recipe.subject!r} is not the loaded subject.py ({data.subject.digest}): "
            "it has changed since; take the recipe's subject from the file that is loaded"
        )
    return data.subject.build(seed=child_seed(seed, "init"))


def make_optimizer(recipe: Recipe, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; the rate is set before each step."""
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(parameters, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def train_model(
    recipe: Recipe,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    seed: int,
    runtime: Runtime,
    init: nn.Module | None = None,
    on_epoch: OnEpoch | None = None,
    watcher: Watcher | None = None,
) -> Trained:
    """Train one model from scratch, or on from a copy of ``init``.

    The same recipe, data, ids, seed, device kind and number of threads give the same bits, whatever the state of the
    global generators and whatever was trained before. The order in which the ids are given does not matter.

    Args:
        recipe: how.
        data: records on the device; the model comes to live there.
        ids: (k,) int64 ids to train on, each once.
        seed: of initial weights, order, augmentation and dropout.
        runtime: threads.
        init: start from a copy of this module instead of from fresh weights.
        on_epoch: called with the number of epochs done and the epoch's mean loss.
        watcher: sees every step.

    Raises:
        InvalidInput: empty, repeated or unknown ids; a recipe that does not fit the data.
        AuditError: the loss stopped being finite; the message names epoch and rate.
    """
    module = fresh_model(recipe, data, seed=seed) if init is None else copy.deepcopy(init)
    seen, loss = _run(module, recipe, data, ids, seed=seed, runtime=runtime, on_epoch=on_epoch, watcher=watcher)
    return Trained(module.eval(), seen, loss)


def fit(
    module: nn.Module,
    recipe: Recipe,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    seed: int,
    runtime: Runtime,
    loss_sign: float = 1.0,
    epochs: int | None = None,
    max_steps: int | None = None,
    lr: float | None = None,
    max_grad_norm: float | None = None,
    freeze_norm: bool = False,
    on_epoch: OnEpoch | None = None,
) -> NDArray[np.int64]:
    """Train a module in place: the loop that unlearning methods reuse.

    Args:
        module: changed in place, moved to the data's device; parameters without ``requires_grad`` stay; its train
            or eval mode is restored.
        recipe: optimiser (with fresh state), schedule (over this run's own steps), batch size, augmentation, precision.
        data: records on the device.
        ids: (k,) int64 ids, each once.
        seed: of order, augmentation and dropout.
        runtime: threads.
        loss_sign: factor on the loss; -1 ascends.
        epochs: instead of the recipe's; 0 leaves the module as it is.
        max_steps: stop after so many steps; the schedule spans the steps that are made.
        lr: peak rate instead of the recipe's.
        max_grad_norm: clip the gradient's norm over all parameters.
        freeze_norm: keep batch normalisation in eval mode: its running statistics are used and left as they are, while
            its scale and shift still learn. Without it, training on forget records alone pulls the statistics to them.
        on_epoch: called with the number of epochs done and the epoch's mean loss (without ``loss_sign``).

    Returns:
        (k',) int64 ascending: ids that took part in an optimiser step.

    Raises:
        InvalidInput, AuditError: as ``train_model``.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        seen, _ = _run(
            module,
            recipe,
            data,
            ids,
            seed=seed,
            runtime=runtime,
            loss_sign=loss_sign,
            epochs=epochs,
            max_steps=max_steps,
            lr=lr,
            max_grad_norm=max_grad_norm,
            freeze_norm=freeze_norm,
            on_epoch=on_epoch,
        )
    finally:
        for part, mode in modes.items():
            part.training = mode
    return seen


def _run(
    module: nn.Module,
    recipe: Recipe,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    seed: int,
    runtime: Runtime,
    loss_sign: float = 1.0,
    epochs: int | None = None,
    max_steps: int | None = None,
    lr: float | None = None,
    max_grad_norm: float | None = None,
    freeze_norm: bool = False,
    on_epoch: OnEpoch | None = None,
    watcher: Watcher | None = None,
) -> tuple[NDArray[np.int64], tuple[float, ...]]:
    stream = batch_stream(data, ids, recipe, seed)
    planned = (recipe.epochs if epochs is None else epochs) * stream.steps
    steps = planned if max_steps is None else min(planned, max_steps)
    module.to(data.device)
    images = data.is_image and any(isinstance(part, nn.Conv2d) for part in module.modules())
    if images:
        module.to(memory_format=torch.channels_last)
    module.train()
    if freeze_norm:
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
    weights: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    if not weights:
        raise UnsupportedModel("the model has no parameters that require a gradient: there is nothing to train")
    optimizer = make_optimizer(recipe, weights)
    seen = torch.zeros(data.ids.size, dtype=torch.bool, device=data.device)
    losses: list[float] = []
    step = 0
    with runtime.scope(), seeded(child_seed(seed, "noise")), ExitStack() as stack:
        private = None
        if recipe.private:
            from mnemoscope.audit.models.private import PrivateGradient

            private = stack.enter_context(PrivateGradient(module, optimizer, recipe, data, stream, seed))
        while step < steps:
            total = torch.zeros((), device=data.device)
            count = 0
            for batch in stream.epoch()[: steps - step]:
                rate = learning_rate(recipe, step, steps, peak=lr)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                x = data.inputs(batch.positions, flip=batch.flip, shift=batch.shift)
                if watcher is not None:
                    watcher.before_step(module, batch, x, rate)
                if private is not None:
                    loss = private.backward(x, data.y[batch.positions], loss_sign=loss_sign)
                else:
                    bf16 = recipe.precision == "bf16"
                    with torch.autocast(data.device.type, dtype=torch.bfloat16, enabled=bf16):
                        logits = module(x)
                    loss = nn.functional.cross_entropy(
                        logits.float(), data.y[batch.positions], label_smoothing=recipe.label_smoothing
                    )
                    optimizer.zero_grad(set_to_none=True)
                    (loss * loss_sign).backward()  # type: ignore[no-untyped-call]
                if max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(weights, max_grad_norm)
                optimizer.step()
                if watcher is not None:
                    watcher.after_step(module, batch)
                seen[batch.positions] = True
                total += loss.detach() * batch.positions.numel()
                count += batch.positions.numel()
                step += 1
            losses.append(float(total) / max(count, 1))
            check_finite(losses[-1], len(losses), recipe, seed, lr)
            if on_epoch is not None:
                on_epoch(len(losses), losses[-1])
        optimizer.zero_grad(set_to_none=True)
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            check_finite(math.nan, len(losses), recipe, seed, lr)
    if images:
        module.to(memory_format=torch.contiguous_format)
    return data.ids[seen.cpu().numpy()], tuple(losses)


def check_finite(loss: float, epoch: int, recipe: Recipe, seed: int, lr: float | None) -> None:
    """Refuse a loss that is not a number any more, naming where it happened and what to lower."""
    if not math.isfinite(loss):
        raise AuditError(
            f"training diverged: the loss or a weight is {loss} in epoch {epoch} "
            f"(architecture {recipe.architecture!r}, seed {seed}, lr {recipe.lr if lr is None else lr:g}); "
            "lower the learning rate, add warmup, or clip the gradient"
        )
