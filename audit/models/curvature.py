"""Second moments of record gradients, products with them, and exact Hessian products: what closed-form deletion needs.

No loop runs over records. Sums of squared gradients take one of two routes, as in ``gradients.py``: layer by layer
where all parameters belong to linear layers, convolutions and batch normalisation in eval mode (a linear layer's sum
is one matrix product of squares), else ``torch.func.vmap`` over chunks that fit the memory.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.gradients import (
    _KINDS,
    _NORMS,
    CHUNK_VALUES,
    RECORDS,
    GradientRoute,
    _layers_obstacle,
    _leaves,
    _pair,
    _watched,
    residual,
)

__all__ = [
    "Objective",
    "Weights",
    "expected_ways",
    "gradient_dots",
    "hessian_product",
    "label_ways",
    "logit_layer",
    "open_weights",
    "record_gradients",
    "squared_gradients",
    "sum_gradient",
]

Weights = dict[str, Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (b, c) and labels (b,) to the sum of b records' losses."""


def open_weights(module: nn.Module) -> Weights:
    """Return the parameters that may change (``requires_grad``), detached, by name."""
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}


def label_ways(logits: Tensor, labels: Tensor) -> Tensor:
    """Return p - e_y (k, 1, c): the derivative of -log p(y) by the logits, from float64 and without cancellation."""
    log_norm, unit = residual(logits, labels)
    return (log_norm.exp()[:, None] * unit)[:, None]


def expected_ways(logits: Tensor) -> Tensor:
    """Return sqrt(p_y) (p - e_y) for every class y, (k, c, c) float64.

    The squared gradients along them sum to the diagonal of a record's Fisher information, its label being drawn from
    the model: E_{y ~ p} (d log p(y) / d theta)^2.
    """
    k, c = logits.shape
    classes = torch.arange(c, device=logits.device)
    log_norm, unit = residual(logits.repeat_interleave(c, dim=0), classes.repeat(k))
    half = torch.log_softmax(logits.to(torch.float64), dim=1).flatten() / 2
    return ((log_norm + half).exp()[:, None] * unit).reshape(k, c, c)


