"""Keys: a digest of everything that can change a bit of what is kept under it."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput

__all__ = ["Json", "canonical_json", "content_key", "ids_digest", "plain_json"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 8785, RFC 7493)."""


def plain_json(value: object, where: str = "value") -> Json:
    """Return ``value`` as JSON types only, or refuse it by its path: nothing is turned into text silently.

    Tuples become lists and NumPy scalars Python numbers. Sets, arrays, paths and every other object are refused:
    written through ``str`` they would come back as something else.

    Args:
        value: what is to be written.
        where: its path, for the message.

    Raises:
        InvalidInput: a type that JSON does not have, a key that is no string, a number that is not finite.

    >>> plain_json({"epochs": (1, 2)})
    {'epochs': [1, 2]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            raise InvalidInput(f"{where}={number} cannot be stored: JSON has finite numbers only")
        return number
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"{where} has the key {key!r} ({type(key).__name__}); keys must be strings")
        return {key: plain_json(item, f"{where}.{key}") for key, item in value.items()}
    raise InvalidInput(
        f"{where} is a {type(value).__name__}, which JSON cannot carry without changing it; "
        "allowed: null, booleans, numbers, strings, lists and mappings with string keys"
    )


def _exact(value: Json) -> Any:
    """Write integers beyond 2**53 - 1 as tagged text, so that 63-bit seeds stay exact."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE_INTEGER:
        return {"integer": str(value)}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    return value


def canonical_json(value: object) -> bytes:
    """Return the one canonical byte string of a JSON value (RFC 8785: sorted keys, shortest numbers).

    >>> canonical_json({"b": 1.0, "a": (True, None)})
    b'{"a":[true,null],"b":1}'
    """
    try:
        return rfc8785.dumps(_exact(plain_json(value)))
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"a value cannot be written as canonical JSON: {error}; use valid Unicode text") from error


def content_key(kind: str, version: int, parts: Mapping[str, object]) -> str:
    """Return the key of one piece of work: 64 hex digits of sha256 over its canonical inputs.

    Args:
        kind: the kind of task, e.g. "train".
        version: the kind's integer version, raised by hand when its code changes results.
        parts: everything else that can change a bit of the outcome; JSON types only.

    >>> content_key("train", 1, {"seed": 1}) == content_key("train", 1, {"seed": 1})
    True
    >>> content_key("train", 1, {"seed": 1}) == content_key("train", 2, {"seed": 1})
    False
    """
    return hashlib.sha256(canonical_json({"kind": kind, "version": version, "parts": parts})).hexdigest()


def ids_digest(ids: NDArray[np.int64]) -> str:
    """Return "sha256:..." of record ids in the order given (little-endian int64), with their number.

    >>> ids_digest(np.array([1, 2])) == ids_digest(np.array([2, 1]))
    False
    """
    array = np.ascontiguousarray(ids, dtype="<i8")
    return "sha256:" + hashlib.sha256(f"{array.size}:".encode() + array.tobytes()).hexdigest()
