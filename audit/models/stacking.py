"""Training of many small models at once: their weights in one tensor, one forward and backward pass for all."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime, learning_rate
from mnemoscope.audit.models.training import (
    Batch,
    BatchStream,
    Trained,
    check_finite,
    fresh_model,
    make_optimizer,
    train_model,
)

__all__ = ["choose_stack", "stack_obstacle", "train_stacked"]

STACK_SIZES = (8, 24, 72)
"""Sizes that ``choose_stack`` tries."""

WORTHWHILE = 1.15
"""A stack must be this many times faster than the loop to be chosen."""


def stack_obstacle(recipe: Recipe, data: DeviceData) -> str | None:
    """Return why models of this recipe cannot be trained stacked, or None where they can.

    Supported are float32 models without buffers (so without batch normalisation) and without randomness in the forward
    pass (dropout), that ``torch.func.vmap`` can run.
    """
    if recipe.private:
        return "DP-SGD is trained one by one"
    if recipe.precision != "fp32":
        return f"precision {recipe.precision} is trained one by one"
    module = fresh_model(recipe, data, seed=0)
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        return f"the model has buffers ({buffers[0]}{', ...' if len(buffers) > 1 else ''})"
    if any(not p.requires_grad for p in module.parameters()):
        return "some parameters of the model do not require a gradient"
    shapes = [module.train().to(data.device), copy.deepcopy(module)]
    params, _ = stack_module_state(shapes)
    positions = torch.zeros((2, 2), dtype=torch.int64, device=data.device)
    try:
        with torch.no_grad():
            _forward(module, params, data.inputs(positions))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return f"vmap cannot run it ({str(error).splitlines()[0]})"
    return None


def train_stacked(
    recipe: Recipe,
    data: DeviceData,
    list_of_ids: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    *,
    runtime: Runtime,
) -> list[Trained]:
    """Train many models, stacked where the recipe allows it.

    Each model has the initial weights, the order of records and the augmentation that ``train_model`` gives it for its
    seed, so both agree within rounding. Models with equally many records share a stack, in the order given, at most
    ``runtime.stack`` of them (all, if None); what cannot be stacked, or is alone in its stack, is trained by
    ``train_model``. Bits depend on who shares a stack: the composition of the stack belongs into the key.

    Args:
        recipe: the same for all.
        data: records on the device.
        list_of_ids: (k_i,) int64 ids for each model.
        seeds: one for each model.
        runtime: threads, stack size.

    Returns:
        The trained models, in the order given.

    Raises:
        InvalidInput, AuditError: as ``train_model``.
    """
    if len(list_of_ids) != len(seeds):
        raise InvalidInput(f"{len(list_of_ids)} lists of ids for {len(seeds)} seeds; give one seed for each model")
    limit = runtime.stack if runtime.stack is not None else max(1, len(seeds))
    stackable = limit > 1 and stack_obstacle(recipe, data) is None
    by_size: dict[int, list[int]] = {}
    for index, ids in enumerate(list_of_ids):
        by_size.setdefault(len(ids), []).append(index)
    trained: dict[int, Trained] = {}
    for members in by_size.values():
        for start in range(0, len(members), limit):
            group = members[start : start + limit]
            if stackable and len(group) > 1:
                results = _train_group(
                    recipe, data, [list_of_ids[i] for i in group], [seeds[i] for i in group], runtime=runtime
                )
            else:
                results = [train_model(recipe, data, list_of_ids[i], seed=seeds[i], runtime=runtime) for i in group]
            trained.update(zip(group, results, strict=True))
    return [trained[index] for index in range(len(seeds))]


def choose_stack(
    recipe: Recipe, data: DeviceData, sizes: Sequence[int], *, runtime: Runtime, records: int = 1024
) -> int:
    """Measure how many models to train together, once, before the first model.

    One model by the loop and stacks of 8, 24 and 72 models (as far as there are models with equally many records) each
    process about ``records`` records; the time a model takes decides. The answer depends on the machine: store it and
    reuse it, because the stack size is part of a model's key.

    Args:
        recipe: what will be trained.
        data: records on the device.
        sizes: number of training records of each model to come.
        runtime: a given ``runtime.stack`` is returned as it is where stacking is possible.
        records: records for each model and measurement.

    Returns:
        The stack size; 1 means one by one.
    """
    if not sizes or stack_obstacle(recipe, data) is not None:
        return 1
    if runtime.stack is not None:
        return runtime.stack
    length, models = max(((size, list(sizes).count(size)) for size in set(sizes)), key=lambda pair: pair[1])
    candidates = sorted({min(size, models) for size in STACK_SIZES} - {1})
    if not candidates:
        return 1
    n = min(length, data.ids.size)
    ids = data.ids[:n]
    # Enough passes for about `records` records: short runs would time the set-up, not the steps.
    probe = replace(recipe, epochs=max(1, math.ceil(records / n)))
    single = min(_seconds(probe, data, ids, 1, runtime) for _ in range(2))
    best, fastest = 1, single / WORTHWHILE
    for size in candidates:
        share = min(_seconds(probe, data, ids, size, runtime) for _ in range(2)) / size
        if share < fastest:
            best, fastest = size, share
    return best


def _seconds(recipe: Recipe, data: DeviceData, ids: NDArray[np.int64], size: int, runtime: Runtime) -> float:
    start = time.perf_counter()
    if size == 1:
        train_model(recipe, data, ids, seed=0, runtime=runtime)
    else:
        _train_group(recipe, data, [ids] * size, list(range(size)), runtime=runtime)
    return time.perf_counter() - start


def _forward(base: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    def one(weights: dict[str, Tensor], batch: Tensor) -> Tensor:
        answer: Tensor = functional_call(base, weights, (batch,))
        return answer

    result: Tensor = torch.vmap(one, randomness="error")(params, x)
    return result


def _stacked(batches: Sequence[Batch]) -> Batch:
    def join(parts: Sequence[Tensor | None]) -> Tensor | None:
        tensors = [part for part in parts if part is not None]
        return torch.stack(tensors) if tensors else None

    return Batch(
        torch.stack([batch.positions for batch in batches]),
        join([batch.flip for batch in batches]),
        join([batch.shift for batch in batches]),
    )


def _train_group(
    recipe: Recipe,
    data: DeviceData,
    list_of_ids: Sequence[NDArray[np.int64]],
    seeds: Sequence[int],
    *,
    runtime: Runtime,
) -> list[Trained]:
    streams = [BatchStream(data, ids, recipe, seed) for ids, seed in zip(list_of_ids, seeds, strict=True)]
    modules = [fresh_model(recipe, data, seed=seed).train().to(data.device) for seed in seeds]
    m, steps = len(modules), recipe.epochs * streams[0].steps
    params: dict[str, Tensor] = stack_module_state(modules)[0]
    optimizer = make_optimizer(recipe, list(params.values()))
    seen = torch.zeros((m, data.ids.size), dtype=torch.bool, device=data.device)
    losses: list[list[float]] = []
    step = 0
    with runtime.scope():
        for epoch in range(1, recipe.epochs + 1):
            total = torch.zeros(m, device=data.device)
            for parts in zip(*(stream.epoch() for stream in streams), strict=True):
                batch = _stacked(parts)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, step, steps)
                x = data.inputs(batch.positions, flip=batch.flip, shift=batch.shift)
                logits = _forward(modules[0], params, x)
                each = nn.functional.cross_entropy(
                    logits.flatten(0, 1),
                    data.y[batch.positions].flatten(),
                    reduction="none",
                    label_smoothing=recipe.label_smoothing,
                ).view(m, -1)
                optimizer.zero_grad(set_to_none=True)
                # The sum over models keeps each model's own gradient: no weight is shared.
                each.mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                seen.scatter_(1, batch.positions, True)
                total += each.detach().sum(dim=1)
                step += 1
            losses.append([value / streams[0].n for value in total.tolist()])
            for index, value in enumerate(losses[-1]):
                check_finite(value, epoch, recipe, seeds[index], None)
        finite = torch.stack([torch.isfinite(p).flatten(1).all(dim=1) for p in params.values()]).all(dim=0)
        for index in torch.nonzero(~finite).flatten().tolist():
            check_finite(math.nan, recipe.epochs, recipe, seeds[index], None)
    return [
        Trained(
            _unstacked(module, params, index),
            data.ids[row],
            tuple(epoch[index] for epoch in losses),
        )
        for index, (module, row) in enumerate(zip(modules, seen.cpu().numpy(), strict=True))
    ]


def _unstacked(module: nn.Module, params: dict[str, Tensor], index: int) -> nn.Module:
    with torch.no_grad():
        for name, own in module.named_parameters():
            own.copy_(params[name][index])
    return module.eval()
