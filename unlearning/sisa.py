"""SISA, sharded, isolated, sliced and aggregated training (Bourtoule et al. 2021, arXiv 1912.03817).

The records are divided into shards, and each shard into slices. A shard's model is trained on its first slice, then on
its first two, and so on, with a checkpoint after each; the answer is a vote of the shards. A record therefore touches
one shard, and that only from its slice onward: to delete it, the shard goes back to the checkpoint before that slice
and repeats the rest without the record.

The deletion is exact in the strictest sense: the result is, bit for bit, what training from scratch on the retained
records gives with the same seed. For that a record's place is a hash of its id (see ``sharded.py``), and the initial
weights of a shard and the draws of a slice come from seeds of their own.

Slice r of R is trained for 2 E / (R + 1) epochs, cut so that the sum is kept, where E is the recipe's number of epochs:
then the shard is trained as much as by E epochs over all of it.

Deviations. Places are hashed, not cut from a permutation: sizes vary. Each slice has a fresh optimiser, as nothing else
is in a checkpoint, and runs the recipe's schedule from its start, warm-up included; the release trains at a constant
rate. Shards are uniform: the variant that puts records likely to be deleted into the same shard is not offered.

Pitfalls. Small shards cost accuracy where the task is hard. Exactness speaks of requests that do not depend on what the
model was seen to do: whoever chooses records to delete after looking at the models can make deletion leave traces
(Gupta et al. 2021, arXiv 2106.04378). And exactness of the new model says nothing of those who saw the old one: the
two versions share all untouched shards, which makes the difference easier to read (arXiv 2005.02205), not harder.
"""

import dataclasses
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import Trained, fresh_model, train_model
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.rng import child_seed
from mnemoscope.unlearning.base import Deletion, Method
from mnemoscope.unlearning.sharded import Aggregate, ShardedModel, Weighting

__all__ = ["SISA", "ReplayCost", "ShardedModel", "expected_share", "slice_epochs"]

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class ReplayCost:
    """What one deletion costs, in optimiser steps.

    Attributes:
        steps: that are made again.
        full_steps: of training from scratch on what is retained.
        shards: how many shards are touched.
    """

    steps: int
    full_steps: int
    shards: int

    @property
    def share(self) -> float:
        """Steps made again as a share of training from scratch; 0 where nothing is left to train."""
        return self.steps / self.full_steps if self.full_steps else 0.0


