"""The layer that a classifier ends in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import UnsupportedModel
from mnemoscope.unlearning.base import Deletion, evaluating

__all__ = ["last_linear"]


def last_linear(work: nn.Module, deletion: Deletion, method: str) -> tuple[str, nn.Linear]:
    """Return the linear layer whose output is the logits, and its name in the module.

    Raises:
        UnsupportedModel: the logits are made by something else, or by a layer with several parts to play.
    """
    calls: list[tuple[str, Tensor]] = []

    def noting(place: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _layer, _args, output: calls.append((place, output))

    layers = {place: part for place, part in work.named_modules() if isinstance(part, nn.Linear)}
    hooks = [layer.register_forward_hook(noting(place)) for place, layer in layers.items()]
    try:
        with torch.no_grad(), evaluating(work):
            logits = work(next(deletion.in_order(deletion.request.forget[:1], batch_size=1)).x)
    finally:
        for hook in hooks:
            hook.remove()
    found = [place for place, output in calls if output is logits]
    if len(found) != 1 or sum(place == found[0] for place, _ in calls) != 1:
        raise UnsupportedModel(
            f"{method} works on the linear layer that makes the logits, and this model's logits are not the output of "
            "one; let the model end in a linear layer, or take another method"
        )
    return found[0], layers[found[0]]
