"""Care of a store: check every byte, and remove what nothing refers to."""

import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import StaleArtifact
from mnemoscope.audit.work.files import file_digest, storage_errors

if TYPE_CHECKING:
    from mnemoscope.audit.work.store import Store

__all__ = ["GcReport", "VerifyReport", "collect_garbage", "verify_store"]

GRACE_SECONDS = 3600.0
"""Younger blobs and temporary files may belong to a writer at work: garbage collection leaves them alone."""


@dataclass(frozen=True)
class VerifyReport:
    """What a full check of the store found; it changes nothing.

    Attributes:
        n_keys: entries that are whole documents.
        n_blobs: blobs present.
        n_bytes: their bytes.
        damaged: blobs whose content is not what their name says.
        missing: "key: file" of entries whose blob is not there.
        unreadable: key documents that are no valid document.
        orphans: blobs that no entry refers to (harmless; `gc` removes them).
    """

    n_keys: int
    n_blobs: int
    n_bytes: int
    damaged: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    orphans: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every entry can be read back bit by bit."""
        return not (self.damaged or self.missing or self.unreadable)


@dataclass(frozen=True)
class GcReport:
    """What garbage collection removed, or would remove: counts and bytes."""

    keys: tuple[str, ...]
    blobs: int
    temporary: int
    quarantined: int
    n_bytes: int
    dry_run: bool


def verify_store(store: "Store") -> VerifyReport:
    """Read every file back and compare it with its digest; nothing is changed."""
    blobs = {path.name: path for path in store.list_files("blobs/sha256", "*/*")}
    keys, missing, unreadable, used = 0, [], [], set()
    for entry in store.entries():
        if isinstance(entry, str):
            unreadable.append(entry)
            continue
        keys += 1
        for name, stored in entry.files.items():
            used.add(stored.sha256)
            if stored.sha256 not in blobs:
                missing.append(f"{entry.key}: {name}")
    damaged, n_bytes = [], 0
    for digest, path in blobs.items():
        with storage_errors("read", path):
            n_bytes += path.stat().st_size
            if file_digest(path) != digest:
                damaged.append(digest)
    orphans = tuple(digest for digest in blobs if digest not in used)
    return VerifyReport(keys, len(blobs), n_bytes, tuple(damaged), tuple(missing), tuple(unreadable), orphans)


def collect_garbage(
    store: "Store",
    *,
    keep: Collection[str] | None = None,
    older_than: float | None = None,
    grace: float = GRACE_SECONDS,
    dry_run: bool = False,
) -> GcReport:
    """Remove what nothing refers to: blobs without an entry, left-over temporary files, quarantined files.

    Args:
        store: the store to clear.
        keep: when given, entries with other keys are removed first.
        older_than: when given, only entries committed more than this many seconds ago are removed (with ``keep``:
            both must hold).
        grace: blobs and temporary files younger than this many seconds stay, for a writer may be at work.
        dry_run: only say what would be removed.
    """
    now = time.time()
    entries = store.ls()
    unreadable = [name for name in store.entries() if isinstance(name, str)]
    if unreadable:
        raise StaleArtifact(
            f"{len(unreadable)} key documents cannot be read ({unreadable[0]}, ...), so it is unknown what they "
            "refer to; run the command that made them again (it sets them aside), or remove them by hand"
        )
    dropped = [
        entry
        for entry in entries
        if (keep is not None or older_than is not None)
        and (keep is None or entry.key not in keep)
        and (older_than is None or now - entry.committed_at > older_than)
    ]
    gone = {entry.key for entry in dropped}
    used = {file.sha256 for entry in entries if entry.key not in gone for file in entry.files.values()}
    only_dropped = {file.sha256 for entry in dropped for file in entry.files.values()} - used

    def old(path: Path) -> bool:
        with suppress(FileNotFoundError):
            return now - path.stat().st_mtime > grace
        return False

    blobs = [
        path
        for path in store.list_files("blobs/sha256", "*/*")
        if path.name not in used and (path.name in only_dropped or old(path))
    ]
    temporary = [path for path in (store.root / "tmp").glob("*") if old(path)]
    quarantined = [path for path in store.list_files("quarantine", "*") if old(path)]
    documents = [store.key_path(key) for key in sorted(gone)]
    n_bytes = sum(path.stat().st_size for path in [*blobs, *temporary, *quarantined, *documents] if path.exists())
    if not dry_run:
        for path in [*documents, *blobs, *temporary, *quarantined]:  # entries first: none may miss a blob
            with storage_errors("remove", path):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    return GcReport(tuple(sorted(gone)), len(blobs), len(temporary), len(quarantined), n_bytes, dry_run)
