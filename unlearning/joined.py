"""Made inputs and records as they are, in batches together."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mnemoscope.unlearning.base import Batch, Deletion, Ids

__all__ = ["Joined"]


class Joined:
    """A set of made inputs and of records, in shuffled batches, an epoch at a time, without augmentation.

    Args:
        deletion: gives the records and the seed of the order.
        made: (m, ...) float32 inputs.
        labels: (m,) int64, theirs.
        ids: (r,) int64 records.
        batch_size: at most this many a step; the steps of an epoch differ by at most one.
    """

    def __init__(self, deletion: Deletion, made: Tensor, labels: Tensor, ids: Ids, batch_size: int) -> None:
        self._data, self._order = deletion.data, deletion.generator()
        self._made, self._labels = made, labels
        self._positions = deletion.data.positions(ids)
        self._steps = math.ceil(len(self) / batch_size)

    def __len__(self) -> int:
        """Return the number of made inputs and records together."""
        return self._labels.numel() + self._positions.numel()

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch, made inputs first in each; their ``positions`` are -1."""
        count = self._labels.numel()
        order = torch.randperm(len(self), generator=self._order)
        for part in torch.tensor_split(order, self._steps):
            ours = part[part < count].to(self._data.device)
            rows = self._positions[(part[part >= count] - count).to(self._data.device)]
            x = torch.cat([self._made[ours], self._data.inputs(rows)])
            y = torch.cat([self._labels[ours], self._data.y[rows]])
            yield Batch(x, y, torch.cat([torch.full_like(ours, -1), rows]))
