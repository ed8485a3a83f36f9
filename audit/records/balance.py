"""Matrices of roles with exact counts in every column and fold and equal counts in every row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_roles", "deal_cells", "fold_of_models"]

Ints = NDArray[np.int64]


def fold_of_models(n_models: int, folds: int) -> NDArray[np.int8]:
    """Return (n_models,) int8: contiguous folds whose sizes differ by at most one, larger folds first."""
    sizes = np.full(folds, n_models // folds)
    sizes[: n_models % folds] += 1
    return np.repeat(np.arange(folds), sizes).astype(np.int8)


def balanced_roles(
    n_records: int,
    roles: Sequence[int],
    counts: Sequence[int],
    fold: NDArray[np.int8],
    rng: np.random.Generator,
) -> NDArray[np.int8]:
    """Draw one of three roles for each (model, record) pair.

    Every record has each role exactly ``counts`` times, and in each fold the whole share of it when the count divides
    by the number of folds (else the nearest whole number below or above). Within a fold the models' counts of the
    first role differ by at most one, and so do those of the second: equal when they divide.
    Roles are permuted per record, then swapped within records, between the model with most and the model with least.

    Args:
        n_records: columns of the result.
        roles: the three role numbers.
        counts: how often each record has them; they add up to the number of models.
        fold: (m,) int8, fold of each model.
        rng: source of the permutations and of the choice of swaps.

    Returns:
        (m, n_records) int8.
    """
    role = np.empty((fold.size, n_records), np.int8)
    shares = _shares(n_records, counts, np.bincount(fold), rng)
    for number in range(shares.shape[1]):
        models = np.flatnonzero(fold == number)
        ends = shares[:, number].cumsum(axis=1)
        slot = np.arange(models.size)[:, None]
        block = (slot >= ends[:, 0]).astype(np.int8) + (slot >= ends[:, 1]).astype(np.int8)
        block = rng.permuted(block, axis=0)
        _even_rows(block, 0, rng)
        _even_rows(block, 1, rng)
        role[models] = np.asarray(roles, np.int8)[block]
    return role


def _shares(n_records: int, counts: Sequence[int], sizes: Ints, rng: np.random.Generator) -> Ints:
    """Deal each record's roles to the folds like cards: (n_records, folds, 3), floor or ceiling of the even share."""
    folds = sizes.size
    turn = rng.permutation(n_records)
    # Which role is dealt first, and to which fold, rotates over the records, so that no fold gets more of a role.
    offset = turn % folds if sizes.min() == sizes.max() else np.zeros(n_records, np.int64)
    first = (turn // folds) % 3
    shares = np.zeros((n_records, folds, 3), np.int64)
    for start in range(folds):
        for lead in range(3):
            rows = (offset == start) & (first == lead)
            order = np.roll(np.arange(3), -lead)
            cards = np.repeat(order, np.asarray(counts)[order])
            table = np.zeros((folds, 3), np.int64)
            np.add.at(table, ((np.arange(cards.size) + start) % folds, cards), 1)
            shares[rows] = table
    return shares


def _even_rows(block: NDArray[np.int8], role: int, rng: np.random.Generator) -> None:
    """Make the rows' counts of ``role`` differ by at most one, in place; columns and lower roles' counts stay."""
    count = (block == role).sum(axis=1)
    while count.max() - count.min() > 1:
        most, least = int(count.argmax()), int(count.argmin())
        mean = count.sum() / count.size
        move = min(count[most] - int(np.ceil(mean)), int(np.floor(mean)) - count[least])
        move = max(int(move), int(count[most] - count[least]) // 2 if move < 1 else 1)
        _move(block, role, most, least, move, rng)
        count[most] -= move
        count[least] += move


def _move(block: NDArray[np.int8], role: int, most: int, least: int, amount: int, rng: np.random.Generator) -> None:
    """Hand ``amount`` cells of ``role`` from row ``most`` to row ``least`` by swaps within columns."""
    # Only roles above this one are given in exchange: lower roles are even already and stay so.
    direct = np.flatnonzero((block[most] == role) & (block[least] > role))
    chosen = rng.permutation(direct)[:amount]
    rest = amount - chosen.size
    if rest:
        # Through a lower role: one column gives the role for a lower one, another the lower one for a higher one.
        # Enough of both exist whenever the direct swaps run out, because the rows' lower counts differ by at most one.
        given = np.flatnonzero((block[most] == role) & (block[least] < role))
        back = np.flatnonzero((block[most] < role) & (block[least] > role))
        chosen = np.concatenate([chosen, rng.permutation(given)[:rest], rng.permutation(back)[:rest]])
    block[most, chosen], block[least, chosen] = block[least, chosen], block[most, chosen]


def deal_cells(
    cells: NDArray[np.bool_], parts: int, fold: NDArray[np.int8], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Deal the marked cells of every record to parts, as evenly as they divide.

    Records with the same number of marked cells have the same number in each part: the first parts take what does not
    divide. In each fold a record's cells are dealt evenly too, to within one. Within a fold every model's share of a
    part is the floor or the ceiling of its even share, as far as swaps within records can reach that: the search along
    chains of models finds such a deal wherever there is one.

    Args:
        cells: (m, n) bool.
        parts: how many, at least 1.
        fold: (m,) int8, fold of each model.
        rng: source of the deal and of the choice of swaps.

    Returns:
        (m, n) int16: number of the part from 0 on, -1 where the cell is not marked.
    """
    n = cells.shape[1]
    folds = int(fold.max()) + 1 if fold.size else 0
    # Cards 0, 1, .., 0, 1, .. along a record's cells, fold by fold: any stretch of them is even. Which fold comes first
    # is drawn for every record, so that no fold has more of a part.
    turn = rng.permuted(np.tile(np.arange(folds), (n, 1)), axis=1)
    order = np.where(cells, turn[:, fold].T + rng.random(cells.shape), np.inf)
    place = order.argsort(axis=0).argsort(axis=0)
    part: NDArray[np.int16] = np.where(cells, place % parts, -1).astype(np.int16)
    for number in range(folds):
        models = np.flatnonzero(fold == number)
        block = part[models]
        for one in range(parts - 1):
            _even_part(block, one, rng)
        part[models] = block
    return part


def _even_part(block: NDArray[np.int16], part: int, rng: np.random.Generator) -> None:
    """Bring the rows' counts of a part to their even shares, in place, in exchange for later parts alone."""
    left = (block >= part).sum(axis=1)
    count = (block == part).sum(axis=1)
    share = left * (count.sum() / max(1, int(left.sum())))
    low, high = np.floor(share + 1e-9).astype(np.int64), np.ceil(share - 1e-9).astype(np.int64)
    while True:
        if (count > high).any():
            chain = _chain(block, part, count > high, count < high, rng)
        elif (count < low).any():
            chain = _chain(block, part, count > low, count < low, rng)
        else:
            return
        if not chain:
            return
        for giver, taker in zip(chain, chain[1:], strict=False):
            column = rng.choice(np.flatnonzero((block[giver] == part) & (block[taker] > part)))
            block[giver, column], block[taker, column] = block[taker, column], block[giver, column]
        count[chain[0]] -= 1
        count[chain[-1]] += 1


def _chain(
    block: NDArray[np.int16],
    part: int,
    sources: NDArray[np.bool_],
    sinks: NDArray[np.bool_],
    rng: np.random.Generator,
) -> list[int]:
    """Return a shortest chain of rows, from a source to a sink, each of which can hand the part on to the next."""
    # float32: counts of columns, and a matrix product of integers is not done by BLAS.
    able = (block == part).astype(np.float32) @ (block > part).astype(np.float32).T > 0
    before = {int(row): -1 for row in rng.permutation(np.flatnonzero(sources))}
    frontier = list(before)
    while frontier:
        reached = []
        for row in frontier:
            for other in rng.permutation(np.flatnonzero(able[row])).tolist():
                if other in before:
                    continue
                before[other] = row
                if sinks[other]:
                    chain = [other]
                    while before[chain[-1]] >= 0:
                        chain.append(before[chain[-1]])
                    return chain[::-1]
                reached.append(other)
        frontier = reached
    return []
