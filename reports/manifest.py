"""The list of everything in a bundle: each file with its digest, what it is for, and who may read it.

The list is canonical JSON and ends in a digest of itself, so that an altered list is told from altered files. That is
no protection against somebody who makes the whole list again: only a signature is (see ``signing``).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast, get_args

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.archive import MOST_FILES, check_path

__all__ = [
    "ATTESTATIONS",
    "EDITIONS",
    "MANIFEST",
    "MANIFEST_VERSION",
    "SUMS",
    "Classification",
    "Edition",
    "Entry",
    "Manifest",
    "ManifestError",
    "canonical",
    "parse_canonical",
    "read_manifest",
    "rank",
    "sums",
    "write_manifest",
]

MANIFEST, SUMS, ATTESTATIONS = "manifest.json", "SHA256SUMS", "attestations"
"""The list, the same in the form that ``sha256sum -c`` reads, and the folder of signatures: none is in the list."""

MANIFEST_VERSION = "1.0.0"
SELF = "sha256_of_the_rest"
MOST_MANIFEST_BYTES = 16 * 2**20

Edition = Literal["public", "internal", "restricted"]
Classification = Edition
EDITIONS: tuple[Edition, ...] = get_args(Edition)


class ManifestError(InvalidInput):
    """A manifest that was altered, or that this release cannot read."""


def rank(name: Edition) -> int:
    """Order editions and classifications: a part may stand in an edition of at least its own rank.

    >>> rank("public") < rank("internal") < rank("restricted")
    True
    """
    return EDITIONS.index(name)


@dataclass(frozen=True, order=True)
class Entry:
    """One file.

    Attributes:
        path: inside the bundle.
        sha256: "sha256:" and 64 hex digits, of its bytes.
        bytes: how many there are.
        media_type: e.g. "application/json".
        role: what it is for: result, plan, policy, environment, report, figure, evidence, log, guide.
        classification: who may read it.
        produced_by: the step that wrote it: audit, report or bundle.
        reason: why it was left out, where it was; empty for files that are there.
    """

    path: str
    sha256: str
    bytes: int
    media_type: str
    role: str
    classification: Classification
    produced_by: str
    reason: str = ""


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle holds, and what it leaves out.

    Attributes:
        edition: who the bundle is for.
        tool: name and version that wrote it.
        result: digest of ``result.json`` as this bundle holds it.
        result_edition: edition that this ``result.json`` states.
        derived_from: digest of the audit's own ``result.json``; the same where nothing was taken out.
        entries: files that are there, by path.
        withheld: files that a higher edition holds, by path.
        manifest_version: of this layout.
    """

    edition: Edition
    tool: str
    result: str
    result_edition: Edition
    derived_from: str
    entries: tuple[Entry, ...]
    withheld: tuple[Entry, ...]
    manifest_version: str = MANIFEST_VERSION

    def paths(self) -> set[str]:
        """The paths of the files that must be there, this list and the signatures apart."""
        return {entry.path for entry in self.entries}


