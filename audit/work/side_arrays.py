"""Arrays beside a result: one ``.npz`` file of plain numbers, the same bytes for the same arrays, read with bounds.

``numpy.load(file, allow_pickle=False)`` reads them too. Entries carry no time of day. Equal arrays give equal bytes as
long as zlib compresses alike; a digest of the file says that these are the bytes of the audit, whatever wrote them.
"""

import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["ArrayWriter", "SideArrays"]

Array = NDArray[Any]

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,119}")
NO_TIME = (1980, 1, 1, 0, 0, 0)
KINDS = "biufU"
"""Kinds of plain numbers and of text; what is not among them could carry objects."""

MOST_MEMBERS = 20_000
MOST_BYTES = 16 << 30
MOST_ARRAY = 1 << 30
LONGEST_HEADER = 4096


class ArrayWriter:
    """Write arrays one after another: none but the one at hand is in memory. The file appears when all are there.

    Args:
        path: of the ``.npz`` file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._zip = zipfile.ZipFile(self._part, "w", zipfile.ZIP_DEFLATED, compresslevel=6)
        except OSError as error:
            raise InvalidInput(f"cannot write {path}: {error.strerror or error}. Give another --out folder") from error
        self._names: set[str] = set()

    def add(self, name: str, array: Array) -> str:
        """Write an array under a name of lower-case letters, digits, ``.``, ``_`` and ``-``; returns the name."""
        values = np.asarray(array)
        if not NAME.fullmatch(name) or name in self._names or values.dtype.kind not in KINDS:
            raise InvalidInput(
                f"array {name!r} of {values.dtype} cannot be stored: give plain numbers a new, plain name"
            )
        self._names.add(name)
        if values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("<"))
        entry = zipfile.ZipInfo(f"{name}.npy", NO_TIME)
        entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o600 << 16
        try:
            with self._zip.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(values, order="C"), version=(1, 0), allow_pickle=False)
        except OSError as error:
            raise InvalidInput(f"cannot write {self.path}: {error.strerror or error}. Free space there") from error
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def close(self) -> None:
        """Finish the file; readable by its owner alone, for it holds values of single records."""
        self._zip.close()
        os.chmod(self._part, 0o600)
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._zip.close()
        self._part.unlink(missing_ok=True)


class SideArrays:
    """Read such a file that somebody else may have made: by name, one array at a time, never more than it says.

    Args:
        data: the file's bytes, or its path.
        most_bytes: what all arrays together may take.
        most_array: what one of them may take, for one at a time is in memory.

    Raises:
        InvalidInput: no such file, or one that is not what ``ArrayWriter`` writes.
    """

    def __init__(self, data: bytes | Path, *, most_bytes: int = MOST_BYTES, most_array: int = MOST_ARRAY) -> None:
        self._name = "arrays" if isinstance(data, bytes) else data.name
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InvalidInput(f"{self._name}: is no readable .npz file ({error})") from error
        entries = self._zip.infolist()
        names = [entry.filename for entry in entries]
        total, largest = sum(sizes := [entry.file_size for entry in entries]), max(sizes, default=0)
        strange = [name for name in names if not (name.endswith(".npy") and NAME.fullmatch(name[:-4]))]
        if (
            strange
            or len(entries) > MOST_MEMBERS
            or len(set(names)) != len(names)
            or total > most_bytes
            or largest > most_array
        ):
            self._zip.close()
            raise InvalidInput(
                f"{self._name}: {len(names)} entries of {total:,} bytes"
                + (f", among them {strange[0][:60]!r}" if strange else "")
                + f"; allowed are at most {MOST_MEMBERS:,} arrays, {most_bytes:,} bytes, "
                f"{most_array:,} in one, each name once"
            )
        self._entries = {entry.filename[:-4]: entry for entry in entries}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, name: str, *, kind: str, ndim: int | None = None) -> Array:
        """Return an array.

        Args:
            name: its name.
            kind: letters of the kinds that are allowed: b, i, u, f, U.
            ndim: how many axes it must have; None allows any.

        Raises:
            InvalidInput: there is none, it is damaged, or it is not of that kind.
        """
        if name not in self._entries:
            raise InvalidInput(f"{self._name}: lacks the array {name[:60]!r}")
        entry = self._entries[name]
        try:
            with self._zip.open(entry) as stream:
                array = self._read(stream, entry.file_size)
        except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"{self._name}: the array {name!r} is damaged ({error})") from error
        except Exception as error:  # zlib.error has no public parent of its own
            raise InvalidInput(f"{self._name}: the array {name!r} cannot be read ({error})") from error
        if array.dtype.kind not in kind or (ndim is not None and array.ndim != ndim):
            raise InvalidInput(
                f"{self._name}: the array {name!r} is {array.dtype} of shape {array.shape}; expected kind {kind!r}"
                + ("" if ndim is None else f" with {ndim} axes")
            )
        return array

    def _read(self, stream: Any, size: int) -> Array:
        """An array whose header says no more than the entry holds, so that nothing is set aside for a lie."""
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("an array format of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=LONGEST_HEADER)
        if fortran or dtype.hasobject or dtype.kind not in KINDS:
            raise ValueError(f"{dtype} is no plain number")
        count = 1
        for side in shape:
            if side < 0:
                raise ValueError(f"shape {shape}")
            count *= int(side)
        if count * dtype.itemsize > size:
            raise ValueError(f"shape {shape} is more than the file holds")
        data = stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize or stream.read(1):
            raise ValueError("it has another length than its header says")
        # The last read has reached the end, where the archive's own checksum is compared.
        return np.frombuffer(data, dtype).reshape(shape)
