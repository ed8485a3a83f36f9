"""Keys, DSSE envelopes and statements, against the standards' own vectors and an independent implementation."""

import base64
import hashlib
import json
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from small_bundle import bundled, manifest_of, write_audit

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.manifest import canonical
from mnemoscope.reports.signing import (
    PASSPHRASE,
    PAYLOAD_TYPE,
    SignatureError,
    key_id,
    load_private_key,
    load_public_key,
    new_key_files,
    pae,
    public_pem,
    read_envelope,
    sign_payload,
    signed_by,
)
from mnemoscope.reports.statements import (
    AUDIT_TYPE,
    STATEMENT_TYPE,
    TEST_TYPE,
    audit_statement,
    opinion_statement,
    pipeline_statements,
    read_opinion,
)

# RFC 8032, section 7.1, tests 1 to 3: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

# Ed25519 written down from RFC 8032, section 5.1, slowly and without the library that the tool uses.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def _add(a, b):
    """Extended coordinates of section 5.1.4: (X, Y, Z, T) with x = X/Z, y = Y/Z, x y = T/Z."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    u, v, w, k = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P, 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = v - u, k - w, k + w, v + u
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n, point):
    found = (0, 1, 1, 0)
    while n:
        if n & 1:
            found = _add(found, point)
        point, n = _add(point, point), n >> 1
    return found


def _point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def slow_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    (x1, y1, z1, _), (x2, y2, z2, _) = _times(s, BASE), _add(_point(r), _times(h, _point(public)))
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


def raw_public(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_ed25519_is_that_of_rfc_8032(secret, public, message, signature):
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert raw_public(key.public_key()).hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert slow_verify(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))
    assert not slow_verify(bytes.fromhex(public), bytes.fromhex(message) + b"!", bytes.fromhex(signature))


def test_pae_is_that_of_the_specification_and_counts_bytes():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("tybé", "µ".encode()) == b"DSSEv1 5 tyb\xc3\xa9 2 \xc2\xb5"
    assert pae("a 1 b", b"c") != pae("a", b"b 1 c")


def test_an_independent_reader_accepts_the_envelope():
    payload = canonical({"_type": STATEMENT_TYPE, "subject": []})
    envelope = json.loads(sign_payload(payload, KEY).to_json())
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    body = base64.standard_b64decode(envelope["payload"])
    assert body == payload
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    (one,) = envelope["signatures"]
    der = bytes.fromhex("302a300506032b6570032100") + raw_public(KEY.public_key())  # RFC 8410
    assert one["keyid"] == "sha256:" + hashlib.sha256(der).hexdigest()
    assert slow_verify(raw_public(KEY.public_key()), signed, base64.standard_b64decode(one["sig"]))
    assert not slow_verify(raw_public(OTHER.public_key()), signed, base64.standard_b64decode(one["sig"]))


def test_two_signers_in_one_envelope():
    first = sign_payload(b"{}", KEY)
    both = sign_payload(b"{}", OTHER, others=first.signatures)
    again = read_envelope(both.to_json(), "x")
    keys = {key_id(k.public_key()): k.public_key() for k in (KEY, OTHER)}
    assert signed_by(again, keys, "x") == tuple(sorted(keys))
    assert first.signatures[0] in both.signatures
    assert sign_payload(b"{}", KEY, others=both.signatures) == both
    with pytest.raises(SignatureError, match="neither the bundle nor --public-key has"):
        signed_by(again, {key_id(KEY.public_key()): KEY.public_key()}, "x")


def test_every_flipped_byte_of_an_envelope_is_found():
    data = sign_payload(canonical({"a": "a statement"}), KEY).to_json()
    keys = {key_id(KEY.public_key()): KEY.public_key()}
    signed_by(read_envelope(data, "x"), keys, "x")
    for at in range(len(data)):
        bad = data[:at] + bytes([data[at] ^ (0x01, 0x02, 0x20)[at % 3]]) + data[at + 1 :]
        with pytest.raises(InvalidInput, match=r"^x: "):
            signed_by(read_envelope(bad, "x"), keys, "x")


def test_bits_that_base64_does_not_read_are_read_here():
    raw = json.loads(sign_payload(b"{}", KEY).to_json())
    sig = raw["signatures"][0]["sig"]
    assert sig.endswith("==")
    other = sig[:-3] + chr(ord(sig[-3]) + 1) + "=="  # the next letter differs in a bit that belongs to no byte
    if base64.b64decode(other) == base64.b64decode(sig):
        raw["signatures"][0]["sig"] = other
        with pytest.raises(SignatureError, match="base64"):
            read_envelope(canonical(raw), "x")
    raw["signatures"][0]["sig"] = sig
    raw["payload"] = "e30\n="
    with pytest.raises(SignatureError, match="base64"):
        read_envelope(canonical(raw), "x")


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "application/json"},
        {"signatures": []},
        {"signatures": "none"},
        {"signatures": [{"sig": "AA=="}]},
        {"signatures": [{"keyid": "sha256:" + "A" * 64, "sig": "AA=="}]},
        {"signatures": [{"keyid": "sha256:" + "a" * 64, "sig": "AA=="}] * 2},
        {"payload": 7},
        {"extra": 1},
    ],
)
def test_what_is_no_envelope_is_refused(change):
    raw = json.loads(sign_payload(b"{}", KEY).to_json()) | change
    with pytest.raises(SignatureError):
        read_envelope(canonical(raw), "x")


def test_new_keys(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSPHRASE, raising=False)
    made = new_key_files(tmp_path / "me.pem")
    assert (made.private.name, made.public.name, made.encrypted) == ("me.pem", "me.pub.pem", False)
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    key = load_private_key(made.private)
    assert key_id(key.public_key()) == made.key_id == key_id(load_public_key(made.public))
    assert made.public.read_bytes() == public_pem(key.public_key())
    before = made.private.read_bytes()
    with pytest.raises(InvalidInput, match="never written over"):
        new_key_files(tmp_path / "me.pem")
    assert made.private.read_bytes() == before
    made.public.unlink()
    with pytest.raises(InvalidInput, match=r"me\.pem exists"):
        new_key_files(tmp_path / "me.pem")
    assert not made.public.exists()
    with pytest.raises(InvalidInput, match="cannot write"):
        new_key_files(tmp_path / "no" / "me.pem")


def test_a_passphrase_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    made = new_key_files(tmp_path / "k.pem")
    assert made.encrypted
    assert b"ENCRYPTED" in made.private.read_bytes()
    assert key_id(load_private_key(made.private).public_key()) == made.key_id
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(InvalidInput, match="wrong"):
        load_private_key(made.private)
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(InvalidInput, match=f"set {PASSPHRASE}"):
        load_private_key(made.private)


def test_other_files_are_no_keys(tmp_path, monkeypatch):
    monkeypatch.setenv(PASSPHRASE, "unused by a key that is not locked")
    plain = tmp_path / "plain.pem"
    plain.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert key_id(load_private_key(plain).public_key()) == key_id(KEY.public_key())
    public = tmp_path / "p.pub.pem"
    public.write_bytes(public_pem(KEY.public_key()))
    with pytest.raises(InvalidInput, match="give the private key"):
        load_private_key(public)
    with pytest.raises(InvalidInput, match="verifying needs the public one"):
        load_public_key(plain)
    other = tmp_path / "x.pem"
    other.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidInput, match="another kind"):
        load_private_key(other)
    for text in (b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 20_000):
        other.write_bytes(text)
        with pytest.raises(InvalidInput):
            load_private_key(other)
        with pytest.raises(InvalidInput):
            load_public_key(other)
    with pytest.raises(InvalidInput, match="cannot read"):
        load_private_key(tmp_path / "none.pem")
    if os.path.exists("/dev/zero"):
        with pytest.raises(InvalidInput, match="larger than any key"):
            load_private_key("/dev/zero")


@pytest.fixture(scope="module")
def bundle(factory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    made = write_audit(factory, folder / "a")
    return made, manifest_of(bundled(folder / "a", folder / "b"))


def test_the_audit_statement_names_result_manifest_and_models(bundle):
    made, manifest = bundle
    digest = "sha256:" + "ab" * 32
    said = audit_statement(made, manifest, digest)
    assert (said["_type"], said["predicateType"]) == (STATEMENT_TYPE, AUDIT_TYPE)
    subjects = {s["name"]: s["digest"]["sha256"] for s in said["subject"]}
    assert len(subjects) == len(said["subject"])
    assert subjects["result.json"] == manifest.result.removeprefix("sha256:")
    assert subjects["manifest.json"] == "ab" * 32
    models = {g.digest.removeprefix("sha256:") for s in made.subjects for g in s.models}
    assert models <= set(subjects.values())
    p = said["predicate"]
    assert p["verdicts"] == [
        {"subject": "retrain", "word": "WITHIN BOUND", "tier": p["verdicts"][0]["tier"], "flags": []}
    ]
    assert p["planDigest"] == made.plan.digest
    assert p["logHead"] == made.log_head
    assert p["edition"] == "internal"
    assert p["policyDigest"] == next(e.sha256 for e in manifest.entries if e.path == "policy.json")


def test_pipelines_get_one_word_a_subject_and_none_for_not_assessed(bundle, factory):
    _, manifest = bundle
    made = factory.all_words()
    assert [s.verdict.word for s in made.subjects] == ["WITHIN BOUND", "OUTSIDE BOUND", "INCONCLUSIVE", "NOT ASSESSED"]
    said = pipeline_statements(made, manifest, "sha256:" + "ab" * 32)
    assert [s["predicate"]["result"] for s in said] == ["PASSED", "FAILED", "WARNED"]
    for one, subject in zip(said, made.subjects, strict=False):
        assert one["predicateType"] == TEST_TYPE
        assert [c["name"] for c in one["predicate"]["configuration"]] == ["plan.json", "policy.json"]
        after = [g.digest.removeprefix("sha256:") for g in subject.models if g.role == "after"]
        digests = [s["digest"]["sha256"] for s in one["subject"]]
        assert digests[: len(after)] == after
        before = [g.digest.removeprefix("sha256:") for g in subject.models if g.role == "before"]
        assert not set(before) & set(digests)
        counts = [len(one["predicate"][f"{k}Tests"]) for k in ("passed", "warned", "failed")]
        wanted = [sum(e.outcome == o for e in subject.endpoints) for o in ("within", "undecided", "beyond")]
        assert counts == wanted
    assert pipeline_statements(factory.membership(), manifest, "sha256:" + "ab" * 32) == []


def test_subjects_of_one_name_are_told_apart(factory, bundle):
    _, manifest = bundle
    one = factory.subject("retrain")
    twice = factory.result([one, factory.subject("noop", settings={"a": 1})])
    renamed = factory.result([one, type(one)(**{**vars(twice.subjects[1]), "name": one.name})])
    names = [s["name"] for s in audit_statement(renamed, manifest, "sha256:" + "0" * 64)["subject"]]
    assert len(names) == len(set(names))


OPINION = 'by = "A. Officer"\nrole = "data protection officer"\ndate = 2026-11-21\ntext = "Hold."\nindependent = true\n'


def test_an_opinion_is_read_and_stated(tmp_path, bundle):
    file = tmp_path / "o.toml"
    file.write_text(OPINION)
    opinion = read_opinion(file)
    assert (opinion.date, opinion.independent, opinion.decision) == ("2026-11-21", True, "")
    said = opinion_statement(opinion, bundle[1], "sha256:" + "ab" * 32)
    assert said["predicate"] == {
        "by": "A. Officer", "role": "data protection officer", "date": "2026-11-21", "text": "Hold.",
        "independent": True,
    }  # fmt: skip
    assert {s["name"] for s in said["subject"]} == {"result.json", "manifest.json"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OPINION.replace("by =", "author ="), "unknown key"),
        (OPINION.replace('"Hold."', '"  "'), "text is missing"),
        (OPINION.replace('"Hold."', "7"), "text is missing"),
        (OPINION.replace("2026-11-21", '"yesterday"'), "no day"),
        (OPINION.replace("true", '"yes"'), "true or false"),
        (OPINION.replace("Hold.", "x" * 20_001), "at most 20,000"),
        ("x = [" * 5_000, "no TOML"),
        ("#" * 70_000, "larger than"),
        ("by = ", "no TOML"),
    ],
)
def test_a_bad_opinion_says_what_is_wrong(tmp_path, text, why):
    file = tmp_path / "o.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=why):
        read_opinion(file)
    with pytest.raises(InvalidInput, match="cannot read"):
        read_opinion(tmp_path / "none.toml")


def test_the_payload_type_is_signed_too():
    envelope = sign_payload(b"{}", KEY)
    other = type(envelope)(envelope.payload, envelope.signatures, "application/other")
    with pytest.raises(SignatureError, match="does not hold"):
        signed_by(other, {key_id(KEY.public_key()): KEY.public_key()}, "x")
    assert envelope.payload_type == PAYLOAD_TYPE
