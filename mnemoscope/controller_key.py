"""The controller's key: what makes pseudonyms of records and commitments to them, and never leaves the controller.

It lies beside ``result.json`` as ``commitment.key``, readable by its owner alone, unless a file is given; no document
and no bundle holds it.
"""

import os
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.pseudonyms import LEAST_KEY_BYTES, new_key

__all__ = ["KEY_NAME", "KEY_VARIABLE", "controller_key", "existing_key", "key_file", "read_key"]

KEY_NAME = "commitment.key"
KEY_VARIABLE = "MNEMOSCOPE_KEY_FILE"
LONGEST = 4096
HOW = f"a key is at least {LEAST_KEY_BYTES} random bytes as hex digits on one line"


def controller_key(out: Path, file: Path | None = None) -> bytes:
    """Return the key of an audit that writes into ``out``: given, or there already, or made now.

    Args:
        out: the folder of the result; a key that is made is kept there, mode 0600, and used again by later runs.
        file: where the controller keeps one; None asks the variable MNEMOSCOPE_KEY_FILE, then the folder.

    Raises:
        InvalidInput: a file that was named is not there or holds no key, or the folder cannot be written.
    """
    if (found := existing_key(out, file)) is not None:
        return found
    key, place = new_key(), out / KEY_NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(key.hex() + "\n")
    except FileExistsError:  # another run in this folder was faster
        return read_key(place)
    except OSError as error:
        raise InvalidInput(f"cannot write {place}: {error.strerror or error}. Give another --out folder") from error
    return key


def key_file(out: Path) -> Path:
    """Return the file of the key of several audits below one folder, made where there is none."""
    controller_key(out)
    named = os.environ.get(KEY_VARIABLE)
    return Path(named) if named else out / KEY_NAME


def existing_key(out: Path, file: Path | None = None) -> bytes | None:
    """Return the key that ``controller_key`` would find, or None where it would make one; the same refusals."""
    given = file or (Path(named) if (named := os.environ.get(KEY_VARIABLE)) else None)
    if given is not None:
        return read_key(given)
    return read_key(out / KEY_NAME) if (out / KEY_NAME).exists() else None


def read_key(file: Path) -> bytes:
    """Read a key.

    Raises:
        InvalidInput: no such file, or no key in it.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LONGEST + 1)
    except OSError as error:
        raise InvalidInput(f"key {file}: cannot be read ({error.strerror or error}); {HOW}") from error
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError as error:
        raise InvalidInput(f"key {file}: holds no hex digits alone; {HOW}") from error
    if len(data) > LONGEST or len(key) < LEAST_KEY_BYTES:
        raise InvalidInput(f"key {file}: has {len(key)} bytes; {HOW}")
    return key
