"""Declarations: read from TOML, refused with a remedy, printed as stated."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.declared import SCOPE_ITEMS, Declared, DeclaredRequest, days_between
from mnemoscope.audit.verdict.declared_file import LARGEST_FILE, declarations_template, load_declared


def filled(tmp_path: Path) -> Declared:
    """The template with every comment mark taken away: everything is declared."""
    lines = [re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", line) for line in declarations_template().splitlines()]
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines).replace("sha256:...", "sha256:" + "a" * 64), encoding="utf-8")
    made = load_declared(file)
    assert made is not None
    return made


def read(tmp_path: Path, text: str) -> Declared:
    file = tmp_path / "some.toml"
    file.write_text(text, encoding="utf-8")
    made = load_declared(file)
    assert made is not None
    return made


def test_the_template_declares_nothing(tmp_path):
    assert read(tmp_path, declarations_template()) == Declared()


def test_the_template_shows_every_field(tmp_path):
    def empty(value: Any, where: str) -> list[str]:
        if isinstance(value, tuple):
            return [where] if not value else [name for v in value for name in empty(v, where)]
        if is_dataclass(value):
            return [name for f in fields(value) for name in empty(getattr(value, f.name), f"{where}.{f.name}")]
        return [where] if value is None else []

    assert empty(filled(tmp_path), "") == []
    names = {f.name for f in fields(Declared)}
    assert all(re.search(rf"\b{name}\b", declarations_template()) for name in names)
    for item in SCOPE_ITEMS:
        assert item in declarations_template().replace("\n# ", " ")


def test_days_are_counted_from_request_to_replacement():
    assert DeclaredRequest(received="2026-01-31", replaced="2026-03-01").elapsed_days == 29
    assert DeclaredRequest(received="2026-01-31").elapsed_days is None
    assert days_between("2024-02-28T23:59:00Z", "2024-03-01") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relase_context = 'internal'", "did you mean 'release_context'"),
        ("release_context = 'intern'", "did you mean 'internal'"),
        ("[request]\nreceived = '21.11.2026'", "give a date such as 2026-11-21"),
        ("[request]\nreceived = 2026-11-21T09:00:00+02:00", "give times in UTC"),
        ("[request]\nreceived = 2026-11-21\nreplaced = 2026-11-20", "lies before request.received"),
        ("[request]\nn_subjects = -1", "0 or more"),
        ("[request]\nn_subjects = true", "whole number"),
        ("[request]\nids = 'R-1'", "a list is expected"),
        ("[service]\nserved_digest = 'abc'", "64 lower-case hex digits"),
        ("[service]\ncontains_record = 'no'", "true or false"),
        ("[[scope]]\nstatus = 'done'", "lacks 'item'"),
        ("[[scope]]\nitem = 'recipients'\nstatus = 'done'\n" * 2, "more than once"),
        ("[[claims]]\nkind = 'x'\nepsilon = nan", "at least 0"),
        ("[[claims]]\nkind = 'x'\ndelta = 1", "below 1"),
        ("request = 3", "a table is expected"),
        ("declared_by = 7", "text is expected"),
        ("declared_by = '" + "x" * 2_001 + "'", "at most 2,000"),
        ("not toml", "not valid TOML"),
        ("a = " + "[" * 50_000, "not valid TOML"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_is_allowed(tmp_path, text, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        read(tmp_path, text)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InvalidInput, match="mnemoscope declare new"):
        load_declared(tmp_path / "missing.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(InvalidInput, match="larger than"):
        load_declared(tmp_path / "large.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not valid TOML"):
        load_declared(tmp_path / "bytes.toml")
    assert load_declared(None) is None
    assert load_declared(Declared()) == Declared()
