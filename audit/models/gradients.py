"""Per-record gradients of the cross-entropy, without a loop over records and without the softmax's saturation.

The gradient of a record is J^T (p - e_y), J the derivative of the logits by the parameters. The residual p - e_y is
taken from float64 logits and split into its norm, kept as a logarithm, and its direction; only the direction is
propagated. So the record that a model is surest of still has its own gradient norm instead of a common zero.

Two routes to the norms. ``torch.func.vmap`` of ``grad`` holds all parameters for each record of a chunk. Where all
parameters are those of linear layers, convolutions and batch normalisation in eval mode, the norms follow from layer
inputs and output gradients of one ordinary backward pass (Goodfellow 2015, arXiv 1510.01799, extended to convolutions
as by Rochette et al. 2019, arXiv 1912.06015): the same numbers in a fraction of time and memory.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel

__all__ = [
    "GradientRoute",
    "Residual",
    "directional_cosines",
    "last_layer_log_norms",
    "log_norms",
    "mean_gradient",
    "residual",
]

GradientRoute = Literal["auto", "layers", "vmap"]

CHUNK_VALUES = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Gradient values held at a time: about what a processor's cache holds, and 1 GB on a GPU."""

RECORDS = 256
"""Records of a batch at most."""

WRITTEN = 64
"""A value written to memory and squared costs as much as so many products of a matrix product."""


class Residual(NamedTuple):
    """p - e_y of each record: ``log_norm`` (k,) float64 and ``unit`` (k, c) float64 of norm one."""

    log_norm: Tensor
    unit: Tensor


def residual(logits: Tensor, labels: Tensor) -> Residual:
    """Return p - e_y from logits (k, c) and labels (k,): exact however sure the model is.

    >>> log_norm, unit = residual(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    >>> round(float(log_norm), 3), unit.round(decimals=4).tolist()
    (-199.653, [[-0.7071, 0.7071]])
    """
    z = logits.to(torch.float64)
    own = nn.functional.one_hot(labels, z.shape[1]).bool()
    rest = torch.logsumexp(z.masked_fill(own, -torch.inf), dim=1, keepdim=True)
    # |p_y - 1| is the sum of the others: never one minus something near one.
    log_size = torch.where(own, rest, z) - torch.logsumexp(z, dim=1, keepdim=True)
    log_norm = torch.logsumexp(2 * log_size, dim=1, keepdim=True) / 2
    return Residual(log_norm[:, 0], torch.where(own, -1.0, 1.0) * torch.exp(log_size - log_norm))


def log_norms(module: nn.Module, inputs: Tensor, labels: Tensor, *, route: GradientRoute = "auto") -> Tensor:
    """Return the logarithm of the norm of each record's gradient over all parameters.

    Args:
        module: in eval mode; left as it is.
        inputs: (k, ...) on the module's device.
        labels: (k,) int64.
        route: "layers" or "vmap", see above; "auto" takes the first where it is possible and, tried on one record,
            agrees with an ordinary backward pass.

    Returns:
        (k,) float64; finite.

    Raises:
        InvalidInput: an unknown route.
        UnsupportedModel: the route cannot be taken with this model.
    """
    parts = [error.log_norm + _log(norm) for _, error, norm in _propagated(module, inputs, labels, route)]
    return torch.cat(parts)


