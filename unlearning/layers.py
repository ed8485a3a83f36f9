"""The last layers of any network, found by the order in which a forward pass calls them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import evaluating

__all__ = ["LastLayers", "last_layers"]

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class LastLayers:
    """What belongs to the last layers.

    Attributes:
        weights: names of weights and buffers of these layers.
        modules: names of the modules that own them.
        total: number of layers of the network.
        first: name of the module that is the first of these layers.
    """

    weights: frozenset[str]
    modules: frozenset[str]
    total: int
    first: str


def last_layers(module: nn.Module, x: Tensor, k: int) -> LastLayers:
    """Find what the last ``k`` layers own.

    A layer is a module with weights of its own, or of parts that are not called themselves (attention and its output
    projection are one layer), that is no normalisation and has no layer inside. Layers are ordered by their first call;
    everything that owns weights and is first called with the k-th layer from the end or later counts as last, so that
    normalisation goes with the layer before it. A layer that is also called earlier is no last one.
    Weights of a module that holds layers (class tokens, position embeddings) belong to the place where it is entered.

    Args:
        module: the network; asked in eval mode, left as it is.
        x: (1, ...) one input.
        k: at least 1; as many as there are layers or more mean the whole network.

    Raises:
        InvalidInput: k below 1.
    """
    if k < 1:
        raise InvalidInput(f"k={k!r} last layers: at least 1")
    calls: dict[str, int] = {}

    def note(name: str) -> None:
        calls.setdefault(name, len(calls))

    hooks = [part.register_forward_pre_hook(lambda *_, name=name: note(name)) for name, part in module.named_modules()]
    try:
        with evaluating(module), torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    owned: dict[str, list[str]] = {}
    for entry in module.state_dict(keep_vars=True):
        owner = entry.rpartition(".")[0]
        while owner not in calls:
            owner = owner.rpartition(".")[0]
        owned.setdefault(owner, []).append(entry)
    parts = dict(module.named_modules())
    weighted = {entry for entry, _ in module.named_parameters(remove_duplicate=False)}
    owners = sorted((name for name in owned if weighted.intersection(owned[name])), key=calls.__getitem__)
    layers = [
        name
        for name in owners
        if not isinstance(parts[name], NORMS) and not any(_inside(other, name) for other in owners)
    ]
    first = calls[layers[-k]] if k < len(layers) else 0
    found = [name for name in owned if calls[name] >= first]
    return LastLayers(
        frozenset(entry for name in found for entry in owned[name]),
        frozenset(found),
        len(layers),
        layers[max(0, len(layers) - k)],
    )


def _inside(name: str, other: str) -> bool:
    """Whether the module ``name`` is a part of ``other``."""
    return name != other and (not other or name.startswith(f"{other}."))
