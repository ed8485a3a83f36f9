"""What every reader of records hands over, and the rules that turn it into arrays and classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["Raw", "class_list", "image_values", "numbered_keys", "table_values", "values_of"]

Values = NDArray[np.uint8] | NDArray[np.float32]

INTEGER_CLASSES = 1000
"""Integer labels 0..K-1 keep their numbers as long as no more than this many numbers are unused."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Records as a reader found them.

    Attributes:
        name: name of the data set.
        values: uint8 or float32, (n, h, w, c) images or (n, d) table rows.
        keys: n unique strings.
        labels: (n,) int64 positions in ``classes``.
        classes: class names of the whole data.
    """

    name: str
    values: Values
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def class_list(labels: NDArray[np.generic], source: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn labels of the whole data into positions in a class list.

    Integers from 0 up keep their numbers, so that they stay the output numbers of the user's own model, also when a
    number in between has no record. Any other labels are sorted, and numbered in that order.

    Args:
        labels: (n,) or (n, 1), integers, whole floats, booleans or text.
        source: what is read, for messages.

    Returns:
        (n,) int64 positions and the class names.

    >>> class_list(np.array(["cat", "ant", "cat"]), "x")
    (array([1, 0, 1]), ('ant', 'cat'))
    """
    y = np.asarray(labels)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InvalidInput(
            f"{source}: labels have shape {y.shape}; one class a record is needed, (n,); "
            "one-hot rows become classes with y.argmax(axis=1)"
        )
    if y.dtype.kind == "f":
        odd = np.flatnonzero(~np.isfinite(y) | (y != np.round(y)))
        if odd.size:
            raise InvalidInput(
                f"{source}: {odd.size} labels are not whole numbers, the first {y[odd[0]]!r} at row {odd[0]}; "
                "labels are classes, not measurements"
            )
        y = y.astype(np.int64)
    if y.dtype.kind not in "iubUS":
        raise InvalidInput(f"{source}: labels of type {y.dtype} cannot be read; give whole numbers or text")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    found = np.unique(y)
    if y.dtype.kind in "iu" and found.size and found[0] >= 0 and int(found[-1]) < found.size + INTEGER_CLASSES:
        return y.astype(np.int64), tuple(str(k) for k in range(int(found[-1]) + 1))
    return np.searchsorted(found, y).astype(np.int64), tuple(str(k) for k in found)


def values_of(array: NDArray[np.generic], source: str) -> Values:
    """Return records as images (n, h, w, c) or table rows (n, d), by their number of axes."""
    if array.ndim == 2:
        return table_values(array, source)
    if array.ndim in (3, 4):
        return image_values(array, source)
    raise InvalidInput(
        f"{source}: records have shape {array.shape}; allowed: (n, d) tables, (n, h, w) and (n, h, w, c) images"
    )


def image_values(array: NDArray[np.generic], source: str) -> Values:
    """Return (n, h, w, c): uint8 stays uint8 (not copied), other bytes 0..255 become uint8, floats float32."""
    images = array[..., None] if array.ndim == 3 else array
    channels = images.shape[-1]
    if channels > 4 and images.shape[1] <= 4:
        raise InvalidInput(
            f"{source}: images of shape {images.shape[1:]} have their channels first; "
            "give x.transpose(0, 2, 3, 1): height, width, channels"
        )
    if images.dtype.kind in "iu" and images.dtype != np.uint8:
        if images.size and not 0 <= images.min() <= images.max() <= 255:
            raise InvalidInput(
                f"{source}: whole-number pixels lie in {images.min()}..{images.max()}; allowed: 0..255, or floats"
            )
        images = images.astype(np.uint8)
    return table_values(images, source)


def table_values(array: NDArray[np.generic], source: str) -> Values:
    """Return uint8 as it is, every other number as finite float32."""
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"{source}: values of type {array.dtype} are no numbers; give uint8 or floats")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if bad.size:
        raise InvalidInput(
            f"{source}: {bad.size} records hold missing, infinite or too large values, the first at row {bad[0]}; "
            "fill them in or leave these records out"
        )
    return values


def numbered_keys(prefixes: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Return ``prefix/0017`` for each part, numbered from 0 within the part, all of one width.

    >>> numbered_keys([("train", 12), ("test", 1)])[-2:]
    ('train/11', 'test/00')
    """
    width = len(str(max((count for _, count in prefixes), default=1) - 1))
    return tuple(f"{prefix}/{number:0{width}d}" for prefix, count in prefixes for number in range(count))