def squared_gradients(
    module: nn.Module, inputs: Tensor, ways: Tensor, *, route: GradientRoute = "auto", chunk: int | None = None
) -> Weights:
    """Return sum over records i and ways w of (J_i^T w)^2, element by element, for each weight that may change.

    J_i is the derivative of record i's logits by the weights.

    Args:
        module: in eval mode; left as it is.
        inputs: (k, ...) on the module's device.
        ways: (k, m, c), directions in the space of logits, as of ``label_ways`` or ``expected_ways``.
        route: "layers", "vmap", or "auto": the first where it is possible.
        chunk: gradient values held at a time; None takes what suits the device.

    Raises:
        InvalidInput: an unknown route, no records.
        UnsupportedModel: the route cannot be taken with this model.
    """
    if route not in get_args(GradientRoute):
        raise InvalidInput(f"route={route!r} is unknown; allowed: {', '.join(get_args(GradientRoute))}")
    if not inputs.shape[0]:
        raise InvalidInput("no records to differentiate")
    obstacle = "it was not asked for" if route == "vmap" else _layers_obstacle(module, inputs[:1])
    if obstacle is not None and route == "layers":
        raise UnsupportedModel(f"squared gradients cannot be taken layer by layer: {obstacle}; use route='vmap'")
    weights = open_weights(module)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    held = _held(inputs, chunk)
    size = sum(weight.numel() for weight in weights.values())
    step = RECORDS if obstacle is None else max(1, min(RECORDS, held // max(1, size * ways.shape[1])))
    for x, w in zip(torch.split(inputs, step), torch.split(ways.to(inputs.dtype), step), strict=True):
        parts = _layer_sums(module, x, w, held) if obstacle is None else _vmap_sums(module, weights, x, w)
        for name, kept in total.items():
            if name in parts:
                kept += parts[name]
    return total


def record_gradients(
    module: nn.Module, objective: Objective, inputs: Tensor, labels: Tensor, *, chunk: int | None = None
) -> Iterator[Weights]:
    """Yield the gradients of each record's objective, chunk by chunk: (k, ...) for each weight that may change.

    Args:
        module: in eval mode; left as it is.
        objective: called with one record at a time.
        inputs: (n, ...) on the module's device.
        labels: (n,) int64.
        chunk: gradient values held at a time; None takes what suits the device.

    Raises:
        UnsupportedModel: ``torch.func.vmap`` cannot differentiate the model.
    """
    weights = open_weights(module)
    size = sum(weight.numel() for weight in weights.values())
    step = max(1, min(RECORDS, _held(inputs, chunk) // max(1, size)))

    def of_record(p: Weights, x: Tensor, y: Tensor) -> Tensor:
        return objective(functional_call(module, p, (x[None],)), y[None])

    each = vmap(grad(of_record), in_dims=(None, 0, 0))
    for x, y in zip(torch.split(inputs, step), torch.split(labels, step), strict=True):
        with _by_record():
            part: Weights = each(weights, x, y)
        yield part


def gradient_dots(
    module: nn.Module, objective: Objective, inputs: Tensor, labels: Tensor, directions: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """Return the inner products (n, d) float64 of each record's gradient with d directions in the space of weights."""
    rows = []
    for part in record_gradients(module, objective, inputs, labels):
        columns = [
            torch.stack([(g.flatten(1).double() @ way[name].flatten().double()) for name, g in part.items()]).sum(dim=0)
            for way in directions
        ]
        rows.append(torch.stack(columns, dim=1))
    return torch.cat(rows)


def sum_gradient(module: nn.Module, objective: Objective, batches: Iterator[tuple[Tensor, Tensor]]) -> Weights:
    """Return the gradient of the objective summed over all batches of (inputs, labels)."""
    leaves = {name: weight.requires_grad_() for name, weight in open_weights(module).items()}
    total = {name: torch.zeros_like(weight) for name, weight in leaves.items()}
    for x, y in batches:
        with torch.enable_grad():
            value = objective(functional_call(module, leaves, (x,)), y)
            parts = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        for kept, part in zip(total.values(), parts, strict=True):
            if part is not None:
                kept += part
    return {name: value.detach() for name, value in total.items()}


def hessian_product(
    module: nn.Module,
    objective: Objective,
    batches: Iterator[tuple[Tensor, Tensor]],
    vector: Mapping[str, Tensor],
) -> Weights:
    """Return H v, H the Hessian of the objective summed over all batches, by the weights that ``vector`` names.

    Exact up to rounding (a gradient of a gradient). Attention takes its plain form here: the fused one has no second
    derivative.
    """
    leaves = {name: weight.requires_grad_() for name, weight in open_weights(module).items() if name in vector}
    total = {name: torch.zeros_like(weight) for name, weight in leaves.items()}
    for x, y in batches:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value = objective(functional_call(module, leaves, (x,)), y)
            first = torch.autograd.grad(value, list(leaves.values()), create_graph=True, allow_unused=True)
            slope = sum(
                (g * vector[name].detach()).sum() for name, g in zip(leaves, first, strict=True) if g is not None
            )
            if not isinstance(slope, Tensor) or not slope.requires_grad:
                continue  # linear in these weights: no curvature
            parts = torch.autograd.grad(slope, list(leaves.values()), allow_unused=True)
        for kept, part in zip(total.values(), parts, strict=True):
            if part is not None:
                kept += part.detach()
    return {name: value.detach() for name, value in total.items()}


def logit_layer(module: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """Return the names of the parameters of the layer that makes the logits; () where no linear layer does.

    Args:
        module: in eval mode.
        inputs: one record or more, (k, ...).
    """
    with torch.no_grad(), _watched(module, (nn.Linear,)) as calls:
        logits = module(inputs)
    layer = next((call.layer for call in calls if call.output is logits), None)
    if layer is None:
        return ()
    own = {id(parameter) for parameter in layer.parameters()}
    return tuple(name for name, parameter in module.named_parameters() if id(parameter) in own)


def _held(inputs: Tensor, chunk: int | None) -> int:
    return CHUNK_VALUES.get(inputs.device.type, CHUNK_VALUES["cpu"]) if chunk is None else chunk


@contextmanager
def _by_record() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Operations without a batching rule are slow, not wrong.
            warnings.filterwarnings("ignore", message=".*batching rule.*")
            yield
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as problem:
        if isinstance(problem, torch.OutOfMemoryError):
            raise
        raise UnsupportedModel(
            f"torch.func.vmap cannot differentiate this model record by record ({str(problem).splitlines()[0]}); "
            "take a method that needs no gradients of single records"
        ) from problem


def _vmap_sums(module: nn.Module, weights: Weights, x: Tensor, ways: Tensor) -> Weights:
    def of_record(p: Weights, record: Tensor, w: Tensor) -> Weights:
        def answer(q: Weights) -> Tensor:
            logits: Tensor = functional_call(module, q, (record[None],))[0]
            return logits

        pull = vjp(answer, p)[1]
        along: Weights = vmap(pull)(w)[0]
        return {name: part.square().sum(dim=0) for name, part in along.items()}

    with _by_record():
        each: Weights = vmap(of_record, in_dims=(None, 0, 0))(weights, x, ways)
    return {name: part.sum(dim=0) for name, part in each.items()}


def _layer_sums(module: nn.Module, x: Tensor, ways: Tensor, held: int) -> Weights:
    names = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    in_place = any(getattr(part, "inplace", False) for part in module.modules())
    total: Weights = {}
    with torch.enable_grad(), _watched(module, _KINDS, apart=in_place) as calls:
        logits = functional_call(module, _leaves(module), (x,))
    outputs = [call.output for call in calls]
    squares: list[Tensor | None] = [None] * len(calls)  # of linear layers: summed over ways, multiplied once
    for way in ways.unbind(dim=1):
        flows = torch.autograd.grad(logits, outputs, way, retain_graph=True, allow_unused=True)
        for place, (call, flow) in enumerate(zip(calls, flows, strict=True)):
            if flow is None:
                continue
            entered = call.input.detach()
            if isinstance(call.layer, nn.Linear) and entered.ndim == 2:
                kept = squares[place]
                squares[place] = flow.square() if kept is None else kept + flow.square()
            else:
                _add(total, names, call.layer, _sums_of(call.layer, entered, flow, held))
    for call, square in zip(calls, squares, strict=True):
        if square is not None:
            _add(total, names, call.layer, (square.mT @ call.input.detach().square(), square.sum(dim=0)))
    return total


def _add(total: Weights, names: Mapping[int, str], layer: nn.Module, parts: tuple[Tensor, Tensor]) -> None:
    for parameter, part in zip((layer.weight, layer.bias), parts, strict=True):
        if parameter is not None and id(parameter) in names:
            name = names[id(parameter)]
            assert isinstance(parameter, Tensor)
            shaped = part.reshape(parameter.shape)
            total[name] = shaped if name not in total else total[name] + shaped


def _sums_of(layer: nn.Module, a: Tensor, d: Tensor, held: int) -> tuple[Tensor, Tensor]:
    """Sum of squared gradients of weight and bias over records: inputs a (k, ...), output gradients d."""
    if isinstance(layer, _NORMS):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        shape = (1, -1, *(1,) * (a.ndim - 2))
        places = tuple(range(2, a.ndim))
        slope = d * (a - layer.running_mean.view(shape)) * (layer.running_var + layer.eps).rsqrt().view(shape)
        parts = (slope.sum(dim=places), d.sum(dim=places)) if places else (slope, d)
        return parts[0].square().sum(dim=0), parts[1].square().sum(dim=0)
    if isinstance(layer, nn.Conv2d):
        a = nn.functional.unfold(a, layer.kernel_size, layer.dilation, _pair(layer.padding), layer.stride)
        d = d.flatten(2)
    else:
        a, d = a.reshape(a.shape[0], -1, a.shape[-1]).mT, d.reshape(d.shape[0], -1, d.shape[-1]).mT
    weight = torch.zeros(d.shape[1], a.shape[1], dtype=d.dtype, device=d.device)
    step = max(1, held // (a.shape[1] * d.shape[1]))
    for some_a, some_d in zip(torch.split(a, step), torch.split(d, step), strict=True):
        weight += torch.bmm(some_d, some_a.mT).square().sum(dim=0)
    return weight, d.sum(dim=2).square().sum(dim=0)
