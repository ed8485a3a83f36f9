"""The files of a bundle, in a folder or in a zip, read alike: bounded, without following links, without unpacking."""

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.archive import (
    MOST_FILES,
    ContainerError,
    Stored,
    blocks,
    check_path,
    read_zip,
)

__all__ = ["Contents", "FolderContents", "ZipContents", "as_folder", "open_contents", "unpack"]

MOST_READ = 2**28
"""Bytes of a document that is read as a whole (JSON, HTML)."""


class Contents(Protocol):
    """What both kinds of bundle offer."""

    @property
    def sizes(self) -> dict[str, int]:
        """Path to size in bytes, ascending."""

    @property
    def strange(self) -> tuple[str, ...]:
        """Names that no file of a bundle has (a folder's only: a zip with such names is refused)."""

    def read(self, path: str, most: int = MOST_READ) -> bytes:
        """The bytes of one file of at most ``most`` bytes."""

    def digest(self, path: str) -> tuple[str, int]:
        """The digest of one file, "sha256:...", and the number of bytes that were read."""

    def copy(self, path: str, write: Callable[[bytes], object]) -> None:
        """Hand the bytes of one file to ``write``, a block at a time."""


class _Reader:
    """Reading by blocks, given where the blocks come from."""

    _sizes: dict[str, int]

    def _blocks(self, path: str) -> Iterator[bytes]:
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        return self._sizes

    def read(self, path: str, most: int = MOST_READ) -> bytes:
        if path not in self._sizes:
            raise ContainerError(f"{path}: is not there")
        if self._sizes[path] > most:
            raise ContainerError(f"{path}: {self._sizes[path]:,} bytes are more than such a document has ({most:,})")
        return b"".join(self._blocks(path))

    def digest(self, path: str) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        for block in self._blocks(path):
            found.update(block)
            size += len(block)
        return "sha256:" + found.hexdigest(), size

    def copy(self, path: str, write: Callable[[bytes], object]) -> None:
        for block in self._blocks(path):
            write(block)


class FolderContents(_Reader):
    """A bundle in a folder."""

    def __init__(self, root: Path) -> None:
        """List the folder.

        Raises:
            ContainerError: a link or a special file in it, or more files than a bundle holds.
        """
        self._root = root
        self._sizes = {}
        strange = []
        for path, size in self._walk(root, ""):
            try:
                self._sizes[check_path(path)] = size
            except ContainerError:
                strange.append(path)
            if len(self._sizes) + len(strange) > MOST_FILES:
                raise ContainerError(f"{root}: more than {MOST_FILES:,} files; a bundle holds no more. Is it one?")
        self._sizes = dict(sorted(self._sizes.items()))
        self.strange = tuple(sorted(strange))

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise ContainerError(f"cannot read {folder}: {error.strerror or error}") from error
        for entry in entries:
            path = prefix + entry.name
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(state.st_mode):
                raise ContainerError(f"{ascii(path)}: a link; a bundle holds plain files only, and none is followed")
            if stat.S_ISDIR(state.st_mode):
                if path.count("/") > 16:
                    raise ContainerError(f"{ascii(path)[:80]}: folders are nested deeper than in any bundle")
                yield from self._walk(folder / entry.name, path + "/")
            elif stat.S_ISREG(state.st_mode):
                yield path, state.st_size
            else:
                raise ContainerError(f"{ascii(path)}: no plain file; a bundle holds nothing else")

    def _blocks(self, path: str) -> Iterator[bytes]:
        try:
            descriptor = os.open(self._root / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError as error:
            raise ContainerError(f"cannot read {path}: {error.strerror or error}") from error
        with os.fdopen(descriptor, "rb") as file:
            yield from blocks(file)


class ZipContents(_Reader):
    """A bundle in a zip."""

    strange: tuple[str, ...] = ()

    def __init__(self, file: Path) -> None:
        """List the zip; its own bytes are compared with what they must be.

        Raises:
            ContainerError: cut off, altered, dangerous, or not written by this tool.
        """
        self._file = file
        with self._open() as stream:
            self._stored: dict[str, Stored] = {stored.name: stored for stored in read_zip(stream)}
        self._sizes = {name: stored.size for name, stored in sorted(self._stored.items())}

    def _open(self) -> BinaryIO:
        try:
            return self._file.open("rb")
        except OSError as error:
            raise ContainerError(f"cannot read {self._file}: {error.strerror or error}") from error

    def _blocks(self, path: str) -> Iterator[bytes]:
        stored = self._stored[path]
        with self._open() as stream:
            stream.seek(stored.start)
            yield from blocks(stream, stored.size)

    def crc_holds(self, path: str) -> bool:
        """Tell whether the check sum that other programs go by is that of the file's bytes."""
        found = 0
        for block in self._blocks(path):
            found = zlib.crc32(block, found)
        return found == self._stored[path].crc


def open_contents(bundle: Path | str) -> FolderContents | ZipContents:
    """Open a bundle, whichever form it has.

    Raises:
        InvalidInput: there is nothing at this place.
        ContainerError: it cannot be read as a bundle.
    """
    path = Path(bundle)
    if path.is_dir():
        return FolderContents(path)
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such folder or file; give a bundle that `mnemoscope bundle` wrote")
    return ZipContents(path)


def unpack(contents: Contents, folder: Path) -> None:
    """Write all files of a bundle into an empty folder; paths were checked when the bundle was opened."""
    for path in contents.sizes:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            contents.copy(path, file.write)


@contextmanager
def as_folder(bundle: Path | str, contents: Contents) -> Iterator[Path]:
    """Give a bundle as a folder: itself, or unpacked into a temporary one that goes away again."""
    import tempfile

    if isinstance(contents, FolderContents):
        yield Path(bundle)
        return
    with tempfile.TemporaryDirectory(prefix="mnemoscope-") as name:
        unpack(contents, Path(name))
        yield Path(name)
