"""What goes into a bundle, what stays out of it, and that it is written whole or not at all."""

import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace

import pytest
from small_bundle import (
    CONTROLLER_KEY,
    MACHINE,
    RECORD,
    bundled,
    digest,
    manifest_of,
    real_page,
    stub_page,
    write_audit,
)

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports import bundle as bundle_module
from mnemoscope.reports.archive import ContainerError, check_path, read_zip, write_zip
from mnemoscope.reports.bundle import bundle_lines, default_target, gather, write_bundle
from mnemoscope.reports.manifest import (
    MANIFEST,
    SUMS,
    Entry,
    Manifest,
    ManifestError,
    canonical,
    parse_canonical,
    read_manifest,
    write_manifest,
)
from mnemoscope.reports.schema import from_json, to_json
from mnemoscope.reports.verification import verify
from mnemoscope.reports.views import names_source, printed_digests


@pytest.fixture(scope="module")
def audit(factory, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "a"
    write_audit(factory, folder)
    return folder


@pytest.fixture
def copy(audit, tmp_path):
    return shutil.copytree(audit, tmp_path / "a")


def change_result(folder, **changes):
    made = replace(from_json((folder / "result.json").read_bytes()), **changes)
    (folder / "result.json").write_bytes(to_json(made))
    page = (folder / "report.html").read_text()
    old = names_source(page.encode())
    (folder / "report.html").write_text(page.replace(old, digest(to_json(made))))
    return made


def test_a_bundle_holds_everything_under_its_digest(audit, tmp_path):
    place = bundled(audit, tmp_path / "b")
    manifest = manifest_of(place)
    found = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
    assert found == {
        "VERIFY.md", MANIFEST, SUMS, "environment.json", "evidence/commitments.json", "evidence/run.jsonl", "plan.json",
        "policy.json", "report.html", "result.json",
    }  # fmt: skip
    assert manifest.paths() == found - {MANIFEST, SUMS}
    for entry in manifest.entries:
        data = (place / entry.path).read_bytes()
        assert (entry.sha256, entry.bytes) == (digest(data), len(data))
    for name in ("result.json", "plan.json", "report.html", "evidence/run.jsonl"):
        assert (place / name).read_bytes() == (audit / name).read_bytes()
    assert manifest.result == manifest.derived_from == digest((audit / "result.json").read_bytes())
    (scores,) = manifest.withheld
    assert (scores.path, scores.reason, scores.classification) == ("evidence/scores.npz", "withheld", "restricted")
    assert scores.sha256 == digest((audit / "evidence/scores.npz").read_bytes())
    roles = {e.path: e.role for e in manifest.entries}
    assert roles["evidence/run.jsonl"] == "log"
    assert roles["VERIFY.md"] == "guide"


def test_the_restricted_edition_holds_the_scores(audit, tmp_path):
    place = bundled(audit, tmp_path / "b", "restricted")
    assert (place / "evidence/scores.npz").read_bytes() == (audit / "evidence/scores.npz").read_bytes()
    assert manifest_of(place).withheld == ()
    assert "leaves out no file" in (place / "VERIFY.md").read_text()


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_the_restricted_edition_is_for_its_owner_alone(audit, tmp_path):
    for edition, private in (("restricted", True), ("internal", False)):
        for name in (f"{edition}.zip", edition):
            place = bundled(audit, tmp_path / name, edition)
            assert (stat.S_IMODE(place.stat().st_mode) & 0o077 == 0) == private


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_sums_are_read_by_sha256sum(audit, tmp_path):
    place = bundled(audit, tmp_path / "b")
    done = subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.count(": OK") == len(manifest_of(place).entries) + 1


def test_policy_and_environment_are_those_of_the_result(audit, tmp_path):
    place = bundled(audit, tmp_path / "b")
    made = from_json((audit / "result.json").read_bytes())
    policy = parse_canonical((place / "policy.json").read_bytes(), "policy")
    assert policy["values"] == made.plan.policy
    assert policy["decided"] is None
    found = parse_canonical((place / "environment.json").read_bytes(), "environment")
    assert found["audit"]["cpu"] == made.environment.cpu
    assert found["determinism"]["root_seed"] == made.plan.seed
    assert found["bundling"]["source"] == {"commit": MACHINE.commit, "dirty": False}
    assert found["bundling"]["packages"] == {"numpy": "2.4.6", "scipy": "1.17.1"}
    assert found["bundling"]["differs_from_audit"] == ["torch"]  # the audit had it, the bundling has not


def test_the_same_audit_gives_the_same_bytes(audit, tmp_path):
    one, two = bundled(audit, tmp_path / "1.zip"), bundled(audit, tmp_path / "2.zip")
    assert one.read_bytes() == two.read_bytes()
    folder = bundled(audit, tmp_path / "f")
    with zipfile.ZipFile(one) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == sorted(opened.namelist())
        for info in opened.infolist():
            assert opened.read(info) == (folder / info.filename).read_bytes()
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            assert info.compress_type == zipfile.ZIP_STORED


def test_the_public_edition_is_a_result_of_its_own(audit, tmp_path, monkeypatch):
    _fast_forms(monkeypatch)
    place = bundled(audit, tmp_path / "b", "public")
    manifest = manifest_of(place)
    shown = from_json((place / "result.json").read_bytes())
    assert shown.edition == manifest.edition == manifest.result_edition == "public"
    assert manifest.result == digest((place / "result.json").read_bytes())
    assert manifest.derived_from == digest((audit / "result.json").read_bytes())
    assert manifest.result != manifest.derived_from
    assert names_source((place / "report.html").read_bytes()) == manifest.result
    assert {e.path for e in manifest.withheld} == {
        "environment.json", "evidence/commitments.json", "evidence/run.jsonl", "evidence/scores.npz", "plan.json",
    }  # fmt: skip
    assert {e.path for e in manifest.entries} == {"VERIFY.md", "policy.json", "report.html", "result.json"}
    assert all(e.classification == "public" for e in manifest.entries)
    assert b"a common processor" not in b"".join(p.read_bytes() for p in place.iterdir())


def _fast_forms(monkeypatch):
    """Pages are stubs: rendering real ones is for the slow tests."""
    from mnemoscope.reports import formats

    forms = {**formats.FORMATS, "html": lambda r: {"report.html": stub_page(r).encode()}}
    monkeypatch.setattr(formats, "FORMATS", forms)


def test_individuals_stay_in_the_restricted_edition(factory, tmp_path, monkeypatch):
    _fast_forms(monkeypatch)
    folder = tmp_path / "a"
    write_audit(factory, folder, edition="restricted")
    assert RECORD in (folder / "result.json").read_text()
    assert RECORD in (folder / "report.html").read_text()
    restricted = bundled(folder, tmp_path / "r", "restricted")
    assert (restricted / "result.json").read_bytes() == (folder / "result.json").read_bytes()
    internal = bundled(folder, tmp_path / "i", "internal")
    manifest = manifest_of(internal)
    assert manifest.result_edition == "internal"
    assert manifest.derived_from == manifest_of(restricted).result
    everything = b"".join(p.read_bytes() for p in internal.rglob("*") if p.is_file())
    assert RECORD.encode() not in everything
    assert names_source((internal / "report.html").read_bytes()) == manifest.result


def test_a_record_that_slips_into_another_file_is_found(factory, tmp_path, monkeypatch):
    _fast_forms(monkeypatch)
    folder = tmp_path / "a"
    made = write_audit(factory, folder, edition="restricted")
    change_result(folder, title=f"Where is {RECORD}?")
    bundled(folder, tmp_path / "r", "restricted")
    with pytest.raises(InvalidInput, match="names a record that the restricted edition alone may name") as error:
        bundled(folder, tmp_path / "i", "internal")
    assert RECORD not in str(error.value)
    assert not (tmp_path / "i").exists()
    assert made.edition == "restricted"


@pytest.mark.parametrize("edition", ["public", "internal", "restricted"])
def test_no_edition_holds_a_secret_key(copy, tmp_path, edition, monkeypatch):
    _fast_forms(monkeypatch)
    place = bundled(copy, tmp_path / "b", edition)
    everything = b"".join(p.read_bytes() for p in place.rglob("*") if p.is_file())
    assert CONTROLLER_KEY.encode() not in everything
    for text in ("-----BEGIN PRIVATE KEY-----", CONTROLLER_KEY, CONTROLLER_KEY.upper()):
        change_result(copy, title=f"Oh, {text}")
        with pytest.raises(InvalidInput, match="looks like a secret key"):
            gather(copy, edition=edition, machine=MACHINE)


def test_a_controllers_key_elsewhere_is_looked_for_too(copy, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.key").write_text("5e" * 32 + "\n")
    change_result(copy, title="Oh, " + "5e" * 32)
    gather(copy, machine=MACHINE)
    monkeypatch.setenv("MNEMOSCOPE_KEY_FILE", str(tmp_path / "elsewhere.key"))
    with pytest.raises(InvalidInput, match="looks like a secret key"):
        gather(copy, machine=MACHINE)


@pytest.mark.parametrize(
    ("name", "why"),
    [("evidence/a.npz", "arrays may hold scores"), ("evidence/a.pem", "secret key"), ("evidence/a.pkl", "runs code")],
)
def test_files_of_a_wrong_kind_are_refused_whatever_they_are_called(copy, name, why):
    made = from_json((copy / "result.json").read_bytes())
    (copy / name).write_bytes(b"1")
    extra = replace(made.evidence[1], path=name, sha256=digest(b"1"), n_bytes=1)
    change_result(copy, evidence=(*made.evidence, extra))
    with pytest.raises(InvalidInput, match=why):
        gather(copy, machine=MACHINE)


@pytest.mark.parametrize(
    "path", ["../up.json", "/etc/passwd", "evidence/../../x", "C:/x", "a//b", ".hidden", "result.json"]
)
def test_evidence_lies_below_the_folder(copy, path):
    made = from_json((copy / "result.json").read_bytes())
    target = (copy / path) if not path.startswith("/") else None
    if target is not None and path != "result.json":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"1")
    extra = replace(made.evidence[1], path=path, sha256=digest(b"1"), n_bytes=1)
    change_result(copy, evidence=(extra,))
    with pytest.raises(InvalidInput):
        gather(copy, machine=MACHINE)


def test_evidence_that_is_gone_or_was_altered_is_refused(copy, tmp_path):
    file = copy / "evidence" / "commitments.json"
    good = file.read_bytes()
    file.write_bytes(good + b" ")
    with pytest.raises(InvalidInput, match=r"commitments\.json: differs from the digest in the result"):
        gather(copy, machine=MACHINE)
    file.unlink()
    with pytest.raises(InvalidInput, match="is not there"):
        gather(copy, machine=MACHINE)
    (tmp_path / "elsewhere").write_bytes(good)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="is not there"):
        gather(copy, machine=MACHINE)


