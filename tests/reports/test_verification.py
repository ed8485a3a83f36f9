"""Whatever is done to a bundle is found, named, and told apart by exit code; what holds is said without more."""

import contextlib
import io
import json
import os
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from small_bundle import bundled, digest, make_again, manifest_of, write_audit
from typer.testing import CliRunner

from mnemoscope import cli
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.run_log import FIRST_SCORE, PLAN
from mnemoscope.reports.archive import write_zip
from mnemoscope.reports.attested import AUDIT_FILE, key_file
from mnemoscope.reports.attesting import sign_bundle, signed_lines
from mnemoscope.reports.manifest import MANIFEST, SUMS, Entry, canonical, sums, write_manifest
from mnemoscope.reports.schema import from_json, to_json
from mnemoscope.reports.signing import key_id, public_pem, read_envelope, sign_payload
from mnemoscope.reports.statements import Opinion
from mnemoscope.reports.verification import CODES, Recomputed, Verification, lines, verify

OPINION = Opinion("A. Officer", "data protection officer", "2026-11-21", "Hold the release.\x1b[2J", "hold")


def agrees(folder: Path) -> Recomputed:
    assert (folder / "evidence" / "scores.npz").is_file()
    return Recomputed(True, 7, (), ("utility",))


def write_key(folder: Path, seed: int) -> tuple[Path, Path, str]:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    private, public = folder / f"k{seed}.pem", folder / f"k{seed}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(public_pem(key.public_key()))
    return private, public, key_id(key.public_key())


@pytest.fixture(scope="module")
def made(factory, tmp_path_factory):
    """An audit, two keys, a signed restricted bundle with an opinion as a folder and as a zip, and an unsigned one."""
    home = tmp_path_factory.mktemp("made")
    write_audit(factory, home / "audit")
    keys = [write_key(home, seed) for seed in (1, 2)]
    for name in ("b", "b.zip"):
        bundled(home / "audit", home / name, "restricted")
        sign_bundle(home / name, keys[0][0])
        sign_bundle(home / name, keys[1][0], opinion=OPINION)
    bundled(home / "audit", home / "plain", "restricted")
    return home, keys


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[0] / "b", tmp_path / "b")


@pytest.fixture
def plain(made, tmp_path):
    return shutil.copytree(made[0] / "plain", tmp_path / "plain")


def failed(found: Verification) -> dict[str, tuple[str, ...]]:
    return {f.check: f.said for f in found.findings if f.status == "does not hold"}


def status(found: Verification, check: str) -> str:
    return next(f.status for f in found.findings if f.check == check)


def named(found: Verification) -> str:
    return "\n".join(line for said in failed(found).values() for line in said)


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_a_signed_bundle_holds(made, name):
    home, keys = made
    found = verify(home / name, public_keys=[keys[0][1], keys[1][1]], recompute=agrees)
    assert failed(found) == {}
    assert {f.status for f in found.findings} == {"holds"}
    assert [f.check for f in found.findings] == list(CODES)
    assert (found.exit_code, found.level, found.edition) == (0, "T1", "restricted")
    (opinion,) = found.opinions
    assert "A. Officer" in opinion
    assert "\x1b" not in opinion
    text = "\n".join(lines(found, home / name))
    assert "Level T1" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) < 24  # one screen


def test_without_a_key_or_a_signature_the_level_is_t0(made):
    home, keys = made
    found = verify(home / "b", recompute=agrees)
    assert (found.exit_code, found.level, status(found, "signer")) == (0, "T0", "not checked")
    assert "nothing says whose" in "\n".join(lines(found, "b"))
    found = verify(home / "plain", recompute=agrees)
    assert (found.exit_code, found.level, status(found, "signature")) == (0, "T0", "not checked")
    found = verify(home / "b", public_keys=[keys[1][1]], recompute=agrees)
    assert (found.exit_code, found.level) == (0, "T0")  # this key signed the opinion, not the audit
    assert "an opinion only" in "\n".join(lines(found, "b"))


