"""Ed25519 keys and DSSE envelopes: who vouches for exact bytes, checked without any service.

An envelope (Dead Simple Signing Envelope 1.0) signs ``PAE(payload type, payload)``, so that a signature made for one
kind of document is none for another. Key ids are the SHA-256 of the public key's SubjectPublicKeyInfo; they only say
which key to try.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.manifest import canonical, is_digest, parse_canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PASSPHRASE",
    "PAYLOAD_TYPE",
    "Envelope",
    "KeyFiles",
    "SignatureError",
    "key_id",
    "key_lines",
    "load_private_key",
    "load_public_key",
    "new_key_files",
    "pae",
    "public_pem",
    "read_envelope",
    "read_public_key",
    "sign_payload",
    "signed_by",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSPHRASE = "MNEMOSCOPE_KEY_PASSPHRASE"
"""Environment variable with the passphrase of a private key: never an argument, which other users of a machine see."""

MOST_KEY_BYTES = 2**14
MOST_ENVELOPE_BYTES = 2**22


class SignatureError(InvalidInput):
    """An envelope that was altered, or a signature that does not hold."""


@dataclass(frozen=True)
class Envelope:
    """A signed document.

    Attributes:
        payload: the exact bytes that were signed.
        signatures: (key id, signature) of each signer, in the order of the key ids.
        payload_type: how to read the payload.
    """

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    payload_type: str = PAYLOAD_TYPE

    def to_json(self) -> bytes:
        """The JSON envelope, canonical: the same signatures give the same bytes."""
        signatures = [{"keyid": name, "sig": base64.b64encode(sig).decode()} for name, sig in self.signatures]
        payload = base64.b64encode(self.payload).decode()
        return canonical({"payload": payload, "payloadType": self.payload_type, "signatures": signatures})


@dataclass(frozen=True)
class KeyFiles:
    """A new key pair: its two files, its id, and whether a passphrase is needed to use it."""

    private: Path
    public: Path
    key_id: str
    encrypted: bool


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature covers; lengths count bytes.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode("utf-8")
    return b" ".join((b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_KEY_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {what} {path}: {error.strerror or error}. Give another file") from error
    if len(data) > MOST_KEY_BYTES:
        raise InvalidInput(f"{path}: larger than any key; give {what} that `mnemoscope keygen` wrote")
    return data


def load_private_key(path: Path | str) -> "Ed25519PrivateKey":
    """Read a private key; a passphrase comes from the environment (``PASSPHRASE``).

    Raises:
        InvalidInput: no such file, no Ed25519 private key in PEM form, or a passphrase that is missing or wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = Path(path)
    data = _read(path, "the private key")
    if b"PUBLIC KEY-----" in data:
        raise InvalidInput(f"{path}: a public key, which can only verify; give the private key that belongs to it")
    encrypted = b"ENCRYPTED" in data
    phrase = os.environ.get(PASSPHRASE) or None
    if encrypted and phrase is None:
        raise InvalidInput(f"{path}: needs a passphrase; set {PASSPHRASE} in the environment")
    try:
        key = load_pem_private_key(data, phrase.encode("utf-8") if encrypted and phrase is not None else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = (
            f"the passphrase in {PASSPHRASE} is wrong, or the file is damaged" if encrypted else "no private key in PEM"
        )
        raise InvalidInput(f"{path}: {why}; give the file that `mnemoscope keygen` wrote") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path}: a key of another kind; signatures here are Ed25519 (`mnemoscope keygen`)")
    return key


def read_public_key(data: bytes, what: str) -> "Ed25519PublicKey":
    """Read a public key from its PEM bytes.

    Raises:
        InvalidInput: no Ed25519 public key; a private key is refused, for it has no place where a public one is asked.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in data:
        raise InvalidInput(f"{what}: a private key; verifying needs the public one, and the private one stays secret")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{what}: no public key in PEM; give the .pub.pem file of `mnemoscope keygen`") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInput(f"{what}: a key of another kind; signatures here are Ed25519 (`mnemoscope keygen`)")
    return key


def load_public_key(path: Path | str) -> "Ed25519PublicKey":
    """Read a public key file; see :func:`read_public_key`."""
    return read_public_key(_read(Path(path), "the public key"), str(path))


def public_pem(key: "Ed25519PublicKey") -> bytes:
    """The PEM file of a public key; one key has one such file."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: "Ed25519PublicKey") -> str:
    """Name a key: "sha256:" and the digest of its SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return "sha256:" + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist, with its mode from its first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise InvalidInput(f"{path} exists; a key is never written over. Give another --out") from error
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}. Give another --out") from error


def new_key_files(path: Path | str) -> KeyFiles:
    """Make a key pair: PKCS8 in PEM for its owner's eyes (mode 0600), and the public key beside it.

    Args:
        path: the private key's file, e.g. ``audit-key.pem``; the public key goes into ``audit-key.pub.pem``.

    Raises:
        InvalidInput: one of the files exists or cannot be written; neither is left then.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )

    path = Path(path)
    public = path.with_name(f"{path.stem}.pub.pem")
    phrase = os.environ.get(PASSPHRASE, "")
    locked: KeySerializationEncryption = BestAvailableEncryption(phrase.encode()) if phrase else NoEncryption()
    key = Ed25519PrivateKey.generate()
    _write_new(public, public_pem(key.public_key()), 0o644)
    try:
        _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), 0o600)
    except InvalidInput:
        public.unlink()
        raise
    return KeyFiles(path, public, key_id(key.public_key()), bool(phrase))