def test_a_plan_of_another_audit_is_refused(copy):
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps(plan | {"digest": "sha256:" + "0" * 64}))
    with pytest.raises(InvalidInput, match="these are of two audits"):
        gather(copy, machine=MACHINE)
    (copy / "plan.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="cannot be read as JSON"):
        gather(copy, machine=MACHINE)
    (copy / "plan.json").unlink()
    assert "no plan.json" in gather(copy, machine=MACHINE).notes[0]


def test_views_of_this_result_are_taken_and_others_left_out(copy):
    ours = digest((copy / "result.json").read_bytes())
    (copy / "tables").mkdir()
    (copy / "figures").mkdir()
    (copy / "tables" / "gates.csv").write_text(f"id,result_sha256\nG1,{ours}\n")
    (copy / "tables" / "old.csv").write_text("id,result_sha256\nG1,sha256:" + "0" * 64)
    for name, source in (("roc", ours), ("old", "sha256:" + "3" * 64)):
        (copy / "figures" / f"{name}.svg").write_text("<svg/>")
        (copy / "figures" / f"{name}.csv").write_text("model\nsha256:" + "4" * 64)
        (copy / "figures" / f"{name}.alt.txt").write_text(f"Drawn from the result {source}.")
    (copy / "figures" / "alone.svg").write_text("<svg/>")
    (copy / "figures" / "roc.py").write_text("import os")
    (copy / "summary.md").write_text("made from sha256:" + "1" * 64)
    packed = zlib.compress(f"made from {ours}".encode())
    (copy / "report.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\nstream\n" + packed + b"\nendstream")
    assert printed_digests(copy / "report.pdf") == {ours}
    (copy / "summary.pdf").write_bytes(b"%PDF-1.7\nstream\n" + zlib.compress(b"sha256:" + b"2" * 64) + b"\nendstream")
    gathered = gather(copy, machine=MACHINE)
    views = {path for path in gathered.files if path.split("/")[0] in ("tables", "figures", "report.pdf", "summary.md")}
    figures = {f"figures/roc.{form}" for form in ("svg", "csv", "alt.txt")}
    assert views == {"tables/gates.csv", "report.pdf"} | figures
    assert sorted(note.split(" ")[0] for note in gathered.notes) == [
        "figures/alone.svg", "figures/old.alt.txt", "figures/old.csv", "figures/old.svg", "summary.md", "summary.pdf",
        "tables/old.csv",
    ]  # fmt: skip
    assert verify(write_bundle(gathered, copy.parent / "b")).holds


def test_forms_are_made_again_for_a_lower_edition(copy, tmp_path, monkeypatch):
    _fast_forms(monkeypatch)
    drawn = []
    monkeypatch.setattr(bundle_module, "_draw", lambda result, forms: drawn.append((result.edition, forms)) or {})
    (copy / "tables").mkdir()
    (copy / "figures").mkdir()
    (copy / "tables" / "gates.csv").write_text("id\nG1\n")
    (copy / "figures" / "roc.svg").write_text("<svg/>")
    (copy / "figures" / "roc.alt.txt").write_text("a curve")
    place = bundled(copy, tmp_path / "b", "public")
    manifest = manifest_of(place)
    assert manifest.result.encode() in (place / "tables" / "gates.csv").read_bytes()
    assert drawn == [("public", ["svg"])]
    assert verify(place).holds


@pytest.mark.slow
def test_figures_are_drawn_again_for_a_lower_edition(copy, tmp_path):
    (copy / "figures").mkdir()
    (copy / "figures" / "roc.svg").write_text("<svg/>")
    place = bundled(copy, tmp_path / "b", "public")
    drawn = sorted(path.name for path in (place / "figures").iterdir())
    assert [name for name in drawn if name.endswith(".svg")]
    assert "roc.svg" not in drawn
    assert verify(place).holds


def test_a_page_of_another_result_is_made_again(copy, monkeypatch):
    made = from_json((copy / "result.json").read_bytes())
    (copy / "result.json").write_bytes(to_json(replace(made, title="Another title")))
    _fast_forms(monkeypatch)
    monkeypatch.setattr(bundle_module, "render_html", stub_page)
    gathered = gather(copy, machine=MACHINE)
    assert names_source(gathered.files["report.html"]) == gathered.manifest.result


def test_nothing_is_replaced_without_force_and_only_bundles_with_it(audit, tmp_path):
    gathered = gather(audit, machine=MACHINE)
    for name in ("b", "b.zip"):
        place = write_bundle(gathered, tmp_path / name)
        with pytest.raises(InvalidInput, match="exists"):
            write_bundle(gathered, place)
        write_bundle(gathered, place, force=True)
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    (tmp_path / "own.zip").write_text("not a zip")
    (tmp_path / "link.zip").symlink_to(tmp_path / "own.zip")
    for name in ("own", "own.zip", "link.zip"):
        with pytest.raises(InvalidInput, match="replace"):
            write_bundle(gathered, tmp_path / name, force=True)
    assert (own / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "own.zip").read_text() == "not a zip"


def test_nothing_half_written_is_left(audit, tmp_path, monkeypatch):
    gathered = gather(audit, machine=MACHINE)
    place = write_bundle(gathered, tmp_path / "b.zip")
    before = place.read_bytes()
    broken = replace(gathered, files={**gathered.files, "zzz.json": tmp_path / "gone"})
    for name, force in (("b.zip", True), ("c.zip", False), ("d", False)):
        with pytest.raises(InvalidInput, match="cannot write"):
            write_bundle(broken, tmp_path / name, force=force)
    assert place.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write"):
        write_bundle(gathered, tmp_path / "file" / "b.zip")
    real = os.replace

    def full(source, target):
        if str(target).endswith("e"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InvalidInput, match="No space left"):
        write_bundle(gathered, tmp_path / "e")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip", "file"]


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"schema_version":"1.99.0"}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InvalidInput):
        gather(tmp_path, machine=MACHINE)
    with pytest.raises(InvalidInput, match="Give the folder"):
        gather(tmp_path / "none", machine=MACHINE)


