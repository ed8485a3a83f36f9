"""SCRUB: a student that moves away from its teacher on forget records and stays with it on retained ones.

Kurmanji, Triantafillou, Hayes and Triantafillou 2023, "Towards Unbounded Machine Unlearning" (arXiv 2302.09880). The
teacher is the original model, frozen; the student starts as its copy. In each of the first ``forget_epochs`` epochs a
pass over the forget records maximises KL(teacher || student); every epoch then ends with a pass over the retained
records that minimises ``gamma`` times cross-entropy plus ``alpha`` times the same divergence. Divergences are taken at
a temperature T and multiplied by its square.

SCRUB+R goes back to the epoch at whose end the forget records' error is nearest to what is to be expected of records
never seen: the error of the final model on validation records of the same classes. Without it the error may be higher
than that of unseen records, which tells an attacker as much as one that is too low.

What differs, and why:

- A pass on forget records normalises by the batch, as published, but the running statistics stay as they are; in the
  published code forget records end up in them.
- SCRUB+R weights the classes of the validation records as they are weighted in the forget set, where the paper takes
  validation records distributed as the forget set. Classes without a validation record count for nothing. Of epochs
  that are equally near, the last is taken: it had the most repair.
- Cross-entropy is the user's own, smoothed where the recipe's is; retained batches have the recipe's size (128 as
  published), and both passes are augmented as in training.
- The large-scale rate is relative to the user's own (0.0005 of 0.1). The published step decay (a tenth after epochs 3,
  5 and 9) is kept, so it is met only by runs of more than three epochs.

To know: the divergence is least where the student starts, so its gradient there is zero. A network without batch
normalisation and dropout is moved by the first pass on forget records hardly at all, and by the second only as far as
the retained records moved it in between.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.unlearning.base import Batch, Deletion, Ids, Method, unrecorded_norm
from mnemoscope.unlearning.distances import divergence

__all__ = ["Scrub", "ScrubRewind"]

T = TypeVar("T")

Preset = Literal["large", "small"]

DECAY, DECAY_AFTER = 0.1, (3, 5, 9)
"""The rate is multiplied by DECAY after each of these epochs."""


class _Setting(NamedTuple):
    """What a preset stands for; ``lr`` is a share of the recipe's rate for "sgd" and absolute for "adam"."""

    optimizer: str
    lr: float
    weight_decay: float | None
    gamma: float
    alpha: float
    forget_epochs: int
    epochs: int
    temperature: float


PRESETS: dict[str, _Setting] = {
    "large": _Setting("sgd", 0.005, None, 0.99, 0.001, 2, 3, 4.0),
    "small": _Setting("adam", 5e-4, 0.1, 1.0, 0.5, 3, 10, 2.0),
}
"""The published settings for whole data sets ("large") and for a few hundred records ("small")."""


