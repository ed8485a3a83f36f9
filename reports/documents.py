"""Read a result together with the digest of the very bytes it was read from."""

import hashlib
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.schema import RESULT_NAME, from_json

__all__ = ["LARGEST_RESULT", "read_document"]

LARGEST_RESULT = 1 << 29
"""Bytes of a result that is read: hundreds of attacks and methods fit."""


def read_document(path: Path | str) -> tuple[AuditResult, str]:
    """Read a ``result.json``, or the one in a folder.

    Args:
        path: the file or its folder.

    Returns:
        The result, and "sha256:..." of the file as ``sha256sum`` prints it. A file of an older schema keeps its digest,
        which is not that of the result as this release would write it.

    Raises:
        InvalidInput: there is no such file, it is too large, or it is no result of a known schema.
    """
    file = Path(path)
    file = file / RESULT_NAME if file.is_dir() else file
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_RESULT + 1)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {file}: {error.strerror or error}. Give the result.json of an audit"
        ) from error
    if len(data) > LARGEST_RESULT:
        raise InvalidInput(f"{file}: is larger than {LARGEST_RESULT:,} bytes; is it the result.json of an audit?")
    return from_json(data), "sha256:" + hashlib.sha256(data).hexdigest()
