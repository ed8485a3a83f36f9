"""Relearn time (Golatkar et al. 2020, arXiv 1911.04933): how soon does further training bring the forgotten back?

A copy of the model after deletion is trained by plain SGD until its loss on its forgotten records is that of the model
before deletion; a model that only hides them is soon there. The number means little by itself: it depends on the step
size and on how well the rest of the data teaches those records. Read it against retrained models, which take their
time although they know nothing: that is the floor, measured with the same batches, model by model.

As in the release an "epoch" is 500 records drawn with replacement from the full training set, at a learning rate of
0.01 without momentum or weight decay, up to 100 of them. Deviations: a model that is there at once takes 0 epochs
(there: 1); modules stay in eval mode, so that neither dropout nor batch statistics add noise; a model that never gets
there counts with the cap, so that the mean is a mean restricted to it, and how many there are is said.
"""

import copy
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import nn
from torch.nn.functional import cross_entropy

from mnemoscope.audit.answers.oracle import Oracle
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.measures import Measurement, Worlds
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["RelearnTime", "forget_loss", "relearn"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
TrainOn = Literal["all", "forget"]

LEVEL = 0.95
INFERENCE = 1024
"""Records in one forward pass of the loss."""


@dataclass(frozen=True)
class RelearnTime:
    """Epochs of further training until the forgotten records' loss is what it was before deletion.

    Attributes:
        train_on: "all", the training set as it was, forgotten records included, or "forget", those alone.
        lr: learning rate of plain SGD.
        records: records an epoch, drawn with replacement.
        batch: records a step.
        cap: epochs after which a model counts as not there.
        tolerance: loss above that of the model before deletion that counts as there, in nats.
        models: how many models to train, evenly spaced over the fleet; 0 is all.
    """

    train_on: TrainOn = "all"
    lr: float = 0.01
    records: int = 500
    batch: int = 128
    cap: int = 100
    tolerance: float = 1e-5
    models: int = 0
    name = "relearn_time"
    needs = Need.ORACLE | Need.GRADIENT

    def __post_init__(self) -> None:
        if self.train_on not in get_args(TrainOn):
            raise InvalidInput(f"train_on={self.train_on!r} is unknown; allowed: {', '.join(get_args(TrainOn))}")
        if not 0 < self.lr < np.inf or not 0 <= self.tolerance < np.inf:
            raise InvalidInput(f"lr={self.lr!r} must be positive, tolerance={self.tolerance!r} at least 0")
        if min(self.records, self.batch, self.cap) < 1 or self.models < 0:
            raise InvalidInput(
                f"records={self.records!r}, batch={self.batch!r}, cap={self.cap!r} must be at least 1 "
                f"and models={self.models!r} at least 0"
            )

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return mean epochs after deletion and, as floor, for retrained models with the same batches.

        Raises:
            MissingNeed: models without live access to their parameters.
            InvalidInput: no model was to forget anything.
        """
        fleets = [_oracles(fleet) for fleet in (worlds.after, worlds.control, worlds.before)]
        able = np.flatnonzero((worlds.role == Role.FORGOTTEN).any(axis=1))
        if able.size == 0:
            raise InvalidInput("no model was to forget anything; name records to forget")
        if 0 < self.models < able.size:
            able = able[np.linspace(0, able.size - 1, self.models).round().astype(np.int64)]
        seeds = rng.integers(0, 2**63, able.size)
        epochs = np.zeros((2, able.size))
        for place, (model, seed) in enumerate(zip(able, seeds, strict=True)):
            forget, train = self._sets(worlds, int(model))
            target = forget_loss(fleets[2][model].module(), fleets[2][model], forget) + self.tolerance
            for kind in range(2):
                draw = np.random.default_rng(seed)
                epochs[kind, place] = relearn(fleets[kind][model], forget, train, target, self, rng=draw)
        late = (epochs > self.cap).sum(axis=1)
        capped = np.minimum(epochs, self.cap)
        value, floor = (_mean(times, 0.0, self.cap, int(n)) for times, n in zip(capped, late, strict=True))
        return Measurement(
            self.name,
            value,
            floor,
            unit="epochs",
            direction="smaller than retrained models is residue, larger is over-forgetting",
            note=self._note(worlds, capped, late),
            excess=self._excess(capped, late),
            no_op=Estimate(0.0, n=able.size, reason="by definition: the loss to reach is that of these models"),
        )

    def _excess(self, capped: Floats, late: NDArray[np.int64]) -> Estimate:
        if late.min() == capped.shape[1]:
            return Estimate(
                None,
                n=int(late.min()),
                reason=f"no model is there after {self.cap} epochs, so none differs from another; "
                "raise lr, tolerance or cap",
            )
        return _mean(capped[0] - capped[1], -self.cap, self.cap, 0)

    def _sets(self, worlds: Worlds, model: int) -> tuple[Ids, Ids]:
        """Ids to forget and to train on, ascending."""
        role, ids = worlds.role[model], worlds.after.ids
        forget = np.sort(ids[role == Role.FORGOTTEN])
        if self.train_on == "forget":
            return forget, forget
        background = np.zeros(0, np.int64) if worlds.background is None else worlds.background
        trained = np.isin(role, (Role.KEPT, Role.FORGOTTEN, Role.BACKGROUND))
        return forget, np.union1d(ids[trained], background)

    def _note(self, worlds: Worlds, capped: Floats, late: NDArray[np.int64]) -> str:
        models, mean = capped.shape[1], capped.mean(axis=1)
        ratio = f"{mean[0] / mean[1]:.3g}" if mean[1] > 0 else "not defined: retrained models are there at once"
        note = f"ratio to retrained models {ratio}; not there after {self.cap} epochs: {late[0]} of {models} models, "
        note += f"{late[1]} of {models} retrained ones, counted with the cap"
        if late.any():
            note += ", so the means are restricted to it"
        if self.train_on == "all" and worlds.background is None:
            note += "; trained on the audited records alone, no others were named"
        return note


def relearn(
    oracle: Oracle, forget: Ids, train: Ids, target: float, settings: RelearnTime, *, rng: np.random.Generator
) -> int:
    """Train a copy of a model until its loss on ``forget`` is at most ``target``.

    Args:
        oracle: of the model, which is left as it is.
        forget: ids whose loss is watched.
        train: ids to draw from.
        target: loss in nats.
        settings: see ``RelearnTime``.
        rng: draws the batches.

    Returns:
        Epochs, 0 where it is there at once, cap + 1 where it is not there after the cap or its loss is not finite.
    """
    module = copy.deepcopy(oracle.module()).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr)
    for epoch in range(settings.cap + 1):
        loss = forget_loss(module, oracle, forget)
        if loss <= target:
            return epoch
        if not np.isfinite(loss) or epoch == settings.cap:
            break
        drawn = train[rng.integers(0, train.size, settings.records)]
        for part in np.array_split(drawn, -(-drawn.size // settings.batch)):
            with torch.enable_grad():
                value = cross_entropy(module(_cast(module, oracle.inputs(part))), oracle.labels(part))
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            oracle.count_gradients(int(part.size))
    return settings.cap + 1


def forget_loss(module: nn.Module, oracle: Oracle, ids: Ids) -> float:
    """Return the mean cross-entropy of a module on the oracle's records, in nats, summed in float64."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, ids.size, INFERENCE):
            part = ids[start : start + INFERENCE]
            logits = module(_cast(module, oracle.inputs(part))).double()
            total += float(cross_entropy(logits, oracle.labels(part), reduction="sum"))
    return total / ids.size


def _cast(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return inputs.to(next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32))


def _oracles(fleet: Reference) -> tuple[Oracle, ...]:
    if fleet.oracles is None or not all(oracle.white_box for oracle in fleet.oracles):
        raise MissingNeed("relearn_time needs live access to the parameters of all models, also of retrained ones")
    return fleet.oracles


def _mean(times: Floats, low: float, high: float, late: int) -> Estimate:
    """Mean over models with a t interval; a single model has none."""
    value, n = float(times.mean()), times.size
    reason = f"{late} of {n} models are not there at the cap and count with it" if late else None
    if n < 2:
        return Estimate(value, n=n, reason="; ".join(filter(None, [reason, "one model shows no spread"])))
    if times.min() == times.max():
        # A t interval of no width would claim to know every further model.
        return Estimate(value, n=n, reason="; ".join(filter(None, [reason, f"all {n} models alike: no interval"])))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * float(times.std(ddof=1)) / n**0.5
    interval = Interval(max(low, value - half), min(high, value + half), LEVEL, "two", "t over models")
    return Estimate(value, interval, n=n, reason=reason)
