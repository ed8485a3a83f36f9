import hashlib
import hmac

import numpy as np
import pytest

from mnemoscope.audit.records.commitments import LEAF_DOMAIN, commit_records, leaf, merkle_root

KEY = bytes(range(32))
IDS = np.array([7, 3, 2**40, -5])
CONTENTS = [hashlib.sha256(bytes([i])).digest() for i in range(4)]


def naive(leaves: list[bytes]) -> bytes:
    """The tree of RFC 6962, as its text defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


@pytest.mark.parametrize("n", range(20))
def test_the_root_is_that_of_the_standard_tree(n: int) -> None:
    leaves = [bytes([i]) * 32 for i in range(n)]
    assert merkle_root(leaves) == "sha256:" + naive(leaves).hex()


def test_a_leaf_is_the_hmac_of_id_and_content() -> None:
    message = LEAF_DOMAIN + (-5).to_bytes(8, "big", signed=True) + CONTENTS[3]
    assert leaf(KEY, -5, CONTENTS[3]) == hmac.new(KEY, message, hashlib.sha256).digest()


def test_order_does_not_matter_and_everything_else_does() -> None:
    made = commit_records(KEY, IDS, CONTENTS)
    assert made.n == 4
    assert list(made.leaves) == sorted(made.leaves)
    assert commit_records(KEY, IDS[::-1], CONTENTS[::-1]) == made
    others = [
        commit_records(bytes(32), IDS, CONTENTS),
        commit_records(KEY, IDS[:3], CONTENTS[:3]),
        commit_records(KEY, IDS + 1, CONTENTS),
        commit_records(KEY, IDS, CONTENTS[::-1]),
    ]
    assert len({made.root, *(one.root for one in others)}) == 5


def test_a_small_set_cannot_be_guessed_without_the_key() -> None:
    made = commit_records(KEY, np.array([3]), [CONTENTS[0]])
    candidates = [(i, content) for i in range(100) for content in CONTENTS]
    bare = {hashlib.sha256(LEAF_DOMAIN + i.to_bytes(8, "big", signed=True) + c).hexdigest() for i, c in candidates}
    assert not bare & set(made.leaves)
    assert {leaf(KEY, i, c).hex() for i, c in candidates} & set(made.leaves)