def last_layer_log_norms(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return log(|p - e_y| * |(h, 1)|), the gradient norm of the last linear layer with inputs h, in closed form.

    Args:
        module: in eval mode; the linear layer that makes the logits is found by a forward pass.
        inputs: (k, ...) on the module's device.
        labels: (k,) int64.

    Returns:
        (k,) float64; finite.

    Raises:
        UnsupportedModel: the logits are not the output of a linear layer.
    """
    parts = []
    for x, y in _batches(module, inputs, labels, RECORDS):
        with torch.no_grad(), _watched(module, (nn.Linear,)) as calls:
            logits = module(x)
        last = next((call for call in calls if call.output is logits), None)
        if last is None or logits.ndim != 2:
            raise UnsupportedModel(
                "the logits are not the output of a linear layer, so its gradient has no closed form; "
                "use the norm over all parameters (gradient_norm)"
            )
        square = last.input.to(torch.float64).square().sum(dim=1) + (0.0 if last.layer.bias is None else 1.0)
        parts.append(residual(logits, y).log_norm + _log(square.sqrt()))
    return torch.cat(parts)


def mean_gradient(module: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy over all records, a tensor for each parameter by name."""
    weights = _leaves(module)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for x, y in _batches(module, inputs, labels, RECORDS):
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(functional_call(module, weights, (x,)), y, reduction="sum")
            parts = torch.autograd.grad(loss / len(labels), list(weights.values()), allow_unused=True)
        for kept, part in zip(total.values(), parts, strict=True):
            if part is not None:
                kept += part
    return total


def directional_cosines(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    direction: dict[str, Tensor],
    *,
    route: GradientRoute = "auto",
) -> Tensor:
    """Return the cosine between each record's gradient and one direction in parameter space.

    The inner products come from one forward-mode derivative of a batch: no gradient is held for a record.

    Args:
        module: in eval mode; left as it is.
        inputs: (k, ...) on the module's device.
        labels: (k,) int64.
        direction: a tensor for each parameter by name.
        route: to the norms, see ``log_norms``.

    Returns:
        (k,) float64 in [-1, 1]; 0 where a gradient or the direction vanishes.

    Raises:
        UnsupportedModel: the model has no forward-mode derivative.
    """
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    length = torch.stack([part.to(torch.float64).square().sum() for part in direction.values()]).sum().sqrt()
    # Unit length first: squares of a tiny change of weights would leave the range of float32.
    tangent = {name: (direction[name] / length.clamp_min(_TINY)).to(w.dtype) for name, w in weights.items()}
    parts = []
    for x, error, norm in _propagated(module, inputs, labels, route):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # torch's own forward-mode rules are compiled by what torch itself deprecates.
                warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
                warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
                change: Tensor = jvp(lambda p, x=x: functional_call(module, p, (x,)), (weights,), (tangent,))[1]
        except (RuntimeError, NotImplementedError) as problem:
            raise UnsupportedModel(
                f"the model has no forward-mode derivative ({str(problem).splitlines()[0]}); "
                "leave gradient_alignment out"
            ) from problem
        dot = (change.to(torch.float64) * error.unit).sum(dim=1)
        parts.append(torch.where(norm > 0, dot / norm.clamp_min(_TINY), 0.0).clamp(-1.0, 1.0))
    return torch.cat(parts)


_TINY = torch.finfo(torch.float32).tiny


def _log(norm: Tensor) -> Tensor:
    return norm.clamp_min(_TINY).log()


def _leaves(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters as leaves of their own, so that frozen ones differentiate and no ``grad`` is touched."""
    return {name: weight.detach().requires_grad_() for name, weight in module.named_parameters()}


def _batches(module: nn.Module, inputs: Tensor, labels: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    if labels.numel() == 0:
        raise InvalidInput("no records to differentiate")
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    for x, y in zip(torch.split(inputs, step), torch.split(labels, step), strict=True):
        yield x.to(dtype), y


def _propagated(
    module: nn.Module, inputs: Tensor, labels: Tensor, route: GradientRoute
) -> Iterator[tuple[Tensor, Residual, Tensor]]:
    """Yield batches of inputs, their residuals and the norm (k,) float64 of J^T times the residual's direction."""
    if route not in get_args(GradientRoute):
        raise InvalidInput(f"route={route!r} is unknown; allowed: {', '.join(get_args(GradientRoute))}")
    first = next(_batches(module, inputs, labels, 1))[0]
    obstacle = "it was not asked for" if route == "vmap" else _layers_obstacle(module, first)
    if obstacle is not None and route == "layers":
        raise UnsupportedModel(f"gradient norms cannot be taken layer by layer: {obstacle}; use route='vmap'")
    step = RECORDS
    if obstacle is not None:
        held = CHUNK_VALUES.get(inputs.device.type, CHUNK_VALUES["cpu"])
        step = max(1, min(RECORDS, held // max(1, sum(p.numel() for p in module.parameters()))))
    for x, y in _batches(module, inputs, labels, step):
        if obstacle is not None:
            with torch.no_grad():
                error = residual(module(x), y)
            squares = _vmap_squares(module, x, error.unit.to(x.dtype))
        else:
            error, squares = _layer_residuals(module, x, y)
        yield x, error, squares.to(torch.float64).sqrt()


def _vmap_squares(module: nn.Module, x: Tensor, unit: Tensor) -> Tensor:
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def along(p: dict[str, Tensor], record: Tensor, way: Tensor) -> Tensor:
        total: Tensor = (functional_call(module, p, (record[None],))[0] * way).sum()
        return total

    try:
        with warnings.catch_warnings():
            # torch works through attention record by record on a CPU, and says so: slower, the same numbers.
            warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
            each = vmap(grad(along), in_dims=(None, 0, 0))(weights, x, unit)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as problem:
        raise UnsupportedModel(
            f"torch.func.vmap cannot differentiate this model record by record ({str(problem).splitlines()[0]}); "
            "leave the white-box attacks out, or use gradient_norm_last_layer"
        ) from problem
    return torch.stack([part.flatten(1).square().sum(dim=1) for part in each.values()]).sum(dim=0)


class _Call(NamedTuple):
    """One call of a layer."""

    layer: nn.Module
    input: Tensor
    output: Tensor


@contextmanager
def _watched(module: nn.Module, kinds: tuple[type[nn.Module], ...], *, apart: bool = False) -> Iterator[list[_Call]]:
    """Note every call of layers of some kinds, in order; ``apart`` hands a copy of the output on.

    An activation that works in place would otherwise turn the noted output into its own.
    """
    calls: list[_Call] = []

    def note(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        calls.append(_Call(layer, args[0], output))
        return output.clone() if apart else None

    hooks = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, kinds)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_KINDS = (nn.Linear, nn.Conv2d, *_NORMS)


def _layers_obstacle(module: nn.Module, x: Tensor) -> str | None:
    """Return why the norms cannot be taken layer by layer, or None; tried on one record (1, ...)."""
    owners = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    for part in owners:
        if type(part) not in _KINDS:
            return f"a {type(part).__name__} has parameters"
        if isinstance(part, nn.Conv2d) and (part.groups > 1 or part.padding_mode != "zeros" or _named_padding(part)):
            return "a convolution has groups, named padding or padding other than zeros"
        if isinstance(part, _NORMS) and part.running_mean is None:
            return "a batch normalisation keeps no statistics"
    count = sum(1 for part in owners for _ in part.parameters(recurse=False))
    if count != sum(1 for _ in module.parameters()):
        return "layers share parameters"
    with torch.no_grad(), _watched(module, _KINDS) as calls:
        logits = module(x)
    if len({id(call.layer) for call in calls}) < len(calls):
        return "a layer is called more than once"
    # A weight that is used outside its layer's call shows nowhere else.
    unit = torch.ones_like(logits)
    weights = _leaves(module)
    with torch.enable_grad():
        total = (functional_call(module, weights, (x,)) * unit).sum()
        parts = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    plain = sum(float(part.to(torch.float64).square().sum()) for part in parts if part is not None)
    if not math.isclose(plain, float(_layer_squares(module, x, lambda _: unit)), rel_tol=1e-3, abs_tol=_TINY):
        return "a parameter is used outside its layer"
    return None


def _named_padding(layer: nn.Conv2d) -> bool:
    return isinstance(layer.padding, str)


def _layer_residuals(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Residual, Tensor]:
    """Residuals, and squared norms of what their directions propagate to; one forward pass gives both."""
    found: list[Residual] = []

    def direction(logits: Tensor) -> Tensor:
        found.append(residual(logits, y))
        return found[0].unit

    squares = _layer_squares(module, x, direction)
    return found[0], squares


def _layer_squares(module: nn.Module, x: Tensor, direction: Callable[[Tensor], Tensor]) -> Tensor:
    """Squared gradient norms (k,) of the logits (k, c) along the direction that they have."""
    in_place = any(getattr(part, "inplace", False) for part in module.modules())
    with torch.enable_grad(), _watched(module, _KINDS, apart=in_place) as calls:
        logits = functional_call(module, _leaves(module), (x,))
        unit = direction(logits.detach()).to(logits.dtype)
        flows = torch.autograd.grad((logits * unit).sum(), [c.output for c in calls], allow_unused=True)
    total = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    for (layer, entered, _), flow in zip(calls, flows, strict=True):
        if flow is not None:
            total += _squares_of(layer, entered.detach(), flow).to(torch.float64)
    return total


def _squares_of(layer: nn.Module, a: Tensor, d: Tensor) -> Tensor:
    """Squared gradient norm of one layer's parameters for each record: inputs a (k, ...), output gradients d."""
    if isinstance(layer, _NORMS):
        return _norm_squares(layer, a, d)
    if isinstance(layer, nn.Conv2d):
        a = nn.functional.unfold(a, layer.kernel_size, layer.dilation, _pair(layer.padding), layer.stride)
        d = d.flatten(2)
    else:  # places of a linear layer's input come last, as those of a convolution
        a, d = a.reshape(a.shape[0], -1, a.shape[-1]).mT, d.reshape(d.shape[0], -1, d.shape[-1]).mT
    ins, outs, places = a.shape[1], d.shape[1], a.shape[2]
    if places == 1:
        weight = a.square().sum(dim=(1, 2)) * d.square().sum(dim=(1, 2))
    elif places * (places * (ins + outs) + WRITTEN * places) < (places + WRITTEN) * ins * outs:
        weight = (torch.bmm(a.mT, a) * torch.bmm(d.mT, d)).sum(dim=(1, 2)).clamp_min(0.0)
    else:
        weight = torch.bmm(d, a.mT).square().sum(dim=(1, 2))
    return weight if layer.bias is None else weight + d.sum(dim=2).square().sum(dim=1)


def _norm_squares(layer: nn.BatchNorm1d | nn.BatchNorm2d, a: Tensor, d: Tensor) -> Tensor:
    if layer.weight is None or layer.running_mean is None or layer.running_var is None:
        return torch.zeros(a.shape[0], device=a.device)
    shape = (1, -1, *(1,) * (a.ndim - 2))
    scale = (layer.running_var + layer.eps).rsqrt().view(shape)
    places = tuple(range(2, a.ndim))
    slope, shift = d * (a - layer.running_mean.view(shape)) * scale, d
    if places:
        slope, shift = slope.sum(dim=places), shift.sum(dim=places)
    return slope.square().sum(dim=1) + shift.square().sum(dim=1)


def _pair(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(padding, str)
    return padding
