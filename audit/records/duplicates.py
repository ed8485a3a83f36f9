"""Exact and near duplicates between two groups of records, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import Dataset

__all__ = ["DuplicateReport", "find_duplicates"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

BLOCK = 2048
"""Rows compared at a time: one block of distances holds 4 million floats, 16 MB."""
SKETCH = 48
"""Directions on which distances are bounded from below before the full vectors are compared."""
EXACT_VALUES = 4_000_000
"""Values of candidate pairs compared in float64 at a time, 32 MB."""


@dataclass(frozen=True, eq=False)
class DuplicateReport:
    """Pairs of records with equal or nearly equal values; labels play no part.

    Attributes:
        exact: (k, 2) int64 ids of pairs with equal bytes, the first of group a; at most ``max_pairs`` of them.
        near: (k, 2) int64 ids of pairs that are near but not equal; at most ``max_pairs`` of them.
        n_exact: number of exact pairs, also of those not listed.
        n_near: number of near pairs, also of those not listed.
        records: ids of group a with an exact or near duplicate in group b, ascending.
        n_records: size of group a.
        threshold: distance below this share of the norm counts as near.
    """

    exact: NDArray[np.int64]
    near: NDArray[np.int64]
    n_exact: int
    n_near: int
    records: Ids
    n_records: int
    threshold: float

    @property
    def share(self) -> float:
        """Share of group a with an exact or near duplicate in group b, in [0, 1]."""
        return self.records.size / self.n_records

    def sentence(self, dataset: Dataset, limit: int = 3) -> str:
        """One line for people, with the keys of the first pairs."""
        pairs = [f"{a} = {b}" for a, b in self._keys(dataset, self.exact[:limit])]
        pairs += [f"{a} ~ {b}" for a, b in self._keys(dataset, self.near[: max(0, limit - len(pairs))])]
        shown = f": {', '.join(pairs)}" if pairs else ""
        return (
            f"{self.n_exact} exact and {self.n_near} near pairs, {self.records.size} of {self.n_records} records{shown}"
        )

    @staticmethod
    def _keys(dataset: Dataset, pairs: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        return zip(dataset.keys_of(pairs[:, 0]), dataset.keys_of(pairs[:, 1]), strict=True)


def find_duplicates(
    dataset: Dataset, ids_a: Ids, ids_b: Ids, *, near: float = 0.05, max_pairs: int = 10_000
) -> DuplicateReport:
    """Find pairs (a, b) of different records whose values are equal or nearly equal.

    Equal means equal bytes. Near means an L2 distance of at most ``near`` times the larger of the two norms: of raw
    pixels for images; of columns standardised over both groups for tables, where a raw norm would be that of the
    column with the largest unit. A record is never compared with itself, and a pair found both ways counts once: the
    groups may overlap or be the same.

    Near pairs are searched among distinct values, in order of their norm, so that only records of similar norm meet;
    distances on ``SKETCH`` orthonormal directions, which are never larger than the true ones, leave few pairs that
    are compared in full (float64).

    Args:
        dataset: the whole data.
        ids_a: (k,) ids of the group whose share is asked, at least one.
        ids_b: (l,) ids of the other group.
        near: share of the norm, in [0, 1); 0 finds exact pairs only.
        max_pairs: how many pairs of each kind are listed; all are counted.

    Raises:
        InvalidInput: unknown ids, an empty group a, ``near`` outside [0, 1).
    """
    if not 0 <= near < 1:
        raise InvalidInput(f"near={near!r} must lie in [0, 1), for example 0.05")
    a, b = np.unique(dataset.positions(ids_a)), np.unique(dataset.positions(ids_b))
    if not a.size:
        raise InvalidInput("duplicates: the first group has no records")
    rows = np.union1d(a, b)
    # Values are numbered once; equal numbers are equal bytes.
    digests = np.ascontiguousarray(dataset.value_digests[rows]).view("V32")[:, 0]
    _, first, value = np.unique(digests, return_index=True, return_inverse=True)
    book = _PairBook(rows, np.isin(rows, a), np.isin(rows, b), value, max_pairs)
    numbers = np.arange(first.size)
    exact = book.add(np.stack([numbers, numbers], axis=1))
    near_pairs = (np.empty((0, 2), np.int64), 0)
    if near and b.size:
        vectors = _vectors(dataset, rows[first])
        near_pairs = book.add(_near_values(vectors, book.in_a, book.in_b, near))
    return DuplicateReport(*(exact[0], near_pairs[0], exact[1], near_pairs[1]), book.hit(), int(a.size), near)


class _PairBook:
    """Turns pairs of distinct values into pairs of records, counted in full and listed up to a limit."""

    def __init__(self, rows: Ids, is_a: NDArray[np.bool_], is_b: NDArray[np.bool_], value: Ids, max_pairs: int) -> None:
        order = np.argsort(value, kind="stable")
        bounds = np.searchsorted(value[order], np.arange(int(value.max()) + 2))
        self.rows, self.is_a, self.is_b, self.max_pairs = rows, is_a, is_b, max_pairs
        self.members = (order, bounds)
        self.in_a = np.bincount(value, is_a) > 0
        self.in_b = np.bincount(value, is_b) > 0
        self.found = np.zeros(rows.size, bool)

    def hit(self) -> Ids:
        """Records of group a seen in a pair."""
        return self.rows[self.found & self.is_a]

    def add(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        order, bounds = self.members
        sizes = np.diff(bounds)
        alone = (pairs[:, 0] == pairs[:, 1]) & (sizes[pairs[:, 0]] == 1)
        listed: list[NDArray[np.int64]] = []
        room, total = self.max_pairs, 0
        for u, v in pairs[~alone].tolist():
            some, others = order[bounds[u] : bounds[u + 1]], order[bounds[v] : bounds[v + 1]]
            total += self._count(some, others, same=u == v)
            for left, right in ((some, others),) if u == v else ((some, others), (others, some)):
                partners = int(self.is_b[right].sum())
                own = self.is_b[left] & (u == v)
                self.found[left[self.is_a[left] & (partners - own > 0)]] = True
            if room > 0:
                block = self._list(some, others, room, same=u == v)
                listed.append(block)
                room -= len(block)
        pairs_of_rows = np.concatenate([np.empty((0, 2), np.int64), *listed])
        in_order = np.lexsort((pairs_of_rows[:, 1], pairs_of_rows[:, 0]))
        return self.rows[pairs_of_rows[in_order]], total

    def _count(self, some: Ids, others: Ids, *, same: bool) -> int:
        a, b, both = (int(mask[some].sum()) for mask in (self.is_a, self.is_b, self.is_a & self.is_b))
        if same:
            # Ordered pairs (a, b) without a record's pair with itself; of two in both groups, one order is left out.
            return a * b - both - both * (both - 1) // 2
        a2, b2, both2 = (int(mask[others].sum()) for mask in (self.is_a, self.is_b, self.is_a & self.is_b))
        return a * b2 + a2 * b - both * both2

    def _list(self, some: Ids, others: Ids, room: int, *, same: bool) -> NDArray[np.int64]:
        found: list[tuple[int, int]] = []
        for left in some.tolist():
            for right in others.tolist():
                if (same and left >= right) or len(found) >= room:
                    continue
                if self.is_a[left] and self.is_b[right]:
                    found.append((left, right))
                elif self.is_a[right] and self.is_b[left]:
                    found.append((right, left))
            if len(found) >= room:
                break
        return np.array(found, np.int64).reshape(-1, 2)


def _vectors(dataset: Dataset, rows: Ids) -> NDArray[np.uint8] | Floats:
    """Return (v, d) values whose norm has a meaning: pixels as they are, table columns standardised."""
    values = dataset.values[rows].reshape(rows.size, -1)
    if dataset.kind == "image":
        return values
    table = values.astype(np.float64)
    spread = table.std(axis=0)
    scaled: Floats = ((table - table.mean(axis=0))[:, spread > 0] / spread[spread > 0]).astype(np.float32)
    return scaled


def _near_values(
    vectors: NDArray[np.uint8] | Floats, in_a: NDArray[np.bool_], in_b: NDArray[np.bool_], near: float
) -> NDArray[np.int64]:
    """Return (k, 2) pairs of value numbers, each once, that are near; one of them in a, the other in b."""
    if vectors.shape[1] == 0:
        return np.empty((0, 2), np.int64)
    norm, sketch = _sketch(vectors)
    order_a, order_b = (np.flatnonzero(mask)[np.argsort(norm[mask], kind="stable")] for mask in (in_a, in_b))
    norm_b = norm[order_b]
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, order_a.size, BLOCK):
        left = order_a[start : start + BLOCK]
        # | |x| - |y| | <= |x - y| <= near * max(|x|, |y|), with room for rounding.
        low = np.searchsorted(norm_b, norm[left[0]] * (1 - near) * 0.999)
        high = np.searchsorted(norm_b, norm[left[-1]] / (1 - near) * 1.001, "right")
        for begin in range(int(low), int(high), BLOCK):
            right = order_b[begin : min(begin + BLOCK, int(high))]
            pairs = _candidates(sketch, norm, left, right, near)
            found.append(_confirmed(vectors, norm, pairs, near))
    every = np.sort(np.concatenate(found), axis=1)
    return np.unique(every, axis=0)


def _sketch(vectors: NDArray[np.uint8] | Floats) -> tuple[NDArray[np.float64], Floats]:
    """Return norms (v,) and coordinates (v, <= SKETCH) on orthonormal directions in which the data spreads."""
    n, d = vectors.shape
    norm = np.empty(n, np.float64)
    basis: Floats | None = None
    if d > SKETCH:
        # The range of a few records, mixed at random: close to the leading principal directions, at little cost.
        # Any orthonormal basis is correct; a fixed seed makes the work, never the result, repeatable.
        sample = vectors[:: max(1, n // 512)].astype(np.float32)
        mixed = sample.T @ (sample @ (sample.T @ np.random.default_rng(0).normal(size=(len(sample), SKETCH))))
        basis = np.linalg.qr(mixed)[0].astype(np.float32)
    sketch = np.empty((n, d if basis is None else basis.shape[1]), np.float32)
    for start in range(0, n, BLOCK):
        part = vectors[start : start + BLOCK].astype(np.float32)
        norm[start : start + BLOCK] = np.sqrt(np.einsum("ij,ij->i", part, part, dtype=np.float64))
        sketch[start : start + BLOCK] = part if basis is None else part @ basis
    return norm, sketch


def _candidates(sketch: Floats, norm: NDArray[np.float64], left: Ids, right: Ids, near: float) -> NDArray[np.int64]:
    x, y = sketch[left], sketch[right]
    square_x, square_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    distance = x @ y.T
    distance *= -2
    distance += square_x[:, None]
    distance += square_y
    bound = np.maximum(norm[left, None], norm[right]).astype(np.float32)
    np.square(bound, out=bound)
    # float32 loses about 1e-6 of the squared norms in the difference; the exact comparison follows.
    bound *= np.float32(near**2 * 1.001 + 1e-5)
    rows, columns = np.nonzero(distance <= bound)
    different = left[rows] != right[columns]
    return np.stack([left[rows[different]], right[columns[different]]], axis=1)


def _confirmed(
    vectors: NDArray[np.uint8] | Floats, norm: NDArray[np.float64], pairs: NDArray[np.int64], near: float
) -> NDArray[np.int64]:
    step = max(1, EXACT_VALUES // vectors.shape[1])
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), step):
        part = pairs[start : start + step]
        difference = vectors[part[:, 0]].astype(np.float64) - vectors[part[:, 1]]
        distance = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        kept.append(part[distance <= near * norm[part].max(axis=1)])
    return np.concatenate(kept)
