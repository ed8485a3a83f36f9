"""Recorded answers: logits of a model in eval mode on records and their fixed variations, one transfer out."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Runtime

__all__ = ["infer_logits", "parse_query"]

_SHIFT = re.compile(r"shift:(-?\d+),(-?\d+)")


def parse_query(query: str) -> tuple[bool, tuple[int, int]]:
    """Return (mirrored, (pixels right, pixels down)) of "identity", "flip" or "shift:dx,dy".

    >>> parse_query("shift:2,-1")
    (False, (2, -1))
    """
    if query in ("identity", "flip"):
        return query == "flip", (0, 0)
    match = _SHIFT.fullmatch(query)
    if match is None:
        raise InvalidInput(f"query={query!r} is unknown; queries are 'identity', 'flip', 'shift:dx,dy' (whole pixels)")
    return False, (int(match[1]), int(match[2]))


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
        queries: "identity", and for images "flip" (left to right) and "shift:dx,dy" (content moves dx right, dy down,
            zeros come in).

    Returns:
        (n, q, c) float32, in the order of ids and queries.

    Raises:
        InvalidInput: an unknown query, a query for images on a table, unknown ids.
        UnsupportedModel: answers of a wrong shape, too few classes, or answers that change when asked again.
        AuditError: logits that are not finite, with how many records and which.
    """
    parsed = [parse_query(query) for query in queries]
    if not parsed:
        raise InvalidInput("queries is empty; ask at least 'identity'")
    if not data.is_image and any(query != "identity" for query in queries):
        raise InvalidInput(f"queries={tuple(queries)}: a table can only be asked 'identity'")
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


def _ask(
    module: nn.Module,
    data: DeviceData,
    positions: Tensor,
    query: tuple[bool, tuple[int, int]],
    dtype: torch.dtype,
) -> Tensor:
    mirrored, moved = query
    k = positions.numel()
    flip = torch.ones(k, dtype=torch.bool, device=data.device) if mirrored else None
    shift = torch.tensor(moved, device=data.device).expand(k, 2) if moved != (0, 0) else None
    answer = module(data.inputs(positions, flip=flip, shift=shift).to(dtype))
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
