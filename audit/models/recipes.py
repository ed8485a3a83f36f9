"""Everything that can change weights (``Recipe``) and everything that must not (``Runtime``); torch stays out."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from mnemoscope.audit.errors import InvalidInput

if TYPE_CHECKING:
    import torch

__all__ = ["RECIPES", "Recipe", "Runtime", "learning_rate"]

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "cosine", "multistep"]
Augmentation = Literal["none", "flip", "flip-crop"]
Precision = Literal["fp32", "bf16"]

SUBJECT = "subject"
"""The architecture's name when the model is the user's own (``subject.py``)."""


def _require(ok: bool, field: str, value: object, allowed: str) -> None:
    if not ok:
        raise InvalidInput(f"recipe: {field}={value!r} is not allowed; {field} must be {allowed}")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: every field can change the weights, so every field enters the key.

    Attributes:
        architecture: a name for ``build_model``, e.g. "mlp:256", or "subject" for the user's own model.
        optimizer: "sgd" or "adamw".
        lr: peak learning rate.
        momentum: momentum of SGD, first beta of AdamW, in [0, 1).
        weight_decay: on all parameters (decoupled in AdamW).
        nesterov: SGD only; needs momentum.
        schedule: "constant", "cosine" to zero, or "multistep".
        milestones: "multistep" only: fractions of the run, ascending in (0, 1), at which the rate is multiplied.
        gamma: the factor at each milestone.
        warmup: fraction of the run, in [0, 1), with a linearly rising rate.
        epochs: passes over the records.
        batch_size: at most this many records a step; an epoch is cut into steps whose sizes differ by at most one.
        augmentation: "flip" mirrors half of the images, "flip-crop" also shifts by up to an eighth of the side.
        precision: "bf16" computes in autocast, weights stay float32.
        label_smoothing: of the cross-entropy, in [0, 1).
        subject: digest of the user's own module, for architecture "subject" only.
        dp_noise: noise multiplier of DP-SGD (``private.py``): standard deviation of the noise in units of ``dp_clip``.
        dp_clip: norm to which DP-SGD clips the gradient of each record; 0 trains without DP-SGD. Batches are then
            drawn by Poisson sampling, ``batch_size`` being at least their expected size.
    """

    architecture: str
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    epochs: int = 30
    batch_size: int = 128
    augmentation: Augmentation = "none"
    precision: Precision = "fp32"
    label_smoothing: float = 0.0
    subject: str | None = None
    dp_noise: float = 0.0
    dp_clip: float = 0.0

    def __post_init__(self) -> None:
        for field, literal in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("augmentation", Augmentation),
            ("precision", Precision),
        ):
            names = get_args(literal)
            _require(getattr(self, field) in names, field, getattr(self, field), f"one of {', '.join(names)}")
        _require(bool(self.architecture), "architecture", self.architecture, "a name such as 'mlp:256'")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "positive and finite")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        _require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            "weight_decay",
            self.weight_decay,
            "0 or more, and finite",
        )
        nesterov_fits = not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0)
        _require(nesterov_fits, "nesterov", self.nesterov, "false unless optimizer is 'sgd' with momentum > 0")
        steps = tuple(self.milestones)
        object.__setattr__(self, "milestones", steps)
        ascending = all(0 < a < 1 for a in steps) and all(a < b for a, b in zip(steps, steps[1:], strict=False))
        _require(ascending, "milestones", steps, "ascending fractions of the run, in (0, 1)")
        _require(
            bool(steps) == (self.schedule == "multistep"),
            "milestones",
            steps,
            "given for schedule 'multistep', and for no other",
        )
        _require(0 < self.gamma <= 1, "gamma", self.gamma, "in (0, 1]")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "a fraction of the run in [0, 1)")
        _require(self.epochs >= 0, "epochs", self.epochs, "0 or more")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")
        _require(
            (self.subject is not None) == (self.architecture == SUBJECT),
            "subject",
            self.subject,
            "the digest of the user's module for architecture 'subject', and absent for any other",
        )
        _require(math.isfinite(self.dp_clip) and self.dp_clip >= 0, "dp_clip", self.dp_clip, "0 (off) or positive")
        _require(
            math.isfinite(self.dp_noise) and self.dp_noise >= 0 and (self.dp_noise == 0 or self.private),
            "dp_noise",
            self.dp_noise,
            "0 or positive, and 0 unless dp_clip is set: noise hides nothing of a gradient without bound",
        )
        _require(
            not self.private or self.precision == "fp32",
            "precision",
            self.precision,
            "'fp32' with DP-SGD (dp_clip > 0)",
        )

    @property
    def private(self) -> bool:
        """Whether training is DP-SGD."""
        return self.dp_clip > 0

    def key_parts(self) -> dict[str, str | int | float | bool | None | list[float]]:
        """Return all fields as JSON values, for content keys; those of DP-SGD only where it is on.

        Without it they change nothing, and models that were trained before there were such fields keep their keys.
        """
        parts = dataclasses.asdict(self)
        parts["milestones"] = list(self.milestones)
        if not self.private:
            del parts["dp_noise"], parts["dp_clip"]
        return parts


