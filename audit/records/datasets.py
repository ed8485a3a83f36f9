"""The data set: an immutable index of records over their raw values."""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.arrays import read_arrays
from mnemoscope.audit.records.folders import read_folder
from mnemoscope.audit.records.index import (
    Changes,
    RecordIndex,
    nearest,
    refuse_doubled_keys,
    some,
    value_digests,
)
from mnemoscope.audit.records.raw import Raw, Values
from mnemoscope.audit.records.sources import SOURCES
from mnemoscope.audit.records.tables import TABLE_ENDINGS, read_table

__all__ = ["DATASETS", "Dataset", "load_dataset"]

Ids = NDArray[np.int64]

DATASETS: dict[str, Callable[[Path | None, bool], Raw]] = SOURCES
"""Data sets by name: ``reader(data_root, download)``; "digits" needs no files and is the default."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Records with ids for code and keys for people; values are read-only.

    Attributes:
        name: name of the data set, or the file or folder it came from (without ending).
        kind: "image" or "table".
        ids: (n,) int64, 0..n-1 in the order of the source.
        keys: n unique strings: relative paths or row keys.
        labels: (n,) int64 positions in ``classes``.
        classes: class names of the whole data, never of a subset.
        digests: (n, 32) uint8, sha256 of each record's bytes and class name.
        values: uint8 or float32; images (n, h, w, c), uint8 where the source is; tables (n, d).
        derived: how many records at the end were made from others (canaries); they normalise nothing.
    """

    name: str
    kind: Literal["image", "table"]
    ids: Ids
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    digests: NDArray[np.uint8]
    values: Values
    derived: int = 0

    def __post_init__(self) -> None:
        n = len(self.keys)
        shapes = {"ids": self.ids.shape, "labels": self.labels.shape, "digests": self.digests.shape[:1]}
        wrong = {name: shape for name, shape in shapes.items() if shape != (n,)} | (
            {} if len(self.values) == n else {"values": self.values.shape}
        )
        if wrong:
            raise InvalidInput(f"{self.name}: {n} keys, but {wrong}")
        if not np.array_equal(self.ids, np.arange(n)):
            raise InvalidInput(f"{self.name}: ids must be 0..{n - 1} in the order of the source")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise InvalidInput(
                f"{self.name}: labels lie in {self.labels.min()}..{self.labels.max()}, "
                f"but there are {len(self.classes)} classes"
            )
        if not 0 <= self.derived <= n:
            raise InvalidInput(f"{self.name}: derived={self.derived} of {n} records; allowed: 0..{n}")
        refuse_doubled_keys(self.keys, self.name)
        for array in (self.ids, self.labels, self.digests, self.values):
            array.flags.writeable = False

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {self.kind}, {self.values.dtype} {self.values.shape}, {len(self.classes)} classes)"
        )

    @classmethod
    def from_raw(cls, raw: Raw) -> "Dataset":
        """Number and fingerprint what a reader found.

        Raises:
            InvalidInput: no record, keys that stand twice, lengths that differ.
        """
        n = len(raw.keys)
        if not n:
            raise InvalidInput(f"{raw.name}: no records were found")
        if len(raw.labels) != len(raw.values):
            raise InvalidInput(f"{raw.name}: {len(raw.values)} records, but {len(raw.labels)} labels")
        names = [raw.classes[label] for label in raw.labels.tolist()]
        return cls(
            name=raw.name,
            kind="table" if raw.values.ndim == 2 else "image",
            ids=np.arange(n, dtype=np.int64),
            keys=raw.keys,
            labels=raw.labels.astype(np.int64),
            classes=raw.classes,
            digests=value_digests(raw.values, names),
            values=raw.values.view(),
        )

    @cached_property
    def index(self) -> RecordIndex:
        """Everything but the values: what an audit stores to recognise its data."""
        return RecordIndex(self.name, self.keys, self.labels, self.classes, self.digests)

    @property
    def digest(self) -> str:
        """``sha256:...`` of name, classes, keys, labels and record digests, and of how many records are derived."""
        if not self.derived:
            return self.index.digest
        return f"sha256:{hashlib.sha256(f'{self.index.digest} derived {self.derived}'.encode()).hexdigest()}"

    @property
    def source_values(self) -> Values:
        """Values of the records that the source holds, derived ones left out."""
        return self.values[: len(self.keys) - self.derived]

    @property
    def source_labels(self) -> NDArray[np.int64]:
        """Labels of the records that the source holds, derived ones left out."""
        return self.labels[: len(self.keys) - self.derived]

    @cached_property
    def value_digests(self) -> NDArray[np.uint8]:
        """(n, 32) uint8, sha256 of each record's bytes without its label."""
        return value_digests(self.values)

    @cached_property
    def _row_of_key(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def positions(self, ids: Ids) -> NDArray[np.int64]:
        """Return the rows of the given ids, in their order; unknown ids raise ``InvalidInput``."""
        wanted = np.asarray(ids)
        if wanted.size and not np.issubdtype(wanted.dtype, np.integer):
            raise InvalidInput(f"record ids must be whole numbers, given {wanted.dtype}")
        unknown = wanted[(wanted < 0) | (wanted >= len(self.keys))]
        if unknown.size:
            raise InvalidInput(
                f"{self.name}: {unknown.size} ids are unknown, the first {unknown.flat[0]}; "
                f"ids are 0..{len(self.keys) - 1}"
            )
        return wanted.astype(np.int64)

    def get(self, ids: Ids) -> Values:
        """Return the values of the given ids, in their order."""
        return self.values[self.positions(ids)]

    def keys_of(self, ids: Ids) -> tuple[str, ...]:
        """Return the keys of the given ids, in their order."""
        return tuple(self.keys[row] for row in self.positions(ids).tolist())

    def ids_of_keys(self, keys: Sequence[str]) -> Ids:
        """Return the ids of the given keys, in their order.

        Raises:
            InvalidInput: unknown keys, with the nearest known one.
        """
        unknown = [key for key in keys if key not in self._row_of_key]
        if unknown:
            raise InvalidInput(
                f"{self.name}: {len(unknown)} keys are unknown: {some(unknown)}{nearest(unknown[0], self.keys)}"
            )
        return np.array([self._row_of_key[key] for key in keys], np.int64)

    def has_key(self, key: str) -> bool:
        """Tell whether a record has this key."""
        return key in self._row_of_key

    def changed_since(self, index: RecordIndex) -> Changes:
        """Return which keys were added, removed, altered or moved since an index was stored; false if none."""
        return index.changes_to(self.index)


def load_dataset(
    name_or_path: str | Path,
    *,
    data_root: Path | None = None,
    download: bool = False,
    label_column: str | None = None,
    key_column: str | None = None,
    resize: int | tuple[int, int] | None = None,
) -> Dataset:
    """Read a data set by name or by path.

    Args:
        name_or_path: a name of ``DATASETS``; or a path (also below ``data_root``): an ``.npz`` file with x and y (or
            x_train, y_train, x_test, y_test), an image folder with one sub-folder a class, a ``.csv``, ``.tsv`` or
            ``.parquet`` table.
        data_root: folder with the files of a named set, as torchvision lays them out.
        download: let torchvision fetch what is missing.
        label_column: column of a table with the classes; "label" by default.
        key_column: column of a table with the keys; row numbers by default.
        resize: side, or (height, width), that images of a folder are scaled to.

    Returns:
        The data set, read-only.

    Raises:
        InvalidInput: unknown name, missing or damaged file, an option that does not apply to this kind of source.

    >>> digits = load_dataset("digits")
    >>> digits.values.shape, digits.keys[7], digits.kind
    ((1797, 8, 8, 1), 'digits/0007', 'image')
    """
    name = str(name_or_path)
    given = {"label_column": label_column, "key_column": key_column, "resize": resize}
    if name in DATASETS:
        _refuse_options(name, given, ())
        return Dataset.from_raw(DATASETS[name](data_root, download))
    path = _find(name, data_root)
    if download:
        raise InvalidInput(f"{name}: download=True applies to named data sets only: {', '.join(DATASETS)}")
    if path.is_dir():
        _refuse_options(name, given, ("resize",))
        return Dataset.from_raw(read_folder(path, resize=resize))
    if path.suffix.lower() == ".npz":
        _refuse_options(name, given, ())
        return Dataset.from_raw(read_arrays(path))
    if path.suffix.lower() in TABLE_ENDINGS:
        _refuse_options(name, given, ("label_column", "key_column"))
        return Dataset.from_raw(read_table(path, label_column=label_column, key_column=key_column))
    raise InvalidInput(
        f"{path}: files ending in {path.suffix!r} cannot be read; allowed: .npz, {', '.join(TABLE_ENDINGS)} "
        "or a folder of images"
    )


def _find(name: str, data_root: Path | None) -> Path:
    places = [Path(name)]
    if data_root is not None:
        places += [Path(data_root) / name, Path(data_root) / f"{name}.npz"]
    for path in places:
        try:
            if path.exists():
                return path
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
    looked = f" (also looked in {data_root})" if data_root is not None else ""
    raise InvalidInput(
        f"{name!r} is neither a data set nor a file or folder{looked}{nearest(name, DATASETS)}; "
        f"data sets by name: {', '.join(DATASETS)}"
    )


def _refuse_options(name: str, given: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    for option, value in given.items():
        if value is not None and option not in allowed:
            raise InvalidInput(
                f"{os.path.basename(name)}: {option}={value!r} does not apply to this data; leave it out"
            )
