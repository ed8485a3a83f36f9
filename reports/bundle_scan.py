"""A last look at what is about to leave: no secret key, and below the restricted edition no record and no raw score."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.archive import blocks
from mnemoscope.reports.manifest import Edition
from mnemoscope.reports.placing import Source, opener

__all__ = ["controller_secret", "record_keys", "refuse_secrets"]

ARRAYS = (".npz", ".npy", ".parquet", ".arrow", ".feather", ".h5", ".pt", ".pth", ".safetensors")
"""Kinds of files that hold values of single records."""

NEVER = (".pkl", ".pickle", ".joblib")
"""Kinds of files that run code when they are read."""

KEY_NAMES = (".key", ".pem", ".p12", ".pfx")
MARKS = (b"PRIVATE KEY-----",)
CONTROLLER_KEY, KEY_VARIABLE, MOST_KEY = "commitment.key", "MNEMOSCOPE_KEY_FILE", 4096
"""The file of the controller's key beside a result, or the variable that names it; it stays with the controller."""

SHORTEST_KEY = 4
"""Shorter record keys stand in every text by chance; they are looked for between quotes alone."""


def controller_secret(folder: Path) -> tuple[bytes, ...]:
    """What must be found nowhere: the controller's key, beside the result or named by the environment, in any form."""
    named = os.environ.get(KEY_VARIABLE)
    found: list[bytes] = []
    for place in (folder / CONTROLLER_KEY, *([Path(named)] if named else [])):
        try:
            with place.open("rb") as file:
                text = file.read(MOST_KEY).strip()
        except OSError:
            continue
        found += [text, text.upper()]
        with suppress(ValueError):
            found.append(bytes.fromhex(text.decode("ascii")))
    return tuple(secret for secret in dict.fromkeys(found) if len(secret) >= 16)


def record_keys(result: AuditResult) -> tuple[str, ...]:
    """The users' keys of the records that a result names one by one."""
    exposed = {row.key for subject in result.subjects for row in subject.exposed}
    return tuple(sorted((exposed | {row.key for subject in result.subjects for row in subject.individuals}) - {""}))


def _needles(keys: tuple[str, ...]) -> list[bytes]:
    """What a key looks like in JSON and in text."""
    found = []
    for key in keys:
        quoted = json.dumps(key, ensure_ascii=False)
        text = quoted[1:-1] if len(key) >= SHORTEST_KEY and not key.isdigit() else quoted
        found.append(text.encode("utf-8", "surrogatepass"))
    return found


def _holds(source: Source, needles: list[bytes]) -> bool:
    """Search a file for byte strings, across the borders of blocks."""
    overlap = max(map(len, needles)) - 1
    tail = b""
    with opener(source)() as file:
        for block in blocks(file):
            window = tail + block
            if any(needle in window for needle in needles):
                return True
            tail = window[-overlap:] if overlap else b""
    return False


def refuse_secrets(
    files: Mapping[str, Source], edition: Edition, keys: tuple[str, ...], secrets: tuple[bytes, ...] = ()
) -> None:
    """Refuse a bundle with something in it that its edition may not hold.

    Args:
        files: path -> bytes, or the file that holds them.
        edition: who the bundle is for.
        keys: keys of records that the audit named one by one.
        secrets: what must stand nowhere, such as the controller's key.

    Raises:
        InvalidInput: names the file, never what was found in it.
    """
    for path, source in files.items():
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in KEY_NAMES or _holds(source, [*MARKS, *secrets]):
            raise InvalidInput(f"{path}: looks like a secret key, which no bundle may hold; take it out of the folder")
        if suffix in NEVER:
            raise InvalidInput(f"{path}: a kind of file that runs code when it is read; no bundle holds it")
        if edition == "restricted":
            continue
        if suffix in ARRAYS:
            raise InvalidInput(
                f"{path}: arrays may hold scores of single records and are for --edition restricted; its "
                f"classification says that the {edition} edition may have it"
            )
        if keys and _holds(source, _needles(keys)):
            raise InvalidInput(
                f"{path}: names a record that the restricted edition alone may name. Remove the record's key from what "
                "is written there (a title, a subject's name, the plan), or use --edition restricted"
            )