def learning_rate(recipe: Recipe, step: int, steps: int, *, peak: float | None = None) -> float:
    """Return the learning rate of one step, in closed form: nothing accumulates, so nothing is applied twice.

    With W = round(warmup * steps): peak * (step + 1) / W for step < W; then, with u = (step - W) / (steps - W),
    peak (constant), peak * (1 + cos(pi u)) / 2 (cosine), or peak * gamma ** #{milestones <= step / steps} (multistep).

    Args:
        recipe: gives schedule, warmup, milestones and gamma.
        step: index of the step, from 0.
        steps: number of steps of the run.
        peak: replaces ``recipe.lr``.

    >>> learning_rate(Recipe("mlp:8", lr=0.2, schedule="cosine"), 5, 10)
    0.1
    """
    top = recipe.lr if peak is None else peak
    rising = round(recipe.warmup * steps)
    if step < rising:
        return top * (step + 1) / rising
    if recipe.schedule == "cosine":
        return top * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / (steps - rising)))
    if recipe.schedule == "multistep":
        passed = sum(step >= round(milestone * steps) for milestone in recipe.milestones)
        return float(top * recipe.gamma**passed)
    return top


@dataclass(frozen=True)
class Runtime:
    """Where and how fast, never what: it cannot change an estimand, though device kind and threads can change bits.

    Attributes:
        device: "auto" (CUDA where there is one, else the CPU) or a torch device such as "cpu", "cuda:1", "mps".
        threads: CPU threads a task; None leaves torch's own number.
        inference_batch: records a forward pass at inference.
        stack: models trained together; None means decided by measurement, 1 means one by one.
    """

    device: str = "auto"
    threads: int | None = None
    inference_batch: int = 1024
    stack: int | None = None

    def __post_init__(self) -> None:
        for field in ("threads", "inference_batch", "stack"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InvalidInput(f"runtime: {field}={value!r} must be 1 or more")

    def torch_device(self) -> "torch.device":
        """Return the device, resolved; an absent or unknown one is refused by name."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInput(f"device={self.device!r} cannot be used here ({reason}); use 'auto' or 'cpu'") from error
        return device

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Set threads and deterministic kernels for the duration of a task, and restore what was there."""
        import torch

        threads = torch.get_num_threads()
        cudnn = torch.backends.cudnn
        flags = (cudnn.deterministic, cudnn.benchmark)
        cudnn.deterministic, cudnn.benchmark = True, False
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = flags
            if self.threads is not None:
                torch.set_num_threads(threads)


RECIPES: dict[str, Recipe] = {
    "digits-mlp": Recipe("mlp:256", lr=0.1, momentum=0.9, epochs=30, batch_size=128),
    "location-mlp": Recipe("mlp:256", lr=0.1, momentum=0.9, epochs=30, batch_size=128),
    "cifar-small-cnn": Recipe(
        "small_cnn", lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, warmup=0.1, epochs=12, batch_size=64
    ),
    "cifar-resnet18": Recipe(
        "resnet18",
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        warmup=0.05,
        epochs=100,
        batch_size=128,
        augmentation="flip-crop",
        precision="bf16",
    ),
}
"""Recipes by name; the sizes of the first three suit two CPU cores."""
