"""The result document on disk: canonical JSON out, validated classes in, and the JSON Schema made from the classes.

Canonical JSON is RFC 8785: the same result is the same bytes everywhere, so that a digest names a result. NaN, infinity
and integers beyond 2**53 do not exist in it and are refused with their place.
"""

import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import SCHEMA_VERSION, AuditResult
from mnemoscope.reports.editions import for_edition

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["from_json", "json_schema", "read_result", "result_digest", "to_json", "without_individuals", "write_result"]

SAFE_INTEGER = 2**53 - 1
RESULT_NAME = "result.json"
ERRORS_SHOWN = 8


@cache
def _adapter() -> "TypeAdapter[AuditResult | None]":
    """The validator; pydantic's config reaches plain dataclasses only from a type around them, hence the union."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(
        AuditResult | None,
        config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=False),
    )


def _plain(value: object, where: str) -> object:
    """Turn classes, tuples and NumPy scalars into JSON values; name the place of whatever JSON cannot hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        if all(type(v) is float for v in value) and all(map(math.isfinite, value)):
            return list(value)  # a curve: thousands of numbers that need no look one by one
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, str):
        return value
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, numbers.Integral):
        number = int(value)
        if abs(number) > SAFE_INTEGER:
            raise InvalidInput(
                f"{where}={number}: JSON readers keep integers exact only up to 2**53; use a smaller one"
            )
        return number
    if isinstance(value, numbers.Real):
        real = float(value)
        if not math.isfinite(real):
            raise InvalidInput(f"{where}={real}: a result holds no NaN or infinity; use a null value with a reason")
        return real
    raise InvalidInput(
        f"{where}: a {type(value).__name__} cannot be written as JSON; use text, numbers or tuples of them"
    )


def without_individuals(result: AuditResult) -> AuditResult:
    """Return the result without its list of exposed individuals, unless it is the restricted edition.

    A list of who was in the training data is itself personal data; ``editions.for_edition`` says what else an edition
    leaves out.
    """
    return for_edition(result)


def to_json(result: AuditResult) -> bytes:
    """Encode a result as canonical JSON (RFC 8785), validated by what reads it.

    Exposed individuals are written in the restricted edition only (:func:`without_individuals`).

    Args:
        result: the result; rates in [0, 1], times in seconds.

    Returns:
        UTF-8 bytes without a trailing newline; equal results give equal bytes.

    Raises:
        InvalidInput: NaN, infinity, an integer beyond 2**53, or a value that does not fit the schema, with its place.
    """
    import rfc8785

    plain = _plain(without_individuals(result), "result")
    try:
        data = rfc8785.dumps(plain)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidInput(f"result: {error}; repair the text or number that cannot be written") from error
    from_json(data)
    return data


def _version(text: object) -> tuple[int, int, int]:
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise InvalidInput(
            f"schema_version={str(text)[:40]!r}: expected three numbers such as {SCHEMA_VERSION!r}; "
            "is this a result.json of this tool?"
        )
    return int(parts[0]), int(parts[1]), int(parts[2])


def _check_version(text: object) -> None:
    given, ours = _version(text), _version(SCHEMA_VERSION)
    if given[:2] > ours[:2]:
        raise InvalidInput(
            f"schema_version={text}: this result was written by a newer release; this one reads up to "
            f"{SCHEMA_VERSION}. Upgrade mnemoscope to read it"
        )
    if given[0] < ours[0]:
        raise InvalidInput(
            f"schema_version={text}: this release reads {ours[0]}.x results only. Read it with an older release, or "
            "run the audit again"
        )


def from_json(data: bytes | str) -> AuditResult:
    """Read a result; unknown keys, wrong types and newer schemas are refused.

    Args:
        data: the JSON document.

    Returns:
        The result, equal to the one that was written.

    Raises:
        InvalidInput: no JSON, another schema version, or values that do not fit, each named with its path.
    """
    from pydantic import ValidationError

    try:
        head = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"result: not a JSON document ({error}). Give the result.json that an audit wrote"
        ) from error
    if not isinstance(head, dict):
        raise InvalidInput(f"result: a JSON object is expected, given {type(head).__name__}")
    _check_version(head.get("schema_version"))
    try:
        result = _adapter().validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{'.'.join(str(part) for part in e['loc']) or 'result'}: {e['msg']}" for e in found[:ERRORS_SHOWN]]
        more = f"; and {len(found) - ERRORS_SHOWN} more" if len(found) > ERRORS_SHOWN else ""
        raise InvalidInput(
            f"result: {len(found)} value(s) do not fit schema {SCHEMA_VERSION}: " + "; ".join(lines) + more
        ) from error
    assert result is not None  # an object was given, and null is the only other member of the union
    return result


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a result, generated from the classes; unknown keys are not allowed."""
    made = _adapter().json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:mnemoscope:result:{SCHEMA_VERSION}",
        "title": f"Mnemoscope result {SCHEMA_VERSION}",
        "$ref": "#/$defs/AuditResult",
        "$defs": made["$defs"],
    }


def result_digest(result: AuditResult | bytes) -> str:
    """Return ``"sha256:..."`` of the canonical JSON: what ``sha256sum result.json`` prints."""
    data = result if isinstance(result, bytes) else to_json(result)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_result(result: AuditResult, out_dir: Path | str) -> Path:
    """Write ``result.json`` into a folder, whole or not at all.

    Returns:
        The path of the file.

    Raises:
        InvalidInput: the result does not fit the schema, or the folder cannot be written.
    """
    return write_whole(Path(out_dir) / RESULT_NAME, to_json(result))


def read_result(path: Path | str) -> AuditResult:
    """Read a ``result.json``, or the one in a folder.

    Raises:
        InvalidInput: there is no such file, or it is no result of a known schema.
    """
    path = Path(path)
    path = path / RESULT_NAME if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror or error}. Give the result.json of an audit"
        ) from error
    return from_json(data)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file through a temporary one on the same disk, so that its name never shows half of it."""
    import os
    import tempfile

    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; a report is to be read like any other file of the user.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except OSError as error:
        raise InvalidInput(
            f"cannot write {path}: {error.strerror or error}. Give another --out folder, or free space there"
        ) from error
    finally:
        if name is not None and os.path.exists(name):
            os.unlink(name)
    return path
