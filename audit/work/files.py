"""Durable files in a local folder: whole or not there, with errors that say what to do.

This is the seam for other places to keep a store (an object store has the same four operations: write whole, create
exclusively, read, remove).
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnemoscope.audit.errors import StoreError

__all__ = ["HashingFile", "create_exclusively", "file_digest", "replace_whole", "storage_errors", "write_temporary"]

BLOCK = 1 << 20

REMEDIES = {
    errno.ENOSPC: "the disk is full; free space (`mnemoscope store gc` removes what nothing refers to) or use "
    "another --store",
    errno.EDQUOT: "the disk quota is used up; free space (`mnemoscope store gc`) or use another --store",
    errno.EFBIG: "a file would pass the size limit of this system (ulimit -f); raise it or use another --store",
    errno.EROFS: "the file system is read-only; use a --store that can be written",
    errno.EACCES: "no permission; use a --store that this user may read and write",
    errno.EPERM: "not permitted; use a --store that this user may read and write",
    errno.ENOTDIR: "a part of the path is a file, not a folder; use another --store",
    errno.EIO: "the disk reports an input/output error; check the disk, then run the same command again",
}


@contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn the system's errors into ``StoreError`` with the path, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "check the folder, then run the same command again")
        raise StoreError(
            f"cannot {doing} {path}: {os.strerror(error.errno) if error.errno else error}. {remedy}. "
            "Nothing half written counts: everything committed before stays"
        ) from error


class HashingFile:
    """A binary file open for writing that hashes and counts what goes through."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.size += len(view)
        written = 0
        while written < len(view):
            written += os.write(self._descriptor, view[written:])
        return written

    @property
    def digest(self) -> str:
        """Hex sha256 of everything written so far."""
        return self._hash.hexdigest()


def write_temporary(folder: Path, fill: Callable[[HashingFile], None]) -> tuple[Path, str, int]:
    """Write a new temporary file to the disk itself; it is removed again when ``fill`` or the disk fails.

    Returns:
        Its path, the hex sha256 of its content, and its size in bytes.
    """
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            file = HashingFile(descriptor)
            fill(file)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    return path, file.digest, file.size


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_whole(temporary: Path, final: Path) -> None:
    """Give a temporary file its final name, over what may be there."""
    if not final.parent.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(final.parent.parent)
    os.replace(temporary, final)
    _sync_folder(final.parent)


def create_exclusively(temporary: Path, final: Path) -> bool:
    """Give a temporary file its final name unless that name exists; the name appears with its whole content.

    Returns:
        False when another writer was first (the temporary file is removed).
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(temporary, final)
    except FileExistsError:
        temporary.unlink()
        return False
    except OSError as error:
        # File systems without hard links: the check and the rename are two steps, so the later of two simultaneous
        # writers wins; both wrote a whole document for the same key.
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        if final.exists():
            temporary.unlink()
            return False
        os.replace(temporary, final)
    else:
        temporary.unlink()
    _sync_folder(final.parent)
    return True


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
