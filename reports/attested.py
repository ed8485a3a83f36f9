"""The signatures in a bundle: read, verified against keys, and compared with what they claim to be about."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.contents import Contents
from mnemoscope.reports.manifest import ATTESTATIONS, MANIFEST, Manifest, parse_canonical
from mnemoscope.reports.phrases import plain
from mnemoscope.reports.signing import (
    MOST_ENVELOPE_BYTES,
    MOST_KEY_BYTES,
    Envelope,
    SignatureError,
    key_id,
    public_pem,
    read_envelope,
    read_public_key,
    signed_by,
)
from mnemoscope.reports.statements import AUDIT_TYPE, OPINION_TYPE, STATEMENT_TYPE, TEST_RESULTS, TEST_TYPE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["AUDIT_FILE", "Attested", "judge", "key_file", "pipeline_file", "read_attested", "read_keys"]

AUDIT_FILE = f"{ATTESTATIONS}/audit.dsse.json"
_KEY_FILE = re.compile(rf"{ATTESTATIONS}/key-[0-9a-f]{{16}}\.pub\.pem")
_ENVELOPE_FILE = re.compile(rf"{ATTESTATIONS}/(audit|test-result-\d\d\d?|opinion-[0-9a-f]{{16}})\.dsse\.json")
_TYPES = {"audit": AUDIT_TYPE, "test": TEST_TYPE, "opinion": OPINION_TYPE}

Row = tuple[str, Literal["holds", "does not hold", "not checked"], tuple[str, ...]]


@dataclass(frozen=True)
class Attested:
    """What the signatures of a bundle are.

    Attributes:
        signers: ids of the keys that signed the audit.
        others: ids of the keys that signed something else, such as an opinion.
        faults: what is wrong, each with its file.
        opinions: a line for each opinion whose signature holds.
        envelopes: signed statements whose signatures hold.
    """

    signers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    opinions: tuple[str, ...] = ()
    envelopes: tuple[str, ...] = ()


def pipeline_file(number: int) -> str:
    """Where the statement for pipelines of the given number, from 1, lies in a bundle."""
    return f"{ATTESTATIONS}/test-result-{number:02}.dsse.json"


def key_file(name: str) -> str:
    """Where a public key lies in a bundle.

    >>> key_file("sha256:" + 64 * "0")
    'attestations/key-0000000000000000.pub.pem'
    """
    return f"{ATTESTATIONS}/key-{name.removeprefix('sha256:')[:16]}.pub.pem"


def read_keys(contents: Contents) -> tuple[dict[str, "Ed25519PublicKey"], list[str]]:
    """Read the public keys that lie in a bundle, by id, and name those that were altered."""
    keys, faults = {}, []
    for path in contents.sizes:
        if not _KEY_FILE.fullmatch(path):
            continue
        try:
            data = contents.read(path, MOST_KEY_BYTES)
            key = read_public_key(data, path)
        except InvalidInput as error:
            faults.append(f"{path}: {str(error).removeprefix(f'{path}: ')}")
            continue
        name = key_id(key)
        if public_pem(key) != data or key_file(name) != path:
            faults.append(f"{path}: is not the key that it is named after, or was altered")
        else:
            keys[name] = key
    return keys, faults


def _subjects(statement: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for item in statement["subject"] if isinstance(statement.get("subject"), list) else []:
        if isinstance(item, dict) and isinstance(item.get("digest"), dict) and isinstance(item.get("name"), str):
            found[item["name"]] = f"sha256:{item['digest'].get('sha256')}"
    return found


def _audit_faults(predicate: Mapping[str, Any], manifest: Manifest, result: AuditResult) -> list[str]:
    verdicts = predicate.get("verdicts")
    rows = verdicts if isinstance(verdicts, list) else []
    words = [(v.get("subject"), v.get("word"), v.get("tier")) for v in rows if isinstance(v, dict)]
    stated = {
        "the edition": (predicate.get("edition"), manifest.edition),
        "the digest of the audit's own result": (predicate.get("derivedFrom"), manifest.derived_from),
        "the words": (words, [(s.name, s.verdict.word, s.verdict.tier) for s in result.subjects]),
        "the plan's digest": (predicate.get("planDigest"), result.plan.digest),
        "the head of the log": (predicate.get("logHead"), result.log_head or None),
    }
    return [f"states {what} otherwise than the bundle" for what, (said, is_so) in stated.items() if said != is_so]


def _statement(
    path: str, envelope: Envelope, manifest: Manifest, raw: bytes, result: AuditResult | None
) -> dict[str, Any]:
    """Read a signed statement and check that it speaks of this bundle."""
    statement = parse_canonical(envelope.payload, f"{path}: its statement")
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
        raise SignatureError(f"{path}: holds no in-toto statement of version 1")
    named = _ENVELOPE_FILE.fullmatch(path)
    assert named is not None  # only such files are read
    if statement.get("predicateType") != _TYPES[named[1].split("-")[0]]:
        raise SignatureError(f"{path}: holds a statement of another kind than its name says")
    subjects = _subjects(statement)
    ours = {"result.json": manifest.result, MANIFEST: "sha256:" + hashlib.sha256(raw).hexdigest()}
    for name, digest in ours.items():
        if subjects.get(name) != digest:
            raise SignatureError(
                f"{path}: was signed for another {name} than this one: one of the two was exchanged after signing"
            )
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        raise SignatureError(f"{path}: its statement has no predicate")
    if statement["predicateType"] == AUDIT_TYPE and result is not None:
        faults = _audit_faults(predicate, manifest, result)
        if faults:
            raise SignatureError(f"{path}: {'; '.join(faults)}")
    if statement["predicateType"] == TEST_TYPE and result is not None:
        found = [TEST_RESULTS.get(subject.verdict.word) for subject in result.subjects]
        wanted = {pipeline_file(i): word for i, word in enumerate(filter(None, found), 1)}
        if predicate.get("result") != wanted.get(path):
            raise SignatureError(f"{path}: its result is not that of the word in result.json")
    return statement


def _taken_out(envelopes: list[str], result: AuditResult | None) -> list[str]:
    """Name statements that are missing: signing an audit writes all of them together."""
    tests = {path for path in envelopes if path.startswith(f"{ATTESTATIONS}/test-result-")}
    if AUDIT_FILE not in envelopes:
        return [f"{AUDIT_FILE}: is missing, and {min(tests)} was signed with it: it was taken out"] if tests else []
    if result is None:
        return []
    count = sum(subject.verdict.word in TEST_RESULTS for subject in result.subjects)
    wanted = {pipeline_file(number) for number in range(1, count + 1)}
    return [f"{path}: is missing, and the audit's statement was signed with it" for path in sorted(wanted - tests)]


def _opinion(statement: Mapping[str, Any], signers: tuple[str, ...]) -> str:
    p = statement["predicate"]
    said = ". ".join(plain(p.get(key, ""), 300).strip(". ") for key in ("decision", "text") if p.get(key))
    who = f"{plain(p.get('by', ''), 80)}, {plain(p.get('role', ''), 80)}, {plain(p.get('date', ''), 20)}"
    return f"{who}, key {', '.join(name[:23] for name in signers)}: {said}"


def read_attested(
    contents: Contents,
    manifest: Manifest,
    raw: bytes,
    result: AuditResult | None,
    given: Mapping[str, "Ed25519PublicKey"] | None = None,
) -> Attested:
    """Read and verify every signature of a bundle, by the keys in it and those that the user gave.

    Args:
        contents: the bundle.
        manifest: its list.
        raw: the bytes of the list.
        result: None where it cannot be read; the words are not compared then.
        given: the user's keys by id.
    """
    keys, faults = read_keys(contents)
    keys = {**keys, **(given or {})}
    signers: set[str] = set()
    others: set[str] = set()
    opinions, sound = [], []
    for path in contents.sizes:
        if not path.startswith(f"{ATTESTATIONS}/") or _KEY_FILE.fullmatch(path):
            continue
        if not _ENVELOPE_FILE.fullmatch(path):
            faults.append(f"{path}: is here, and is no signature or key that this tool writes")
            continue
        try:
            envelope = read_envelope(contents.read(path, MOST_ENVELOPE_BYTES), path)
            found = signed_by(envelope, keys, path)
            statement = _statement(path, envelope, manifest, raw, result)
        except InvalidInput as error:
            faults.append(str(error))
            continue
        (signers if path == AUDIT_FILE else others).update(found)
        sound.append(path)
        if statement["predicateType"] == OPINION_TYPE:
            opinions.append(_opinion(statement, found))
    if not faults:
        faults += _taken_out(sound, result)
    if not faults:
        unused = set(keys) - set(given or {}) - signers - others
        faults += [f"{key_file(name)}: no signature by this key is left: one was taken out" for name in sorted(unused)]
    return Attested(tuple(sorted(signers)), tuple(sorted(others)), tuple(faults), tuple(opinions), tuple(sound))


def judge(attested: Attested, given: tuple[str, ...]) -> list[Row]:
    """Say whether the signatures hold, and whether they are those of the keys that the user knows.

    Args:
        attested: what :func:`read_attested` found.
        given: ids of the user's keys.
    """
    rows: list[Row] = []
    if attested.faults:
        rows.append(("signature", "does not hold", attested.faults))
    elif attested.envelopes:
        rows.append(("signature", "holds", (f"{len(attested.envelopes)} signed statement(s) about these exact bytes",)))
    else:
        rows.append(("signature", "not checked", ("no signature: nobody vouches for these bytes",)))
    signed = tuple(dict.fromkeys(attested.signers + attested.others))
    strangers = [name for name in given if name not in signed]
    if strangers:
        have = f"it is signed with {', '.join(signed)}" if signed else "it has no signature that holds"
        rows.append(
            ("signer", "does not hold", (f"not signed with the key you gave ({', '.join(strangers)}): {have}",))
        )
    elif given:
        what = [f"{name} signed {'the audit' if name in attested.signers else 'an opinion only'}" for name in given]
        rows.append(("signer", "holds", ("; ".join(what),)))
    elif signed:
        said = f"key {', '.join(signed)}: yours to compare; without --public-key nothing says whose it is"
        rows.append(("signer", "not checked", (said,)))
    else:
        rows.append(("signer", "not checked", ("there is no signature and no --public-key",)))
    return rows