@dataclass(frozen=True)
class Scrub(Method):
    """Push a student away from the original on forget records, keep it close on retained ones (SCRUB).

    What is None comes from the preset: "large" takes the user's own optimiser at 0.005 times the recipe's rate and
    weight decay, gamma 0.99, alpha 0.001, 3 epochs, 2 of them with forgetting, T = 4; "small" takes Adam at 0.0005 with
    weight decay 0.1, gamma 1, alpha 0.5, 10 epochs, 3 of them with forgetting, T = 2.

    Attributes:
        preset: "large" or "small".
        epochs: passes over the retained records, at least 0.
        forget_epochs: in how many of the first epochs the forget records are passed too, at least 0.
        lr: learning rate of the first epoch.
        alpha: weight of the divergence on retained records, at least 0.
        gamma: weight of the cross-entropy on retained records, at least 0.
        temperature: of all divergences, positive.
        forget_batch: forget records a step; None is a quarter of the recipe's batch size (32 of 128).
    """

    preset: Preset = "large"
    epochs: int | None = None
    forget_epochs: int | None = None
    lr: float | None = None
    alpha: float | None = None
    gamma: float | None = None
    temperature: float | None = None
    forget_batch: int | None = None
    name = "scrub"
    knobs = {"preset": ("large", "small")}
    needs = Need.FORGET_DATA | Need.RETAIN_DATA

    def __post_init__(self) -> None:
        if self.preset not in get_args(Preset):
            raise InvalidInput(f"{self.name}: preset={self.preset!r} is unknown; allowed: large, small")
        for field, value, least in (
            ("epochs", self.epochs, 0),
            ("forget_epochs", self.forget_epochs, 0),
            ("alpha", self.alpha, 0),
            ("gamma", self.gamma, 0),
            ("forget_batch", self.forget_batch, 1),
        ):
            if value is not None and not least <= value < math.inf:
                raise InvalidInput(f"{self.name}: {field}={value!r} must be at least {least} and finite, or None")
        for field, value in (("lr", self.lr), ("temperature", self.temperature)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"{self.name}: {field}={value!r} must be positive and finite, or None")

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        for _ in self._trained(work, deletion):
            pass
        return work

    def _trained(self, work: nn.Module, deletion: Deletion) -> Iterator[int]:
        """Train ``work``, and yield the number of each epoch at its end, from 1."""
        preset, request = PRESETS[self.preset], deletion.request
        heat = _given(self.temperature, preset.temperature)
        alpha, gamma = _given(self.alpha, preset.alpha), _given(self.gamma, preset.gamma)
        quarter = max(1, deletion.recipe.batch_size // 4)
        forget = deletion.stream(request.forget, batch_size=_given(self.forget_batch, quarter))
        retain = deletion.stream(request.retain)
        if preset.optimizer == "adam":
            rate = _given(self.lr, preset.lr)
            optimizer = deletion.optimizer(work, rate, kind="adam", momentum=0.9, weight_decay=preset.weight_decay)
        else:
            rate = _given(self.lr, preset.lr * deletion.recipe.lr)
            optimizer = deletion.optimizer(work, rate)
        for epoch in deletion.epochs(_given(self.epochs, preset.epochs)):
            for group in optimizer.param_groups:
                group["lr"] = rate * DECAY ** sum(epoch >= last for last in DECAY_AFTER)
            if epoch < _given(self.forget_epochs, preset.forget_epochs):
                for batch in deletion.batches(forget):
                    with unrecorded_norm(work):
                        away = _from_teacher(deletion, batch, deletion.answer(work, batch.x), heat)
                    deletion.descend(optimizer, -away)
            for batch in deletion.batches(retain):
                logits = deletion.answer(work, batch.x)
                truth = nn.functional.cross_entropy(logits, batch.y, label_smoothing=deletion.recipe.label_smoothing)
                along = _from_teacher(deletion, batch, logits, heat)
                deletion.descend(optimizer, gamma * truth + alpha * along)
            yield epoch + 1


def _from_teacher(deletion: Deletion, batch: Batch, logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student), a mean over the batch."""
    with torch.no_grad():
        taught = (deletion.answer(deletion.original, batch.x) / temperature).softmax(dim=1)
    return temperature**2 * divergence(taught, logits, temperature)


@dataclass(frozen=True)
class ScrubRewind(Scrub):
    """SCRUB, gone back to the epoch whose forget error is that of unseen records (SCRUB+R).

    Attributes: as for ``scrub``. Validation records of the forgotten classes are needed.
    """

    name = "scrub_r"
    needs = Need.FORGET_DATA | Need.RETAIN_DATA | Need.VALIDATION_DATA

    def _forget(self, work: nn.Module, deletion: Deletion) -> nn.Module:
        unseen, weight = _like_forgotten(deletion)
        ends = [copy.deepcopy(work.state_dict()) for _ in self._trained(work, deletion)]
        if not ends:
            return work
        expected = float(np.average(_wrong(work, deletion, unseen), weights=weight))
        gaps = []
        for end in ends:
            work.load_state_dict(end)
            gaps.append(abs(float(_wrong(work, deletion, deletion.request.forget).mean()) - expected))
        nearest = min(range(len(gaps)), key=lambda place: (gaps[place], -place))
        work.load_state_dict(ends[nearest])
        return work


def _like_forgotten(deletion: Deletion) -> tuple[Ids, NDArray[np.float64]]:
    """Return validation ids of the forgotten classes, and weights that give each class its share of the forget set."""
    request = deletion.request
    gone, held = deletion.labels(request.forget), deletion.labels(request.validation)
    kept = np.isin(held, gone)
    if not kept.any():
        raise MissingNeed(
            "scrub_r needs validation records of the classes that the forget records have "
            f"({np.unique(gone)[:10].tolist()}), and there are none; give some, or take scrub"
        )
    share = np.bincount(gone, minlength=deletion.data.n_classes) / gone.size
    number = np.bincount(held, minlength=deletion.data.n_classes)
    return request.validation[kept], share[held[kept]] / number[held[kept]]


def _wrong(module: nn.Module, deletion: Deletion, ids: Ids) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = deletion.logits(module, ids).argmax(axis=1) != deletion.labels(ids)
    return wrong


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
