"""What every unlearning method shares: checks before work, a copy to work on, batches, steps, and the state as found.

A method is a frozen dataclass that derives from ``Method`` and writes its algorithm in ``_forget``, with the tools of
``Deletion``.
"""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.steps import steps
from mnemoscope.audit.models.training import BatchStream, make_optimizer
from mnemoscope.audit.records.request import Request

__all__ = ["Batch", "Deletion", "Method", "evaluating", "settle", "still_norm", "unrecorded_norm"]

Ids = NDArray[np.int64]
Setting = str | int | float | bool | None


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the device.

    Attributes:
        x: (b, ...) float32 inputs, moved and mirrored where the pass augments.
        y: (b,) int64 labels.
        positions: (b,) int64 rows of the data.
    """

    x: Tensor
    y: Tensor
    positions: Tensor


@dataclass(frozen=True, eq=False)
class Deletion:
    """One run of one method: what it was given, and the tools it works with.

    Attributes:
        method: its name, for progress and errors.
        original: the given model, in eval mode on the device; never changed.
        request: what to forget.
        recipe: the model's own training.
        data: the records on the device.
        runtime: threads, device.
        rng: the only source of randomness.
        history: the model's training, for methods that need it.
    """

    method: str
    original: nn.Module
    request: Request
    recipe: Recipe
    data: DeviceData
    runtime: Runtime
    rng: np.random.Generator
    history: History | None = None
    _losses: list[Tensor] = field(default_factory=list, repr=False)

    def seed(self) -> int:
        """Draw a seed."""
        return int(self.rng.integers(2**63))

    def generator(self) -> torch.Generator:
        """Return a new seeded torch generator on the CPU: draws are the same on every device; move them after."""
        return torch.Generator().manual_seed(self.seed())

    def epochs(self, count: int) -> Iterator[int]:
        """Count epochs, showing progress; after each, a loss that stopped being finite is refused."""
        for epoch in steps(f"{self.method}: epochs", count):
            yield epoch
            if self._losses and not bool(torch.stack(self._losses).isfinite().all()):
                raise AuditError(
                    f"{self.method} diverged in epoch {epoch + 1} of {count}: the loss is not finite any more; "
                    "lower its learning rate"
                )
            self._losses.clear()

    def stream(self, ids: Ids, *, batch_size: int | None = None, augment: bool = True) -> BatchStream:
        """Return shuffled batches of the ids, an epoch at a time, augmented as in the recipe unless told not to.

        ``batch_size`` None is the recipe's. Every epoch is cut into steps whose sizes differ by at most one.
        """
        recipe = dataclasses.replace(
            self.recipe,
            batch_size=self.recipe.batch_size if batch_size is None else batch_size,
            augmentation=self.recipe.augmentation if augment else "none",
        )
        return BatchStream(self.data, ids, recipe, self.seed())

    def batches(self, stream: BatchStream) -> Iterator[Batch]:
        """Yield the batches of the stream's next epoch."""
        for part in stream.epoch():
            x = self.data.inputs(part.positions, flip=part.flip, shift=part.shift)
            yield Batch(x, self.data.y[part.positions], part.positions)

    def endless(self, stream: BatchStream) -> Iterator[Batch]:
        """Yield batches of one epoch after another, without end."""
        while True:
            yield from self.batches(stream)

    def in_order(self, ids: Ids, *, batch_size: int | None = None) -> Iterator[Batch]:
        """Yield the ids once, in ascending order and as they are: for gradients and searches, not for training."""
        size = self.runtime.inference_batch if batch_size is None else batch_size
        for positions in torch.split(self.data.positions(np.sort(ids)), size):
            yield Batch(self.data.inputs(positions), self.data.y[positions], positions)

    def answer(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return float32 logits (b, c), computed in the recipe's precision.

        For a batch of one record batch normalisation uses its running statistics: one record has no variance.
        """
        bf16 = self.recipe.precision == "bf16"
        alone = still_norm(module) if x.shape[0] == 1 else nullcontext()
        with alone, torch.autocast(self.data.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits: Tensor = module(x)
        return logits.float()

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the user's own training loss of a batch: mean cross-entropy, smoothed as in the recipe."""
        logits = self.answer(module, batch.x)
        return nn.functional.cross_entropy(logits, batch.y, label_smoothing=self.recipe.label_smoothing)

    def rate(self, lr: float | None) -> float:
        """Return a method's learning rate; None is a tenth of the recipe's."""
        return self.recipe.lr / 10 if lr is None else lr

    def optimizer(
        self,
        module: nn.Module,
        lr: float,
        *,
        kind: Literal["sgd", "adam", "adamw"] | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
    ) -> torch.optim.Optimizer:
        """Return an optimiser of the weights that may change, with fresh state.

        What is None is the recipe's. ``kind`` is "sgd", "adam" or "adamw".
        """
        weights: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
        decay = self.recipe.weight_decay if weight_decay is None else weight_decay
        inertia = self.recipe.momentum if momentum is None else momentum
        if kind == "adam":
            return torch.optim.Adam(weights, lr=lr, betas=(inertia, 0.999), weight_decay=decay)
        nesterov = self.recipe.nesterov and inertia > 0 and kind in (None, "sgd")
        optimizer: Literal["sgd", "adamw"] = self.recipe.optimizer if kind is None else kind
        changed = dataclasses.replace(
            self.recipe, optimizer=optimizer, lr=lr, momentum=inertia, weight_decay=decay, nesterov=nesterov
        )
        return make_optimizer(changed, weights)

    def descend(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Tensor,
        *,
        clip: float | None = None,
        change: Callable[[], None] | None = None,
    ) -> None:
        """Make one step down the loss; ``clip`` bounds the gradient's norm over all weights.

        ``change`` is called when the gradients are there, before they are clipped: it may change them in place.
        """
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if change is not None:
            change()
        if clip is not None:
            nn.utils.clip_grad_norm_([w for group in optimizer.param_groups for w in group["params"]], clip)
        optimizer.step()
        self._losses.append(loss.detach())

    def logits(self, module: nn.Module, ids: Ids) -> NDArray[np.float32]:
        """Return what the module answers in eval mode, (n, c) float32, in the order of the ids."""
        return infer_logits(module, self.data, ids, runtime=self.runtime)[:, 0]

    def labels(self, ids: Ids) -> NDArray[np.int64]:
        """Return the labels (n,) of the ids."""
        return np.asarray(self.data.y[self.data.positions(ids)].cpu().numpy(), np.int64)

    def per_class(self, number: int) -> Ids:
        """Draw so many retained records of each class, or all where a class has fewer.

        Returns:
            Ids (k,) ascending.
        """
        retain = np.sort(self.request.retain)
        labels = self.labels(retain)
        drawn = [self.rng.permutation(retain[labels == label])[:number] for label in np.unique(labels)]
        return np.sort(np.concatenate(drawn))


@dataclass(frozen=True)
class Method(ABC):
    """An unlearning method; its fields are its settings, its class attributes say what it is.

    Attributes:
        name: as in a plan.
        needs: which records of the request it cannot do without, and whether the model's training.
        optional: which it reads where they are given.
        kinds: the requests it can serve.
        exact: whether it promises the distribution of retraining.
        reading: known from its abstract alone: our reading, marked in tables and never ranked.
        trains_against: attacks that it plays against; their scores are no evidence for it.
        knobs: values that tuning tries for settings other than the learning rate.
    """

    name: ClassVar[str]
    needs: ClassVar[Need]
    optional: ClassVar[Need] = Need.NOTHING
    kinds: ClassVar[tuple[str, ...]] = ("records", "class")
    exact: ClassVar[bool] = False
    reading: ClassVar[bool] = False
    trains_against: ClassVar[tuple[str, ...]] = ()
    knobs: ClassVar[Mapping[str, Sequence[Setting]]] = MappingProxyType({})

    @classmethod
    def grid(cls, recipe: Recipe) -> Mapping[str, Sequence[Setting]]:
        """Return the values that tuning tries for each setting, {} where there is nothing to tune.

        The learning rate, to which every method with one is sensitive, by half decades from a thousandth of the
        recipe's rate to ten times it, for deletion has fewer steps than training; and the method's ``knobs``.
        """
        if "lr" not in {one.name for one in dataclasses.fields(cls)}:
            return cls.knobs
        return {"lr": tuple(float(f"{recipe.lr * 10 ** (1 - half / 2):.3g}") for half in range(9)), **cls.knobs}

    def unlearn(
        self,
        model: nn.Module,
        request: Request,
        *,
        recipe: Recipe,
        data: DeviceData,
        runtime: Runtime,
        rng: np.random.Generator,
        history: History | None = None,
    ) -> nn.Module:
        """Return a new module that has forgotten; the given one stays bit-identical.

        Args:
            model: the trained model, in float32.
            request: what to forget; records outside of its sets are not touched.
            recipe: the model's own training.
            data: records on the device.
            runtime: threads, device.
            rng: the only source of randomness.
            history: the model's training; for methods with ``Need.HISTORY``.

        Raises:
            InvalidInput: a kind of request that the method does not serve, a class that stays in part, records that
                the data or the history do not have, labels that are no whole numbers.
            MissingNeed: records or a history that it needs and that are not given.
            UnsupportedModel: half precision, weights that are not finite, or no weight that may change.
            AuditError: the method diverged.
        """
        self._check(model, request, data, history)
        original = copy.deepcopy(model).to(data.device).eval().requires_grad_(False)
        work = copy.deepcopy(model).to(data.device).train()
        images = data.is_image and any(isinstance(part, nn.Conv2d) for part in work.modules())
        if images:
            work.to(memory_format=torch.channels_last)
        deletion = Deletion(self.name, original, request, recipe, data, runtime, rng, history)
        with runtime.scope(), seeded(deletion.seed()):
            result = self._forget(work, deletion)
        if images:
            result.to(memory_format=torch.contiguous_format)
        return settle(result, model, self.name)

    @abstractmethod
    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        """Forget in ``work``, a copy of the model in train mode, and return it (or another module of its form)."""

    def _check(self, model: nn.Module, request: Request, data: DeviceData, history: History | None) -> None:
        if request.kind not in self.kinds:
            raise InvalidInput(
                f"{self.name} serves requests of kind {', '.join(self.kinds)}; this one is of kind {request.kind!r}"
                + ("" if request.kind != "records" else " (a whole class is asked for by class:NAME)")
            )
        for need, ids, what in (
            (Need.RETAIN_DATA, request.retain, "records that the model keeps (retain)"),
            (Need.VALIDATION_DATA, request.validation, "records set aside that no audit scores (validation)"),
        ):
            if need in self.needs and not ids.size:
                raise MissingNeed(
                    f"{self.name} needs {what}, and the request has none; give some, or take another method"
                )
        if Need.HISTORY in self.needs and history is None:
            raise MissingNeed(
                f"{self.name} needs the model's training (ids and seed, as a History): it undoes steps of it"
            )
        for need, ids in (
            (Need.FORGET_DATA, request.forget),
            (Need.RETAIN_DATA, request.retain),
            (Need.VALIDATION_DATA, request.validation),
        ):
            if need in self.needs:
                data.positions(ids)  # names ids that the data does not have, before any work
        if data.y.dtype != torch.int64:
            raise InvalidInput(
                f"{self.name}: the data's labels are {data.y.dtype}, and classes are counted with int64; give the "
                "classes as whole numbers from 0"
            )
        if history is not None:
            _check_history(self.name, request, history)
        if request.kind == "class":
            _check_class(request, data)
        _check_weights(self.name, model)
        if not any(weight.requires_grad for weight in model.parameters()):
            raise UnsupportedModel(
                f"{self.name}: every weight is frozen (requires_grad is False), so nothing can be forgotten; "
                "unfreeze the layers that may change with requires_grad_(True)"
            )


def _check_history(method: str, request: Request, history: History) -> None:
    strangers = np.setdiff1d(request.forget, history.ids)
    if strangers.size:
        raise InvalidInput(
            f"{method}: {strangers.size} of {request.forget.size} forget records are not in the model's history of "
            f"{history.ids.size}, the first {strangers[:5].tolist()}; they left no trace to be forgotten: leave them "
            "out, or give the history of this model"
        )


def _check_weights(method: str, model: nn.Module) -> None:
    others = [(name, weight.dtype) for name, weight in model.named_parameters() if weight.dtype != torch.float32]
    if others:
        name, kind = others[0]
        raise UnsupportedModel(
            f"{method}: {len(others)} weights are not float32, the first {name!r} ({kind}); half precision loses the "
            "small steps of unlearning. Convert the model with model.float(), and back afterwards"
        )
    broken = [name for name, value in model.state_dict().items() if not bool(value.isfinite().all())]
    if broken:
        raise UnsupportedModel(
            f"{method}: {len(broken)} weights or statistics of the given model are not finite, the first "
            f"{broken[0]!r}; there is nothing to forget from. Load another checkpoint"
        )


def _check_class(request: Request, data: DeviceData) -> None:
    gone = torch.unique(data.y[data.positions(request.forget)])
    if gone.numel() != 1:
        raise InvalidInput(
            f"a request of kind 'class' forgets one class; its forget set has the labels {gone[:10].tolist()}. "
            "Ask for one class after another, or for kind 'records'"
        )
    left = int((data.y[data.positions(request.retain)] == gone).sum()) if request.retain.size else 0
    if left:
        raise InvalidInput(
            f"a request of kind 'class' forgets the whole class {int(gone)}, but retain holds {left} of its records; "
            "move them to forget, or ask for kind 'records'"
        )


def settle(result: nn.Module, model: nn.Module, name: str) -> nn.Module:
    """Give a result the modes and flags of the given model, drop gradients, and refuse weights that are not finite."""
    modes = {place: part.training for place, part in model.named_modules()}
    for place, part in result.named_modules():
        part.training = modes.get(place, model.training)
    flags = {place: weight.requires_grad for place, weight in model.named_parameters()}
    for place, weight in result.named_parameters():
        weight.grad = None
        weight.requires_grad_(flags.get(place, True))
    broken = [place for place, value in result.state_dict().items() if not bool(value.isfinite().all())]
    if broken:
        raise AuditError(f"{name} diverged: {broken[0]!r} is not finite any more; lower its learning rate")
    return result


@contextmanager
def evaluating(module: nn.Module, kinds: Sequence[type[nn.Module]] = ()) -> Iterator[nn.Module]:
    """Put the module, or its parts of some kinds, into eval mode for a block, and restore the modes after it."""
    modes = {part: part.training for part in module.modules()}
    for part in modes:
        if not kinds or isinstance(part, tuple(kinds)):
            part.training = False
    try:
        yield module
    finally:
        for part, mode in modes.items():
            part.training = mode


def still_norm(module: nn.Module) -> AbstractContextManager[nn.Module]:
    """Batch normalisation in eval mode for a block: its running statistics are used and left as they are.

    For steps on forget records alone, which would pull the statistics to themselves.
    """
    return evaluating(module, (nn.modules.batchnorm._BatchNorm,))


@contextmanager
def unrecorded_norm(module: nn.Module) -> Iterator[nn.Module]:
    """Batch normalisation by the statistics of the batch, which leave no trace in the running ones, for a block."""
    parts = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    found = [(part, part.momentum, part.num_batches_tracked) for part in parts]
    for part, _, tracked in found:
        part.momentum = 0.0
        part.num_batches_tracked = None if tracked is None else tracked.clone()
    try:
        yield module
    finally:
        for part, momentum, tracked in found:
            part.momentum, part.num_batches_tracked = momentum, tracked
