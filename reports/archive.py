"""A zip whose every byte follows from the files in it: stored, names ascending, one date, one mode, nothing between.

That is what makes a flipped byte of the container itself findable: reading rebuilds each header from the names, sizes
and check sums, and compares. It also leaves no room for what hostile zips are made of (compressed bombs, two files of
one name, links, paths out of the folder), each of which is refused in a sentence of its own. Nothing is compressed, so
other releases of a compression library cannot change the bytes; any common tool unpacks it.
"""

import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mnemoscope.audit.errors import InvalidInput

__all__ = [
    "BLOCK",
    "MOST_BYTES",
    "MOST_FILES",
    "ContainerError",
    "Stored",
    "blocks",
    "check_path",
    "read_zip",
    "write_zip",
]

BLOCK = 1 << 20
MOST_FILES = 10_000
MOST_BYTES = 2**32 - 2**24
"""A little below what a zip without extensions can hold; a folder has no such limit."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_NEEDED, _MADE_BY, _UTF8, _FIRST_DAY = 20, 3 << 8 | 20, 0x0800, 0x0021
_MODE = (stat.S_IFREG | 0o644) << 16

_PART = r"[A-Za-z0-9_][A-Za-z0-9._+=@-]*"
_SAFE = re.compile(rf"{_PART}(?:/{_PART})*")
_LONGEST = 200
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


class ContainerError(InvalidInput):
    """A folder or zip that cannot be read as a bundle, or not without danger."""


@dataclass(frozen=True)
class Stored:
    """One file in a zip: its name, where its bytes begin, how many there are, and their CRC-32."""

    name: str
    start: int
    size: int
    crc: int


def check_path(path: str) -> str:
    """Return a path inside a bundle, or refuse it.

    Args:
        path: parts of Latin letters, digits and ``._+=@-``, joined by "/", at most 200 characters.

    Raises:
        ContainerError: absolute, pointing upwards, hidden, of unusual characters, too long, or reserved by a system.

    >>> check_path("figures/roc.svg")
    'figures/roc.svg'
    """
    shown = ascii(path[:_LONGEST])
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        raise ContainerError(f"{shown}: an absolute path; a bundle holds paths below itself only. Do not unpack it")
    if ".." in re.split(r"[/\\]", path):
        raise ContainerError(f"{shown}: a path that leaves its folder; do not unpack this bundle")
    if not _SAFE.fullmatch(path) or len(path) > _LONGEST:
        raise ContainerError(
            f"{shown}: not a path of a bundle (letters, digits and ._+=@- between slashes, no hidden files, at most "
            f"{_LONGEST} characters)"
        )
    if any(_RESERVED.fullmatch(part) or part.endswith(".") for part in path.split("/")):
        raise ContainerError(f"{shown}: a name that some systems reserve or shorten; rename the file")
    return path


def blocks(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Read ``size`` bytes (None: to the end), a block at a time; fewer where the file ends before."""
    left = size
    while left is None or left > 0:
        block = file.read(BLOCK if left is None else min(BLOCK, left))
        if not block:
            return
        yield block
        left = None if left is None else left - len(block)


def _local(name: bytes, crc: int, size: int) -> bytes:
    return _LOCAL.pack(b"PK\3\4", _NEEDED, _UTF8, 0, 0, _FIRST_DAY, crc, size, size, len(name), 0) + name


def _central(name: bytes, crc: int, size: int, offset: int) -> bytes:
    numbers = (_MADE_BY, _NEEDED, _UTF8, 0, 0, _FIRST_DAY, crc, size, size, len(name), 0, 0, 0, 0, _MODE, offset)
    return _CENTRAL.pack(b"PK\1\2", *numbers) + name


def _end(count: int, size: int, offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)


def write_zip(target: BinaryIO, files: Iterable[tuple[str, Callable[[], BinaryIO]]]) -> None:
    """Write files into a zip; the same names and contents give the same bytes on every machine.

    Args:
        target: a new, empty file open for writing that can seek.
        files: (path, function that opens it for reading), in any order.

    Raises:
        InvalidInput: too many files or bytes for a zip, with what to do; a path that is no path of a bundle.
    """
    directory, offset = [], 0
    ordered = sorted(files, key=lambda item: item[0])
    if len(ordered) > MOST_FILES:
        raise InvalidInput(f"{len(ordered)} files are more than the {MOST_FILES:,} that a bundle holds")
    for path, opened in ordered:
        name, crc, size = check_path(path).encode("ascii"), 0, 0
        target.write(_local(name, 0, 0))
        with opened() as source:
            for block in blocks(source):
                crc, size = zlib.crc32(block, crc), size + len(block)
                if offset + size > MOST_BYTES:
                    raise InvalidInput("more than 4 GB do not fit into a zip: give --out a folder instead")
                target.write(block)
        after = target.tell()
        target.seek(offset)
        target.write(_local(name, crc, size))
        target.seek(after)
        directory.append(_central(name, crc, size, offset))
        offset = after
    whole = b"".join(directory)
    target.write(whole + _end(len(directory), len(whole), offset))


