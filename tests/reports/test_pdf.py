"""The PDF files, read back by libraries that did not write them."""

import hashlib
import importlib.abc
import io
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.verdict.declared import Declared, DeclaredPerson, DeclaredRequest
from mnemoscope.audit.verdict.result import AuditResult, NotRun
from mnemoscope.reports import pdf, pdf_engine
from mnemoscope.reports.formats import parse_formats, write_formats
from mnemoscope.reports.schema import from_json, result_digest, to_json
from mnemoscope.reports.summary import DETAILS, render_summary

ROOT = Path(__file__).parents[2]


def reader(data: bytes):
    from pypdf import PdfReader

    return PdfReader(io.BytesIO(data))


def text_of(data: bytes) -> str:
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in reader(data).pages))


def titles(outline: list, depth: int = 0) -> Iterator[tuple[int, str]]:
    for item in outline:
        if isinstance(item, list):
            yield from titles(item, depth + 1)
        else:
            yield depth, str(item.title)


def elements(data: bytes) -> Iterator[dict]:
    """Every element of the structure tree."""
    left = [reader(data).trailer["/Root"]["/StructTreeRoot"]]
    while left:
        found = left.pop().get_object()
        if isinstance(found, list):
            left += found
        elif hasattr(found, "get"):
            if "/S" in found:
                yield found
            if "/K" in found:
                left.append(found["/K"])


def small(factory) -> AuditResult:
    """One subject with everything that a report shows of one, but for rows that paper leaves out."""
    one = factory.subject("finetune")
    printed = tuple(f for f in one.findings if f.primary or f.attack == "rmia")
    return factory.result([replace(one, findings=printed)])


@pytest.fixture(scope="module")
def report_of(factory) -> Callable[[str], bytes]:
    @cache
    def made(name: str) -> bytes:
        return pdf.report_pdf(small(factory) if name == "small" else factory.result([]))

    return made