def test_the_guide_says_what_each_level_does_not_show(audit, factory, tmp_path):
    text = gather(audit, machine=MACHINE).files["VERIFY.md"].decode()
    for words in ("T0", "T1", "It does not show", "sha256sum -c SHA256SUMS", "another way than this bundle"):
        assert words in text
    assert "{" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
    hostile = bundle_module.guide(factory.hostile(), "public", "mnemoscope 0", 0).decode()
    assert "\u202e" not in hostile
    assert "\x1b" not in hostile


def test_the_first_screen_names_what_is_withheld(audit, tmp_path):
    gathered = gather(audit, machine=MACHINE)
    said = "\n".join(bundle_lines(gathered, tmp_path / "b.zip"))
    assert "withheld: evidence/scores.npz (restricted)" in said
    assert gathered.manifest.result in said
    assert default_target(audit, "public") == audit.parent / "a-public.zip"
    assert default_target(audit / "result.json", "public") == audit.parent / "a-public.zip"


# The list


def manifest(**changes):
    entry = Entry("a.json", "sha256:" + "1" * 64, 3, "application/json", "result", "public", "audit")
    given = {"edition": "public", "tool": "t", "result": entry.sha256, "result_edition": "public",
             "derived_from": entry.sha256, "entries": (entry,), "withheld": ()}  # fmt: skip
    return Manifest(**{**given, **changes})


