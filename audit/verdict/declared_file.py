"""Declarations in a TOML file: a commented one to start from, and the reading of what somebody filled in."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.declared import Declared

__all__ = ["declarations_template", "load_declared"]

LARGEST_FILE = 1_000_000
"""Bytes; a file of declarations is a page of text."""


def load_declared(source: "Declared | Path | str | None") -> Declared | None:
    """Read declarations.

    Args:
        source: a TOML file, declarations that were made already, or None.

    Returns:
        The declarations, or None where there are none.

    Raises:
        InvalidInput: the file cannot be read, a key is unknown (the nearest is suggested), or a value does not fit.
    """
    if source is None or isinstance(source, Declared):
        return source
    path = Path(source)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidInput(
            f"declarations {path}: cannot be read ({error.strerror}); `mnemoscope declare new {path.name}` writes one"
        ) from error
    if len(data) > LARGEST_FILE:
        raise InvalidInput(f"declarations {path}: larger than {LARGEST_FILE:,} bytes; a page of text is expected")
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"declarations {path}: is not valid TOML ({error}); correct it") from error
    made = _value(Declared, values, "declarations")
    assert isinstance(made, Declared)
    return made


def _value(kind: Any, value: object, where: str) -> object:
    """Turn one TOML value into a field of the declarations, or say what is expected there."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        return _value(inner[0], value, where)
    if origin is Literal:
        allowed = get_args(kind)
        if value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidInput(f"{where}={str(value)[:60]!r}: allowed are {', '.join(repr(a) for a in allowed)}{hint}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidInput(f"{where}: a list is expected, given {type(value).__name__}")
        return tuple(_value(get_args(kind)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if kind is bool or kind is int:
        if type(value) is not kind:
            word = "true or false" if kind is bool else "a whole number"
            raise InvalidInput(f"{where}={str(value)[:40]!r}: {word} is expected")
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{where}={str(value)[:40]!r}: a number is expected")
        return float(value)
    if kind is str:
        return _text(value, where)
    return _table(kind, value, where)


def _text(value: object, where: str) -> str:
    if isinstance(value, datetime):
        if value.utcoffset() is None or value.utcoffset().total_seconds() != 0:  # type: ignore[union-attr]
            raise InvalidInput(f"{where}={value.isoformat()}: give times in UTC, ending in Z")
        return value.replace(tzinfo=None, microsecond=0).isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str):
        raise InvalidInput(f"{where}={str(value)[:40]!r}: text is expected")
    return value


def _table(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where}: a table is expected, given {type(value).__name__}")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise InvalidInput(f"{where}: unknown key {str(key)[:60]!r}; {hint}")
    try:
        return kind(**{key: _value(hints[key], v, f"{where}.{key}") for key, v in value.items()})
    except TypeError as error:
        lacks = str(error).rpartition(":")[2].strip()
        raise InvalidInput(f"{where}: lacks {lacks}; give it") from error


def declarations_template() -> str:
    """Return a commented file of declarations in which nothing is declared yet."""
    return _TEMPLATE


_TEMPLATE = """# What only a human can say about an audited deletion. Remove the # of what you declare.
# What is left out is printed as "not declared"; nothing is inferred, and no number of the audit changes.
# Dates: 2026-11-21, or in UTC 2026-11-21T09:30:00Z. Digests: "sha256:" and 64 hex digits.
#
#   mnemoscope report RESULT --declarations THIS_FILE

# declared_by = "privacy office"      # a role or an id; names do not appear in the public edition
# at = 2026-11-21
# release_context = "unknown"         # internal | API with scores | API with labels only | open weights | unknown
# next_test_due = 2027-05-21

[request]
# ids = ["R-2026-0114"]               # pseudonymous ids of the requests, never names
# received = 2026-10-30
# executed = 2026-11-12               # the deletion was carried out
# replaced = 2026-11-19               # the model in service was replaced
# ground = ""                         # the legal ground, in the controller's own words
# n_subjects = 1

[service]
# name = ""                           # what you call the model in service
# served_digest = "sha256:..."        # of the artefact that is in service
# contains_record = false             # is the model in service still one that was trained on these records?
# holds_before = ""                   # who holds the model before deletion

[forget_set]                          # the deleted records that this audit itself needed
# held_by = ""
# kept_until = 2026-12-31
# destroyed = 2026-12-31
# commitment = "sha256:..."           # of the keyed commitment to them

# One entry for each kind of copy. item is one of: source rows | backups and logs | model in service |
# older checkpoints | derived models | stored instances | recipients | forget set of this audit
# status is one of: done | open | not applicable | unknown
# [[scope]]
# item = "source rows"
# status = "done"
# note = ""
# at = 2026-11-12

# role is one of: requester | assessor | approver | dpo (data protection officer, whose opinion is the decision);
# an empty decision is printed as pending.
# [[people]]
# role = "assessor"
# name = ""
# independent = true
# decision = ""
# at = 2026-11-20

# kind is one of: dpia | threat model | process record | data sheet | other
# [[documents]]
# kind = "dpia"
# id = "DPIA-12, version 3"
# digest = "sha256:..."
# at = 2026-09-01

# [[recipients]]
# name = "processor A"
# told = true
# told_at = 2026-11-13

# A claim of differential privacy or certified removal, as its maker states it.
# [[claims]]
# kind = "DP-SGD"
# epsilon = 8.0
# delta = 1e-5
# unit = "one record"
# relation = "add or remove"
# accountant = "name and version"
# trusted = ""
# source = "where it is stated"
"""
