"""Privacy losses of single records along one training: how hard each is to forget by noisy fine-tuning.

Known to us is the abstract of Sepahvand et al. 2025 (arXiv 2505.18786): privacy losses of single records in place of
worst-case bounds say how many steps of noisy fine-tuning bring a model near retraining, easy records needing fewer, and
they go with other measures of difficulty. The accounting here is our own, from two known parts:

- A step that averages over b records and adds Gaussian noise of standard deviation s to each entry of the gradient
  reveals of record i, whose gradient has norm g, at most the Renyi divergence a (g / b)^2 / (2 s^2) of order a
  (Mironov 2017, arXiv 1702.07476). Its sum over all steps that used the record is the record's **privacy loss**.
- Later noise hides earlier steps (privacy amplification by iteration, Feldman et al. 2018, arXiv 1808.06651): where no
  step drives two weight vectors apart, a shift of the weights may be charged to the noise of any later step instead of
  to its own. The best way of charging is the greatest convex minorant of the accumulated shifts over the accumulated
  variance; k more steps make the line longer and so less steep. Weight decay draws the two together and adds to that.

What it is not: a guarantee. Gradients are those of one run, noise in training is assumed where there was none, and the
steps of a neural network do drive weights apart. With noise that a model survives the bounds are tens to thousands of
nats. They rank records and pace the fine-tuning; no claim of certified removal follows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.gradients import log_norms
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.training import Batch
from mnemoscope.unlearning.base import evaluating

__all__ = ["PrivacyAccount", "privacy_account"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PrivacyAccount:
    """What one training revealed of some of its records, and what further noisy steps leave of it.

    Units of weights are such that a gradient of 1 moves them by 1 in a step of fine-tuning.

    Attributes:
        ids: (n,) int64 records.
        order: a of the Renyi divergence, above 1.
        noise: s, standard deviation of the noise on each entry of the averaged gradient, in all steps.
        used: (n, v) float64, g / b at each of the v steps that used the record, in their order; 0 where it had fewer.
        rate: (n, v) float64, learning rate of that step over that of fine-tuning.
        before: (n, v) float64, variance that training had added before that step.
        after: variance at the end of training.
        scale: (n, v) float64, by how much weight decay drew weights together up to and with that step, 1 without it.
        shrink: the same for one step of fine-tuning, at most 1.
        shrunk: the same for all of training.

    Variances are divided by ``scale`` squared and shifts by ``scale``, which turns contracting steps into others.
    """

    ids: Ids
    order: float
    noise: float
    used: Floats
    rate: Floats
    before: Floats
    after: float
    scale: Floats
    shrink: float
    shrunk: float

    @property
    def losses(self) -> Floats:
        """Privacy loss of each record, (n,) float64 nats: a measure of difficulty, larger = harder to forget."""
        total: Floats = self.order * np.square(self.used).sum(axis=1) / (2 * self.noise**2)
        return total

    def remaining(self, steps: int) -> Floats:
        """Return the bound on each record's Renyi divergence, (n,) nats, after so many steps of noisy fine-tuning."""
        shift = self.used * self.rate / self.scale
        earlier = shift.cumsum(axis=1) - shift
        height, time = shift.sum(axis=1), np.full(len(shift), self.after + self._variance(steps))
        total = np.zeros(len(shift))
        rows = np.arange(len(shift))
        # Corners of the minorant from the last to the first: each time the steepest line back to a corner below.
        while (height > 0).any():
            ahead = (self.before < time[:, None]) & (earlier < height[:, None])
            width = np.where(ahead, time[:, None] - self.before, 1.0)
            slope = np.where(ahead, (height[:, None] - earlier) / width, 0.0)
            corner = slope.argmax(axis=1)
            steepest = slope[rows, corner]
            moved = height > 0
            total += np.where(moved, steepest**2 * width[rows, corner], 0.0)
            height = np.where(moved, earlier[rows, corner], 0.0)
            time = np.where(moved, self.before[rows, corner], time)
        bound: Floats = self.order * total / 2
        return bound

    def steps_for(self, target: float, *, most: int) -> int:
        """Return the fewest steps after which no record's bound is above the target, or ``most``."""
        if not target > 0 or most < 0:
            raise InvalidInput(f"target={target!r} must be positive and most={most!r} at least 0")
        low, high = -1, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.remaining(middle).max() <= target else (middle, high)
        return high

    def strata(self, parts: int) -> tuple[Ids, ...]:
        """Divide the records into parts of equal size (up to one record) by privacy loss, the easiest first."""
        if not 1 <= parts <= self.ids.size:
            raise InvalidInput(f"parts={parts!r} must be 1 to {self.ids.size}, the number of records")
        by_loss = np.lexsort((self.ids, self.losses))
        return tuple(np.sort(self.ids[part]) for part in np.array_split(by_loss, parts))

    def _variance(self, steps: int) -> float:
        # Beyond e^600 nothing is left to hide, and the square would leave the range of float64.
        grown = np.minimum(-2.0 * np.log(self.shrink) * np.arange(1, steps + 1), 600.0)
        return float(self.noise**2 * np.exp(grown).sum() / self.shrunk**2)


