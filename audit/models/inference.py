"""Recorded answers: logits of a model in eval mode on records and their fixed variations, one transfer out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.draws import DRAWN, record_normals, record_uniforms
from mnemoscope.audit.models.queries import Query, check_queries, parse_query
from mnemoscope.audit.models.recipes import Runtime

__all__ = ["infer_logits", "parse_query", "query_inputs"]


def infer_logits(
    module: nn.Module,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    runtime: Runtime,
    queries: Sequence[str] = ("identity",),
) -> NDArray[np.float32]:
    """Record a model's answers.

    Queries are fixed functions of the record, drawn nowhere: every model is asked the same. The module answers in eval
    mode, without autocast; its modes are restored. The first batch is asked twice and must get the same answer.

    Args:
        module: gives (b, c) logits for (b, ...) inputs; moved to the data's device.
        data: records on the device.
        ids: (n,) int64 record ids.
        runtime: threads, batch size.
        queries: names that ``parse_query`` knows: "identity", "noise:scale:index"; for images "flip", "shift:dx,dy",
            "rotate:degrees"; for tables of zeros and ones "flips:rate:index".

    Returns:
        (n, q, c) float32, in the order of ids and queries.

    Raises:
        InvalidInput: an unknown query, a query that this kind of data cannot be asked, unknown ids.
        UnsupportedModel: answers of a wrong shape, too few classes, or answers that change when asked again.
        AuditError: logits that are not finite, with how many records and which.
    """
    parsed = check_queries(queries, is_image=data.is_image)
    ids = np.asarray(ids, dtype=np.int64)
    positions = data.positions(ids)
    if ids.size == 0:
        raise InvalidInput("no records to ask: the list of ids is empty")
    modes = {part: part.training for part in module.modules()}
    module.to(data.device).eval()
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    try:
        with runtime.scope(), torch.inference_mode():
            parts = torch.split(positions, runtime.inference_batch)
            columns = [[_ask(module, data, part, query, dtype) for part in parts] for query in parsed]
            again = _ask(module, data, parts[0], parsed[0], dtype)
            stable = bool(torch.equal(torch.nan_to_num(again), torch.nan_to_num(columns[0][0])))
            logits: NDArray[np.float32] = torch.stack([torch.cat(c) for c in columns], dim=1).cpu().numpy()
    finally:
        for part_module, mode in modes.items():
            part_module.training = mode
    _check(logits, ids, stable, data.n_classes)
    return logits


def query_inputs(data: DeviceData, positions: Tensor, query: Query) -> Tensor:
    """Return the inputs that a query asks a model about.

    Args:
        data: records on the device.
        positions: (b,) int64 on the device.
        query: what is done to each record.

    Returns:
        (b, ...) float32, normalised.

    Raises:
        InvalidInput: flips of a table that does not hold zeros and ones, as they are, alone.
    """
    k = positions.numel()
    if query.kind == "flip":
        return data.inputs(positions, flip=torch.ones(k, dtype=torch.bool, device=data.device))
    if query.kind == "shift" and query.shift != (0, 0):
        return data.inputs(positions, shift=torch.tensor(query.shift, device=data.device).expand(k, 2))
    if query.kind == "rotate":
        return data.inputs(positions, degrees=query.degrees)
    inputs = data.inputs(positions)
    if query.kind not in ("noise", "flips"):
        return inputs
    # Draws need float64, which Apple's devices lack.
    place = torch.device("cpu") if data.device.type == "mps" else data.device
    ids = torch.tensor(data.ids, device=place)[positions.to(place)]
    size = inputs[0].numel()
    if query.kind == "noise":
        name = ("noise", query.amount, query.index, size, inputs.device, inputs.dtype, place)
        drawn = DRAWN.get(
            name, ids, lambda: (query.amount * record_normals(ids, query.index, size)).to(inputs.device, inputs.dtype)
        )
        # Laid out in memory as the record is, or a convolution would add up in another order than for "identity",
        # and a difference quotient of small noise would hold that rounding.
        return inputs + (drawn.reshape(k, *data.x.shape[1:]).movedim(-1, -3) if data.is_image else drawn)
    if data.constants is not None or not ((inputs == 0) | (inputs == 1)).all():
        raise InvalidInput(
            f"data set {data.name!r}: 'flips' turns over zeros and ones, and this table holds other values; "
            "ask 'noise:scale:index' instead"
        )
    turned = DRAWN.get(
        ("flips", query.amount, query.index, size, inputs.device, place),
        ids,
        lambda: (record_uniforms(ids, query.index, size) < query.amount).to(inputs.device),
    )
    return torch.where(turned, 1 - inputs, inputs)


def _ask(module: nn.Module, data: DeviceData, positions: Tensor, query: Query, dtype: torch.dtype) -> Tensor:
    k = positions.numel()
    answer = module(query_inputs(data, positions, query).to(dtype))
    if not isinstance(answer, Tensor) or answer.ndim != 2 or answer.shape[0] != k:
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UnsupportedModel(
            f"the model answers {got} for {k} records; it must be a tensor ({k}, classes) of logits: "
            "define logits(model, batch) in subject.py"
        )
    return answer.float()


def _check(logits: NDArray[np.float32], ids: NDArray[np.int64], stable: bool, n_classes: int) -> None:
    if logits.shape[-1] < n_classes:
        raise UnsupportedModel(
            f"the model has {logits.shape[-1]} outputs, the data set has {n_classes} classes; "
            "it was made for other labels"
        )
    bad = ~np.isfinite(logits).all(axis=(1, 2))
    if bad.any():
        shown = ", ".join(str(i) for i in ids[bad][:5])
        more = ", ..." if bad.sum() > 5 else ""
        raise AuditError(
            f"logits of {int(bad.sum())} of {ids.size} records are not finite (ids {shown}{more}); "
            "check the checkpoint and the preprocessing"
        )
    if not stable:
        raise UnsupportedModel(
            "the model gives different answers to the same question in eval mode; make its forward pass deterministic "
            "(dropout called with training=self.training, no random transforms)"
        )
