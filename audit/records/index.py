"""Fingerprints of records: what a stored audit remembers of its data, to say later which keys changed."""

import difflib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput, StaleArtifact

__all__ = ["Changes", "RecordIndex", "nearest", "some", "value_digests"]

Digests = NDArray[np.uint8]


def value_digests(values: NDArray[np.generic], names: Sequence[str] | None = None) -> Digests:
    """Return (n, 32) uint8: sha256 of each record's type, shape and little-endian bytes, and of its class name.

    Args:
        values: (n, ...) records.
        names: n class names that enter the digest; None for the values alone.

    >>> a, b = value_digests(np.array([[1, 2], [1, 2]], np.uint8))
    >>> bool((a == b).all())
    True
    """
    kind = values.dtype.newbyteorder("<")
    head = hashlib.sha256(f"{kind.str} {values.shape[1:]}\n".encode())
    digests = np.empty((len(values), 32), np.uint8)
    tails = None if names is None else {name: b"\0" + name.encode() for name in set(names)}
    for row in range(len(values)):
        sha = head.copy()
        sha.update(np.ascontiguousarray(values[row], kind).data)
        if tails is not None and names is not None:
            sha.update(tails[names[row]])
        digests[row] = np.frombuffer(sha.digest(), np.uint8)
    return digests


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the most similar known word, or nothing.

    >>> nearest("cifar-10", ["cifar10", "mnist"])
    " (did you mean 'cifar10'?)"
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def some(words: Sequence[str], limit: int = 5) -> str:
    """Join the first few words and say how many more there are.

    >>> some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Changes:
    """What differs between a data set and its stored index; false when nothing does."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    altered: tuple[str, ...]
    moved: tuple[str, ...] = ()
    classes: str = ""

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return bool(self.added or self.removed or self.altered or self.moved or self.classes)

    @property
    def sentence(self) -> str:
        """One line for messages, in the user's keys."""
        parts = [
            f"{len(keys)} {verb} ({some(keys)})"
            for verb, keys in (
                ("added", self.added),
                ("removed", self.removed),
                ("altered", self.altered),
                ("at another place", self.moved),
            )
            if keys
        ]
        return "; ".join(parts + [self.classes] * bool(self.classes)) or "nothing changed"


@dataclass(frozen=True, eq=False)
class RecordIndex:
    """Names, keys, labels and digests of a data set, without its values.

    Attributes:
        name: name of the data set.
        keys: n unique strings, in the order of the source.
        labels: (n,) int64.
        classes: class names.
        digests: (n, 32) uint8, sha256 of each record's bytes and class name.
    """

    name: str
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    digests: Digests

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` of name, classes, keys, labels and record digests."""
        words = json.dumps([self.name, self.classes, self.keys], ensure_ascii=True, separators=(",", ":"))
        sha = hashlib.sha256(words.encode())
        sha.update(np.ascontiguousarray(self.labels, "<i8").data)
        sha.update(np.ascontiguousarray(self.digests).data)
        return f"sha256:{sha.hexdigest()}"

    def changes_to(self, now: "RecordIndex") -> Changes:
        """Return which keys were added, removed, altered or moved from this index to a later one."""
        before = {key: row for row, key in enumerate(self.keys)}
        after = {key: row for row, key in enumerate(now.keys)}
        both = [key for key in self.keys if key in after]
        old, new = [before[key] for key in both], [after[key] for key in both]
        same = (self.digests[old] == now.digests[new]).all(axis=1)
        altered = tuple(key for key, equal in zip(both, same, strict=True) if not equal)
        added = tuple(key for key in now.keys if key not in before)
        removed = tuple(key for key in self.keys if key not in after)
        # Ids are places in the source: a record that stands elsewhere has another id, whatever else changed.
        moved = tuple(key for key, a, b in zip(both, old, new, strict=True) if a != b and not (added or removed))
        classes = "" if self.classes == now.classes else f"classes were {some(self.classes)}, are {some(now.classes)}"
        return Changes(added, removed, altered, moved, classes)

    def to_bytes(self) -> bytes:
        """Return an ``.npz`` file (arrays only, no pickle); equal indexes give equal bytes."""
        words = json.dumps({"name": self.name, "classes": self.classes, "keys": self.keys}).encode()
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            version=np.int64(1),
            words=np.frombuffer(words, np.uint8),
            labels=self.labels,
            digests=self.digests,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "RecordIndex":
        """Read what ``to_bytes`` wrote.

        Raises:
            StaleArtifact: a damaged file, or one of another kind or version.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                if int(file["version"]) != 1:
                    raise ValueError(f"version {int(file['version'])}")
                words = json.loads(file["words"].tobytes())
                labels, digests = file["labels"], file["digests"]
            index = cls(words["name"], tuple(words["keys"]), labels, tuple(words["classes"]), digests)
            if labels.shape != (len(index.keys),) or digests.shape != (len(index.keys), 32):
                raise ValueError("its parts differ in length")
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise StaleArtifact(f"this is no stored record index ({error}); read the data again") from error
        return index


def refuse_doubled_keys(keys: Sequence[str], source: str) -> None:
    """Raise ``InvalidInput`` that names keys standing twice."""
    if len(set(keys)) == len(keys):
        return
    seen: set[str] = set()
    twice = [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    raise InvalidInput(f"{source}: {len(twice)} keys stand twice: {some(twice)}; every record needs a key of its own")
