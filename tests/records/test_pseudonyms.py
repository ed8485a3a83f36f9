import hashlib
import hmac

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.pseudonyms import DOMAIN, new_key, pseudonym

KEY = bytes(range(32))


def test_a_pseudonym_is_the_hmac_of_the_record_key():
    expected = hmac.new(KEY, DOMAIN + b"images/0007.png", hashlib.sha256).hexdigest()
    assert pseudonym(KEY, "images/0007.png") == expected[:16]
    assert pseudonym(KEY, "images/0007.png", 64) == expected


def test_records_and_keys_tell_pseudonyms_apart():
    records = [f"row-{i}" for i in range(2000)]
    assert len({pseudonym(KEY, record) for record in records}) == len(records)
    assert not {pseudonym(KEY, r) for r in records} & {pseudonym(bytes(32), r) for r in records}


def test_a_bare_hash_does_not_give_the_record_away():
    guesses = {hashlib.sha256(f"{i}".encode()).hexdigest()[:16] for i in range(1000)}
    guesses |= {hashlib.sha256(DOMAIN + f"{i}".encode()).hexdigest()[:16] for i in range(1000)}
    assert not {pseudonym(KEY, str(i)) for i in range(1000)} & guesses


@pytest.mark.parametrize("record", ["", "π/η.png", "a\udcff.png", "\x00", "x" * 100_000])
def test_any_record_key_has_a_name(record):
    assert len(pseudonym(KEY, record)) == 16


@pytest.mark.parametrize(("key", "length"), [(b"", 16), (b"short", 16), (KEY, 7), (KEY, 65), (KEY, True)])
def test_weak_keys_and_lengths_are_refused(key, length):
    with pytest.raises(InvalidInput):
        pseudonym(key, "a", length)


def test_a_new_key_is_long_and_new():
    assert len(new_key()) == 32
    assert new_key() != new_key()