class Broken(importlib.abc.MetaPathFinder):
    """A WeasyPrint without its library: importing it prints advice and ends in an OSError, as the real one does."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "weasyprint":
            print("-----\nWeasyPrint could not import some external libraries.\n-----")
            raise OSError("cannot load library 'libpango-1.0-0': libpango-1.0-0: cannot open shared object file")
        return


@pytest.fixture
def no_pango(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)


@pytest.fixture
def no_weasyprint(monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", None)


def test_a_missing_package_is_said_with_its_remedy(factory, no_weasyprint, tmp_path):
    with pytest.raises(MissingNeed, match=r"pip install 'mnemoscope\[pdf\]'"):
        pdf.write_pdf(factory.result([]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_said_with_the_packages_that_hold_it(no_pango, capsys):
    with pytest.raises(MissingNeed) as error:
        pdf_engine.weasyprint()
    for word in ("libpango-1.0-0", "apt install", "dnf install pango", "brew install pango"):
        assert word in str(error.value)
    assert capsys.readouterr().out == ""  # standard output may be somebody's JSON


def test_an_old_release_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", type(sys)("weasyprint"))
    sys.modules["weasyprint"].__version__ = "52.5"
    with pytest.raises(MissingNeed, match="66 or newer, found 52.5"):
        pdf_engine.weasyprint()


@pytest.mark.parametrize("asked", ["pdf", "pdf,html", "html,pdf", "pdf-archive"])
def test_without_pango_everything_else_is_still_written(factory, no_pango, tmp_path, asked):
    made = factory.result([])
    with pytest.raises(MissingNeed, match="apt install") as error:
        write_formats(made, parse_formats(asked), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "result.json"}
    assert "report.html" in str(error.value)
    assert (tmp_path / "result.json").read_bytes() == to_json(made)


def test_the_time_in_a_file_is_that_of_the_result_unless_it_is_given(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert pdf_engine.moment_of("2026-11-21T07:40:00+02:00") == datetime(2026, 11, 21, 5, 40, tzinfo=UTC)
    assert pdf_engine.moment_of("yesterday") == datetime(1970, 1, 1, tzinfo=UTC)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert pdf_engine.moment_of("2026-11-21T05:40:00Z") == datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("given", ["now", "-1", "1.5", "9" * 12, "\u0661"])
def test_a_time_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH"):
        pdf_engine.moment_of("2026-11-21T05:40:00Z")


def summary_text(result: AuditResult, **kwargs) -> str:
    page = render_summary(from_json(to_json(result)), figures=False, **kwargs)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.mark.slow
def test_the_summary_says_what_was_found_checked_and_left_out(factory):
    people = (
        DeclaredPerson("assessor", "A. Ssessor", True, "signed", "2026-11-20"),
        DeclaredPerson("dpo", "D. Officer"),
    )
    request = DeclaredRequest(received="2026-10-01", executed="2026-10-03", replaced="2026-10-09")
    declared = Declared(declared_by="records office", request=request, people=people, next_test_due="2027-05-01")
    said = summary_text(replace(factory.all_words(), declared=declared))
    for words in (
        "4 ways of deleting were audited", "What this does not say", "What was not checked", "model inversion",
        "2026-10-01", "2027-05-01", "A. Ssessor, independent: signed (2026-11-20)", "D. Officer: opinion pending",
        "as declared by records office", "verified none of them",
    ):  # fmt: skip
        assert words in said
    rows = said[said.index("What it means") :]
    places = [rows.index(word) for word in ("OUTSIDE BOUND", "NOT ASSESSED", "INCONCLUSIVE", "WITHIN BOUND")]
    assert places == sorted(places)
    nothing = summary_text(factory.all_words())
    assert nothing.count("not declared") >= 6
    assert "No dates, people or release context were declared" in nothing


def test_the_summary_of_nothing(factory):
    assert "0 ways of deleting were audited: none." in summary_text(factory.result([]))


@pytest.mark.slow
def test_subjects_left_out_of_a_summary_are_counted_worst_first(factory):
    names = ("retrain", "noop", "finetune", "gradient_ascent")
    result = factory.result([factory.subject(name) for name in names])
    said = summary_text(result, detail=replace(DETAILS[0], subjects=1))
    row = said[said.index("What it means") : said.index("3 more are in report.pdf")]
    assert "OUTSIDE BOUND" in row
    assert "WITHIN BOUND" not in row


@pytest.mark.slow
def test_the_report_is_tagged_named_and_in_a_language(report_of, factory):
    data = report_of("small")
    made = small(factory)
    found = reader(data)
    root = found.trailer["/Root"]
    assert root["/Lang"] == "en"
    assert root["/MarkInfo"]["/Marked"] in (True, "true")
    assert found.metadata.title.startswith(made.title)
    assert result_digest(made) in found.metadata.subject
    assert found.metadata.creation_date == datetime(2026, 11, 21, 5, 40, tzinfo=UTC)
    xmp = root["/Metadata"].get_object().get_data().decode()
    assert "pdfuaid:part" in xmp
    counts = Counter(element["/S"] for element in elements(data))
    assert all(counts[tag] for tag in ("/H1", "/H2", "/H3", "/P", "/Table", "/TH", "/TD", "/L", "/LI", "/Figure"))
    assert counts["/H1"] == 1
    figures = [element for element in elements(data) if element["/S"] == "/Figure"]
    assert len(figures) >= 4
    assert all(len(figure.get("/Alt", "")) > 40 for figure in figures)


@pytest.mark.slow
def test_the_outline_is_that_of_the_page(report_of, factory):
    from mnemoscope.reports.html import render_html

    page = render_html(from_json(to_json(small(factory))), figures=False)
    headings = re.findall(r"<h([1-6])[^>]*>(.*?)</h\1>", page, re.DOTALL)
    plain = [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text)).strip() for _, text in headings]
    listed = list(titles(reader(report_of("small")).outline))
    assert [title for _, title in listed if title in plain] == [title for _, title in listed]
    seconds = [text for (level, _), text in zip(headings, plain, strict=True) if level == "2"]
    assert set(seconds) <= {title for _, title in listed}
    assert min(depth for depth, _ in listed) == 0
    assert max(depth for depth, _ in listed) >= 2


@pytest.mark.slow
def test_the_embedded_result_is_the_source(report_of, factory):
    data, made = report_of("small"), small(factory)
    found = reader(data)
    (content,) = found.attachments["result.json"]
    assert content == to_json(made)
    assert "sha256:" + hashlib.sha256(content).hexdigest() == result_digest(made)
    (file,) = found.trailer["/Root"]["/AF"]
    assert file.get_object()["/AFRelationship"] == "/Source"
    for page in found.pages:
        assert result_digest(made) in page.extract_text()
    last = len(found.pages)
    assert f"{last} / {last}" in found.pages[-1].extract_text()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(factory, tmp_path, report_of):
    """The report without a subject, and the summary of one with its figure: tables, letters and drawings."""
    (tmp_path / "none.json").write_bytes(to_json(factory.result([])))
    (tmp_path / "one.json").write_bytes(to_json(small(factory)))
    code = (
        "import hashlib; from mnemoscope.reports.schema import read_result; from mnemoscope.reports import pdf; "
        "made = pdf.report_pdf(read_result('none.json')), pdf.summary_pdf(read_result('one.json')); "
        "print(*(hashlib.sha256(data).hexdigest() for data in made))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland", "LANG": "C"}
    env.pop("SOURCE_DATE_EPOCH", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, cwd=tmp_path
    )
    here = (report_of("none"), pdf.summary_pdf(small(factory)))
    assert done.stdout.split() == [hashlib.sha256(data).hexdigest() for data in here]
    assert done.stderr == ""


@pytest.mark.slow
def test_letters_are_those_that_come_with_matplotlib(report_of):
    fonts = {str(font["/BaseFont"]) for page in reader(report_of("small")).pages
             for font in (ref.get_object() for ref in page["/Resources"]["/Font"].values())}  # fmt: skip
    assert fonts
    assert all(re.search(r"\+Mnemoscope-(Sans|Serif|Mono)", font) for font in fonts), fonts


@pytest.mark.slow
def test_the_archive_is_another_generation_of_the_same(factory):
    made = factory.result([])
    files = pdf.archive_files(made)
    (data,) = files.values()
    xmp = reader(data).trailer["/Root"]["/Metadata"].get_object().get_data().decode()
    assert re.search(r'pdfaid:part="3"', xmp)
    assert re.search(r'pdfaid:conformance="A"', xmp)
    assert reader(data).attachments["result.json"] == [to_json(made)]
    assert len(reader(data).trailer["/Root"]["/AF"]) == 1
    assert "conforms" not in text_of(data)


@pytest.mark.slow
def test_names_in_any_script_and_hostile_ones_stay_text(factory):
    import pypdfium2

    names = {"Arabic": "نسيان", "Chinese": "忘却模型", "Hindi": "भूलना", "Greek": "λήθη", "emoji": "🧠"}
    odd = '<img src="file:///etc/passwd"><style>@import "https://example.org/x.css"</style>'
    made = replace(
        factory.result([]),
        title=" ".join(names.values()),
        not_run=tuple(NotRun(f"{name} {text}", odd) for name, text in names.items()),
    )
    data = pdf.report_pdf(made)
    # pypdf 7 loses the letters beside a run from right to left; PDFium reads them.
    document = pypdfium2.PdfDocument(data)
    said = re.sub(r"\s+", " ", " ".join(page.get_textpage().get_text_range() for page in document))
    document.close()
    for text in names.values():
        assert text in said
    assert odd in said.replace("- ", "-")
    assert "root:" not in said


@pytest.mark.slow
def test_nothing_is_fetched_from_file_or_network(caplog):
    module = pdf_engine.weasyprint()
    fetch = pdf_engine._fetcher(module)
    for url in ("file:///etc/passwd", "https://example.org/", "data:text/plain,x", "font:../../x", "font:nothing"):
        with pytest.raises(ValueError, match="refers to nothing outside"):
            fetch(url)
    assert fetch("font:sans").read()[:4] == b"\0\1\0\0"


def longest(factory) -> AuditResult:
    """A summary's worst case: many subjects with long names and reasons, many people, many things not run."""
    word = "Unaussprechlichkeitsgrundsatz"
    base = factory.subject("noop")
    long = replace(base.verdict, meaning=f"{word} " * 60, next_step=f"{word} " * 60, flags=(word * 3,) * 8)
    subjects = [replace(base, name=f"{word * 4} {i}", method=word * 9, verdict=long) for i in range(30)]
    people = tuple(DeclaredPerson("dpo", word * 8, False, f"{word} " * 60, "2026-11-20") for _ in range(60))
    made = factory.result(subjects)
    return replace(
        made, title=word * 12, data=replace(made.data, name=word * 30), edition="restricted",
        plan=replace(made.plan, attacks=tuple(f"{word}{i}" for i in range(40))),
        not_run=tuple(NotRun(f"{word} {i} " * 6, word) for i in range(60)),
        declared=Declared(declared_by=word * 20, people=people, release_context="open weights"),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["all_words", "one_model", "membership", "hostile", "longest"])
