"""What each edition shows: no path, person, machine or record reaches a public one, in any form of the result."""

import json
import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any, get_type_hints

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.declared import (
    Claim,
    Declared,
    DeclaredDocument,
    DeclaredPerson,
    DeclaredRequest,
    DeclaredScope,
    DeclaredService,
    ForgetSet,
    Recipient,
)
from mnemoscope.audit.verdict.individual_rows import Individual
from mnemoscope.reports.dpia import dpia_extract
from mnemoscope.reports.editions import EDITIONS, WITHHELD_SEED, for_edition
from mnemoscope.reports.formats import FORMATS
from mnemoscope.reports.html import render_html, write_report
from mnemoscope.reports.schema import from_json, read_result, result_digest, to_json

SECRETS = (
    "jdoe", "buildhost-77", "/home/", "C:\\Users", "plans/secret.toml", "Jane Roe", "R-2026-0114", "jane@example.org",
    "acme-processor", "because Jane asked", "digits/0017", "private data", "EPYC", "storage.internal",
)  # fmt: skip


def declared(**changes: Any) -> Declared:
    made = Declared(
        declared_by="Jane Roe",
        at="2026-11-20",
        release_context="open weights",
        request=DeclaredRequest(("R-2026-0114",), "2026-10-01", "2026-10-20", "2026-11-11", "because Jane asked", 3),
        service=DeclaredService("the classifier", "sha256:" + "a" * 64, True, "Jane Roe"),
        scope=(DeclaredScope("source rows", "done", "by Jane Roe", "2026-10-02"), DeclaredScope("recipients", "open")),
        people=(DeclaredPerson("assessor", "Jane Roe", False, "fine, says Jane Roe", "2026-11-20"),),
        documents=(DeclaredDocument("dpia", "Jane Roe's DPIA", "sha256:" + "b" * 64),),
        recipients=(Recipient("acme-processor", True, "2026-10-05"), Recipient("jane@example.org")),
        forget_set=ForgetSet("Jane Roe", "2026-12-31", None, "sha256:" + "c" * 64),
        claims=(Claim("DP-SGD", 8.0, 1e-5, source="/home/jdoe/claim.pdf"),),
        next_test_due="2027-05-01",
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def planted(factory):
    """A result with a secret in every place that a user or a machine can put one."""
    one = factory.subject("noop")
    small = Estimate(0.5, factory.rate(2, 4).ci, 2, 4)
    one = replace(
        one,
        settings={"teacher": "/home/jdoe/private data/t.pt", "win": "C:\\Users\\jdoe\\x.npz", "epochs": 3},
        findings=(*one.findings, replace(one.findings[0], attack="rare", n_in=4, primary=False)),
        utility=(*one.utility, replace(one.utility[0], accuracy=small, gap_to_retrained=None)),
        models=(replace(one.models[0], description="file plans/secret.toml of jdoe@buildhost-77"), *one.models[1:]),
        individuals=(Individual("p-4f2a", "digits/0017", "3", 0.9, 0.8, 0.5, 0.001),),
    )
    made = factory.result([one])
    return replace(
        made,
        environment=replace(made.environment, platform="Linux 6.8 buildhost-77 x86_64", cpu="AMD EPYC"),
        data=replace(made.data, sets=(replace(made.data.sets[0], role="requested", n_records=4), *made.data.sets)),
        not_run=(*made.not_run, replace(made.not_run[0], why="no file ~jdoe/x.pt; record digits/0017 is odd")),
        warnings=("read https://storage.internal/jdoe/x", "3 of 4 records of digits/0017, by jane@example.org"),
        declared=declared(),
    )


def views(result: Any) -> dict[str, str]:
    found = {"json": to_json(result).decode(), "html": render_html(result, figures=False), "dpia": dpia_extract(result)}
    for name in ("markdown", "junit"):
        found |= {path: data.decode() for path, data in FORMATS[name](result).items()}
    return found


def test_no_path_person_machine_or_record_reaches_a_public_edition(planted):
    public = for_edition(planted, "public")
    for name, text in views(public).items():
        assert [secret for secret in SECRETS if secret in text] == [], name
        assert "3 of 4 records" not in text, name
    inside = to_json(for_edition(planted, "internal")).decode()
    # The scan itself can fail: all of it stands in the internal edition, where it belongs.
    assert [secret for secret in SECRETS if json.dumps(secret)[1:-1] not in inside] == []


@pytest.mark.slow
def test_tables_of_a_public_edition_leak_nothing_either(planted):
    for path, data in FORMATS["csv"](for_edition(planted, "public")).items():
        assert [secret for secret in SECRETS if secret.encode() in data] == [], path


def test_a_public_edition_keeps_the_verdict_and_the_numbers_of_large_groups(planted):
    public = for_edition(planted, "public")
    assert [s.verdict.word for s in public.subjects] == [s.verdict.word for s in planted.subjects]
    kept = [f for f in public.subjects[0].findings if f.attack != "rare"]
    assert [f.auc for f in kept] == [f.auc for f in planted.subjects[0].findings if f.attack != "rare"]
    assert kept[0].tpr[0].tpr.k is not None
    assert public.subjects[0].settings["epochs"] == 3
    assert public.plan.digest == planted.plan.digest
    assert public.plan.seed == WITHHELD_SEED
    assert public.declared.request.received == "2026-10-01"
    assert public.declared.scope[0].status == "done"
    assert public.declared.people[0].role == "assessor"


def test_small_groups_are_suppressed_and_said_to_be(planted):
    public = for_edition(planted, "public")
    assert not any(f.attack == "rare" for f in public.subjects[0].findings)
    assert not any(s.role == "requested" for s in public.data.sets)
    small = [u.accuracy for u in public.subjects[0].utility if u.accuracy.value is None]
    assert [e.reason for e in small] == ["suppressed in this edition: fewer than 10 records"]
    assert public.subjects[0].distributions == ()
    said = " ".join(public.limitations[len(planted.limitations) :])
    assert "1 numbers of groups of fewer than 10" in said
    assert "records requested" in said
    assert "rare, " in said
    wide = for_edition(planted, "public", min_group=20_000)
    assert wide.subjects[0].findings == ()


@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_of_an_edition_is_itself(planted, edition):
    once = for_edition(planted, edition)
    assert for_edition(once, edition) == once
    assert for_edition(once) == once
    assert from_json(to_json(once)) == from_json(to_json(for_edition(from_json(to_json(once)))))


@pytest.mark.slow
def test_individuals_stand_in_the_restricted_edition_alone_and_under_pseudonyms(planted):
    exposed = replace(planted.subjects[0].exposed[0], pseudonym="p-4f2a")
    made = replace(planted, subjects=(replace(planted.subjects[0], exposed=(exposed,)),))
    restricted = for_edition(made, "restricted")
    page = render_html(restricted, figures=False)
    assert page.count("p-4f2a") == 2
    assert "digits/0017" not in to_json(restricted).decode().replace("record digits/0017 is odd", "").replace(
        "records of digits/0017", ""
    )
    for edition in ("public", "internal"):
        assert "p-4f2a" not in "".join(views(for_edition(made, edition)).values())


def test_what_was_taken_out_does_not_come_back(planted):
    public = for_edition(planted, "public")
    for edition in ("internal", "restricted"):
        with pytest.raises(InvalidInput, match="public edition, from which the rest was taken out"):
            for_edition(public, edition)
    with pytest.raises(InvalidInput, match="allowed are public, internal, restricted"):
        for_edition(planted, "secret")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="at least 2"):
        for_edition(planted, "public", min_group=1)