def canonical(value: object) -> bytes:
    """Encode as canonical JSON (RFC 8785).

    Raises:
        InvalidInput: NaN, infinity, integers beyond 2**53, text that is no Unicode.
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(f"cannot be written as canonical JSON: {error}") from error


def parse_canonical(data: bytes, what: str) -> Any:
    """Read JSON and insist that its bytes are the canonical ones, so that no byte can differ without notice.

    Args:
        data: the document.
        what: its name, for the message.

    Raises:
        InvalidInput: no JSON, or other bytes than canonical JSON of the same values has.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}: no JSON document ({str(error)[:80]})") from error
    if canonical(value) != data:
        raise InvalidInput(f"{what}: not in canonical form (RFC 8785), as this tool writes it: its bytes were altered")
    return value


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest; equal manifests give equal bytes."""
    document: dict[str, Any] = {f.name: getattr(manifest, f.name) for f in fields(manifest)}
    for name in ("entries", "withheld"):
        document[name] = [asdict(entry) for entry in sorted(document[name])]
    for entry in document["entries"]:
        del entry["reason"]
    document[SELF] = _digest(canonical(document))
    return canonical(document)


def is_digest(value: object) -> bool:
    """Tell whether a value is "sha256:" and 64 lower-case hex digits."""
    if not isinstance(value, str) or len(value) != 71 or not value.startswith("sha256:"):
        return False
    return all(c in "0123456789abcdef" for c in value[7:])


def _entry(raw: object, withheld: bool) -> Entry:
    wanted = {f.name for f in fields(Entry)} - (set() if withheld else {"reason"})
    if not isinstance(raw, dict) or set(raw) != wanted:
        raise ManifestError(f"{MANIFEST}: an entry must have the keys {', '.join(sorted(wanted))}")
    texts = ("path", "media_type", "role", "produced_by", *(("reason",) if withheld else ()))
    if not all(isinstance(raw[key], str) for key in texts) or not is_digest(raw["sha256"]):
        raise ManifestError(f"{MANIFEST}: an entry has a value of a wrong type, or a digest that is none")
    if type(raw["bytes"]) is not int or raw["bytes"] < 0 or raw["classification"] not in EDITIONS:
        raise ManifestError(f"{MANIFEST}: {ascii(raw['path'])} has a size or a classification that is none")
    check_path(raw["path"])
    return Entry(**raw)


def _entries(raw: object, withheld: bool) -> tuple[Entry, ...]:
    if not isinstance(raw, list) or len(raw) > MOST_FILES:
        raise ManifestError(f"{MANIFEST}: lists of at most {MOST_FILES:,} files are expected")
    found = tuple(_entry(item, withheld) for item in raw)
    paths = [entry.path for entry in found]
    if paths != sorted(set(paths)) or len({path.lower() for path in paths}) != len(paths):
        raise ManifestError(f"{MANIFEST}: the files are not in order, or one is listed twice")
    return found


def _check_version(text: object) -> None:
    ours = MANIFEST_VERSION.split(".")
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise ManifestError(f"{MANIFEST}: manifest_version={ascii(text)[:40]} is not three numbers such as {ours}")
    if [int(p) for p in parts[:2]] > [int(p) for p in ours[:2]]:
        raise ManifestError(
            f"{MANIFEST}: manifest_version={text} was written by a newer release; this one reads up to "
            f"{MANIFEST_VERSION}. Upgrade mnemoscope to verify this bundle"
        )


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest and check it against its own digest.

    Raises:
        ManifestError: altered, of a newer release, or no manifest.
        InvalidInput: no canonical JSON, or a path that is no path of a bundle.
    """
    if len(data) > MOST_MANIFEST_BYTES:
        raise ManifestError(f"{MANIFEST}: {len(data):,} bytes are more than a manifest has")
    document = parse_canonical(data, MANIFEST)
    if not isinstance(document, dict):
        raise ManifestError(f"{MANIFEST}: a JSON object is expected")
    _check_version(document.get("manifest_version"))
    stated = document.pop(SELF, None)
    if stated != _digest(canonical(document)):
        raise ManifestError(f"{MANIFEST}: differs from the digest of itself that it ends in: it was altered")
    wanted = {f.name for f in fields(Manifest)}
    if set(document) != wanted:
        raise ManifestError(f"{MANIFEST}: must have the keys {', '.join(sorted(wanted))}")
    if document["edition"] not in EDITIONS or document["result_edition"] not in EDITIONS:
        raise ManifestError(f"{MANIFEST}: the edition must be one of {', '.join(EDITIONS)}")
    if not isinstance(document["tool"], str) or not all(is_digest(document[k]) for k in ("result", "derived_from")):
        raise ManifestError(f"{MANIFEST}: the tool or a digest of the result is missing")
    entries, withheld = _entries(document["entries"], False), _entries(document["withheld"], True)
    return Manifest(**cast("Mapping[str, Any]", {**document, "entries": entries, "withheld": withheld}))


def sums(entries: Iterable[Entry], manifest: bytes) -> bytes:
    """The digests in the form of ``sha256sum``, for readers without this tool; the manifest's own line is the last."""
    lines = [f"{entry.sha256.removeprefix('sha256:')}  {entry.path}\n" for entry in sorted(entries)]
    return "".join([*lines, f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"]).encode("ascii")