def test_a_manifest_is_read_back():
    entry = manifest().entries[0]
    made = manifest(withheld=(replace(entry, path="b.json", classification="restricted", reason="withheld"),))
    assert read_manifest(write_manifest(made)) == made


def test_every_flipped_byte_of_a_manifest_is_found():
    data = write_manifest(manifest())
    for at in range(len(data)):
        with pytest.raises(InvalidInput):
            read_manifest(data[:at] + bytes([data[at] ^ (0x01, 0x02, 0x20)[at % 3]]) + data[at + 1 :])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"manifest_version": "1.1.0"}, "newer release"),
        ({"manifest_version": "2.0.0"}, "newer release"),
        ({"manifest_version": "one"}, "not three numbers"),
        ({"edition": "secret"}, "edition must be"),
        ({"result": "sha256:short"}, "digest of the result"),
        ({"entries": (replace(manifest().entries[0], path="../x"),)}, "leaves its folder"),
        ({"entries": (replace(manifest().entries[0], classification="none"),)}, "classification"),
        ({"entries": (replace(manifest().entries[0], bytes=-1),)}, "size"),
        ({"entries": manifest().entries * 2}, "listed twice"),
        ({"entries": (*manifest().entries, replace(manifest().entries[0], path="A.json"))}, "listed twice"),
    ],
)
def test_a_manifest_with_the_right_digest_of_itself_is_still_checked(changes, why):
    with pytest.raises(InvalidInput, match=why):
        read_manifest(write_manifest(manifest(**changes)))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}', b'{"a": 1}', b"NaN"])
