"""SynFlow: which weights carry the flow through a network, without data (Tanaka et al. 2020, arXiv 2006.05467).

With every weight replaced by its absolute value and an input of ones, R is the sum of the outputs and the score of a
weight is |w dR/dw|: the sum over all paths through it of the product of their weights. A hundred rounds, each of which
keeps the share (1 - sparsity)^(round / 100) of the weights with the highest scores, prune no layer away before the
others, which one round does.

Deviations. Normalisation layers act as the gain that they have in eval mode (batch normalisation: |scale| over the
running standard deviation; the others: |scale|), without centring: a centred input of ones would be cut off by the next
ReLU. At the start of training, where the paper prunes, this is what its code computes. The flow is taken in float64:
it grows with the product of the layers' norms.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import UnsupportedModel

__all__ = ["flow_scores"]

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def flow_scores(module: nn.Module, names: tuple[str, ...], input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return |w dR/dw| of weights, float64, non-negative, for one round.

    Args:
        module: with the weights pruned so far at zero; left as it is.
        names: of the weights.
        input_shape: (c, h, w) or (d,) of one record.

    Returns:
        A tensor in the shape of the weight for each name, on the module's device.

    Raises:
        UnsupportedModel: attention, for which products along paths are not defined; or a flow that is not finite.
    """
    if any(isinstance(part, nn.MultiheadAttention) for part in module.modules()):
        raise UnsupportedModel(
            "SynFlow is defined for feed-forward networks: attention multiplies activations with each other, so that "
            "no product of weights belongs to a path. Prune by magnitude"
        )
    twin = copy.deepcopy(module).double().eval().requires_grad_(True)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.abs_()
    for part in twin.modules():
        if isinstance(part, NORMS):
            part.register_forward_hook(_gain_alone)
    weights: Mapping[str, Tensor] = dict(twin.named_parameters())
    device = next(twin.parameters()).device
    with torch.enable_grad():
        flow = twin(torch.ones(1, *input_shape, dtype=torch.float64, device=device)).sum()
        slopes = torch.autograd.grad(flow, [weights[name] for name in names], allow_unused=True)
    scores = {
        name: torch.zeros_like(weights[name]) if slope is None else (weights[name] * slope).detach().abs()
        for name, slope in zip(names, slopes, strict=True)
    }
    if not all(bool(score.isfinite().all()) for score in scores.values()):
        raise UnsupportedModel("SynFlow: the flow through this network is not finite in float64; prune by magnitude")
    return scores


def _gain_alone(layer: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
    (x,) = args
    weight = layer.weight
    if isinstance(layer, nn.LayerNorm):
        return x if not isinstance(weight, Tensor) else x * weight
    gain = torch.ones(x.shape[1], dtype=x.dtype, device=x.device) if not isinstance(weight, Tensor) else weight
    variance = getattr(layer, "running_var", None)
    if isinstance(variance, Tensor):
        gain = gain / (variance + float(layer.eps)).sqrt()  # type: ignore[arg-type]
    return x * gain.view(1, -1, *[1] * (x.ndim - 2))
