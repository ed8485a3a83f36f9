"""P6: are forgotten rows stored inside the model itself?

Nearest-neighbour models, support vectors, prototypes and replay buffers hold training records by design. An exact
search over the tensors of a model finds them without any attack; it finds exact copies only, raw or as inputs.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope.audit.models.data import DeviceData

__all__ = ["record_forms", "rows_inside"]

LEAST_VALUES = 8
"""Records of fewer values could equal a row of weights by chance and are not searched for."""


def record_forms(data: DeviceData, ids: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Return the forms in which a model could hold records: as the model's inputs, and raw.

    Args:
        data: the records on the device.
        ids: (n,) int64.

    Returns:
        Arrays (n, d) float32; images in both orders of axes.
    """
    positions = data.positions(ids)
    inputs = data.inputs(positions).cpu()
    raw = data.x[positions].to(torch.float32).cpu()
    forms = [inputs, raw]
    if data.is_image:
        forms += [inputs.movedim(-3, -1), raw.movedim(-1, -3), raw / 255.0, raw.movedim(-1, -3) / 255.0]
    return [form.reshape(len(ids), -1).contiguous().numpy() for form in forms]


def rows_inside(state: Mapping[str, Tensor], forms: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Tell which records are stored in some tensor of a model.

    Args:
        state: the model's tensors by name (parameters and buffers).
        forms: forms of the same n records, each (n, d) float32.

    Returns:
        (n,) bool: an exact copy of the record, in one of its forms, is a row of a tensor. Constant records and records
        of fewer than 8 values are never reported.
    """
    n = forms[0].shape[0]
    found = np.zeros(n, np.bool_)
    for form in forms:
        d = form.shape[1]
        if d < LEAST_VALUES:
            continue
        searched = _as_keys(form)
        varies = form.min(axis=1) < form.max(axis=1)
        for tensor in state.values():
            if tensor.ndim < 2 or tensor.numel() % d or not _has_rows_of(tensor, d):
                continue
            rows = tensor.detach().to("cpu", torch.float32).reshape(-1, d).contiguous().numpy()
            found |= np.isin(searched, _as_keys(rows)) & varies
    return found


def _has_rows_of(tensor: Tensor, d: int) -> bool:
    trailing = 1
    for size in reversed(tensor.shape[1:]):
        trailing *= int(size)
        if trailing == d:
            return True
    return False


def _as_keys(rows: NDArray[np.float32]) -> NDArray[np.void]:
    rows = np.ascontiguousarray(rows) + np.float32(0.0)  # -0.0 and 0.0 are one value
    keys: NDArray[np.void] = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
    return keys
