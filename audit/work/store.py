"""Where finished work is kept: content-addressed blobs, and one small document a key whose creation is the commit.

```
blobs/sha256/xx/<digest>    the bytes; named by their content, written whole, never changed
keys/<key>.json             inputs, files (name -> digest, size) and notes; written LAST and created exclusively
tmp/                        what is being written; of no account until it has its final name
quarantine/                 damaged files, set aside by their name
```
A process that dies at any moment leaves either no key document or a whole one whose blobs are all on the disk.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput, StaleArtifact, StoreError
from mnemoscope.audit.work.care import (
    GRACE_SECONDS,
    GcReport,
    VerifyReport,
    collect_garbage,
    verify_store,
)
from mnemoscope.audit.work.files import (
    BLOCK,
    HashingFile,
    create_exclusively,
    file_digest,
    replace_whole,
    storage_errors,
    write_temporary,
)
from mnemoscope.audit.work.keys import Json, canonical_json, plain_json

__all__ = ["Content", "Entry", "Store", "StoredFile", "load_array"]

FORMAT = 1
HEX = frozenset("0123456789abcdef")
logger = logging.getLogger(__name__)

Content = bytes | Path | NDArray[Any]
"""What can be put under a name: bytes, a file to copy, or an array (kept as .npy)."""


@dataclass(frozen=True)
class StoredFile:
    """One file of an entry: hex sha256 of its content and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Entry:
    """One committed piece of work.

    Attributes:
        key: 64 hex digits.
        files: name -> digest and size.
        inputs: what the key was made of, as far as the writer said; for people.
        meta: notes that are no part of the key (seconds, provenance).
        committed_at: POSIX time of the commit, seconds.
    """

    key: str
    files: dict[str, StoredFile]
    inputs: dict[str, Json]
    meta: dict[str, Json]
    committed_at: float
    _store: "Store" = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())

    def path(self, name: str) -> Path:
        """Path of a file for reading; its digest is verified on first use in this process.

        Raises:
            StaleArtifact: the file is damaged or gone.
            InvalidInput: the entry has no file of that name.
        """
        if name not in self.files:
            raise InvalidInput(f"entry {self.key[:12]} has no file {name!r}; it has {sorted(self.files)}")
        fault = self._store._fault(self.files[name])
        if fault:
            raise StaleArtifact(f"{name} of entry {self.key[:12]} {fault}; run the same command again to recompute it")
        return self._store.blob_path(self.files[name].sha256)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        path = self.path(name)
        with storage_errors("read", path):
            return path.read_bytes()

    def array(self, name: str) -> NDArray[Any]:
        """Return a stored array, read-only and memory-mapped; object arrays are refused."""
        return load_array(self.path(name), f"{name} of entry {self.key[:12]}")


