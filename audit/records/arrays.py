"""Records from an ``.npz`` file, memory-mapped where the file allows it."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.raw import Raw, class_list, numbered_keys, values_of

__all__ = ["read_arrays"]

ALLOWED = "x and y, or x_train, y_train, x_test and y_test (and optionally classes, keys)"


def read_arrays(path: Path) -> Raw:
    """Read x and y (or their train and test parts, put together) from an ``.npz`` file; pickles are refused.

    Optional entries: ``classes`` (c,) text, names in the order of the label numbers; ``keys`` (n,) text.
    Without keys, records are ``x/00017``, or ``train/00017`` and ``test/00003``.

    Raises:
        InvalidInput: no ``.npz`` file, missing entries, lengths that differ, objects instead of numbers.
    """
    try:
        # Opened here, because np.load leaves the file open when it is no zip file.
        with path.open("rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise InvalidInput(f"{path}: holds one bare array; save both with np.savez(path, x=x, y=y)")
            with loaded as file:
                return _from_entries(path, file)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path}: cannot be read as .npz ({error})") from error
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            f"{path}: holds Python objects or damaged arrays ({error}); save plain arrays of numbers or text"
        ) from error


def _from_entries(path: Path, file: Mapping[str, NDArray[np.generic]]) -> Raw:
    names = set(file)
    if {"x", "y"} <= names:
        parts = [("x", "x", "y")]
    elif {"x_train", "y_train", "x_test", "y_test"} <= names:
        parts = [("train", "x_train", "y_train"), ("test", "x_test", "y_test")]
    else:
        raise InvalidInput(f"{path}: has the entries {', '.join(sorted(names)) or 'none'}; needed: {ALLOWED}")
    labels = np.concatenate([np.atleast_1d(file[y]) for _, _, y in parts])
    if len(parts) == 1:
        mapped = _memory_map(path, "x")
        x = file["x"] if mapped is None else mapped
        sizes = [("x", len(x))]
    else:
        pieces = [file[entry] for _, entry, _ in parts]
        if pieces[0].shape[1:] != pieces[1].shape[1:]:
            raise InvalidInput(f"{path}: x_train {pieces[0].shape} and x_test {pieces[1].shape} differ in shape")
        for (_, entry, label_entry), piece in zip(parts, pieces, strict=True):
            if len(piece) != len(file[label_entry]):
                raise InvalidInput(
                    f"{path}: {entry} has {len(piece)} records, but {label_entry} {len(file[label_entry])}"
                )
        x = np.concatenate(pieces)
        sizes = [(name, len(piece)) for (name, _, _), piece in zip(parts, pieces, strict=True)]
    if len(x) != len(labels):
        raise InvalidInput(f"{path}: x has {len(x)} records, but y {len(labels)}")
    numbers, classes = class_list(labels, str(path))
    if "classes" in names:
        named = tuple(map(str, file["classes"].tolist()))
        if numbers.size and int(numbers.max()) >= len(named) or labels.dtype.kind not in "iu":
            raise InvalidInput(
                f"{path}: classes names {len(named)} classes; y must then hold the numbers 0..{len(named) - 1}"
            )
        numbers, classes = labels.reshape(-1).astype(np.int64), named
    keys = tuple(map(str, file["keys"].tolist())) if "keys" in names else numbered_keys(sizes)
    if len(keys) != len(x):
        raise InvalidInput(f"{path}: {len(x)} records, but {len(keys)} keys")
    return Raw(path.stem, values_of(x, str(path)), keys, numbers, classes)


def _memory_map(path: Path, entry: str) -> NDArray[np.generic] | None:
    """Map an entry that ``np.savez`` stored uncompressed; None where it cannot be mapped."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(f"{entry}.npy")
        if info.compress_type != zipfile.ZIP_STORED or not info.file_size:
            return None
        # The local header repeats the name and has an extra field of its own length (zip specification, 4.3.7).
        file.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject or 0 in shape:
            return None
        order: Literal["C", "F"] = "F" if fortran else "C"
        return np.memmap(str(path), dtype, mode="r", offset=file.tell(), shape=shape, order=order)
