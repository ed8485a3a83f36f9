"""Attack-S and Attack-R of Ye et al. 2022 (arXiv 2111.09679): what a threshold on the loss may depend on.

S: on nothing but shadow models. P, on the model, is ``population``. R: on the record, by models trained without it.
D, on both, needs distilled references. L, on everything but the record, is R with references retrained on all the
other training records of the target: hand those as OUT models to ``attack_r``; it has no code of its own.

Attack-R smooths the empirical distribution of a record's reference losses as the paper's release does: a point at loss
0, one at 1000, and straight lines between. Deviations: the score is minus the smoothed share of losses below, not one
minus it, which rounds to 1 for the best-fitted records; tied losses, where the lines jump, count half. A target that
is left out of its own references leaves its records with one fewer, and the smoothed shares of 15 models do not lie
where those of 16 do: without a leak 6 % of never-held records fell below the lowest 1 % of the others. So a record with
one reference more than the rest gives one up, drawn by a hash of the losses: target and references are then
exchangeable where nothing leaks, and the AUC is one half in expectation with any number of models (measured with 4, 8,
16 and 32 a side: 0.500, 0.502, 0.499, 0.500, standard error 0.002).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.moments import record_blocks
from mnemoscope.audit.answers.blocks import over_blocks
from mnemoscope.audit.answers.views import Need, Reference, Side, View, require_models
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.counts import threshold_at

__all__ = ["AttackR", "AttackS"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

LARGEST_LOSS = 1000.0
"""In nats; the upper end of every record's distribution."""


@dataclass(frozen=True)
class AttackS:
    """Attack-S: the loss itself, with one threshold for all records that shadow models set at a false-positive rate.

    Attributes:
        fpr: the threshold's false-positive rate on the shadow models' non-members; it does not change the order.
    """

    fpr: float = 0.05
    name = "attack_s"
    needs = Need.SCORES | Need.SHADOW_OUT

    def __post_init__(self) -> None:
        if not 0 < self.fpr < 1:
            raise InvalidInput(f"fpr={self.fpr!r} must lie in (0, 1)")

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "AttackSScorer":
        """Set the threshold on all OUT pairs of model and record; nothing is drawn from ``rng``."""
        outside = reference.averaged("negative_loss")[reference.side == Side.OUT]
        threshold = threshold_at(outside, self.fpr)
        return AttackSScorer(float(threshold if np.isfinite(threshold) else np.nextafter(outside.max(), np.inf)))

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Return the signal: no other model takes part in it."""
        mean: Floats = reference.averaged("negative_loss")
        return mean


@dataclass(frozen=True)
class AttackSScorer:
    """The negative loss; at most ``fpr`` of the shadow models' non-members reach ``threshold``."""

    threshold: float

    def score(self, view: View) -> Floats:
        """Return (n,) float64."""
        mean: Floats = view.averaged("negative_loss")
        return mean


@dataclass(frozen=True)
class AttackR:
    """Attack-R: minus the smoothed share of models without the record whose loss on it is below the target's.

    -alpha as a threshold gives each record a false-positive rate near alpha, from 1 / (number of references) upwards.
    """

    name = "attack_r"
    needs = Need.SCORES | Need.SHADOW_OUT

    def fit(self, reference: Reference, *, rng: np.random.Generator) -> "AttackRScorer":
        """Nothing to learn before the target's losses are known."""
        require_models(reference.side, 1, False, reference.ids)
        return AttackRScorer(reference)

    def score_fleet(self, reference: Reference, *, rng: np.random.Generator) -> Floats:
        """Score every model against all the others, in closed form."""
        require_models(reference.side, 2, False, reference.ids)
        outside = reference.side == Side.OUT
        over = _one_too_many_left_out(outside)
        total = np.zeros(outside.shape)
        for signal in np.moveaxis(reference.signal("negative_loss"), -1, 0):

            def work(records: slice, signal: Floats = signal) -> None:
                part = _clipped(signal[:, records])
                total[:, records] -= _evened_shares(part, outside[:, records], over[:, records])

            over_blocks(work, record_blocks(*outside.shape), values=outside.size)
        total /= reference.logits.shape[-2]
        return total


@dataclass(frozen=True, eq=False)
class AttackRScorer:
    """Attack-R with the losses of its references."""

    reference: Reference

    def score(self, view: View) -> Floats:
        """Return (n,) float64 in [-1, 0]."""
        at = self.reference.positions(view.ids)
        everyone = self.reference.side == Side.OUT
        over = _one_too_many(everyone.sum(axis=0)[None])[0, at]
        outside = everyone[:, at]
        total = np.zeros(view.n_records)
        for known, loss in zip(_losses(self.reference), _losses(view), strict=True):
            kept = outside & ~(_given_up(known[:, at], outside) & over)
            total -= _shares(loss[None], known[:, at], kept)[0]
        total /= view.logits.shape[-2]
        return total


def _losses(answers: View | Reference) -> Floats:
    """Losses with the queries in front."""
    return _clipped(np.moveaxis(answers.signal("negative_loss"), -1, 0))


def _clipped(signal: Floats) -> Floats:
    return np.clip(-signal, 0.0, LARGEST_LOSS)


