"""Keyed commitments to sets of records: who holds the key can prove what a set was, and nobody else can guess it.

A leaf is HMAC-SHA256 of a record id and the digest of its content. Leaves are sorted, which leaves no order to read
anything from, and joined to a Merkle tree whose nodes are told apart as in RFC 6962; its root stands for the set. A
bare hash of a small set, or of short ids, could be found by hashing all candidates; without the key a leaf cannot.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["RecordCommitment", "commit_records", "leaf", "merkle_root"]

LEAF_DOMAIN = b"mnemoscope record commitment 1\x00"
"""Keeps leaves apart from whatever else is made with the same key."""


@dataclass(frozen=True)
class RecordCommitment:
    """A set of records, committed to.

    Attributes:
        n: how many.
        root: "sha256:..." of the Merkle tree over the leaves.
        leaves: 64 hex digits each, sorted.
    """

    n: int
    root: str
    leaves: tuple[str, ...]


def leaf(key: bytes, record_id: int, content: bytes) -> bytes:
    """Return the 32 bytes that stand for one record.

    Args:
        key: the controller's secret.
        record_id: its number in the data set.
        content: digest of its bytes and label; what else is known of it where there is none.
    """
    if not -(2**63) <= record_id < 2**63:
        raise InvalidInput(f"record_id={record_id}: must be a 64-bit number")
    return hmac.digest(key, LEAF_DOMAIN + int(record_id).to_bytes(8, "big", signed=True) + content, "sha256")


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Return "sha256:..." of the tree over leaves in the order given, as RFC 6962 joins them.

    >>> merkle_root([]) == "sha256:" + hashlib.sha256().hexdigest()
    True
    """
    if not leaves:
        return "sha256:" + hashlib.sha256().hexdigest()
    level = [hashlib.sha256(b"\x00" + one).digest() for one in leaves]
    # An odd node at the end rises unchanged: that is the split at the largest power of two, level by level.
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return "sha256:" + level[0].hex()


def commit_records(key: bytes, ids: NDArray[np.int64], contents: Iterable[bytes]) -> RecordCommitment:
    """Commit to a set of records, whatever the order they come in.

    Args:
        key: the controller's secret.
        ids: (n,) int64.
        contents: digest of each record's content, in that order.
    """
    leaves = sorted(leaf(key, int(i), bytes(c)) for i, c in zip(ids.tolist(), contents, strict=True))
    return RecordCommitment(len(leaves), merkle_root(leaves), tuple(one.hex() for one in leaves))
