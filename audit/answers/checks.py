"""Preflight checks on recorded answers: each refuses with a code, a count, what is allowed and the remedy.

| code | refuses | do |
|---|---|---|
| A1 | values that are not finite | leave the records out, or repair the model |
| A2 | probabilities where logits are declared | declare them as probabilities, better: record logits |
| A3 | logits where probabilities are declared | declare them as logits |
| A4 | labels outside of the classes, or no whole numbers | code labels 0 to c - 1 |
| A5 | a wrong shape or type | the shape that is named |
| A6 | a record in two roles | each record in one role |
| A7 | an empty pool | provide its records |
| A8 | fewer records than any rate can resolve | more records |
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = [
    "check_disjoint",
    "check_finite",
    "check_labels",
    "check_logits",
    "check_pool",
    "check_probabilities",
    "check_resolution",
    "check_shape",
    "looks_like_probabilities",
    "to_logits",
]

TOLERANCE = 1e-3
"""Sums of float16 or rounded probabilities differ from 1 by this much; sums of logits hardly ever by so little."""

BLOCK_ROWS = 65_536
"""Rows looked at together, so that a memory-mapped file is never copied as a whole."""


def _refuse(code: str, text: str) -> InvalidInput:
    return InvalidInput(f"[{code}] {text}")


def check_shape(name: str, array: NDArray[np.generic], shape: tuple[int | None, ...], meaning: str) -> None:
    """Refuse (A5) an array whose shape differs; None stands for any length.

    Args:
        name: of the array, for the message.
        array: what was given.
        shape: wanted lengths.
        meaning: the shape in words, e.g. "(n, c): records, classes".
    """
    fits = array.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "fiub":
        raise _refuse(
            "A5", f"{name}: given {array.dtype} of shape {array.shape}; allowed: numbers of shape {meaning}. Reshape it"
        )


def _rows(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array.reshape(-1, array.shape[-1])


def check_finite(name: str, array: NDArray[np.generic]) -> None:
    """Refuse (A1) NaN and infinite values, with the number of records and the first of them."""
    bad = 0
    first = -1
    flat = _rows(array)
    for start in range(0, flat.shape[0], BLOCK_ROWS):
        wrong = ~np.isfinite(flat[start : start + BLOCK_ROWS]).all(axis=-1)
        count = int(wrong.sum())
        if count and first < 0:
            first = start + int(np.flatnonzero(wrong)[0])
        bad += count
    if bad:
        raise _refuse(
            "A1",
            f"{name}: {bad} of {flat.shape[0]} rows hold NaN or infinite values (the first is row {first}); allowed: "
            "finite numbers. Leave these records out in every array, or repair the model that wrote them",
        )


def looks_like_probabilities(array: NDArray[np.generic]) -> bool:
    """Whether all rows lie in [0, 1] and sum to 1; logits of a trained model practically never do."""
    flat = _rows(array)
    if flat.shape[0] == 0 or flat.shape[1] < 2:
        return False
    for start in range(0, flat.shape[0], BLOCK_ROWS):
        part = flat[start : start + BLOCK_ROWS].astype(np.float64)
        if part.min() < 0 or part.max() > 1 or (np.abs(part.sum(axis=-1) - 1) > TOLERANCE).any():
            return False
    return True


def check_logits(name: str, array: NDArray[np.generic]) -> None:
    """Refuse values that are not finite (A1), or probabilities that are declared as logits (A2)."""
    check_finite(name, array)
    if looks_like_probabilities(array):
        raise _refuse(
            "A2",
            f"{name}: all {_rows(array).shape[0]} rows lie in [0, 1] and sum to 1, so they are probabilities; allowed: "
            "logits (before the softmax). Record logits, which keep the most confident apart, or give them as probs",
        )


def check_probabilities(name: str, array: NDArray[np.generic]) -> None:
    """Refuse values that are not finite (A1), or rows that are no probabilities (A3)."""
    check_finite(name, array)
    flat = _rows(array)
    bad = 0
    for start in range(0, flat.shape[0], BLOCK_ROWS):
        part = flat[start : start + BLOCK_ROWS].astype(np.float64)
        bad += int(((part < 0).any(axis=-1) | (np.abs(part.sum(axis=-1) - 1) > TOLERANCE)).sum())
    if bad:
        raise _refuse(
            "A3",
            f"{name}: {bad} of {flat.shape[0]} rows are negative somewhere or do not sum to 1; allowed: probabilities. "
            "If these are logits, give them as logits",
        )


def to_logits(probabilities: NDArray[np.generic]) -> NDArray[np.float32]:
    """Log probabilities as float32 logits; zeros become the smallest positive float32's logarithm, -87.3."""
    tiny = np.float32(np.finfo(np.float32).tiny)
    values: NDArray[np.float32] = np.log(np.maximum(np.asarray(probabilities, np.float32), tiny))
    return values


def check_labels(name: str, labels: NDArray[np.generic], n_classes: int) -> NDArray[np.int64]:
    """Refuse (A4) labels that are no whole numbers in [0, c); return them as int64."""
    if labels.dtype.kind not in "iub":
        whole = labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
        if not whole:
            raise _refuse(
                "A4",
                f"{name}: given {labels.dtype}; allowed: whole numbers from 0 to {n_classes - 1}. Code the classes",
            )
    values = labels.astype(np.int64)
    bad = (values < 0) | (values >= n_classes)
    if bad.any():
        found = ", ".join(str(v) for v in np.unique(values[bad])[:5])
        raise _refuse(
            "A4",
            f"{name}: {int(bad.sum())} of {values.size} labels lie outside of the model's {n_classes} classes "
            f"({found}); allowed: 0 to {n_classes - 1}. Code labels by the class list of the whole data",
        )
    return values


def check_disjoint(roles: Mapping[str, ArrayLike]) -> None:
    """Refuse (A6) record ids that stand in two roles.

    Args:
        roles: role -> ids.
    """
    names = list(roles)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            both = np.intersect1d(np.asarray(roles[a]), np.asarray(roles[b]))
            if both.size:
                some = ", ".join(str(v) for v in both[:5])
                raise _refuse(
                    "A6",
                    f"{both.size} records are both {a} and {b} ({some}{', ...' if both.size > 5 else ''}); allowed: "
                    "one role for each record. Take them out of one of the two",
                )


def check_pool(name: str, size: int, least: int = 1) -> None:
    """Refuse (A7) an empty or too small pool of records."""
    if size < least:
        raise _refuse("A7", f"{name}: {size} records; allowed: at least {least}. Provide records of this role")


def check_resolution(n_forget: int, n_never: int, largest_alpha: float) -> None:
    """Refuse (A8) counts at which not one false alarm is expected at the largest rate that a policy considers.

    Args:
        n_forget: records on the in side.
        n_never: never-seen records.
        largest_alpha: the largest false-alarm rate considered.
    """
    least = int(np.ceil(2 / largest_alpha))
    if n_never < least or n_forget < 2:
        raise _refuse(
            "A8",
            f"{n_forget} records on the in side and {n_never} never-seen records are fewer than any rate can resolve; "
            f"allowed: at least 2 and {least} (two false alarms at {largest_alpha:g}), hundreds for a verdict. "
            "Add never-seen records, or validate the procedure on a fleet instead",
        )