def load_array(path: Path, what: str) -> NDArray[Any]:
    """Map a ``.npy`` file into memory, read-only; files that would have to be unpickled are refused."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidInput(
            f"{what} is not a plain NumPy array ({error}); save numbers with "
            "numpy.save(path, array, allow_pickle=False)"
        ) from error
    return array


class Store:
    """A store in a local folder, made on the first ``put``. Any number of processes may use one at a time.

    Args:
        location: a path, or a ``file://`` URL.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder)
    ...     _ = store.put("0" * 64, {"a.npy": np.arange(3)}, meta={"seconds": 1.5})
    ...     entry = store.get("0" * 64)
    ...     entry.array("a.npy").tolist(), entry.meta
    ([0, 1, 2], {'seconds': 1.5})
    """

    def __init__(self, location: str | Path) -> None:
        self.root = _local_folder(location)
        marker = self.root / "store.json"
        with storage_errors("open the store", self.root):
            if self.root.exists() and not self.root.is_dir():
                raise StoreError(f"--store {self.root} is a file; give a folder (it is made when it does not exist)")
            if marker.is_file():
                self._check_format(marker)
            elif self.root.is_dir() and any(self.root.iterdir()) and not (self.root / "tmp").is_dir():
                raise StoreError(
                    f"--store {self.root} holds other files and is no store; give an empty or a new folder"
                )
        self._verified: dict[str, tuple[int, int, int]] = {}

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        """A store travels to another process as its place only."""
        return Store, (str(self.root),)

    @staticmethod
    def _check_format(marker: Path) -> None:
        try:
            found = json.loads(marker.read_bytes())["format"]
        except (ValueError, KeyError, TypeError):
            found = None
        if found != FORMAT:
            raise StoreError(
                f"{marker} says format {found!r}; this version reads format {FORMAT}: use another --store, "
                "or the version of mnemoscope that wrote it"
            )

    # -- places --------------------------------------------------------------------------------

    def blob_path(self, sha256: str) -> Path:
        """Where a blob is kept."""
        return self.root / "blobs" / "sha256" / sha256[:2] / sha256

    def key_path(self, key: str) -> Path:
        """Where the document of a key is kept."""
        if len(key) != 64 or not HEX.issuperset(key):
            raise InvalidInput(f"key={key!r} is no key: 64 hex digits as content_key returns them")
        return self.root / "keys" / f"{key}.json"

    @property
    def scratch(self) -> Path:
        """Folder for temporary files on the store's own disk; `gc` clears what is left in it."""
        folder = self.root / "tmp"
        with storage_errors("write to the store", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            marker = self.root / "store.json"
            if not marker.exists():
                document = canonical_json({"format": FORMAT})
                path, _, _ = write_temporary(folder, lambda file: drop(file.write(document)))
                create_exclusively(path, marker)
        return folder

    # -- reading --------------------------------------------------------------------------------

    def get(self, key: str) -> Entry | None:
        """Return the entry of a key, or None where it has to be computed.

        Every file's digest is verified, once in a process unless the file changes. A damaged file is named in a
        warning, set aside under ``quarantine/``, and None is returned so that it is computed again.
        """
        path = self.key_path(key)
        try:
            entry = self._read_entry(path)
        except StaleArtifact as error:
            logger.warning("%s; it is set aside and computed again", error)
            self._set_aside(path)
            return None
        if entry is None:
            return None
        for name, stored in entry.files.items():
            fault = self._fault(stored)
            if fault:
                logger.warning("%s of entry %s %s; it is computed again", name, key[:12], fault)
                self._set_aside(self.blob_path(stored.sha256))
                self._set_aside(path)
                return None
        return entry

    def __contains__(self, key: str) -> bool:
        """Whether a key is committed; no digest is verified."""
        return self.key_path(key).exists()

    def ls(self) -> tuple[Entry, ...]:
        """Return all entries, oldest first; digests are not verified."""
        entries = [entry for entry in self.entries() if isinstance(entry, Entry)]
        return tuple(sorted(entries, key=lambda entry: (entry.committed_at, entry.key)))

    def entries(self) -> Iterator[Entry | str]:
        """Each entry, or the name of a key document that cannot be read."""
        for path in self.list_files("keys", "*.json"):
            try:
                entry = self._read_entry(path)
            except StaleArtifact:
                yield path.name
            else:
                if entry is not None:
                    yield entry

    def list_files(self, folder: str, pattern: str) -> list[Path]:
        """Files of a folder of the store that match a glob pattern, sorted."""
        with storage_errors("list", self.root / folder):
            return sorted(path for path in (self.root / folder).glob(pattern) if path.is_file())

    def _read_entry(self, path: Path) -> Entry | None:
        with storage_errors("read", path):
            try:
                raw = path.read_bytes()
                committed_at = path.stat().st_mtime
            except FileNotFoundError:
                return None
        try:
            document = json.loads(raw)
            body = {name: value for name, value in document.items() if name != "sha256"}
            if document["sha256"] != _document_digest(body) or f"{document['key']}.json" != path.name:
                raise ValueError("its content is not what its digest says")
            files = {name: StoredFile(str(f["sha256"]), int(f["size"])) for name, f in document["files"].items()}
            return Entry(document["key"], files, document["inputs"], document["meta"], committed_at, self)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
            raise StaleArtifact(f"{path} is damaged ({error})") from error

    def _fault(self, stored: StoredFile) -> str:
        """Say what is wrong with a blob; "" when its content is what its name says."""
        path = self.blob_path(stored.sha256)
        with storage_errors("read", path):
            try:
                stat = path.stat()
            except FileNotFoundError:
                return f"is missing ({path.name[:12]})"
            seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._verified.get(stored.sha256) == seen:
                return ""
            if stat.st_size != stored.size or file_digest(path) != stored.sha256:
                return f"is damaged: {path} does not have the content its name says"
        self._verified[stored.sha256] = seen
        return ""

    def _set_aside(self, path: Path) -> None:
        """Move a damaged file out of the way; where the store cannot be written it stays."""
        self._verified.pop(path.name, None)
        with suppress(OSError):
            folder = self.root / "quarantine"
            folder.mkdir(parents=True, exist_ok=True)
            os.replace(path, folder / f"{path.name}.{time.time_ns()}")

    # -- writing --------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        files: Mapping[str, Content],
        *,
        inputs: Mapping[str, object] | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> Entry:
        """Commit files under a key: all of them or none.

        Arrays are kept as ``.npy`` and must be named so. When the key is committed already (by another process, or
        earlier) the first commit stands and is returned: same key, same bits.

        Args:
            key: from ``content_key``.
            files: name -> bytes, path of a file to copy, or array.
            inputs: what the key was made of, for `store ls`.
            meta: notes that come back unchanged; JSON types only.

        Raises:
            StoreError: read-only, full, no permission; nothing is committed.
            InvalidInput: a name, array or note that cannot be kept.
        """
        final = self.key_path(key)
        notes = {"inputs": plain_json(dict(inputs or {}), "inputs"), "meta": plain_json(dict(meta or {}), "meta")}
        fillers = {name: _filler(name, content) for name, content in files.items()}
        scratch = self.scratch
        stored = {name: self._put_blob(fill, scratch) for name, fill in fillers.items()}
        body: dict[str, object] = {
            "format": FORMAT,
            "key": key,
            **notes,
            "files": {name: {"sha256": file.sha256, "size": file.size} for name, file in stored.items()},
        }
        document = json.dumps({**body, "sha256": _document_digest(body)}, indent=1).encode()
        with storage_errors("commit to the store", final):
            path, _, _ = write_temporary(scratch, lambda file: drop(file.write(document)))
            created = create_exclusively(path, final)
        if not created:
            first = self.get(key)
            if first is not None:
                if first.files != stored:
                    logger.warning("key %s was computed twice with different bits; the first commit stands", key[:12])
                return first
            with storage_errors("commit to the store", final):  # the earlier commit was damaged and is set aside
                path, _, _ = write_temporary(scratch, lambda file: drop(file.write(document)))
                replace_whole(path, final)
        entry = self._read_entry(final)
        if entry is None:
            raise StoreError(f"{final} vanished while it was being written; is something cleaning this store?")
        return entry

    def _put_blob(self, fill: Callable[[HashingFile], None], scratch: Path) -> StoredFile:
        with storage_errors("write to the store", scratch):
            path, digest, size = write_temporary(scratch, fill)
            stored, final = StoredFile(digest, size), self.blob_path(digest)
            if final.exists() and not self._fault(stored):
                path.unlink()
                os.utime(final)  # in use again: garbage collection by another process must not take it
            else:
                replace_whole(path, final)
            stat = final.stat()
            self._verified[digest] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return stored

    # -- care --------------------------------------------------------------------------------

    def verify(self) -> VerifyReport:
        """Read every file back and compare it with its digest; nothing is changed."""
        return verify_store(self)

    def gc(
        self,
        *,
        keep: Collection[str] | None = None,
        older_than: float | None = None,
        grace: float = GRACE_SECONDS,
        dry_run: bool = False,
    ) -> GcReport:
        """Remove what nothing refers to (see :func:`mnemoscope.audit.work.care.collect_garbage`)."""
        return collect_garbage(self, keep=keep, older_than=older_than, grace=grace, dry_run=dry_run)


def drop(_: object) -> None:
    """Drop a value."""


def _local_folder(location: str | Path) -> Path:
    if isinstance(location, str) and "://" in location:
        parts = urlsplit(location)
        if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
            raise InvalidInput(
                f"store={location!r}: this version keeps a store in a local folder; give a path or file:///path, "
                "for example a mounted network folder"
            )
        return Path(unquote(parts.path)).absolute()
    if not str(location):
        raise InvalidInput("store='' is empty; give a folder")
    return Path(location).expanduser().absolute()


def _document_digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _filler(name: str, content: Content) -> Callable[[HashingFile], None]:
    """Return what writes one file, after checking that it can be kept as it is."""
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise InvalidInput(f"file name {name!r}: give a plain name without folders")
    if isinstance(content, bytes):
        return lambda file: drop(file.write(content))
    if isinstance(content, Path):
        return lambda file: _copy(content, file)
    if not isinstance(content, np.ndarray):
        raise InvalidInput(f"{name} is a {type(content).__name__}; give bytes, a Path or a NumPy array")
    if not name.endswith(".npy"):
        raise InvalidInput(f"{name}: an array is kept as .npy; name it {name}.npy")
    if content.dtype.hasobject:
        raise InvalidInput(
            f"{name} has dtype {content.dtype}, which only pickle could keep; give numbers or fixed text"
        )
    array = np.ascontiguousarray(content).reshape(content.shape)
    return lambda file: np.lib.format.write_array(file, array, allow_pickle=False)


def _copy(source: Path, file: HashingFile) -> None:
    try:
        stream = source.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {source}: {os.strerror(error.errno or 0)}; give a file that exists") from error
    with stream:
        while block := stream.read(BLOCK):
            file.write(block)
