"""What counts as a view of a result, and which digests a view prints."""

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

__all__ = ["FORM_OF_VIEW", "VIEW_FOLDERS", "VIEW_NAMES", "media_type", "names_source", "printed_digests", "witness"]

VIEW_NAMES = ("report.pdf", "summary.md", "summary.pdf", "junit.xml")
"""Views that stand beside a result; ``report.html`` is always there."""

VIEW_FOLDERS = {"figures": (".csv", ".pdf", ".png", ".svg", ".txt"), "tables": (".csv",)}

FORM_OF_VIEW = {"pdf": "report.pdf", "markdown": "summary.md", "junit": "junit.xml", "csv": "tables/"}
"""Forms of ``mnemoscope report`` by the file, or the folder, that tells that they were written."""

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".npz": "application/x-npz",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".xml": "application/xml",
}

MOST_VIEW = 2**27
MOST_PART, MOST_UNPACKED, MOST_STREAMS = 2**22, 2**26, 5_000
"""Bytes of one packed part of a PDF, of all of them, and how many are looked at."""

_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_NAMED = re.compile(rb'<meta name="result-digest" content="(sha256:[0-9a-f]{64})">')


def media_type(path: str) -> str:
    """The media type of a file by its name.

    >>> media_type("figures/roc.svg")
    'image/svg+xml'
    """
    return MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")


def names_source(page: bytes) -> str | None:
    """The digest of the result that a page says it was made from; None where it names none."""
    found = _NAMED.search(page[: 2**20])
    return found[1].decode() if found else None


def witness(path: str) -> str:
    """The file that says which result a view was made from: the view itself, or the words that stand for a drawing.

    >>> witness("figures/s1-roc.svg"), witness("summary.md")
    ('figures/s1-roc.alt.txt', 'summary.md')
    """
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.split('.')[0]}.alt.txt" if folder == "figures" else path


def printed_digests(view: Path | bytes) -> frozenset[str]:
    """All digests that stand in a view, in the packed parts of a PDF too; pictures of points (PNG) show none."""
    if isinstance(view, bytes):
        data = view
    elif view.stat().st_size > MOST_VIEW:
        return frozenset()
    else:
        data = view.read_bytes()
    parts = [data, *_unpacked(data)] if data.startswith(b"%PDF-") else [data]
    return frozenset(found.decode() for part in parts for found in _DIGEST.findall(part))


def _unpacked(pdf: bytes) -> Iterator[bytes]:
    """The packed parts of a PDF, each up to a size, and not endlessly many: whoever made it may mean ill."""
    left = MOST_UNPACKED
    for found in islice(_STREAM.finditer(pdf), MOST_STREAMS):
        try:
            part = zlib.decompressobj().decompress(pdf[found.end() : found.end() + MOST_PART], min(MOST_PART, left))
        except zlib.error:
            continue
        left -= len(part)
        yield part
        if left <= 0:
            return