def _directory(file: BinaryIO, length: int) -> tuple[bytes, int, int]:
    """Find the list of files at the end of the zip: its bytes, where it begins, and how many files it says it lists."""
    if length < _END.size:
        raise ContainerError("the zip is cut off: it is shorter than its last record. Fetch it again")
    file.seek(length - _END.size)
    mark, disk, first, here, count, size, offset, comment = _END.unpack(file.read(_END.size))
    if mark != b"PK\5\6":
        raise ContainerError(
            "the zip is cut off, or bytes follow it: its last record is not at its end. Fetch it again; a zip that "
            "another program packed is verified by unpacking it into a folder"
        )
    if (disk, first, comment) != (0, 0, 0) or here != count or offset + size + _END.size != length:
        raise ContainerError("the zip's last record does not fit the file: the container was altered or cut")
    if count > MOST_FILES or size > length:
        raise ContainerError(f"the zip lists {count:,} files; a bundle holds at most {MOST_FILES:,}")
    file.seek(offset)
    return file.read(size), offset, count


def _check_entry(name: str, flags: tuple[int, ...], seen: set[str]) -> None:
    """Refuse an entry that a bundle never has; ``flags`` = (method, packed size, size, mode)."""
    method, packed, size, mode = flags
    try:
        check_path(name)
    except ContainerError as error:
        raise ContainerError(f"the zip's list of files names {error}") from error
    if name.lower() in seen:
        raise ContainerError(f"{name}: the zip holds two files of this name; which one a program reads is left to it")
    if stat.S_ISLNK(mode >> 16):
        raise ContainerError(f"{name}: a link; a bundle holds plain files only. Do not unpack it")
    if size > MOST_BYTES:
        raise ContainerError(f"{name}: declares {size:,} bytes, more than a bundle holds. Do not unpack it")
    if method != 0 or packed != size:
        raise ContainerError(
            f"{name}: is compressed ({packed:,} bytes declare {size:,}), which `mnemoscope bundle` never does. If "
            "another program packed this bundle, unpack it with care and verify the folder"
        )


def read_zip(file: BinaryIO) -> list[Stored]:
    """List the files of a zip that :func:`write_zip` wrote; every byte outside of their contents is compared.

    Args:
        file: the zip, open for reading.

    Returns:
        Its files, names ascending. Their contents are not read: compare their digests.

    Raises:
        ContainerError: cut off, altered (with the file whose header it is), or not of this kind of zip.
    """
    length = file.seek(0, 2)
    listing, begin, count = _directory(file, length)
    found: list[Stored] = []
    seen: set[str] = set()
    at = offset = 0
    while at < len(listing):
        if len(listing) - at < _CENTRAL.size or listing[at : at + 4] != b"PK\1\2":
            raise ContainerError(f"the zip's list of files is damaged at its byte {at:,}")
        fields = _CENTRAL.unpack_from(listing, at)
        crc, packed, size, name_size, extra, comment = fields[7:13]
        raw = listing[at + _CENTRAL.size : at + _CENTRAL.size + name_size]
        name = raw.decode("utf-8", "backslashreplace")
        _check_entry(name, (fields[4], packed, size, fields[15]), seen)
        if extra or comment or fields != _CENTRAL.unpack_from(_central(raw, crc, size, offset)):
            raise ContainerError(
                f"{name}: its line in the zip's list of files is not as `mnemoscope bundle` writes it: the container "
                "was altered, or packed by another program (then unpack it and verify the folder)"
            )
        file.seek(offset)
        head = _local(raw, crc, size)
        if file.read(len(head)) != head:
            raise ContainerError(
                f"{name}: its header in the zip differs from the list of files: the container was altered"
            )
        found.append(Stored(name, offset + len(head), size, crc))
        seen.add(name.lower())
        offset += len(head) + size
        at += _CENTRAL.size + name_size
    if offset != begin or len(found) != count:
        raise ContainerError("the zip holds bytes that belong to no file, or fewer files than it says: it was altered")
    names = [stored.name for stored in found]
    if names != sorted(names):
        raise ContainerError("the zip's files are not in order: the container was altered or packed by another program")
    return found
