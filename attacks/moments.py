"""Means and variances over the models of one side, for all records, with each target left out in closed form."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments", "evened_counts", "left_out_mean", "left_out_moments", "mean_over", "moments"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CANCELLED = 1e-4
"""A down-dated sum of squares below this share of the whole has lost digits and is summed afresh."""


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of one side, broadcastable to the scored signals.

    Where ``number`` is 0 the mean means nothing; it is finite.
    """

    number: Floats
    mean: Floats
    squares: Floats


def moments(phi: Floats, mask: Mask) -> Moments:
    """Moments of each record over the masked models.

    Args:
        phi: (m, n) float64.
        mask: (m, n) bool.

    Returns:
        Three arrays (n,).
    """
    count = mask.sum(axis=0, dtype=np.float64)
    mean = np.where(mask, phi, 0.0).sum(axis=0) / np.maximum(count, 1.0)
    deviation = np.where(mask, phi - mean, 0.0)
    return Moments(count, mean, np.einsum("ij,ij->j", deviation, deviation))


def left_out_moments(phi: Floats, mask: Mask) -> Moments:
    """Moments of a side without the model of each row, down-dated from the whole side's.

    Args:
        phi: (m, n) float64.
        mask: (m, n) bool.

    Returns:
        Three arrays (m, n): row k is ``moments`` over the masked models other than k.
    """
    count = mask.sum(axis=0, dtype=np.float64)
    weight = mask.astype(np.float64)
    mean = np.einsum("ij,ij->j", phi, weight) / np.maximum(count, 1.0)
    deviation = (phi - mean) * weight
    squares = deviation * deviation
    whole = squares.sum(axis=0)
    left = 1.0 / np.maximum(count - 1.0, 1.0)
    squares *= -(count * left)
    squares += whole
    deviation *= -left
    deviation += mean
    lost = squares < CANCELLED * whole
    if lost.any():
        row, column = np.nonzero(lost)
        keep = mask[:, column]
        keep[row, np.arange(row.size)] = False
        _, deviation[lost], squares[lost] = moments(phi[:, column], keep)
    return Moments(count - weight, deviation, squares)


def evened_counts(inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """Return the counts of both sides that a record would have were its models shared out as the fleet's are.

    In a balanced design each record has as many IN models as any other. Leave the target out, and the side it came
    from has one less: whatever depends on the counts names the truth, and scores are below one half where nothing
    leaks. Weighed by these counts instead, both truths look alike. Where all records have the same counts they stay as
    they are; so do counts that are a model or more away from the fleet's shares, as in ragged designs.

    Args:
        inside: (n,) or (m, n) float64, IN models of each record; the last axis holds the records of one target.
        outside: the same for OUT models.

    Returns:
        Two arrays of that shape.
    """
    total = inside + outside
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
    total = np.zeros_like(values)
    np.cumsum(held[:-1], axis=0, out=total[1:])
    total[:-1] += np.cumsum(held[:0:-1], axis=0)[::-1]
    total /= mask.sum(axis=0) - mask
    return total
