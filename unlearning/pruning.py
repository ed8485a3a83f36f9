"""Pruning, and training what is left: sparse models, for which unlearning is easier (Jia, Liu et al. 2023).

"Model Sparsity Can Simplify Machine Unlearning", arXiv 2304.04934, sections 4 and 5: prune, retrain the survivors, and
unlearn with the masks kept. Its main setting is one-shot magnitude pruning (OMP) to 95 %: train, prune by the size of
the weights over all layers at once, set the survivors back to their values after 8 epochs (Frankle et al. 2020, arXiv
1912.05671), train them again. The others: iterative magnitude pruning (IMP), 20 % of what is left in each of as many
rounds as it takes, with a training after each; SynFlow (arXiv 2006.05467); random.

Deviations. The paper's code prunes convolutions alone; we prune linear maps too, or an MLP and a transformer would stay
dense. The last round of IMP takes what is missing to the sparsity that was asked for, where the code stops at a power
of 0.8. Where nobody has the early weights, survivors keep their trained values (that code's ``pt``); where they are
set back, the schedule of rates starts anew, where the code begins it 8 epochs late.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import Batch, batch_stream, fit, fresh_model, train_model
from mnemoscope.audit.rng import child_seed
from mnemoscope.unlearning.masks import Masks, prunable
from mnemoscope.unlearning.synflow import flow_scores

__all__ = ["Pruning", "SparseModel", "Strategy", "early_weights", "make_masks", "sparse_original"]

Strategy = Literal["magnitude", "layerwise", "random", "synflow", "iterative", "zeros"]
State = dict[str, Tensor]

SYNFLOW_ROUNDS = 100
PRUNED_A_ROUND = 0.2
"""Share of the weights left that a round of iterative pruning takes."""


def make_masks(
    module: nn.Module,
    strategy: Strategy,
    sparsity: float,
    *,
    input_shape: tuple[int, ...],
    seed: int,
    within: Masks | None = None,
) -> Masks:
    """Choose the weights that survive; the module is left as it is.

    Args:
        module: its weights are scored as they are.
        strategy: "magnitude" and "iterative" keep the largest weights of all layers together, "layerwise" the largest
            of each, "random" any, "synflow" those that carry the flow, "zeros" those that are not zero.
        sparsity: share of the weights of convolutions and linear maps that is pruned, in [0, 1); not read by "zeros".
        input_shape: of one record, for "synflow".
        seed: of "random".
        within: weights that are pruned already, and stay so.

    Raises:
        InvalidInput: so much is pruned that no input reaches the outputs (where a residual runs past a layer, the
            whole layer may go); or "zeros" for a model that has none.
        UnsupportedModel: nothing to prune, or SynFlow asked of a network with attention.
    """
    weights = {name: weight.detach() for name, weight in prunable(module).items()}
    if strategy == "zeros":
        return _found(weights)
    scores: State
    if strategy == "random":
        draw = torch.Generator().manual_seed(seed)
        scores = {name: torch.rand(weight.shape, generator=draw) for name, weight in weights.items()}
    else:
        scores = {name: weight.abs().cpu() for name, weight in weights.items()}
    kept = 1.0 - sparsity
    if strategy == "layerwise":
        parts = [_highest({name: score}, kept, within) for name, score in scores.items()]
        masks = Masks({name: mask for part in parts for name, mask in part.keep.items()})
    elif strategy == "synflow":
        masks = _by_flow(module, tuple(weights), kept, input_shape, within)
    else:
        masks = _highest(scores, kept, within)
    if _severed(module, masks, input_shape):
        gone = [name for name, mask in masks.keep.items() if not bool(mask.any())]
        raise InvalidInput(
            f"pruning by {strategy!r} to {sparsity:.4g} cuts the outputs off from the inputs: the model would answer "
            f"every record alike. {len(gone)} of {len(masks.keep)} layers lose every weight"
            + (f", the first {gone[0]!r}" if gone else "")
            + ". Take a lower sparsity, or strategy='layerwise'"
        )
    return masks


@torch.no_grad()
def _severed(module: nn.Module, masks: Masks, input_shape: tuple[int, ...]) -> bool:
    twin = copy.deepcopy(module).eval()
    masks.apply(twin)
    noise = torch.randn(16, *input_shape, generator=torch.Generator().manual_seed(0))
    answers = twin(noise.to(next(twin.parameters()).device))
    return bool((answers == answers[:1]).all())


def _highest(scores: State, kept: float, within: Masks | None) -> Masks:
    """Keep the share of the weights with the highest scores; ties go to the first, on every device."""
    alive = scores if within is None else {n: s.masked_fill(~within.keep[n], -1.0) for n, s in scores.items()}
    flat = torch.cat([score.flatten() for score in alive.values()])
    chosen = torch.zeros(flat.numel(), dtype=torch.bool)
    count = max(1, round(kept * flat.numel()))
    chosen[torch.sort(flat, descending=True, stable=True).indices[:count]] = True
    parts = torch.split(chosen, [score.numel() for score in alive.values()])
    return Masks({name: part.view(scores[name].shape) for name, part in zip(alive, parts, strict=True)})


def _by_flow(
    module: nn.Module, names: tuple[str, ...], kept: float, input_shape: tuple[int, ...], within: Masks | None
) -> Masks:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    masks = within
    try:
        for turn in range(1, SYNFLOW_ROUNDS + 1):
            if masks is not None:
                masks.apply(module)
            scores = {name: score.cpu() for name, score in flow_scores(module, names, input_shape).items()}
            masks = _highest(scores, kept ** (turn / SYNFLOW_ROUNDS), masks)
    finally:
        module.load_state_dict(before)
    assert masks is not None
    return masks


def _found(weights: Mapping[str, Tensor]) -> Masks:
    masks = Masks({name: (weight != 0).cpu() for name, weight in weights.items()})
    if masks.sparsity == 0:
        raise InvalidInput(
            "strategy='zeros' keeps the zeros of a model that was pruned before, and this one has none among the "
            "weights of its convolutions and linear layers; take another strategy"
        )
    return masks


@dataclass(frozen=True)
class Pruning:
    """Prune, train what is left, and say which weights those are.

    Attributes:
        strategy: see ``make_masks``; "iterative" prunes a fifth of what is left and trains, again and again; "zeros"
            takes the zeros that are there and trains nothing.
        sparsity: share of the weights of convolutions and linear maps that is pruned, in [0, 1); 0 does nothing.
        epochs: of the training after each pruning; None is the recipe's.
    """

    strategy: Strategy = "magnitude"
    sparsity: float = 0.95
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            allowed = ", ".join(get_args(Strategy))
            raise InvalidInput(f"pruning: strategy={self.strategy!r} is unknown; allowed: {allowed}")
        if not 0 <= self.sparsity < 1:
            raise InvalidInput(f"pruning: sparsity={self.sparsity!r} must be at least 0 and below 1")
        if self.epochs is not None and self.epochs < 0:
            raise InvalidInput(f"pruning: epochs={self.epochs!r} of training must be at least 0, or None")

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsity after each round, ascending."""
        if self.sparsity == 0:
            return ()
        if self.strategy != "iterative":
            return (self.sparsity,)
        rounds = math.ceil(round(math.log(1 - self.sparsity) / math.log(1 - PRUNED_A_ROUND), 9))
        return (*(1 - (1 - PRUNED_A_ROUND) ** turn for turn in range(1, rounds)), self.sparsity)

    def run(
        self,
        module: nn.Module,
        recipe: Recipe,
        data: DeviceData,
        ids: NDArray[np.int64],
        *,
        seed: int,
        runtime: Runtime,
        rewound: State | None = None,
    ) -> Masks:
        """Prune a module in place and train its survivors.

        Args:
            module: trained, or fresh for strategies that need no training.
            recipe: how survivors are trained.
            data: records on the device.
            ids: (k,) int64 ids to train on.
            seed: of random choices and of the training.
            runtime: threads.
            rewound: all weights and buffers to go back to before each training; None leaves survivors as they are.

        Returns:
            The masks; pruned weights are zero.

        Raises:
            InvalidInput, UnsupportedModel: as ``make_masks``.
            AuditError: the training diverged.
        """
        if self.strategy == "zeros":
            return make_masks(module, "zeros", 0.0, input_shape=data.input_shape, seed=0)
        masks: Masks | None = None
        epochs = recipe.epochs if self.epochs is None else self.epochs
        for turn, level in enumerate(self.levels):
            masks = make_masks(
                module,
                self.strategy,
                level,
                input_shape=data.input_shape,
                seed=child_seed(seed, "mask", turn),
                within=masks,
            )
            if rewound is not None:
                module.load_state_dict(rewound)
            with masks.enforced(module):
                fit(
                    module,
                    recipe,
                    data,
                    ids,
                    seed=child_seed(seed, "survivors", turn),
                    runtime=runtime,
                    epochs=epochs,
                    on_epoch=_progress(f"pruned to {level:.1%}: epochs", epochs),
                )
        if masks is None:
            keep = {name: torch.ones(w.shape, dtype=torch.bool) for name, w in prunable(module).items()}
            return Masks(keep)
        return masks


