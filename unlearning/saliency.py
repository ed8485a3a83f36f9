"""Which weights matter for the forget records, and steps that change no others.

The mask is that of SalUn (Fan et al. 2024, arXiv 2310.12508): the weights whose gradient of the forget loss is largest,
ranked over the whole network. ``only`` holds all others exactly where they are. To mask gradients alone is not enough:
weight decay and momentum would still move the others (the authors corrected their code in this in 2026).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Deletion, evaluating

__all__ = ["forget_gradient", "largest", "only", "saliency_mask", "top_share"]


def forget_gradient(work: nn.Module, deletion: Deletion, ids: NDArray[np.int64] | None = None) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy of records, in eval mode and without augmentation.

    Args:
        work: left as it is, but for ``grad``, which is dropped.
        deletion: gives the records.
        ids: records; None is the forget set.

    Returns:
        A float32 tensor for each weight that may change, by name.
    """
    ids = deletion.request.forget if ids is None else ids
    work.zero_grad(set_to_none=True)
    with evaluating(work):
        for batch in deletion.in_order(ids, batch_size=deletion.recipe.batch_size):
            loss = nn.functional.cross_entropy(deletion.answer(work, batch.x), batch.y, reduction="sum") / ids.size
            loss.backward()  # type: ignore[no-untyped-call]
    found = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.detach().clone()
        for name, weight in work.named_parameters()
        if weight.requires_grad
    }
    work.zero_grad(set_to_none=True)
    return found


def largest(scores: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Mark so many of the largest scores of all tensors together; ties go to the earlier entry.

    Args:
        scores: finite, by name.
        number: of entries to mark, at least 0 and no more than there are.

    Returns:
        Bool tensors of the same shapes, true where marked.

    >>> mask = largest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0], [0.0]])}, 2)
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([True, False], [[True], [False]])
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    marked = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    marked[torch.argsort(flat, descending=True, stable=True)[:number]] = True
    parts = torch.split(marked, [score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def top_share(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mark a share in [0, 1] of all scores, the ``largest``; their number is rounded down."""
    if not 0 <= share <= 1:
        raise InvalidInput(f"share={share!r} of the weights must be in [0, 1]")
    total = sum(score.numel() for score in scores.values())
    # A share such as 0.29 of 100 must not lose one to rounding in binary.
    return largest(scores, int(share * total + 1e-9))


def saliency_mask(work: nn.Module, deletion: Deletion, keep: float) -> dict[str, Tensor]:
    """Mark the share ``keep`` of weights with the largest absolute gradient of the forget loss.

    Returns:
        A bool tensor for each weight that may change, by name; true where it is salient.
    """
    gradient = forget_gradient(work, deletion)
    return top_share({name: part.abs() for name, part in gradient.items()}, keep)


@contextmanager
def only(mask: Mapping[str, Tensor], work: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let the optimiser's steps change the marked weights and no others, whatever momentum and decay would do.

    Gradients are masked as they come; after each step the other weights are put back, and their momentum is zero.

    Args:
        mask: bool tensors by name; weights that are not named are left alone.
        work: the module that the optimiser moves.
        optimizer: of its weights.
    """
    named = dict(work.named_parameters())
    held = [(named[name], part.to(named[name].device), named[name].detach().clone()) for name, part in mask.items()]

    def mask_gradient(weight: Tensor) -> None:
        if weight.grad is not None:
            weight.grad.mul_(marks[weight])

    @torch.no_grad()
    def put_back(*_: object) -> None:
        for weight, marked, start in held:
            weight.copy_(torch.where(marked, weight, start))
            for value in optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(marked)

    marks: dict[Tensor, Tensor] = {weight: part for weight, part, _ in held}
    hooks: list[RemovableHandle] = []
    for weight in marks:
        if weight.requires_grad:
            hooks.append(weight.register_post_accumulate_grad_hook(mask_gradient))  # type: ignore[no-untyped-call]
    hooks.append(optimizer.register_step_post_hook(put_back))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