def _one_too_many(count: Counts) -> Mask:
    """Return where a record (k, n) has one reference more than others, for targets whose records differ by just one."""
    low, high = count.min(axis=1, keepdims=True), count.max(axis=1, keepdims=True)
    over: Mask = (high - low == 1) & (count == high)
    return over


def _one_too_many_left_out(outside: Mask) -> Mask:
    """``_one_too_many`` of the references (m, n) that each of m models has when it is left out of them."""
    number = np.count_nonzero(outside, axis=0)
    over = np.empty_like(outside)
    for own, mask in zip(over, outside, strict=True):  # row by row: counts of a whole fleet are large
        own[:] = _one_too_many((number - mask)[None])[0]
    return over


def _given_up(loss: Floats, outside: Mask) -> Mask:
    """Return (m, n) with the one OUT model of each record that it gives up: the one whose loss has the least hash.

    A hash of the value alone: models in another order, or equal losses, give up the same number.
    """
    bits = np.ascontiguousarray(loss).view(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed = np.where(outside, mixed ^ (mixed >> np.uint64(31)), np.uint64(2**64 - 1))
    chosen = np.zeros(outside.shape, np.bool_)
    np.put_along_axis(chosen, hashed.argmin(axis=0)[None], True, axis=0)
    return chosen & outside


def _evened_shares(loss: Floats, outside: Mask, over: Mask) -> Floats:
    """``_left_out_shares`` where each (model, record) in ``over`` does without one of its references."""
    given_up = _given_up(loss, outside) if over.any() else np.zeros_like(over)
    shares, *fewer = _left_out_shares(loss, [outside, outside & ~given_up] if over.any() else [outside])
    if not fewer:
        return shares
    np.copyto(shares, fewer[0], where=over)
    # A target that would itself be given up: its record gives up the next.
    for k, j in np.argwhere(over & given_up):
        others = outside[:, j : j + 1].copy()
        others[k] = False
        others &= ~_given_up(loss[:, j : j + 1], others)
        shares[k, j] = _shares(loss[k, j : j + 1][None], loss[:, j : j + 1], others)[0, 0]
    return shares


def _shares(loss: Floats, known: Floats, outside: Mask) -> Floats:
    """Smoothed share (k, n) of the losses ``known`` (m, n) of OUT models below those of k targets ``loss`` (k, n)."""
    shares = np.empty(loss.shape)
    for k, own in enumerate(loss):
        below = outside & (known < own)
        above = outside & (known > own)
        tied = (outside & (known == own)).sum(axis=0)
        low = np.where(below, known, 0.0).max(axis=0)
        high = np.where(above, known, LARGEST_LOSS).min(axis=0)
        shares[k] = _interpolated(own, below.sum(axis=0), tied, outside.sum(axis=0), low, high)
    return shares


def _left_out_shares(loss: Floats, masks: Sequence[Mask]) -> list[Floats]:
    """``_shares`` of each of the m models against the others, for several masks of OUT models.

    One sort a record serves all of them, unless losses are tied.
    """
    order = np.ascontiguousarray(np.argsort(np.ascontiguousarray(loss.T), axis=1).T)
    order *= loss.shape[1]
    order += np.arange(loss.shape[1])
    ranked = loss.take(order)
    ends = (ranked[0] == 0.0) | (ranked[-1] == LARGEST_LOSS)
    rest = np.flatnonzero(~((ranked[1:] > ranked[:-1]).all(axis=0) & ~ends))
    found = []
    for outside in masks:
        out = outside.take(order)
        # The losses of the OUT models before and after each place; its own is neither.
        low, high = np.zeros_like(ranked), np.full_like(ranked, LARGEST_LOSS)
        np.maximum.accumulate(np.where(out[:-1], ranked[:-1], 0.0), axis=0, out=low[1:])
        high[:-1] = np.minimum.accumulate(np.where(out[:0:-1], ranked[:0:-1], LARGEST_LOSS), axis=0)[::-1]
        below = np.zeros(out.shape)
        np.cumsum(out[:-1], axis=0, out=below[1:])
        shares = np.empty_like(loss)
        # Without ties or losses at an end, every loss lies strictly between its neighbours.
        share = ranked - low
        high -= low
        np.maximum(high, np.finfo(np.float64).tiny, out=high)
        share /= high
        share += below
        share /= outside.sum(axis=0) + 1.0 - out
        shares.reshape(-1)[order] = share
        for k in range(loss.shape[0] if rest.size else 0):
            others = outside[:, rest].copy()
            others[k] = False
            shares[k, rest] = _shares(loss[k, rest][None], loss[:, rest], others)[0]
        found.append(shares)
    return found


def _interpolated(loss: Floats, below: Counts, tied: Counts, number: Counts, low: Floats, high: Floats) -> Floats:
    """Place of a loss among 0, ``number`` sorted losses and 1000, as a share; the middle of its block where tied."""
    first = np.where(loss > 0.0, below + 1, 0)
    last = np.where(loss < LARGEST_LOSS, below + tied, number + 1)
    width = np.maximum(high - low, np.finfo(np.float64).tiny)
    between = below + (loss - low) / width
    place = np.where(first <= last, (first + last) / 2.0, between)
    share: Floats = place / (number + 1.0)
    return share
