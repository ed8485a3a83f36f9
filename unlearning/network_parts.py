"""A network cut in three by depth, and what the last layer of any network is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import UnsupportedModel
from mnemoscope.unlearning.layers import last_layers

__all__ = ["Parts", "feature_layer", "features_of", "given_to", "three_parts"]


@dataclass(frozen=True)
class Parts:
    """Names of weights and buffers of three parts of a network, in the order of a forward pass.

    Attributes:
        beginning: from the inputs on.
        intermediate: in between; empty where a network has two layers.
        final: up to the logits.
    """

    beginning: frozenset[str]
    intermediate: frozenset[str]
    final: frozenset[str]

    def weights(self, module: nn.Module, part: frozenset[str]) -> list[nn.Parameter]:
        """Return the weights of one of the parts that may change, each once."""
        return [weight for name, weight in module.named_parameters() if name in part and weight.requires_grad]


def three_parts(module: nn.Module, x: Tensor, *, beginning: float, intermediate: float) -> Parts:
    """Cut a network into three parts by shares of its layers (see ``layers.last_layers`` for what a layer is).

    Numbers of layers are rounded; each part has at least one where there are three layers or more, and of two layers
    one is the beginning and one the final part. What layers share, and what holds them, belongs to the earliest.

    Args:
        module: the network; left as it is.
        x: (1, ...) one input.
        beginning: share of the layers, in (0, 1).
        intermediate: share of the layers, positive; the rest is the final part.

    Raises:
        UnsupportedModel: a network of one layer.
    """
    total = last_layers(module, x, 1).total
    if total < 2:
        raise UnsupportedModel(
            f"a network of {total} layer cannot be cut into a beginning and a final part; take one with at least two"
        )
    middle = 1 if total > 2 else 0
    first = min(max(1, round(beginning * total)), total - 1 - middle)
    second = min(max(first + middle, round((beginning + intermediate) * total)), total - 1) if middle else first
    final = last_layers(module, x, total - second).weights
    later = last_layers(module, x, total - first).weights
    place = {name: (name in later) + (name in final) for name in module.state_dict()}
    held = module.state_dict(keep_vars=True)
    earliest: dict[int, int] = {}
    for name, value in held.items():
        earliest[id(value)] = min(place[name], earliest.get(id(value), 2))
    parts = [frozenset(name for name, value in held.items() if earliest[id(value)] == part) for part in range(3)]
    return Parts(*parts)


def feature_layer(module: nn.Module, inputs: Tensor) -> nn.Linear:
    """Return the linear layer that is called last: its input are the features of a record.

    What is behind it and not linear (a learned temperature) does not count, which ``layers.last_layers`` would name.
    The maps that a last convolution is given are no features here: flattened, they are too many to be correlated.

    Args:
        module: in eval mode.
        inputs: one record or more, (k, ...).

    Raises:
        UnsupportedModel: no linear layer is called.
    """
    called: list[nn.Linear] = []
    handles = [
        part.register_forward_hook(lambda layer, *_: called.append(layer))
        for part in module.modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise UnsupportedModel(
            "the model calls no linear layer, so there are no features before one: set the weight of what acts on "
            "features to 0"
        )
    return called[-1]


@contextmanager
def given_to(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the first tensor that a layer is given, at each of its calls inside of the block, with its gradients."""
    given: list[Tensor] = []

    def note(_layer: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given.extend([value for value in (*args, *named.values()) if isinstance(value, Tensor)][:1])

    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


@contextmanager
def features_of(module: nn.Module, x: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give a function that answers with what enters the network's last layer, (b, k) for a batch of b inputs.

    Gradients flow through it to its inputs where the caller records them.

    Args:
        module: the network, in the mode in which it is to be asked.
        x: (1, ...) one input, to find the last layer by.

    Raises:
        UnsupportedModel: the last layer is given no tensor with a row for each record.
    """
    name = last_layers(module, x, 1).first
    with given_to(module.get_submodule(name)) as given:

        def ask(inputs: Tensor) -> Tensor:
            given.clear()
            module(inputs)
            if not given or given[-1].ndim < 2 or given[-1].shape[0] != inputs.shape[0]:
                got = tuple(given[-1].shape) if given else "nothing"
                raise UnsupportedModel(
                    f"the last layer, {name!r}, is given {got} for {inputs.shape[0]} records; features of records need "
                    "a row for each: let the model end in a linear layer or a convolution"
                )
            return given[-1].flatten(1).float()

        yield ask
