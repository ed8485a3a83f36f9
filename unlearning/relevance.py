"""Class unlearning by relevance: find the neurons on the path to a class and cut them (LRA-NPP).

Chang et al. 2024, "Zero-shot Class Unlearning via Layer-wise Relevance Analysis and Neuronal Path Perturbation"
(arXiv 2410.23693), and the authors' code. No training: a few records of the class are explained by layer-wise
relevance propagation, the neurons that are most often among the most relevant are found, and their weights are zeroed.

1. for each record: relevance of every input of the analysed layer for the class's logit, by the epsilon rule
   R_i = a_i sum_j w_ji R_j / (z_j + eps sign(z_j)), from the logit down;
2. the n most relevant neurons of each record; over all records, the k counted most often;
3. the weights that leave these neurons become zero.

The rule is computed as gradient times input with the gradient multiplied by z / (z + eps sign(z)) behind each linear
step, which is the same (Ancona et al. 2018, arXiv 1711.06104, proposition 1). It holds for linear layers,
convolutions, batch normalisation, ReLU and pooling; a model with another kind of layer on the way is refused, or
explained by gradient times input where the user asks for that. At the default, one layer, nothing but the last linear
layer is on the way, so every model that ends in one is served.

Deviations. n and k are shares of a layer's neurons (200 and 400 of the 2048 of ResNet-50, the paper's for CIFAR-10),
since absolute numbers suit one network only. The class's own logit is explained, where the code takes that of the
predicted class. All records are counted, where the code counts the first of each batch. A neuron counts only where its
relevance is positive: one that is silent for this class may be another's.

Pitfall: with one layer this is surgery at the output. What lies before is as it was, so relearning, or a look at
the features, shows the class; it hides the class, and should be audited as that. The neurons that are cut serve other
classes too where a network is small.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.heads import last_linear

__all__ = ["RelevancePerturbation"]

Layer = nn.Linear | nn.Conv2d

LINEAR = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
"""Linear steps in eval mode."""

PASSED = (
    nn.ReLU,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
"""Steps through which the rule passes relevance as the gradient does."""


@dataclass(frozen=True)
class RelevancePerturbation(Method):
    """Cut the neurons most relevant to a class, found on a few of its records; nothing is trained.

    Attributes:
        images: records of the class that are explained, at most, at least 1.
        relevant: share of a layer's neurons that count as most relevant for one record, in (0, 1].
        cut: share of a layer's neurons that are cut, in [0, 1]; 0 leaves the model as it is.
        rows: "all": cut neurons lose their weights to every output of the layer (the paper's ResNet); "class": only
            those to the class's own logit (its MNIST network and ViT); this is for ``layers=1``.
        layers: how many linear layers and convolutions, from the logits back, are analysed and cut; 1 is the last
            linear layer. Channels are the neurons of a convolution.
        rule: "epsilon", or "gradient_x_input" for networks with other layers on the way.
        epsilon: of the rule, positive.
    """

    images: int = 36
    relevant: float = 0.1
    cut: float = 0.2
    rows: Literal["all", "class"] = "all"
    layers: int = 1
    rule: Literal["epsilon", "gradient_x_input"] = "epsilon"
    epsilon: float = 1e-6
    name = "relevance_perturbation"
    needs = Need.FORGET_DATA
    kinds = ("class",)

    def __post_init__(self) -> None:
        if self.images < 1 or self.layers < 1:
            raise InvalidInput(f"{self.name}: images={self.images!r} and layers={self.layers!r} must be at least 1")
        if not (0 < self.relevant <= 1 and 0 <= self.cut <= 1):
            raise InvalidInput(f"{self.name}: relevant={self.relevant!r} and cut={self.cut!r} must be shares of 1")
        if not 0 < self.epsilon < math.inf:
            raise InvalidInput(f"{self.name}: epsilon={self.epsilon!r} must be positive and finite")
        for field, value, allowed in (
            ("rows", self.rows, ("all", "class")),
            ("rule", self.rule, ("epsilon", "gradient_x_input")),
        ):
            if value not in allowed:
                raise InvalidInput(f"{self.name}: {field}={value!r} is unknown; allowed: {', '.join(allowed)}")
        if self.rows == "class" and self.layers > 1:
            raise InvalidInput(f"{self.name}: rows='class' is of the last layer; layers={self.layers!r} must be 1 then")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        forget = deletion.request.forget
        label = int(deletion.labels(forget[:1])[0])
        last_linear(work, deletion, self.name)
        drawn = deletion.rng.permutation(forget)[: self.images]
        work.eval()
        counts: dict[str, Tensor] = {}
        for batch in deletion.in_order(drawn):
            for place, relevance in self._relevance(work, batch.x, label).items():
                most = relevance.argsort(dim=1, descending=True, stable=True)[:, : _share(self.relevant, relevance)]
                votes = torch.zeros_like(relevance).scatter_(1, most, 1.0).mul_(relevance > 0)
                counts[place] = counts.get(place, 0) + votes.sum(dim=0)
        weights = {place: work.get_parameter(f"{place}.weight".removeprefix(".")) for place in counts}
        if not any(weight.requires_grad for weight in weights.values()):
            raise UnsupportedModel(
                f"{self.name}: all weights to be cut are frozen ({', '.join(weights)}); unfreeze them with "
                "requires_grad_(True), or analyse more layers"
            )
        for place, votes in counts.items():
            gone = votes.argsort(descending=True, stable=True)[: _share(self.cut, votes)]
            gone = gone[votes[gone] > 0]
            if weights[place].requires_grad:
                with torch.no_grad():
                    weights[place][label if self.rows == "class" else slice(None), gone] = 0.0
        return work

    def _relevance(self, work: nn.Module, x: Tensor, label: int) -> dict[str, Tensor]:
        """Relevance (b, neurons) of the inputs of each analysed layer for the label's logit."""
        with _traced(work, self.epsilon if self.rule == "epsilon" else None) as calls, torch.enable_grad():
            score = work(x.requires_grad_())[:, label].sum()
            analysed = calls[-self.layers :]
            if self.rule == "epsilon":
                _refuse_other_layers(work, analysed[0].place, self.layers)
            flows = torch.autograd.grad(score, [call.entered for call in analysed])
        found = {}
        for call, flow in zip(analysed, flows, strict=True):
            each = (call.entered * flow).detach()
            channels_last = isinstance(call.layer, nn.Linear)
            each = each.flatten(1, -2).sum(dim=1) if channels_last and each.ndim > 2 else each
            found[call.place] = each.flatten(2).sum(dim=2) if each.ndim > 2 else each
        return found


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a linear layer or a convolution: where it is in the module, and what entered it."""

    place: str
    layer: Layer
    entered: Tensor


@contextmanager
def _traced(work: nn.Module, epsilon: float | None) -> Iterator[list[_Call]]:
    """Note what enters linear layers and convolutions, in order, and stabilise gradients behind linear steps."""
    calls: list[_Call] = []

    def hook(place: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, entered: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                calls.append(_Call(place, layer, entered[0]))
            if epsilon is not None:
                z = output.detach().clone()  # an activation in place would change it
                factor = z / (z + torch.where(z >= 0, epsilon, -epsilon))
                output.register_hook(lambda flow: flow * factor)  # type: ignore[no-untyped-call]

        return note

    steps = [(place, part) for place, part in work.named_modules() if isinstance(part, LINEAR)]
    hooks = [part.register_forward_hook(hook(place)) for place, part in steps]
    try:
        yield calls
    finally:
        for handle in hooks:
            handle.remove()


def _refuse_other_layers(work: nn.Module, first: str, layers: int) -> None:
    if layers == 1:
        return
    leaves = [(place, part) for place, part in work.named_modules() if not any(True for _ in part.children())]
    places = [place for place, _ in leaves]
    for place, part in leaves[places.index(first) :]:
        grouped = isinstance(part, nn.Conv2d) and part.groups > 1
        if grouped or not isinstance(part, (*LINEAR, *PASSED)):
            raise UnsupportedModel(
                f"relevance_perturbation: the epsilon rule has no step for {type(part).__name__}"
                f"{' with groups' if grouped else ''} ({place!r}); "
                "take layers=1, or rule='gradient_x_input'"
            )


def _share(share: float, values: Tensor) -> int:
    """Number of neurons of a share, rounded up."""
    return math.ceil(share * values.shape[-1] - 1e-9)