def flips(data: bytes, some: int | None) -> list[int]:
    """Positions to flip: the first, the last and every ``some`` bytes, or one alone."""
    if some is None:
        return [len(data) // 3]
    return sorted({0, len(data) - 1, *range(0, len(data), max(1, some))})


def flip_folder(folder: Path, step: int | None) -> int:
    count = 0
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = file.read_bytes()
        for at in flips(data, None if step is None else len(data) // step):
            file.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
            found = verify(folder)
            assert not found.holds, (file, at)
            assert found.exit_code >= 10
            assert str(file.relative_to(folder)) in named(found), (file, at, named(found))
            count += 1
        file.write_bytes(data)
    assert verify(folder).holds
    return count


def flip_zip(source: Path, target: Path, step: int) -> int:
    data = source.read_bytes()
    positions = list(range(0, len(data), step)) + list(range(len(data) - 30, len(data)))
    with zipfile.ZipFile(source) as opened:
        places = sorted((info.header_offset, info.filename) for info in opened.infolist())
        listing = opened.start_dir
    for at in positions:
        target.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        found = verify(target)
        assert not found.holds, at
        owner = [name for begin, name in places if begin <= at][-1] if at < listing else "zip"
        text = named(found)
        assert owner in text or "zip" in text, (at, owner, text)
    return len(positions)


def test_a_flipped_byte_is_found_in_every_file(folder):
    assert flip_folder(folder, None) == len([p for p in folder.rglob("*") if p.is_file()]) >= 15


def test_a_flipped_byte_is_found_in_a_zip(made, tmp_path):
    size = (made[0] / "b.zip").stat().st_size
    assert flip_zip(made[0] / "b.zip", tmp_path / "x.zip", size // 11) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b", "plain"])
def test_flipped_bytes_are_found_all_over_every_file(made, tmp_path, name):
    assert flip_folder(shutil.copytree(made[0] / name, tmp_path / "x"), 40) >= 400


@pytest.mark.slow
def test_flipped_bytes_are_found_all_over_a_zip(made, tmp_path):
    assert flip_zip(made[0] / "b.zip", tmp_path / "x.zip", 211) >= 300


@pytest.mark.slow
def test_bytes_cut_off_or_added_are_found_in_every_file(plain):
    for file in sorted(p for p in plain.rglob("*") if p.is_file()):
        data = file.read_bytes()
        for other in (data[:-1], data + b"\n", b""):
            file.write_bytes(other)
            assert file.name in named(verify(plain))
        file.write_bytes(data)


def test_a_missing_file_is_named(folder, tmp_path):
    for path in ("VERIFY.md", "evidence/scores.npz", SUMS):
        os.rename(folder / path, tmp_path / "aside")
        found = verify(folder)
        assert found.exit_code == CODES["files"] == 12, path
        assert f"{path}: is listed, and missing" in failed(found)["files"]
        os.rename(tmp_path / "aside", folder / path)
    os.rename(folder / MANIFEST, tmp_path / "aside")
    found = verify(folder)
    assert found.exit_code == CODES["manifest"]
    assert "manifest.json is missing" in named(found)
    assert status(found, "recomputed") == "not checked"


def test_an_extra_file_is_named(folder):
    for path in ("extra.json", "evidence/more.npz", ".hidden", "attestations/readme.txt", "é.txt", "x y"):
        (folder / path).write_text("1")
        found = verify(folder)
        assert ascii(path).strip("'") in named(found)
        assert found.exit_code in (CODES["files"], CODES["signature"])
        (folder / path).unlink()


def test_links_and_special_files_are_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    for target in (secret, tmp_path, Path("/nowhere")):
        (folder / "evidence" / "l").symlink_to(target)
        found = verify(folder)
        assert found.exit_code == CODES["container"]
        assert "a link" in named(found)
        (folder / "evidence" / "l").unlink()
    os.mkfifo(folder / "pipe")
    found = verify(folder)
    assert "no plain file" in named(found)


@pytest.mark.parametrize("size", [0, 1, 21, 1000, -1, -22, -23, -400])
def test_a_truncated_zip(made, tmp_path, size):
    data = (made[0] / "b.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(data[:size])
    found = verify(cut)
    assert found.exit_code == CODES["container"]
    assert "zip" in named(found)
    assert all(f.status == "not checked" for f in found.findings[1:])


def test_a_zip_bomb_and_a_repacked_bundle(made, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("manifest.json", b"0" * 10**7)
    (tmp_path / "bomb.zip").write_bytes(stream.getvalue())
    found = verify(tmp_path / "bomb.zip")
    assert found.exit_code == CODES["container"]
    assert "10,000,000" in named(found)
    with (
        zipfile.ZipFile(made[0] / "b.zip") as good,
        zipfile.ZipFile(tmp_path / "again.zip", "w", zipfile.ZIP_DEFLATED) as opened,
    ):
        for name in good.namelist():
            opened.writestr(name, good.read(name))
    found = verify(tmp_path / "again.zip")
    assert "unpack it" in named(found)
    with zipfile.ZipFile(tmp_path / "again.zip") as opened:
        opened.extractall(tmp_path / "unpacked")
    assert verify(tmp_path / "unpacked", recompute=agrees).holds


def test_a_manifest_that_leads_out_of_the_bundle(plain, tmp_path):
    (tmp_path / "outside.json").write_text("{}")
    old = manifest_of(plain)
    for path in ("../outside.json", str(tmp_path / "outside.json")):
        entry = Entry(path, digest(b"{}"), 2, "application/json", "evidence", "public", "audit")
        raw = write_manifest(replace(old, entries=(*old.entries, entry)))
        (plain / MANIFEST).write_bytes(raw)
        found = verify(plain)
        assert found.exit_code == CODES["manifest"]
        assert "outside.json" in named(found)


def test_wrong_keys(made, tmp_path):
    home, keys = made
    stranger = write_key(tmp_path, 3)
    found = verify(home / "b", public_keys=[stranger[1]], recompute=agrees)
    assert found.exit_code == CODES["signer"]
    assert stranger[2] in named(found)
    assert keys[0][2] in named(found)
    found = verify(home / "plain", public_keys=[keys[0][1]], recompute=agrees)
    assert found.exit_code == CODES["signer"]
    assert "no signature" in named(found)
    with pytest.raises(InvalidInput, match="private key"):
        verify(home / "b", public_keys=[keys[0][0]])
    with pytest.raises(InvalidInput, match="cannot read"):
        verify(home / "b", public_keys=[tmp_path / "none"])
    with pytest.raises(InvalidInput, match="no such folder or file"):
        verify(tmp_path / "none")


def test_an_edited_result_with_everything_made_again_fails_by_its_signature_alone(folder, plain, made):
    """T0 cannot see it, and says that it cannot; the signature can."""
    key = made[1][0][1]
    for place in (folder, plain):
        shown = from_json((place / "result.json").read_bytes())
        edited = to_json(replace(shown, title="A better title"))
        page = (place / "report.html").read_text().replace(digest((place / "result.json").read_bytes()), digest(edited))
        (place / "result.json").write_bytes(edited)
        (place / "report.html").write_text(page)
        make_again(place, lambda m: replace(m, derived_from=m.result))
    found = verify(plain, recompute=agrees)
    assert found.holds
    assert found.level == "T0"
    assert "made all of them again" in "\n".join(lines(found, plain))
    found = verify(folder, public_keys=[key], recompute=agrees)
    assert set(failed(found)) == {"signature", "signer"}
    assert found.exit_code == CODES["signature"]
    assert "audit.dsse.json: was signed for another result.json" in named(found)


def test_a_statement_that_was_taken_out(folder, made):
    for name in (AUDIT_FILE, "attestations/test-result-01.dsse.json"):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        for keys in ([], [made[1][0][1]]):
            found = verify(folder, public_keys=keys, recompute=agrees)
            assert found.exit_code == CODES["signature"]
            assert f"{name}: is missing" in named(found)
        (folder / name).write_bytes(data)


def test_a_key_without_any_signature_shows_that_one_was_taken_out(folder, made):
    for path in folder.glob("attestations/*.dsse.json"):
        path.unlink()
    found = verify(folder, recompute=agrees)
    assert found.exit_code == CODES["signature"]
    assert "one was taken out" in named(found)
    shutil.rmtree(folder / "attestations")
    assert verify(folder, recompute=agrees).level == "T0"


def test_a_forger_signs_with_a_key_of_his_own(folder, made, tmp_path):
    forger = write_key(tmp_path, 9)
    shutil.rmtree(folder / "attestations")
    sign_bundle(folder, forger[0])
    assert verify(folder, recompute=agrees).level == "T0"
    found = verify(folder, public_keys=[made[1][0][1]], recompute=agrees)
    assert found.exit_code == CODES["signer"]
    assert forger[2] in named(found)


def test_a_signed_statement_must_say_what_the_bundle_says(folder, made):
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    envelope = read_envelope((folder / AUDIT_FILE).read_bytes(), "x")
    statement = json.loads(envelope.payload)
    for change, why in (
        ({"edition": "public"}, "the edition"),
        ({"verdicts": []}, "the words"),
        ({"planDigest": "sha256:" + "0" * 64}, "the plan's digest"),
        ({"logHead": None}, "the head of the log"),
    ):
        other = {**statement, "predicate": {**statement["predicate"], **change}}
        (folder / AUDIT_FILE).write_bytes(sign_payload(canonical(other), key).to_json())
        assert why in failed(verify(folder))["signature"][0]
    other = {**statement, "predicateType": "urn:something:else"}
    (folder / AUDIT_FILE).write_bytes(sign_payload(canonical(other), key).to_json())
    assert "another kind than its name says" in named(verify(folder))
    (folder / AUDIT_FILE).write_bytes(sign_payload(b"{}", key).to_json())
    assert "no in-toto statement" in named(verify(folder))


def test_a_word_for_pipelines_must_be_that_of_the_result(folder):
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    path = folder / "attestations" / "test-result-01.dsse.json"
    statement = json.loads(read_envelope(path.read_bytes(), "x").payload)
    assert statement["predicate"]["result"] == "PASSED"
    statement["predicate"]["result"] = "FAILED"
    path.write_bytes(sign_payload(canonical(statement), key).to_json())
    assert "not that of the word in result.json" in named(verify(folder))


def test_a_key_that_others_may_read_is_told(made, tmp_path):
    place = shutil.copytree(made[0] / "plain", tmp_path / "p")
    private, _, _ = write_key(tmp_path, 5)
    private.chmod(0o600)
    assert not [line for line in signed_lines(sign_bundle(place, private)) if "chmod" in line]
    private.chmod(0o644)
    assert [line for line in signed_lines(sign_bundle(place, private, force=True)) if "chmod" in line]


def test_signing_a_zip_keeps_it_private(made):
    assert (made[0] / "b.zip").stat().st_mode & 0o077 == 0


JUNK = (
    None,
    0,
    -1,
    1e300,
    "",
    [],
    {},
    True,
    "x" * 999,
    "\u202e",
    [[]],
    {"a": 1},
    2**53 - 1,
    "sha256:" + "0" * 64,
    "../x",
)


def mutate(value, rng):
    """Change one thing somewhere in a JSON document: take it out, double it, or put something else in its place."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        kind = rng.random()
        if kind < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, "new": rng.choice(JUNK)} if kind < 0.2 else {**value, key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        kind = rng.random()
        changed = [] if kind < 0.1 else [value[at]] * 2 if kind < 0.2 else [mutate(value[at], rng)]
        return [*value[:at], *changed, *value[at + 1 :]]
    return rng.choice(JUNK)


def forged(place: Path, what: str, rng) -> None:
    """Mutate a document of a bundle, and make whatever digest or signature hangs on it again."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    if what == "manifest":
        document = json.loads((place / MANIFEST).read_bytes())
        del document["sha256_of_the_rest"]
        document = mutate(document, rng)
        if isinstance(document, dict):
            document["sha256_of_the_rest"] = digest(canonical(document))
        (place / MANIFEST).write_bytes(canonical(document))
    elif what in ("envelope", "statement"):
        file = rng.choice(sorted(place.glob("attestations/*.json")))
        raw = file.read_bytes()
        if what == "envelope":
            file.write_bytes(canonical(mutate(json.loads(raw), rng)))
        else:
            payload = canonical(mutate(json.loads(read_envelope(raw, "x").payload), rng))
            file.write_bytes(sign_payload(payload, key).to_json())
    elif what == "log":
        file = place / "evidence" / "run.jsonl"
        rows = [json.loads(line) for line in file.read_bytes().splitlines()]
        file.write_bytes(b"".join(canonical(row) + b"\n" for row in mutate(rows, rng) or [{}]))
        make_again(place)
    else:
        (place / what).write_bytes(canonical(mutate(json.loads((place / what).read_bytes()), rng)))
        make_again(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["manifest", "envelope", "statement", "log", "plan.json", "policy.json", "result.json", "environment.json"]
)
def test_documents_of_any_form_end_in_findings(folder, tmp_path, what):
    rng = random.Random(what)
    codes = set()
    for _ in range(25):
        place = shutil.copytree(folder, tmp_path / "x")
        with contextlib.suppress(TypeError):  # a log that is no list of lines any more
            forged(place, what, rng)
        found = verify(place)
        assert "\n".join(lines(found, place))
        assert "\u202e" not in "\n".join(lines(found, place))
        codes.add(found.exit_code)
        shutil.rmtree(place)
    assert codes <= {0, *CODES.values()}
    assert codes - {0}


def test_a_result_of_a_newer_schema(plain):
    data = json.loads((plain / "result.json").read_bytes())
    (plain / "result.json").write_bytes(canonical({**data, "schema_version": "1.99.0"}))
    make_again(plain)
    found = verify(plain, recompute=agrees)
    assert found.exit_code == CODES["schema"]
    assert "newer release" in named(found)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 50_000, b"\xff\xfe", b"NaN"])
def test_a_result_that_is_none(plain, data):
    (plain / "result.json").write_bytes(data)
    make_again(plain)
    found = verify(plain, recompute=agrees)
    assert found.exit_code == CODES["schema"]
    assert "result.json" in named(found)


def test_a_result_in_another_form_than_the_canonical_one(plain):
    data = json.loads((plain / "result.json").read_bytes())
    (plain / "result.json").write_text(json.dumps(data, indent=1))
    make_again(plain)
    found = verify(plain, recompute=agrees)
    assert found.exit_code == CODES["schema"]
    assert "canonical" in named(found)


def edit(place: Path, change) -> Verification:
    """Change a result, and make all digests again as a forger would."""
    shown = change(from_json((place / "result.json").read_bytes()))
    old = digest((place / "result.json").read_bytes())
    (place / "result.json").write_bytes(to_json(shown))
    page = (place / "report.html").read_text().replace(old, digest(to_json(shown)))
    (place / "report.html").write_text(page)
    make_again(place)
    return verify(place, recompute=agrees)


def test_a_word_that_does_not_follow(plain):
    def better(result):
        subject = result.subjects[0]
        return replace(result, subjects=(replace(subject, verdict=replace(subject.verdict, tier="D")),))

    found = edit(plain, better)
    assert found.exit_code == CODES["words"]
    assert "the tier is D" in named(found)


def test_another_plan_and_another_policy(plain, made):
    plan = json.loads((plain / "plan.json").read_bytes())
    for change, why in (
        ({"plan": {**plan["plan"], "seed": 1}}, "not the one that the result names"),
        ({"digest": "sha256:" + "0" * 64}, "not the one that the result names"),
        ({"plan": {**plan["plan"], "policy": {"auc_margin": 0.2}}}, "auc_margin"),
        ({"plan": 7}, "holds no plan"),
        ({"plan": {**plan["plan"], "policy": {"no": 1}}}, "unknown key"),
    ):
        (plain / "plan.json").write_text(json.dumps({**plan, **change}))
        make_again(plain)
        found = verify(plain, recompute=agrees)
        assert found.exit_code == CODES["plan and policy"]
        assert why in named(found)
    (plain / "plan.json").write_text(json.dumps(plan))
    policy = json.loads((plain / "policy.json").read_bytes())
    (plain / "policy.json").write_bytes(canonical({**policy, "values": {**policy["values"], "auc_margin": 0.2}}))
    make_again(plain)
    assert "policy.json" in named(verify(plain, recompute=agrees))


def test_a_log_that_was_edited(plain):
    log = plain / "evidence" / "run.jsonl"
    rows = log.read_bytes().splitlines(keepends=True)
    for data, why in (
        (b"".join(rows[:-1]), "ends in"),
        (b"".join([rows[1], rows[0], *rows[2:]]), "does not follow"),
        (b"".join(rows).replace(b"2", b"3", 1), "does not follow|ends in"),
        (b"", "empty"),
        (b"{}\n", "no line of a log"),
    ):
        log.write_bytes(data)
        make_again(plain)
        found = verify(plain, recompute=agrees)
        assert found.exit_code == CODES["log"]
        assert "evidence/run.jsonl" in named(found)
        assert any(part in named(found) for part in why.split("|"))


def test_scores_before_the_plan(factory, tmp_path):
    write_audit(factory, tmp_path / "a", steps=(FIRST_SCORE, PLAN))
    found = verify(bundled(tmp_path / "a", tmp_path / "b", "restricted"), recompute=agrees)
    assert found.exit_code == CODES["order"]
    assert "not committed before the first score" in named(found)


def test_a_plan_file_with_a_later_time(plain):
    plan = json.loads((plain / "plan.json").read_bytes())
    (plain / "plan.json").write_text(json.dumps({**plan, "committed_at": "2999-01-01T00:00:00Z"}))
    make_again(plain)
    found = verify(plain, recompute=agrees)
    assert found.exit_code == CODES["order"]
    assert "after the first score" in named(found)


def test_a_page_of_another_result(plain):
    page = (plain / "report.html").read_text()
    own = digest((plain / "result.json").read_bytes())
    for text in (page.replace(own, "sha256:" + "0" * 64), page.replace(own, "none"), ""):
        (plain / "report.html").write_text(text)
        make_again(plain)
        found = verify(plain, recompute=agrees)
        assert found.exit_code == CODES["pages"]
        assert "report.html" in named(found)


def test_what_an_edition_may_not_hold(plain):
    make_again(plain, lambda m: replace(m, edition="public"))
    found = verify(plain, recompute=agrees)
    assert "scores.npz: is classified restricted, which the public edition may not hold" in named(found)
    assert found.exit_code == CODES["files"]


def test_individuals_in_an_internal_bundle(factory, tmp_path, monkeypatch):
    write_audit(factory, tmp_path / "a", edition="restricted")
    place = bundled(tmp_path / "a", tmp_path / "b", "restricted")
    make_again(place, lambda m: replace(m, edition="internal", entries=tuple(
        replace(e, classification="internal") for e in m.entries)))  # fmt: skip
    found = verify(place, recompute=agrees)
    assert found.exit_code == CODES["schema"]
    assert "names single records" in named(found)


def test_recomputation_is_reported(made, plain):
    home, _ = made

    def differs(folder: Path) -> Recomputed:
        return Recomputed(False, 7, ("retrain, P1: 0.01 is recorded, 0.2 follows\x1b",), ())

    def cannot(folder: Path) -> Recomputed:
        raise InvalidInput("scores.npz: is no readable file")

    found = verify(plain, recompute=differs)
    assert found.exit_code == CODES["recomputed"]
    assert "0.2 follows" in named(found)
    assert verify(plain, recompute=cannot).exit_code == CODES["recomputed"]
    assert status(verify(plain), "recomputed") == "not checked"
    seen: list[Path] = []

    def look(folder: Path) -> Recomputed:
        seen.append(folder)
        return agrees(folder)

    assert verify(home / "b.zip", recompute=look).holds
    assert not seen[0].exists()  # what was unpacked for it is gone


def test_withheld_scores_are_said_to_be_withheld(made, tmp_path):
    found = verify(bundled(made[0] / "audit", tmp_path / "i.zip", "internal"), recompute=agrees)
    assert found.exit_code == 0
    assert "withholds evidence/scores.npz" in "\n".join(lines(found, "i.zip"))


# Signing


def test_signing_changes_nothing_that_is_there(made):
    home, keys = made
    for name in manifest_of(home / "plain").paths() | {MANIFEST, SUMS}:
        assert (home / "b" / name).read_bytes() == (home / "plain" / name).read_bytes()
    with zipfile.ZipFile(home / "b.zip") as opened:
        assert {n: opened.read(n) for n in opened.namelist()} == {
            str(p.relative_to(home / "b")): p.read_bytes() for p in (home / "b").rglob("*") if p.is_file()
        }
    assert sorted(p.name for p in (home / "b" / "attestations").iterdir())[0] == "audit.dsse.json"
    assert (home / "b" / key_file(keys[0][2])).is_file()


def test_signing_is_deterministic_and_asks_before_it_signs_again(made, tmp_path):
    home, keys = made
    again = shutil.copytree(home / "plain", tmp_path / "again")
    sign_bundle(again, keys[0][0])
    assert (again / AUDIT_FILE).read_bytes() == (home / "b" / AUDIT_FILE).read_bytes()
    with pytest.raises(InvalidInput, match="signed with this key already"):
        sign_bundle(again, keys[0][0])
    sign_bundle(again, keys[0][0], force=True)
    before = read_envelope((again / AUDIT_FILE).read_bytes(), "x").signatures
    sign_bundle(again, keys[1][0])
    after = read_envelope((again / AUDIT_FILE).read_bytes(), "x").signatures
    assert set(before) < set(after)
    found = verify(again, public_keys=[keys[0][1], keys[1][1]], recompute=agrees)
    assert found.level == "T1"


def test_what_does_not_hold_is_not_signed(folder, made, tmp_path):
    home, keys = made
    good = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    (folder / "VERIFY.md").write_text("trust me")
    with pytest.raises(InvalidInput, match=r"not signed, for it does not hold: VERIFY\.md"):
        sign_bundle(folder, keys[1][0])
    (folder / "VERIFY.md").write_bytes(good[folder / "VERIFY.md"])
    (folder / AUDIT_FILE).write_bytes(good[folder / AUDIT_FILE].replace(b"sig", b"sog"))
    with pytest.raises(InvalidInput, match=r"does not hold: attestations/audit\.dsse\.json"):
        sign_bundle(folder, keys[1][0])
    (folder / AUDIT_FILE).write_bytes(good[folder / AUDIT_FILE])
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == good
    with pytest.raises(InvalidInput, match=r"holds no manifest\.json"):
        sign_bundle(home / "audit", keys[0][0])
    with pytest.raises(InvalidInput, match="give the private key"):
        sign_bundle(folder, keys[0][1])


def test_a_signature_that_cannot_be_written_leaves_the_bundle_as_it_was(made, tmp_path, monkeypatch):
    home, keys = made
    place = shutil.copytree(home / "plain", tmp_path / "p")
    real = os.replace
    count = 0

    def full(source, target):
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InvalidInput, match="No space left"):
        sign_bundle(place, keys[0][0])
    monkeypatch.undo()
    files = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert files == {
        str(p.relative_to(home / "plain")): p.read_bytes() for p in (home / "plain").rglob("*") if p.is_file()
    }
    assert verify(place, recompute=agrees).level == "T0"


def test_two_opinions_stand_side_by_side(folder, made):
    sign_bundle(folder, made[1][0][0], opinion=replace(OPINION, text="Release it.", by="B. Officer"))
    found = verify(folder, recompute=agrees)
    assert found.holds
    assert len(found.opinions) == 2


# The commands


def run(*args: object):
    return CliRunner().invoke(cli.app, [str(a) for a in args])


def test_the_commands_end_with_the_documented_codes(made, tmp_path):
    home, keys = made
    done = run("verify", home / "b.zip", "--public-key", keys[0][1], "--no-from-scores")
    assert done.exit_code == 0
    assert "Level T1" in done.output
    assert run("verify", tmp_path / "none").exit_code == 2
    assert run("verify", home / "b", "--public-key", tmp_path / "none").exit_code == 2
    (tmp_path / "x.zip").write_bytes(b"PK")
    done = run("verify", tmp_path / "x.zip")
    assert done.exit_code == CODES["container"]
    assert "cut off" in done.output
    assert len(set(CODES.values())) == len(CODES)
    assert min(CODES.values()) > 5  # apart from verdict words, faults and usage
    help_text = " ".join(run("verify", "--help").output.split())
    for name, code in CODES.items():
        assert f"{code} {name.split()[0]}" in help_text.replace("│", " "), (name, code)


@pytest.mark.slow
def test_the_commands_refuse_in_one_sentence(made, tmp_path):
    home, keys = made
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("")
    for args in (
        ("bundle", tmp_path / "none"),
        ("bundle", home / "audit", "--out", tmp_path / "b"),
        ("bundle", home / "audit", "--out", tmp_path / "b", "--force"),
        ("bundle", home / "audit", "--out", home / "audit" / "plan.json" / "x"),
        ("sign", home / "b", "--key", tmp_path / "none"),
        ("sign", home / "b", "--key", keys[0][0]),
        ("keygen", "--out", keys[0][0]),
    ):
        done = run(*args)
        assert done.exit_code == 2, args
        assert done.output.startswith("error: ")
        assert "Traceback" not in done.output


def test_a_zip_with_files_that_nobody_listed(made, tmp_path):
    with zipfile.ZipFile(made[0] / "b.zip") as opened:
        files = {n: opened.read(n) for n in opened.namelist()}
    files["zzz.txt"] = b"1"
    with (tmp_path / "x.zip").open("wb") as stream:
        write_zip(stream, [(n, lambda d=d: io.BytesIO(d)) for n, d in files.items()])
    found = verify(tmp_path / "x.zip")
    assert found.exit_code == CODES["files"]
    assert "zzz.txt" in named(found)


def test_sums_that_differ_from_the_manifest(plain):
    old = manifest_of(plain)
    (plain / SUMS).write_bytes(sums(old.entries[1:], (plain / MANIFEST).read_bytes()))
    found = verify(plain)
    assert found.exit_code == CODES["digests"]
    assert SUMS in named(found)