def test_what_is_no_manifest(text):
    with pytest.raises(InvalidInput):
        read_manifest(text)


def test_an_oversized_manifest_is_not_parsed():
    with pytest.raises(ManifestError, match="more than a manifest has"):
        read_manifest(b" " * (2**24 + 1))


def test_canonical_json_has_one_form():
    assert canonical({"b": 1.0, "a": [True, None]}) == b'{"a":[true,null],"b":1}'
    for other in (b'{"b":1,"a":[true,null]}', b'{"a":[true,null],"b":1.0}', b'{"a":[true,null],"b":1}\n'):
        with pytest.raises(InvalidInput, match="not in canonical form"):
            parse_canonical(other, "x")


# The zip


def zipped(files):
    stream = io.BytesIO()
    write_zip(stream, [(name, lambda data=data: io.BytesIO(data)) for name, data in files.items()])
    return stream.getvalue()


FILES = {"b/c.txt": b"hello", "a.json": b"{}", "empty.txt": b""}


def test_a_zip_is_read_by_us_and_by_others():
    data = zipped(FILES)
    found = read_zip(io.BytesIO(data))
    assert {s.name: data[s.start : s.start + s.size] for s in found} == FILES
    assert all(s.crc == zlib.crc32(FILES[s.name]) for s in found)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert {n: opened.read(n) for n in opened.namelist()} == FILES
    assert zipped(dict(reversed(FILES.items()))) == data
    assert read_zip(io.BytesIO(zipped({}))) == []


def test_every_flipped_byte_of_the_container_is_found():
    data = zipped(FILES)
    inside = {i for s in read_zip(io.BytesIO(data)) for i in range(s.start, s.start + s.size)}
    for at in set(range(len(data))) - inside:
        for bit in (0x01, 0x80):
            with pytest.raises(ContainerError):
                read_zip(io.BytesIO(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]))


def test_a_zip_that_is_cut_or_followed_by_bytes():
    data = zipped(FILES)
    for cut in range(len(data)):
        with pytest.raises(ContainerError):
            read_zip(io.BytesIO(data[:cut]))
    for more in (b"\0", b"PK", data):
        with pytest.raises(ContainerError):
            read_zip(io.BytesIO(data + more))
        with pytest.raises(ContainerError):
            read_zip(io.BytesIO(more + data))


