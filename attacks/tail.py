"""The tail of the loss, one model at a time: our reading of LOSS-TNR ("The Tail Tells All", arXiv 2510.19773).

Losses have heavy tails, and what training does to a record shows first as its leaving the tail. The paper takes the
share of non-members above a loss that all but a share beta of the members stay below, and finds that it goes with what
per-record attacks with many shadow models reach. We could not verify its beta, nor the regression that maps the share
to such a rate; so this is a reading of it, without a rank among the attacks, and without that map.

Here the members are the forgotten records: where the share is beta they lie in the tail as never-seen records do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.statistics.clustered import density_ratio
from mnemoscope.audit.statistics.measures import Measurement, Worlds
from mnemoscope.audit.statistics.trials import Estimate, Interval

__all__ = ["LossTail", "tail_share"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ALSO = (0.001, 0.01, 0.05)
"""Shares beta whose values the note gives too, because the paper's own is not known to us."""

LEVEL = 0.95


@dataclass(frozen=True)
class LossTail:
    """Share of never-seen records above the loss that all but a share beta of the forgotten ones stay below.

    The value is the mean over models of that share minus what it is where nothing is remembered; it is negative where
    forgotten records have larger losses than never-seen ones (forgotten too well).

    Attributes:
        beta: share of forgotten records above the threshold, in (0, 0.5].
    """

    beta: float = 0.05
    name = "loss_tnr_reading"
    needs = Need.SCORES

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 0.5:
            raise InvalidInput(f"beta={self.beta!r} must lie in (0, 0.5]")

    def measure(self, worlds: Worlds, *, rng: np.random.Generator) -> Measurement:
        """Return the excess share with its floor; nothing is drawn from ``rng``."""
        forgotten, never = worlds.role == Role.FORGOTTEN, worlds.role == Role.NEVER
        losses = {name: _losses(getattr(worlds, name)) for name in ("after", "control", "before")}
        parts = {name: _parts(own, forgotten, never, self.beta) for name, own in losses.items()}
        values = {b: _estimate(*_parts(losses["after"], forgotten, never, b)) for b in ALSO}
        apart = tuple(a - b for a, b in zip(parts["after"], parts["control"], strict=True))
        n = int((forgotten | never).sum())
        others = "; ".join(f"{b:g}: {estimate.value:+.4f}" for b, estimate in values.items() if b != self.beta)
        return Measurement(
            self.name,
            _estimate(*parts["after"], n=n),
            _estimate(*parts["control"], n=n),
            unit="share of never-seen records",
            direction="larger: more never-seen records lie in a tail of high losses that forgotten ones have left",
            note=f"beta {self.beta:g}; at other beta {others}. Our reading of the paper, whose beta is not known to us",
            excess=_estimate(apart[0], apart[1], n=n),
            no_op=_estimate(*parts["before"], n=n),
        )


def tail_share(member: Floats, other: Floats, beta: float) -> tuple[float, float, float]:
    """Return the share of ``other`` above the threshold, that threshold, and the expected share if both are alike.

    The threshold is the (j + 1)-th largest member loss, j = floor(beta k): with k finite, records like the members lie
    above it with probability (j + 1) / (k + 1), not beta. Ties count as if they were broken at random, the members' own
    too, so that losses which are all equal show no tail.

    Args:
        member: (k,) float64 losses, k >= 1.
        other: (l,) float64 losses, l >= 1.
        beta: share of members above, in (0, 0.5].

    >>> tail_share(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.5, 3.5, 5.0, 9.0]), 0.25)
    (0.75, 3.0, 0.4)
    """
    above = int(np.floor(beta * member.size + 1e-9))
    threshold = float(np.sort(member)[member.size - 1 - above])
    share = float(_beyond(other, member, threshold, above).mean())
    return share, threshold, (above + 1.0) / (member.size + 1.0)


def _beyond(other: Floats, member: Floats, threshold: float, above: int) -> Floats:
    """1 above the threshold, 0 below; a tie is above the (j + 1)-th largest member as often as random breaking has it.

    With a members larger and t tied, the threshold is the (j + 1 - a)-th of the tied ones.
    """
    larger, tied = int((member > threshold).sum()), int((member == threshold).sum())
    weight = (above + 1 - larger) / (tied + 1.0)
    beyond: Floats = (other > threshold) + weight * (other == threshold)
    return beyond


def _parts(losses: Floats, forgotten: Mask, never: Mask, beta: float) -> tuple[Floats, Floats]:
    """Excess (m,) of each model, and (m, n) influence on their mean, the error of every threshold included."""
    _require(losses, forgotten, never)
    m, n = losses.shape
    influence, excess, gaps = np.zeros(losses.shape), np.empty(m), np.empty(losses.shape)
    for k in range(m):
        member, other = losses[k, forgotten[k]], losses[k, never[k]]
        share, threshold, null = tail_share(member, other, beta)
        excess[k], gaps[k] = share - null, losses[k] - threshold
        hits = _beyond(other, member, threshold, int(np.floor(beta * member.size + 1e-9)))
        influence[k, never[k]] = (hits - share) / (m * other.size)
    # One slope for all models: a single model's tail is too thin for a density.
    slope = density_ratio(gaps[never], gaps[forgotten], beta)
    for k in range(m):
        hit = gaps[k, forgotten[k]] > 0
        influence[k, forgotten[k]] = -slope * (hit - hit.mean()) / (m * hit.size)
    return excess, influence


def _estimate(excess: Floats, influence: Floats, n: int | None = None) -> Estimate:
    """Mean excess over models, clustered by model and record."""
    m, records = influence.shape
    # V_model + V_record - V_cell; that of the models is the spread of their values, because each model's threshold
    # centres the influence of its own records, whose sum would show none.
    by_model = float(excess.var(ddof=1)) / m
    by_record = float((influence.sum(axis=0) ** 2).sum()) * records / max(1, records - 1)
    variance = max(by_model + by_record - float((influence**2).sum()), by_model)
    value, width = float(excess.mean()), float(np.sqrt(variance) * stdtrit(m - 1, 0.5 + LEVEL / 2.0))
    method = "two-way clustered by model and record"
    interval = Interval(max(-1.0, value - width), min(1.0, value + width), LEVEL, "two", method)
    return Estimate(value, interval, n=n)


def _losses(reference: Reference) -> Floats:
    mean: Floats = -reference.signal("negative_loss").mean(axis=-1)
    return mean


def _require(losses: Floats, forgotten: Mask, never: Mask) -> None:
    if losses.shape[0] < 2:
        raise InvalidInput(f"loss_tnr_reading needs at least 2 models for an interval, given {losses.shape[0]}")
    for name, mask in (("forgotten", forgotten), ("never-seen", never)):
        empty = np.flatnonzero(~mask.any(axis=1))
        if empty.size:
            raise InvalidInput(
                f"loss_tnr_reading: {empty.size} models have no {name} record, e.g. model {int(empty[0])}. "
                "Use a design that gives every model both"
            )
