"""Means and variances over the models of one side, for all records, with each target left out in closed form.

The functions hold several copies of what they are given. Whoever scores a large fleet calls them for one block of
records after another (``record_blocks``), whose copies stay in the cache.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Moments",
    "evened_counts",
    "left_out_mean",
    "left_out_moments",
    "left_out_squares",
    "mean_over",
    "moments",
    "record_blocks",
]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CANCELLED = 1e-4
"""A down-dated sum of squares below this share of the whole has lost digits and is summed afresh."""


BLOCK_CELLS = 64_000
"""Pairs of model and record in a block: smaller ones would cost more in calls than a faster cache saves."""


def record_blocks(models: int, records: int) -> Iterator[slice]:
    """Yield slices of the records, in order, for working on all models of some records at a time."""
    step = max(1, BLOCK_CELLS // max(1, models))
    for start in range(0, records, step):
        yield slice(start, start + step)


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of one side, broadcastable to the scored signals.

    Where ``number`` is 0 the mean means nothing; it is finite.
    """

    number: Floats
    mean: Floats
    squares: Floats

    def part(self, records: slice) -> "Moments":
        """Return those of some records."""
        return Moments(self.number[..., records], self.mean[..., records], self.squares[..., records])


def moments(phi: Floats, mask: Mask) -> Moments:
    """Moments of each record over the masked models.

    Args:
        phi: (m, n) float64.
        mask: (m, n) bool.

    Returns:
        Three arrays (n,).
    """
    weight = mask.astype(np.float64)
    number, mean = _mean(phi, weight)
    squares = phi - mean
    squares *= weight
    squares *= squares
    return Moments(number, mean, squares.sum(axis=0))


def _mean(phi: Floats, weight: Floats) -> tuple[Floats, Floats]:
    number = weight.sum(axis=0)
    mean = np.einsum("ij,ij->j", phi, weight)
    mean /= np.maximum(number, 1.0)
    return number, mean


def left_out_moments(phi: Floats, mask: Mask, whole: Moments | None = None) -> Moments:
    """Moments of a side without the model of each row, down-dated from the whole side's.

    Args:
        phi: (m, n) float64.
        mask: (m, n) bool.
        whole: ``moments(phi, mask)``, where it is known.

    Returns:
        Three arrays (m, n): row k is ``moments`` over the masked models other than k.
    """
    weight = mask.astype(np.float64)
    count, mean = _mean(phi, weight) if whole is None else whole[:2]
    deviation = phi - mean
    deviation *= weight
    squares = deviation * deviation
    total = squares.sum(axis=0) if whole is None else whole.squares
    left = 1.0 / np.maximum(count - 1.0, 1.0)
    squares *= -(count * left)
    squares += total
    deviation *= -left
    deviation += mean
    lost = squares < CANCELLED * total
    if lost.any():
        row, column = np.nonzero(lost)
        keep = mask[:, column]
        keep[row, np.arange(row.size)] = False
        _, deviation[lost], squares[lost] = moments(phi[:, column], keep)
    return Moments(np.subtract(count, weight, out=weight), deviation, squares)


def left_out_squares(phi: Floats, mask: Mask) -> tuple[Moments, Floats]:
    """Return ``moments`` and the sums (m,) over all records of what ``left_out_moments`` has as ``squares``."""
    weight = mask.astype(np.float64)
    number, mean = _mean(phi, weight)
    squares = phi - mean
    squares *= weight
    squares *= squares
    whole = Moments(number, mean, squares.sum(axis=0))
    total = float(whole.squares.sum())
    sums: Floats = total - squares @ (number / np.maximum(number - 1.0, 1.0))
    if (sums < 10 * CANCELLED * total).any():
        sums = left_out_moments(phi, mask, whole).squares.sum(axis=1)
    return whole, sums


def evened_counts(inside: Floats, outside: Floats, share: Floats | None = None) -> tuple[Floats, Floats]:
    """Return the counts of both sides that a record would have were its models shared out as the fleet's are.

    In a balanced design each record has as many IN models as any other. Leave the target out, and the side it came
    from has one less: whatever depends on the counts names the truth, and scores are below one half where nothing
    leaks. Weighed by these counts instead, both truths look alike. Where all records have the same counts they stay as
    they are; so do counts that are a model or more away from the fleet's shares, as in ragged designs.

    Args:
        inside: (n,) or (m, n) float64, IN models of each record; the last axis holds the records of one target.
        outside: the same for OUT models.
        share: the fleet's share of IN models, broadcastable, where the counts are not those of all records.

    Returns:
        Two arrays of that shape.
    """
    total = inside + outside
    if share is None:
        share = inside.sum(axis=-1, keepdims=True) / total.sum(axis=-1, keepdims=True)
    even = share * total
    near = np.abs(inside - even) < 1.0
    near &= (inside > 0) & (outside > 0)
    return np.where(near, even, inside), np.where(near, total - even, outside)


def mean_over(values: Floats, mask: Mask) -> Floats:
    """Mean over the masked models (m, n) of ``values`` (m, n) or (m, n, q); at least one model a record."""
    shown = mask if values.ndim == 2 else mask[..., None]
    total: Floats = np.where(shown, values, 0.0).sum(axis=0)
    total /= shown.sum(axis=0)
    return total


def left_out_mean(values: Floats, mask: Mask) -> Floats:
    """Mean (m, n) over the masked models other than each row's own; at least two masked models a record.

    Sums before and after the row instead of a sum minus the row: probabilities span hundreds of orders of
    magnitude, and a difference would lose the small ones.
    """
    held = np.where(mask, values, 0.0)
    total = np.empty_like(held)
    total[:1] = 0.0
    for k in range(1, held.shape[0]):
        np.add(total[k - 1], held[k - 1], out=total[k])
    after = np.zeros(held.shape[1:])
    for k in range(held.shape[0] - 1, -1, -1):
        total[k] += after
        after += held[k]
    total /= np.count_nonzero(mask, axis=0).astype(np.float64) - mask
    return total