@dataclass(frozen=True)
class SISA(Method):
    """Retrain the touched shards alone, from the checkpoint before the record; the model must be trained by it.

    It serves models that its own ``train`` made and no others. Of the forget records only the ids are read; of the
    retained ones, those of touched shards.

    Attributes:
        shards: S, at least 1; the paper tries up to 50.
        slices: R of each shard, at least 1; time saved and checkpoints kept both grow with it.
        aggregate: "vote", majority of the shards' arg-max (the paper's default), or "mean" of their softmax.
        weighting: "uniform", or by the "size" of the shards.
    """

    shards: int = 5
    slices: int = 3
    aggregate: Aggregate = "vote"
    weighting: Weighting = "uniform"
    name = "sisa"
    needs = Need.RETAIN_DATA
    kinds = ("records", "class", "features", "labels")
    exact = True

    def __post_init__(self) -> None:
        if self.shards < 1 or self.slices < 1:
            raise InvalidInput(f"sisa: shards={self.shards!r} and slices={self.slices!r} must be at least 1")
        for field, value, allowed in (
            ("aggregate", self.aggregate, get_args(Aggregate)),
            ("weighting", self.weighting, get_args(Weighting)),
        ):
            if value not in allowed:
                raise InvalidInput(f"sisa: {field}={value!r} is unknown; allowed: {', '.join(allowed)}")

    def fresh(self, recipe: Recipe, data: DeviceData) -> ShardedModel:
        """Return an untrained model of the form that ``train`` makes, on the CPU, e.g. to load weights into."""
        base = fresh_model(recipe, data, seed=0)
        return ShardedModel(base, self.shards, self.slices, aggregate=self.aggregate, weighting=self.weighting)

    def train(self, recipe: Recipe, data: DeviceData, ids: Ids, *, seed: int, runtime: Runtime) -> Trained:
        """Train a model from which records can be deleted, and tell what the optimiser saw.

        The same arguments on the same machine give the same bits.

        Args:
            recipe: of a shard's model; its epochs are what the slices of a shard amount to.
            data: records on the device; the model comes to live there.
            ids: (k,) int64 ids to train on, each once.
            seed: in [0, 2**63), of partition, initial weights and all draws; it stays with the model.
            runtime: threads.

        Returns:
            The module in eval mode, all ids seen by any shard, and the mean training loss of the shards in each epoch
            of the last slice.

        Raises:
            InvalidInput: no ids or repeated ones; fewer epochs than a slice needs; a recipe with DP-SGD, whose
                accounting does not hold for slices.
        """
        ids = np.asarray(ids, np.int64)
        _check_training(recipe, ids, self.slices)
        model = self.fresh(recipe, data).to(data.device)
        model.root_seed.fill_(seed)
        model.records.copy_((tally := model.tally(ids))[0])
        model.traces.copy_(tally[1])
        runs = []
        for shard in steps(f"{self.name}: shards", self.shards):
            runs += _train_shard(model, shard, 0, recipe, data, ids, runtime=runtime)
        last = np.array([run.loss for part, run in runs if part == self.slices - 1])
        seen = np.unique(np.concatenate([run.seen_ids for _, run in runs]))
        return Trained(model.eval(), seen, tuple(last.mean(axis=0).tolist()))

    def cost(self, model: ShardedModel, request: Request, recipe: Recipe) -> ReplayCost:
        """Return the steps that this deletion makes again, counted before it is made."""
        first, after = _touched(model, request.forget), np.sort(request.known)
        work = _slice_steps(model.tally(after)[0].cpu().numpy(), recipe)
        again = sum(int(work[shard, part:].sum()) for shard, part in first.items())
        return ReplayCost(again, int(work.sum()), len(first))

    def _check(self, model: nn.Module, request: Request, data: DeviceData, history: History | None) -> None:
        if not isinstance(model, ShardedModel):
            raise UnsupportedModel(
                f"sisa deletes from models that were trained in shards and slices; this {type(model).__name__} was "
                "not, and its records cannot be told apart any more. Train it by sisa's own train, or take another "
                "method"
            )
        if (model.n_shards, model.n_slices) != (self.shards, self.slices):
            raise InvalidInput(
                f"sisa: shards={self.shards}, slices={self.slices}, but this model was trained in {model.n_shards} "
                f"shards of {model.n_slices} slices; give those"
            )
        super()._check(model, request, data, history)
        _check_records(model, request)

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        assert isinstance(work, ShardedModel)
        request, after = deletion.request, np.sort(deletion.request.known)
        data, first = deletion.data.corrected(request), _touched(work, request.forget)
        records, traces = work.tally(after)
        for place in steps(f"{self.name}: shards", len(first)):
            shard = list(first)[place]
            _train_shard(work, shard, first[shard], deletion.recipe, data, after, runtime=deletion.runtime)
            work.records[shard], work.traces[shard] = records[shard], traces[shard]
        return work


