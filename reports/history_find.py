"""Finding the results of many audits under a folder: bounded in depth, number and size, and never fatal.

Anything may lie under a folder that is handed in: links that lead in circles, pipes, files of gigabytes, results of
newer releases. What cannot be read is listed with the reason; the rest is read, one result in memory at a time.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.schema import RESULT_NAME, from_json, result_digest

__all__ = ["Found", "Limit", "Unread", "find_results"]


@dataclass(frozen=True)
class Limit:
    """How far a search goes.

    Attributes:
        depth: folders below the one given.
        entries: files and folders looked at.
        results: results read.
        size_bytes: size of one result.
    """

    depth: int = 12
    entries: int = 200_000
    results: int = 5_000
    size_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class Found:
    """A result that was read.

    Attributes:
        place: folder that holds it, relative to the folder searched, with forward slashes; "." for that folder itself.
        digest: of the file's bytes, ``sha256:`` and 64 hex digits.
        result: what it says.
        files: names of the regular files beside it, sorted.
    """

    place: str
    digest: str
    result: AuditResult
    files: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """Something that was passed over, with the reason; ``place`` as in ``Found``, with the file's name."""

    place: str
    reason: str


def find_results(root: Path, limit: Limit | None = None) -> Iterator[Found | Unread]:
    """Read every ``result.json`` under a folder, in the order of their places.

    Hidden folders (a store, a repository) are passed over in silence; links are never followed.

    Args:
        root: the folder.
        limit: how far to go; what lies beyond it is named.

    Yields:
        Each result, and each thing that could not be read.

    Raises:
        InvalidInput: there is no such folder, or it cannot be listed.
    """
    limit = Limit() if limit is None else limit
    if not root.is_dir():
        raise InvalidInput(f"{root}: there is no such folder; give the folder that holds the audits, e.g. runs")
    try:
        os.listdir(root)
    except OSError as error:
        raise InvalidInput(f"{root}: cannot be listed ({error.strerror}); give a folder that you may read") from error
    seen = read = 0
    # Depth first and in the order of names, so that two searches of the same files say the same.
    waiting: list[tuple[str, int]] = [(".", 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(root / place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Unread(place, f"the folder cannot be listed ({error.strerror})")
            continue
        seen += len(entries)
        if seen > limit.entries:
            yield Unread(place, f"the search ended here: more than {limit.entries:,} files and folders were met")
            return
        folders: list[tuple[str, int]] = []
        for entry in entries:
            inner = entry.name if place == "." else f"{place}/{entry.name}"
            if entry.is_symlink():
                if entry.name == RESULT_NAME or (not entry.name.startswith(".") and os.path.isdir(entry.path)):
                    yield Unread(inner, "a link; links are not followed")
            elif entry.is_dir(follow_symlinks=False):
                if entry.name == RESULT_NAME:
                    yield Unread(inner, "a folder of that name, not a file")
                elif depth == limit.depth and not entry.name.startswith("."):
                    yield Unread(inner, f"more than {limit.depth} folders deep; index it by itself")
                elif not entry.name.startswith("."):
                    folders.append((inner, depth + 1))
            elif entry.name == RESULT_NAME:
                if read == limit.results:
                    yield Unread(inner, f"the search ended here: {limit.results:,} results were read")
                    return
                read += 1
                beside = tuple(e.name for e in entries if e.is_file(follow_symlinks=False))
                yield _read(Path(entry.path), inner, place, beside, limit.size_bytes)
        waiting.extend(reversed(folders))


def _read(path: Path, inner: str, place: str, beside: tuple[str, ...], size_bytes: int) -> Found | Unread:
    try:
        data = _bytes(path, size_bytes)
        return Found(place, result_digest(data), from_json(data), beside)
    except OSError as error:
        return Unread(inner, f"cannot be read ({error.strerror or error})")
    except (AuditError, RecursionError) as error:
        return Unread(inner, str(error).removeprefix("result: "))


def _bytes(path: Path, size_bytes: int) -> bytes:
    # Opened without waiting and looked at again: between listing and opening a file may become a pipe or a link.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput("no regular file")
        if found.st_size > size_bytes:
            raise InvalidInput(f"{found.st_size:,} bytes: results above {size_bytes:,} bytes are not read")
        data = file.read(size_bytes + 1)
    if len(data) > size_bytes:
        raise InvalidInput(f"results above {size_bytes:,} bytes are not read")
    return data