def _progress(what: str, epochs: int) -> Callable[[int, float], None]:
    count = steps(what, epochs)

    def epoch_done(*_: float) -> None:
        next(count, None)

    return epoch_done


class _Early:
    """Watches a training and keeps the weights and buffers after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.state: State | None = None

    def before_step(self, module: nn.Module, batch: Batch, inputs: Tensor, rate: float) -> None:
        if self.left == 0:
            self._take(module)

    def after_step(self, module: nn.Module, batch: Batch) -> None:
        self.left -= 1
        if self.left == 0:
            self._take(module)

    def _take(self, module: nn.Module) -> None:
        if self.state is None:
            self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}


def early_weights(
    history: History, model: nn.Module, recipe: Recipe, data: DeviceData, *, epochs: int, runtime: Runtime
) -> State:
    """Train the model once more and return its weights and buffers after the first epochs.

    Raises:
        InvalidInput: the training is not that long.
        StaleArtifact: the training arrives at another model.
    """
    watcher = _Early(_early_steps(recipe, data, history.ids, history.seed, epochs))
    history.replay(model, recipe, data, runtime=runtime, watcher=watcher)
    assert watcher.state is not None
    return watcher.state


def _early_steps(recipe: Recipe, data: DeviceData, ids: NDArray[np.int64], seed: int, epochs: int) -> int:
    if not 0 <= epochs <= recipe.epochs or recipe.epochs == 0:
        raise InvalidInput(f"pruning: rewind={epochs!r} must be 0 to {recipe.epochs}, the epochs of the training")
    return epochs * batch_stream(data, ids, recipe, seed).steps


@dataclass(frozen=True, eq=False)
class SparseModel:
    """A model that was trained to be sparse.

    Attributes:
        module: in eval mode; pruned weights are zero.
        masks: which weights survived.
    """

    module: nn.Module
    masks: Masks


def sparse_original(
    recipe: Recipe,
    data: DeviceData,
    ids: NDArray[np.int64],
    *,
    seed: int,
    runtime: Runtime,
    pruning: Pruning | None = None,
    rewind: int = 8,
    masks: Masks | None = None,
) -> SparseModel:
    """Train a sparse model from scratch: what the literature's "95 % sparse" rows start from.

    Train, note the weights after ``rewind`` epochs, prune, go back to them, train again. SynFlow prunes before any
    training, as published. With ``masks`` the model is trained with those from its first step, as that literature
    retrains its reference; note that masks which a model's training found have seen all records of that training.

    Args:
        recipe: of both trainings.
        data: records on the device.
        ids: (k,) int64 ids to train on; the retained ones give the sparse reference of a deletion.
        seed: of everything.
        runtime: threads.
        pruning: how; None is one-shot magnitude pruning to 95 %.
        rewind: epochs after which the weights are noted, at most the recipe's; 0 is the initial weights.
        masks: take these instead of pruning.

    Raises:
        InvalidInput, UnsupportedModel: as ``make_masks``; "zeros", which need a model that is sparse already.
    """
    pruning = Pruning() if pruning is None else pruning
    if masks is not None:
        fresh = fresh_model(recipe, data, seed=seed).to(data.device)
        with masks.enforced(fresh):
            fit(fresh, recipe, data, ids, seed=seed, runtime=runtime)
        return SparseModel(fresh.eval(), masks)
    if pruning.strategy == "zeros":
        raise InvalidInput("sparse_original: a fresh model has no zeros to keep; take strategy='magnitude'")
    rewound: State | None = None
    if pruning.strategy == "synflow":
        module = fresh_model(recipe, data, seed=seed).to(data.device)
    else:
        watcher = _Early(_early_steps(recipe, data, ids, seed, rewind))
        module = train_model(recipe, data, ids, seed=seed, runtime=runtime, watcher=watcher).module
        rewound = watcher.state
    again = child_seed(seed, "sparse")
    found = pruning.run(module, recipe, data, ids, seed=again, runtime=runtime, rewound=rewound)
    return SparseModel(module.eval(), found)