@pytest.mark.slow
def test_a_flag_alone_makes_no_public_result(planted):
    """Whoever writes ``edition="public"`` into a result gets a redacted document all the same."""
    assert not [secret for secret in SECRETS if secret in to_json(replace(planted, edition="public")).decode()]


@pytest.mark.slow
def test_the_result_beside_a_public_report_is_the_redacted_one(planted, tmp_path):
    paths = write_report(planted, tmp_path, edition="public")
    data = paths.result.read_bytes()
    assert read_result(paths.result).edition == "public"
    assert not [secret for secret in SECRETS if secret.encode() in data]
    assert result_digest(data) in paths.html.read_text(encoding="utf-8")
    assert result_digest(data) != result_digest(planted)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'|`\u202egnp.\u2066\x1b[2J[bold red]{{7*7}}"
SCRIPTS = "\u6c49\u5b57 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8 \u0939\u093f\u0928 \U0001f600"


def poisoned(value: Any, text: str) -> Any:
    """The same result with a hostile text in every field whose type is plain text."""
    if isinstance(value, tuple):
        return tuple(poisoned(v, text) for v in value)
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {text + str(i): poisoned(v, text) for i, v in enumerate(value.values())}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    hints, changed = get_type_hints(type(value)), {}
    for f in fields(value):
        now, kind = getattr(value, f.name), hints[f.name]
        if f.name in ("schema_version", "served_digest", "commitment") or isinstance(value, DeclaredDocument):
            continue
        if isinstance(now, str) and kind is not str:
            continue  # one of a fixed set, or a date
        if isinstance(now, tuple) and now and isinstance(now[0], str) and kind != tuple[str, ...]:
            continue
        changed[f.name] = poisoned(now, text)
    return replace(value, **changed)


class Tags(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.mark.slow
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    "text", [HOSTILE + "A" * 1_800, HOSTILE + "B" * 10_000, SCRIPTS], ids=["short", "long", "scripts"]
)
def test_hostile_text_in_every_field_stays_text(factory, edition, text):
    made = poisoned(factory.result([factory.subject("noop")]), text)
    made = replace(made, declared=poisoned(declared(), text[:1_900]))
    shown = for_edition(made, edition)
    page = render_html(shown, figures=False)
    tags = Tags()
    tags.feed(page)
    assert [a for t, a in tags.seen if t == "script"] == [{}]
    assert not [t for t, _ in tags.seen if t in ("img", "iframe", "object", "link", "base")]
    assert not [k for _, a in tags.seen for k in a if k.startswith("on")]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page)
    assert not re.search(r"A{2001}|B{2001}", page)
    extract = dpia_extract(shown)
    assert "<script" not in extract.replace("\\<", "").split("```json")[0]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", extract)
    assert extract.count("```") == 2
    if text == SCRIPTS:
        assert SCRIPTS.split(" ")[0] in page