def slice_epochs(epochs: int, slices: int) -> tuple[int, ...]:
    """Return the epochs of each slice: 2 E / (R + 1) on average, cut where their sum passes a whole number.

    >>> slice_epochs(30, 3), slice_epochs(20, 5)
    ((15, 15, 15), (6, 7, 7, 6, 7))
    """
    ends = [2 * epochs * part // (slices + 1) for part in range(slices + 1)]
    return tuple(ends[part + 1] - ends[part] for part in range(slices))


def expected_share(shards: int, slices: int, deletions: int = 1) -> float:
    """Return the expected share of training that deletions at random make again, all in one request.

    With places drawn at random, slice j of a shard is made again where one of k deletions falls into it or before it,
    with probability 1 - (1 - j / (S R))^k, and costs j of R (R + 1) / 2. For k = 1 the sum is (2 R + 1) / (3 R S).
    Slices are taken to be equally large and their epochs uncut.

    >>> round(expected_share(5, 3), 4), expected_share(1, 1)
    (0.1556, 1.0)
    """
    part = np.arange(1, slices + 1)
    again = 1 - (1 - part / (shards * slices)) ** deletions
    return float((part * again).sum() / part.sum())


def _slice_steps(records: Ids, recipe: Recipe) -> Ids:
    """Steps of each slice, (shards, slices) int64, given how many records each has."""
    batches = -(-records.cumsum(axis=1) // recipe.batch_size)
    return np.asarray(batches * np.array(slice_epochs(recipe.epochs, records.shape[1])), np.int64)


def _train_shard(
    model: ShardedModel, shard: int, first: int, recipe: Recipe, data: DeviceData, ids: Ids, *, runtime: Runtime
) -> list[tuple[int, Trained]]:
    """Train one shard from slice ``first`` on, in place; return (slice, run) of each slice that had records."""
    seed, runs = int(model.root_seed), []
    at, part_of = model.places(ids)
    # A module of its own, so that flags and memory of the given model cannot change a bit of the training.
    state = fresh_model(recipe, data, seed=child_seed(seed, "shard", shard)).to(data.device)
    if first:
        state.load_state_dict(model.checkpoint(shard, first - 1))
    for part, epochs in enumerate(slice_epochs(recipe.epochs, model.n_slices)):
        known = ids[(at == shard) & (part_of <= part)]
        if part < first:
            continue
        if known.size:
            own = child_seed(seed, "shard", shard, "slice", part)
            once = dataclasses.replace(recipe, epochs=epochs)
            run = train_model(once, data, known, seed=own, runtime=runtime, init=state)
            runs.append((part, run))
            state = run.module
        model.keep(shard, part, state.state_dict())
    return runs


def _check_training(recipe: Recipe, ids: Ids, slices: int) -> None:
    if not ids.size or np.unique(ids).size != ids.size:
        raise InvalidInput(f"sisa trains on ids that are given once each, at least one; given {ids.size}")
    if recipe.private:
        raise InvalidInput(
            "sisa: a record takes part in several slices' runs, and the accounting of DP-SGD is of one run; "
            "set dp_clip and dp_noise to 0, or train without slices and shards"
        )
    if min(slice_epochs(recipe.epochs, slices)) < 1:
        raise InvalidInput(
            f"sisa: epochs={recipe.epochs} are too few for {slices} slices, each of which is trained for 2 x epochs / "
            f"(slices + 1); give at least {(slices + 2) // 2} epochs, or fewer slices"
        )


def _touched(model: ShardedModel, forget: Ids) -> dict[int, int]:
    """The first slice that loses a record, for each shard that does."""
    at, part = model.places(forget)
    return {int(shard): int(part[at == shard].min()) for shard in np.unique(at)}


def _check_records(model: ShardedModel, request: Request) -> None:
    """Refuse a request that does not name what the touched shards were trained on: they would learn something else."""
    given = model.tally(np.union1d(request.forget, request.retain))
    for shard in _touched(model, request.forget):
        if not (
            torch.equal(given[0][shard], model.records[shard]) and torch.equal(given[1][shard], model.traces[shard])
        ):
            raise InvalidInput(
                f"sisa trains shard {shard} again on its retained records, so forget and retain must hold all it was "
                f"trained on, {int(model.records[shard].sum())} records, and no others; they hold "
                f"{int(given[0][shard].sum())} of it. Name all records of the training set, and none beside them"
            )