def test_a_summary_has_two_pages_at_most(factory, maker):
    made = longest(factory) if maker == "longest" else getattr(factory, maker)()
    data = pdf.summary_pdf(made)
    assert 1 <= len(reader(data).pages) <= 2
    assert result_digest(made) in text_of(data)
    assert made.subjects[0].verdict.word in text_of(data)


@pytest.mark.slow
def test_the_pages_that_a_subject_adds_are_bounded(report_of):
    none, one = (len(reader(report_of(name)).pages) for name in ("none", "small"))
    assert none <= 14
    assert one - none <= 10


@pytest.mark.slow
def test_nothing_reaches_beyond_the_paper(report_of):
    """Every page has an unprinted border: no table is clipped at its edge."""
    import numpy as np
    import pypdfium2

    document = pypdfium2.PdfDocument(report_of("small"))
    try:
        for number in range(len(document)):
            grey = np.asarray(document[number].render(scale=1.0).to_pil().convert("L"))
            border = np.concatenate(
                [grey[:, :34].ravel(), grey[:, -34:].ravel(), grey[-24:].ravel(), grey[:20].ravel()]
            )
            assert border.min() > 250, f"page {number + 1}"
            assert grey.min() < 120, f"page {number + 1} is empty"
    finally:
        document.close()