def foreign(make):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        make(opened)
    return io.BytesIO(stream.getvalue())


def _link(opened):
    info = zipfile.ZipInfo("a.json")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    opened.writestr(info, "/etc/passwd")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda z: [z.writestr("a.json", "1"), z.writestr("a.json", "2")], "altered|two files"),
        (lambda z: z.writestr("../a.json", "1"), "leaves its folder"),
        (lambda z: z.writestr("a/../../b.json", "1"), "leaves its folder"),
        (lambda z: z.writestr("/etc/passwd", "1"), "absolute path"),
        (lambda z: z.writestr("C:\\x", "1"), "absolute path"),
        (lambda z: z.writestr("a\\..\\b", "1"), "leaves its folder"),
        (lambda z: z.writestr("é.json", "1"), "not a path of a bundle"),
        (lambda z: z.writestr("nul.txt", "1"), "reserve"),
        (lambda z: z.writestr("dir/", ""), "not a path of a bundle"),
        (_link, "a link"),
        (lambda z: z.writestr("a.json", b"0" * 10**6, zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda z: z.writestr("a.json", "1"), "packed by another program"),
    ],
)
def test_zips_of_others_are_refused_with_the_reason(make, why):
    with pytest.raises(ContainerError, match=why):
        read_zip(foreign(make))


def test_two_files_of_one_name_in_our_own_form():
    data = zipped({"a.json": b"1", "b.json": b"2"}).replace(b"b.json", b"a.json")
    with pytest.raises(ContainerError, match="two files of this name"):
        read_zip(io.BytesIO(data))
    data = zipped({"a.json": b"1", "b.json": b"2"}).replace(b"b.json", b"A.json")
    with pytest.raises(ContainerError, match="two files of this name"):
        read_zip(io.BytesIO(data))


def test_a_zip_that_declares_more_than_it_holds():
    data = bytearray(zipped({"a.json": b"1"}))
    at = data.index(b"PK\1\2")
    struct.pack_into("<2I", data, at + 20, 2**32 - 2, 2**32 - 2)
    with pytest.raises(ContainerError, match="declares"):
        read_zip(io.BytesIO(bytes(data)))
    data = bytearray(zipped({"a.json": b"1"}))
    struct.pack_into("<2H", data, len(data) - 14, 60_000, 60_000)
    with pytest.raises(ContainerError, match="lists 60,000 files"):
        read_zip(io.BytesIO(bytes(data)))


@pytest.mark.parametrize(
    "path", ["", "a/", "/a", "a//b", ".a", "a/.b", "-a", "a b", "a\nb", "x" * 201, "a.", "con", "é"]
)
def test_paths_that_no_bundle_has(path):
    with pytest.raises(ContainerError):
        check_path(path)


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["public", "internal"])
def test_real_pages_of_lower_editions_name_their_result_and_no_record(factory, tmp_path, edition):
    write_audit(factory, tmp_path / "a", edition="restricted", page=real_page)
    assert "patients" in (tmp_path / "a" / "report.html").read_text()
    place = bundled(tmp_path / "a", tmp_path / "b", edition)
    page = (place / "report.html").read_bytes()
    assert names_source(page) == manifest_of(place).result
    assert RECORD.encode() not in page
    assert b"0017" not in page
    assert verify(place).holds


@pytest.mark.slow
def test_bundling_loads_no_torch_and_the_commands_say_what_they_did(audit, tmp_path):
    code = (
        "import sys\nfrom mnemoscope import api\n"
        f"print(*api.bundle({str(audit)!r}, out={str(tmp_path / 'b.zip')!r}), sep='\\n')\n"
        f"print(*api.keygen({str(tmp_path / 'k.pem')!r}), sep='\\n')\n"
        f"print(*api.sign({str(tmp_path / 'b.zip')!r}, {str(tmp_path / 'k.pem')!r}), sep='\\n')\n"
        f"found = api.verify({str(tmp_path / 'b.zip')!r}, public_key={str(tmp_path / 'k.pub.pem')!r})\n"
        "assert found.exit_code == 0 and found.level == 'T1', found\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    environment = json.loads(zipfile.ZipFile(tmp_path / "b.zip").read("environment.json"))
    assert environment["bundling"]["packages"]["cryptography"]
    assert str(tmp_path) not in json.dumps(environment)