def key_lines(made: KeyFiles) -> list[str]:
    """What to know about a new key pair, line by line."""
    locked = "locked with the passphrase" if made.encrypted else f"not locked: set {PASSPHRASE} before to lock it"
    return [
        f"wrote {made.private}: the private key, for your eyes only ({locked})",
        f"wrote {made.public}: the public key, for everybody who is to verify",
        f"key id {made.key_id}: tell it by another way than the bundle, for example on paper",
    ]


def sign_payload(payload: bytes, key: "Ed25519PrivateKey", *, others: Iterable[tuple[str, bytes]] = ()) -> Envelope:
    """Sign a document; Ed25519 draws nothing at random, so the same key and bytes give the same envelope.

    Args:
        payload: the document.
        key: the signer's.
        others: signatures of the same payload by other keys, which stay.
    """
    ours = key_id(key.public_key())
    kept = {name: signature for name, signature in others if name != ours}
    return Envelope(payload, tuple(sorted({**kept, ours: key.sign(pae(PAYLOAD_TYPE, payload))}.items())))


def _base64(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise SignatureError(f"{what}: text in base64 is expected")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"{what}: no base64; the envelope was altered") from error
    # The last digit of base64 has bits that no decoder reads: two texts would stand for the same bytes.
    if base64.b64encode(data).decode() != text:
        raise SignatureError(f"{what}: base64 of another form than this tool writes; the envelope was altered")
    return data


def read_envelope(data: bytes, what: str) -> Envelope:
    """Read an envelope; nothing is verified yet (:func:`signed_by`).

    Args:
        data: the JSON envelope, in the canonical form that this tool writes.
        what: its name, for messages.

    Raises:
        SignatureError: altered, or no envelope with an in-toto statement.
    """
    if len(data) > MOST_ENVELOPE_BYTES:
        raise SignatureError(f"{what}: {len(data):,} bytes are more than an envelope has")
    try:
        raw = parse_canonical(data, what)
    except InvalidInput as error:
        raise SignatureError(str(error)) from error
    if not isinstance(raw, dict) or set(raw) != {"payload", "payloadType", "signatures"}:
        raise SignatureError(f"{what}: no DSSE envelope (payload, payloadType, signatures)")
    if raw["payloadType"] != PAYLOAD_TYPE:
        raise SignatureError(f"{what}: payloadType must be {PAYLOAD_TYPE}, given {ascii(raw['payloadType'])[:80]}")
    signatures: list[tuple[str, bytes]] = []
    for item in raw["signatures"] if isinstance(raw["signatures"], list) else []:
        if not isinstance(item, dict) or set(item) != {"keyid", "sig"} or not is_digest(item["keyid"]):
            raise SignatureError(f"{what}: a signature must have a keyid (sha256:...) and a sig")
        signatures.append((item["keyid"], _base64(item["sig"], what)))
    if not signatures or len({name for name, _ in signatures}) != len(signatures):
        raise SignatureError(f"{what}: no signature, or two by one key")
    return Envelope(_base64(raw["payload"], what), tuple(signatures), raw["payloadType"])


def signed_by(envelope: Envelope, keys: Mapping[str, "Ed25519PublicKey"], what: str) -> tuple[str, ...]:
    """Verify every signature of an envelope.

    Args:
        envelope: the signed document.
        keys: public keys by :func:`key_id`.
        what: its name, for messages.

    Returns:
        The key ids of all signers, ascending.

    Raises:
        SignatureError: a signature does not hold, or its key is not among ``keys``.
    """
    from cryptography.exceptions import InvalidSignature

    for name, signature in envelope.signatures:
        if name not in keys:
            raise SignatureError(f"{what}: signed with key {name}, which neither the bundle nor --public-key has")
        try:
            keys[name].verify(signature, pae(envelope.payload_type, envelope.payload))
        except InvalidSignature as error:
            raise SignatureError(
                f"{what}: the signature by key {name} does not hold: the envelope was altered after it was signed"
            ) from error
    return tuple(sorted(name for name, _ in envelope.signatures))
