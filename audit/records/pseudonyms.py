"""Names for records that only the holder of a key can take back: HMAC-SHA256 of the user's key of a record.

A bare hash of a short record key can be guessed by hashing all candidates; with a secret key that stays with the
controller it cannot. The same record has the same pseudonym in every document made with one key, and unrelated ones
under two keys.
"""

import hashlib
import hmac
import secrets

from mnemoscope.audit.errors import InvalidInput

__all__ = ["LEAST_KEY_BYTES", "new_key", "pseudonym"]

LEAST_KEY_BYTES = 16
"""Shorter keys could be found by trying them all."""

DOMAIN = b"mnemoscope record pseudonym 1\x00"
"""Keeps pseudonyms apart from whatever else is ever made with the same key, such as commitments to contents."""

MOST_HEX = 64


def pseudonym(key: bytes, record_key: str, length: int = 16) -> str:
    """Name a record for a document that must not tell who it is.

    Args:
        key: the controller's secret, at least ``LEAST_KEY_BYTES`` bytes.
        record_key: the user's key of the record: relative path or row key.
        length: hex digits of the name, 8 to 64. With 16 two of a million records share a name with a chance of about
            3 in 100 million.

    Returns:
        ``length`` lower-case hex digits.

    Raises:
        InvalidInput: the key is too short, or the length is outside of its range.

    >>> pseudonym(b"k" * 32, "images/0007.png") == pseudonym(b"k" * 32, "images/0007.png")
    True
    >>> pseudonym(b"k" * 32, "images/0007.png") == pseudonym(b"K" * 32, "images/0007.png")
    False
    """
    if len(key) < LEAST_KEY_BYTES:
        raise InvalidInput(
            f"the key of the pseudonyms has {len(key)} bytes; at least {LEAST_KEY_BYTES} are needed, or names could be "
            "taken back by trying all keys. Make one with 32 random bytes"
        )
    if isinstance(length, bool) or not 8 <= length <= MOST_HEX:
        raise InvalidInput(f"length={length!r}: a pseudonym has 8 to {MOST_HEX} hex digits")
    # Surrogates stand for bytes of file names that are no UTF-8; they are names of records like all others.
    message = DOMAIN + record_key.encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:length]


def new_key() -> bytes:
    """Return a fresh secret of 32 bytes. Who keeps none can take no pseudonym back, and neither can anybody else."""
    return secrets.token_bytes(32)