def privacy_account(
    model: nn.Module,
    history: History,
    ids: Ids,
    *,
    recipe: Recipe,
    data: DeviceData,
    runtime: Runtime,
    lr: float,
    order: float = 2.0,
    noise: float = 0.003,
    every: int = 1,
) -> PrivacyAccount:
    """Train the model again and note the gradient norm of each record at every step that uses it.

    Args:
        model: what the training must arrive at; left as it is.
        history: of the model.
        ids: (n,) int64 records of its training, at least one.
        recipe: of the training.
        data: with all records of the training.
        runtime: as in the training.
        lr: rate of the fine-tuning to come.
        order: of the Renyi divergence, above 1.
        noise: standard deviation on each entry of the averaged gradient, positive; assumed in training too.
        every: the norm of a record is measured at every so manyth use and kept for those between; 1 measures all.

    Returns:
        The account. Norms are those of the plain cross-entropy in eval mode, on inputs augmented as in the step.
        Momentum is taken to be the same in fine-tuning, where it multiplies shifts and noise alike.

    Raises:
        InvalidInput: impossible settings, no records, or records that were not trained on.
        StaleArtifact: the history is not this model's.
    """
    ids = np.sort(np.asarray(ids, np.int64))
    if not (order > 1 and noise > 0 and lr > 0 and every >= 1):
        raise InvalidInput(
            f"order={order!r} must be above 1, noise={noise!r} and lr={lr!r} positive, every={every!r} at least 1"
        )
    strangers = np.setdiff1d(ids, history.ids)
    if not ids.size or strangers.size:
        raise InvalidInput(
            f"{strangers.size} of {ids.size} records were not trained on (first {strangers[:5].tolist()}); "
            "name at least one, and only records of the training"
        )
    watcher = _NormWatcher(data, ids, recipe, lr, noise, every)
    history.replay(model, recipe, data, runtime=runtime, watcher=watcher)
    return watcher.account(order)


class _NormWatcher:
    """Notes (record, g / b, rate, variance before, scale) at each use of a watched record."""

    def __init__(self, data: DeviceData, ids: Ids, recipe: Recipe, lr: float, noise: float, every: int) -> None:
        self.data, self.ids, self.lr, self.noise, self.every = data, ids, lr, noise, every
        self.positions = data.positions(ids)
        self.decay = recipe.weight_decay / (1 - recipe.momentum if recipe.optimizer == "sgd" else 1.0)
        self.variance, self.shrunk = 0.0, 1.0
        self.norms = [0.0] * len(ids)
        self.uses: list[list[tuple[float, float, float, float]]] = [[] for _ in ids]

    def before_step(self, module: nn.Module, batch: Batch, inputs: Tensor, rate: float) -> None:
        relative = rate / self.lr
        earlier, self.shrunk = self.variance, self.shrunk * self._shrink(rate)
        self.variance += (self.noise * relative / self.shrunk) ** 2
        at = torch.isin(batch.positions, self.positions).nonzero().flatten()
        places = np.searchsorted(self.ids, self.data.ids[batch.positions[at].cpu().numpy()]).tolist()
        due = [number for number, place in enumerate(places) if len(self.uses[place]) % self.every == 0]
        if due:
            rows = at[torch.tensor(due, device=at.device)]
            with evaluating(module):
                norms = log_norms(module, inputs[rows], self.data.y[batch.positions[rows]]).exp().tolist()
            for number, norm in zip(due, norms, strict=True):
                self.norms[places[number]] = norm
        for place in places:
            shift = self.norms[place] / batch.positions.numel()
            self.uses[place].append((shift, relative, earlier, self.shrunk))

    def after_step(self, module: nn.Module, batch: Batch) -> None:
        pass

    def _shrink(self, rate: float) -> float:
        return max(1.0 - rate * self.decay, 0.5)

    def account(self, order: float) -> PrivacyAccount:
        visits = max(1, max(len(uses) for uses in self.uses))
        table = np.zeros((len(self.ids), visits, 4))
        # A use that never was: no shift, at the end of training.
        table[:, :, 1], table[:, :, 2], table[:, :, 3] = 1.0, self.variance, 1.0
        for row, uses in zip(table, self.uses, strict=True):
            row[: len(uses)] = np.array(uses).reshape(-1, 4)
        used, rate, before, scale = np.moveaxis(table, -1, 0)
        shrink = self._shrink(self.lr)
        return PrivacyAccount(
            self.ids, order, self.noise, used, rate, before, self.variance, scale, shrink, self.shrunk
        )
