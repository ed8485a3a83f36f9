"""Sign a bundle: statements in envelopes are added beside its files, and not a byte of these changes."""

import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports import bundle_checks
from mnemoscope.reports.attested import AUDIT_FILE, key_file, pipeline_file, read_attested
from mnemoscope.reports.contents import Contents, FolderContents, open_contents, unpack
from mnemoscope.reports.manifest import ATTESTATIONS, MANIFEST, Manifest, canonical, read_manifest
from mnemoscope.reports.placing import Source, place
from mnemoscope.reports.schema import write_whole
from mnemoscope.reports.signing import key_id, load_private_key, public_pem, read_envelope, sign_payload
from mnemoscope.reports.statements import Opinion, audit_statement, opinion_statement, pipeline_statements

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Signed", "sign_bundle", "signed_lines"]


@dataclass(frozen=True)
class Signed:
    """What was added to a bundle.

    Attributes:
        bundle: its place.
        key_id: of the signer's key.
        files: added or changed, ascending.
        open_key: the private key's file, where others than its owner may read it; None elsewhere.
    """

    bundle: Path
    key_id: str
    files: tuple[str, ...]
    open_key: Path | None = None


def _checked(contents: Contents, bundle: Path) -> tuple[Manifest, bytes, AuditResult]:
    """Read a bundle and refuse to vouch for one that does not hold."""
    if MANIFEST not in contents.sizes:
        raise InvalidInput(f"{bundle}: holds no {MANIFEST}; give what `mnemoscope bundle` wrote")
    raw = contents.read(MANIFEST)
    manifest = read_manifest(raw)
    wrong = [*bundle_checks.present(contents, manifest), *bundle_checks.digests(contents, manifest, raw)]
    result = None if wrong else bundle_checks.read_bundled_result(contents, manifest)
    wrong += read_attested(contents, manifest, raw, result).faults
    if wrong or result is None:
        raise InvalidInput(f"{bundle}: is not signed, for it does not hold: {'; '.join(wrong[:4])}")
    return manifest, raw, result


def _statements(
    manifest: Manifest, raw: bytes, result: AuditResult, opinion: Opinion | None
) -> Mapping[str, dict[str, Any]]:
    """The statements to sign, by the file that each goes into."""
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    if opinion is not None:
        statement = opinion_statement(opinion, manifest, digest)
        name = hashlib.sha256(canonical(statement)).hexdigest()[:16]
        return {f"{ATTESTATIONS}/opinion-{name}.dsse.json": statement}
    made = {
        pipeline_file(number): statement
        for number, statement in enumerate(pipeline_statements(result, manifest, digest), 1)
    }
    return {**made, AUDIT_FILE: audit_statement(result, manifest, digest)}


def _envelopes(
    contents: Contents, statements: Mapping[str, dict[str, Any]], key: "Ed25519PrivateKey", force: bool
) -> dict[str, bytes]:
    """Sign each statement; signatures of the same statement by other keys stay beside the new one."""
    name, made = key_id(key.public_key()), {}
    for path, statement in statements.items():
        payload = canonical(statement)
        others: tuple[tuple[str, bytes], ...] = ()
        if path in contents.sizes:
            there = read_envelope(contents.read(path), path)
            if name in dict(there.signatures) and not force:
                raise InvalidInput(f"{path}: is signed with this key already; --force signs again")
            if there.payload == payload:
                others = there.signatures
            elif not force:
                raise InvalidInput(
                    f"{path}: holds a signed statement with other words, from another release; --force replaces it"
                )
        made[path] = sign_payload(payload, key, others=others).to_json()
    return made


def _add_to_folder(folder: Path, added: Mapping[str, bytes]) -> None:
    """Write files into a folder, each whole; where one cannot be written, the folder is as it was before."""
    before = {path: (folder / path).read_bytes() if (folder / path).is_file() else None for path in added}
    try:
        for path, data in added.items():
            write_whole(folder / path, data)
    except InvalidInput:
        for path, old in before.items():
            with suppress(OSError, InvalidInput):
                if old is None:
                    (folder / path).unlink(missing_ok=True)
                else:
                    write_whole(folder / path, old)
        with suppress(OSError):
            (folder / ATTESTATIONS).rmdir()
        raise


def _add_to_zip(file: Path, contents: Contents, added: Mapping[str, bytes]) -> None:
    """Write the zip again with files added; it takes the place of the old one when it is whole."""
    with TemporaryDirectory(prefix="mnemoscope-") as name:
        unpack(contents, Path(name))
        sources: dict[str, Source] = {path: Path(name) / path for path in contents.sizes}
        private = not stat.S_IMODE(file.stat().st_mode) & 0o077
        place(file, {**sources, **added}, force=True, as_zip=True, private=private)


def sign_bundle(bundle: Path | str, key: Path | str, *, opinion: Opinion | None = None, force: bool = False) -> Signed:
    """Sign a bundle, or add a signed opinion to it.

    Nothing that is there is changed: ``manifest.json`` stays as it is, and so do other signatures.

    Args:
        bundle: a folder or zip that ``mnemoscope bundle`` wrote; one that does not hold is not signed.
        key: the signer's private key file.
        opinion: what to sign in place of the audit's statements.
        force: sign again what this key has signed already.

    Returns:
        What was added.

    Raises:
        InvalidInput: no bundle, one that does not hold, no key, signed already, or a place that cannot be written; the
            bundle is as it was then.
    """
    path = Path(bundle)
    secret = load_private_key(key)
    contents = open_contents(path)
    manifest, raw, result = _checked(contents, path)
    added = _envelopes(contents, _statements(manifest, raw, result, opinion), secret, force)
    public = secret.public_key()
    added[key_file(key_id(public))] = public_pem(public)
    if isinstance(contents, FolderContents):
        _add_to_folder(path, added)
    else:
        _add_to_zip(path.resolve(), contents, added)
    readable = os.name == "posix" and stat.S_IMODE(Path(key).stat().st_mode) & 0o077
    return Signed(path, key_id(public), tuple(sorted(added)), Path(key) if readable else None)


def signed_lines(signed: Signed) -> list[str]:
    """What was added, line by line."""
    note = f"note: others may read {signed.open_key}, and sign in your place: `chmod 600 {signed.open_key}`"
    return [
        f"signed {signed.bundle} with key {signed.key_id}",
        *(f"added {path}" for path in signed.files),
        "whoever has your public key by another way can check it: `mnemoscope verify BUNDLE --public-key FILE`",
        *([note] if signed.open_key else []),
    ]
