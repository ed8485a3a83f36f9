"""A model that is trained in shards and slices and answers as one (the form behind ``sisa``).

The module holds the model of each shard, the checkpoints after each slice but the last (whose checkpoint is the shard's
model), and what is needed to train any part of it again: the seed, from which follows where a record belongs. All of it
is in the state dict, in tensors whose shapes depend on the settings and the architecture alone.

A record's shard and slice are a hash of its id and the seed. So they do not depend on which other records there are:
what is left after a deletion lies where it would lie if the deleted record had never been given, and training the shard
again is the very training that would have been run without it. A partition into shards of equal size, cut from one
permutation, would shift all later records. The price is that sizes vary as those of a multinomial draw.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.rng import child_seed

__all__ = ["Aggregate", "ShardedModel", "Weighting"]

Aggregate = Literal["vote", "mean"]
Weighting = Literal["uniform", "size"]
Ids = NDArray[np.int64]


class ShardedModel(nn.Module):
    """Answers what its shards agree on, as logits.

    Answers are logarithms of probabilities, (b, c):

    - "mean": of the mean softmax of the shards;
    - "vote": of the share of votes, one vote a shard for its arg-max, and one more vote spread evenly over all classes
      so that no logarithm is infinite. The arg-max is the majority vote; a tie goes to the first class. Its derivative
      by the weights is zero, as it is almost everywhere: who differentiates such a model learns nothing.

    A shard without records has no say.

    Attributes:
        shards: the models, one a shard, as they are now.
        aggregate: "vote" or "mean".
        weighting: "uniform", or "size": a shard counts as much as it has records.
        root_seed: () int64, from which partition, initial weights and all draws of training follow.
        records: (shards, slices) int64, how many records each slice was trained on.
        traces: (shards, slices) int64, sums of hashes of their ids: two sets of records hardly ever share one.
    """

    root_seed: Tensor
    records: Tensor
    traces: Tensor

    def __init__(
        self,
        base: nn.Module,
        shards: int,
        slices: int,
        *,
        aggregate: Aggregate = "vote",
        weighting: Weighting = "uniform",
    ) -> None:
        """Make an untrained model of copies of one module.

        Args:
            base: a model of one shard; left as it is.
            shards: at least 1.
            slices: of each shard, at least 1.
            aggregate: how answers become one.
            weighting: how much each shard counts.
        """
        super().__init__()
        self.aggregate, self.weighting = aggregate, weighting
        self.shards = nn.ModuleList(copy.deepcopy(base) for _ in range(shards))
        self.checkpoints = nn.Module()
        for name, value in base.state_dict().items():
            if slices > 1:  # names of buffers may hold no dots; flat, for torch would lay out a stack of images anew
                self.checkpoints.register_buffer(
                    name.replace(".", "/"), value.new_zeros(shards, slices - 1, value.numel())
                )
        self.register_buffer("root_seed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("records", torch.zeros(shards, slices, dtype=torch.int64))
        self.register_buffer("traces", torch.zeros(shards, slices, dtype=torch.int64))

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return int(self.records.shape[0])

    @property
    def n_slices(self) -> int:
        """Number of slices of a shard."""
        return int(self.records.shape[1])

    def forward(self, batch: Tensor) -> Tensor:
        """Return (b, c) logarithms of probabilities for inputs (b, ...)."""
        logits = torch.stack([shard(batch) for shard in self.shards])
        weight = self._weights(logits)
        if self.aggregate == "mean":
            return torch.logsumexp(torch.log_softmax(logits, dim=-1) + weight.log(), dim=0)
        classes = torch.arange(logits.shape[-1], device=logits.device)
        votes = ((logits.argmax(dim=-1, keepdim=True) == classes) * weight).sum(dim=0)
        n_votes = (weight > 0).sum()
        shares = (votes * n_votes + 1 / classes.numel()) / (n_votes + 1)
        # Without a path to the weights, asking for the gradient would be an error instead of a zero.
        return shares.log() + (logits * 0.0).sum(dim=0)

    def _weights(self, logits: Tensor) -> Tensor:
        """Weights (shards, 1, 1) with sum 1, zero for shards without records."""
        sizes = self.records.sum(dim=1)
        counts = sizes if self.weighting == "size" else (sizes > 0).long()
        counts = torch.where(sizes.sum() > 0, counts, torch.ones_like(counts)).to(logits.dtype)
        return (counts / counts.sum())[:, None, None]

    def places(self, ids: Ids) -> tuple[Ids, Ids]:
        """Return the shard and the slice (k,), (k,) int64 of each record id (k,)."""
        cells = _hash(ids, child_seed(int(self.root_seed), "partition")) % np.uint64(self.records.numel())
        shard, part = np.divmod(cells.astype(np.int64), self.n_slices)
        return shard, part

    def tally(self, ids: Ids) -> tuple[Tensor, Tensor]:
        """Return ``records`` and ``traces`` as they are when trained on the ids (k,), on the model's device."""
        shard, part = self.places(ids)
        records = np.zeros(self.records.shape, np.int64)
        traces = np.zeros(self.records.shape, np.uint64)
        np.add.at(records, (shard, part), 1)
        np.add.at(traces, (shard, part), _hash(ids, child_seed(int(self.root_seed), "trace")))
        device = self.records.device
        return torch.from_numpy(records).to(device), torch.from_numpy(traces.view(np.int64)).to(device)

    def checkpoint(self, shard: int, part: int) -> dict[str, Tensor]:
        """Return the state of a shard's model after a slice, by name; the tensors are the module's own."""
        last = dict(self.shards[shard].state_dict())
        if part == self.n_slices - 1:
            return last
        kept = dict(self.checkpoints.named_buffers())
        return {name: kept[name.replace(".", "/")][shard, part].view(value.shape) for name, value in last.items()}

    @torch.no_grad()
    def keep(self, shard: int, part: int, state: Mapping[str, Tensor]) -> None:
        """Take a state as that of a shard's model after a slice."""
        for name, value in self.checkpoint(shard, part).items():
            value.copy_(state[name])


def _hash(ids: Ids, key: int) -> NDArray[np.uint64]:
    """Mix ids (k,) with a key into uint64 (k,), every bit of which depends on every bit of both (SplitMix64)."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids, np.int64).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
