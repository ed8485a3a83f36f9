"""Which weights of a network are pruned, and a guard that keeps them at zero whatever trains it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel

__all__ = ["Masks", "prunable"]

PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Linear maps that ``nn.MultiheadAttention`` holds as weights of its own instead of as layers."""


def prunable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of convolutions and linear maps that may change, by name; biases and normalisation stay.

    A weight that several layers share is named once. Frozen weights are left out.

    Raises:
        UnsupportedModel: there is none.
    """
    found: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for place, part in module.named_modules():
        names: tuple[str, ...] = ()
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            names = ("weight",)
        elif isinstance(part, nn.MultiheadAttention):
            names = PACKED
        for name in names:
            weight = getattr(part, name, None)
            if isinstance(weight, nn.Parameter) and weight.requires_grad and id(weight) not in known:
                known.add(id(weight))
                found[f"{place}.{name}" if place else name] = weight
    if not found:
        raise UnsupportedModel(
            "the model has no weight of a convolution or a linear layer that may change: there is nothing to prune"
        )
    return found


@dataclass(frozen=True, eq=False)
class Masks:
    """Which weights survive.

    Attributes:
        keep: bool tensors by the name of the weight, in its shape, on the CPU; True survives.
    """

    keep: Mapping[str, Tensor]

    @property
    def sparsity(self) -> float:
        """Share of the masked weights that is pruned, in [0, 1]."""
        total = sum(mask.numel() for mask in self.keep.values())
        return 1.0 - sum(int(mask.sum()) for mask in self.keep.values()) / total

    @torch.no_grad()
    def apply(self, module: nn.Module) -> None:
        """Set the pruned weights of the module to zero, in place.

        Raises:
            InvalidInput: the module has no weight of a mask's name and shape.
        """
        for weight, mask in self._pairs(module):
            # Not a product: that would leave -0.0, and NaN where a weight has diverged.
            weight.masked_fill_(~mask, 0.0)

    @contextmanager
    def enforced(self, module: nn.Module) -> Iterator[nn.Module]:
        """Keep the pruned weights of the module at zero for a block, whichever optimiser trains it there.

        Their gradients are zero, so that they count neither in a norm that is clipped nor in momentum. After every
        step of any optimiser that holds one of the weights, they and their entries of its state (momentum, moments)
        are set to zero: decay, noise and momentum from before the block cannot bring them back. Writes that pass by
        every optimiser are undone when the block ends.

        Copies that are made of the module inside of the block are not guarded; ``apply`` the masks to them.
        """
        pairs = [(weight, ~mask) for weight, mask in self._pairs(module)]
        pruned = {id(weight): away for weight, away in pairs}

        def hold(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            with torch.no_grad():
                for group in optimizer.param_groups:
                    for weight in group["params"]:
                        away = pruned.get(id(weight))
                        if away is None:
                            continue
                        weight.masked_fill_(away, 0.0)
                        for value in optimizer.state.get(weight, {}).values():
                            if isinstance(value, Tensor) and value.shape == weight.shape:
                                value.masked_fill_(away, 0.0)

        self.apply(module)
        handles = [register_optimizer_step_post_hook(hold)]
        for weight, away in pairs:
            if weight.requires_grad:
                still = partial(_without, away=away)
                handles.append(weight.register_hook(still))  # type: ignore[no-untyped-call]
        try:
            yield module
        finally:
            for handle in handles:
                handle.remove()
            self.apply(module)

    def _pairs(self, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
        weights: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        wrong = [name for name, mask in self.keep.items() if name not in weights or weights[name].shape != mask.shape]
        if wrong:
            raise InvalidInput(
                f"masks for {len(wrong)} weights do not fit the model, the first {wrong[0]!r} of shape "
                f"{tuple(self.keep[wrong[0]].shape)}; take masks that were made for this architecture"
            )
        return [(weights[name], mask.to(weights[name].device)) for name, mask in self.keep.items()]


def _without(grad: Tensor, *, away: Tensor) -> Tensor:
    return grad.masked_fill(away, 0.0)
