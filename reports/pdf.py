"""The report and a summary of it as PDF files: from the same page as the HTML, for paper, archives, screen readers."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports import phrases
from mnemoscope.reports.html import render_html
from mnemoscope.reports.pdf_engine import PdfSource, moment_of, to_pdf, weasyprint
from mnemoscope.reports.schema import RESULT_NAME, from_json, result_digest, to_json, write_whole
from mnemoscope.reports.summary import DETAILS, render_summary

__all__ = [
    "ARCHIVE_NAME",
    "REPORT_NAME",
    "SUMMARY_NAME",
    "PdfPaths",
    "archive_files",
    "report_pdf",
    "summary_pdf",
    "write_pdf",
]

REPORT_NAME, ARCHIVE_NAME, SUMMARY_NAME = "report.pdf", "report-archive.pdf", "summary.pdf"
SUMMARY_PAGES = 2


@dataclass(frozen=True)
class PdfPaths:
    """Both files."""

    report: Path
    summary: Path


@cache
def _style(name: str) -> str:
    return (files("mnemoscope.reports") / "templates" / name).read_text(encoding="utf-8")


@cache
def _colours() -> dict[str, str]:
    """Colours of drawings on paper: those of the page's light theme, its first rule."""
    return dict(re.findall(r"(--fig-[a-z-]+):\s*(#[0-9a-fA-F]{3,8})", _style("report.css").split("}")[0]))


def _source(
    result: AuditResult, page: str, *, digest: str, kind: str, archive: bool, attachment: dict[str, bytes]
) -> PdfSource:
    kind = f"{kind}, {'archive' if archive else 'accessible'}"
    return PdfSource(
        html=page,
        css=_style("pdf.css"),
        head=f"{phrases.plain(result.title, 84)} · {result.edition} edition",
        foot=f"result {digest} · evidence, not a legal determination",
        identifier=hashlib.sha256(f"{kind}: {digest}".encode()).digest()[:16],
        moment=moment_of(result.created_at),
        about=f"Evidence about the attacks that were run, made from {RESULT_NAME}, {digest}.",
        attachment=attachment,
        archive=archive,
        colours=_colours(),
    )


def report_pdf(result: AuditResult, *, archive: bool = False) -> bytes:
    """Return the whole report as a PDF.

    It is generated as PDF/UA-1 (tagged, for assistive technology) or, for archives, as PDF/A-3a; no validator has
    confirmed either. ``result.json`` is embedded as the source of the document.

    Args:
        result: what an audit found, of the edition that is to be shown.
        archive: generate as PDF/A-3a.

    Returns:
        The file; the same result gives the same bytes with the same releases of WeasyPrint, Pango and HarfBuzz.

    Raises:
        InvalidInput: the result does not fit its schema, or SOURCE_DATE_EPOCH is no time.
        MissingNeed: WeasyPrint or Pango is not there.
    """
    weasyprint()  # a missing one is said before the drawings are made
    data = to_json(result)
    result = from_json(data)
    page, digest = render_html(result), result_digest(data)
    attachment = {RESULT_NAME: data}
    return to_pdf(_source(result, page, digest=digest, kind="report", archive=archive, attachment=attachment))[0]


def summary_pdf(result: AuditResult, *, archive: bool = False) -> bytes:
    """Return the summary for a data-protection officer: two pages at most, whatever the result holds.

    Raises:
        InvalidInput: the result does not fit its schema, or SOURCE_DATE_EPOCH is no time.
        MissingNeed: WeasyPrint or Pango is not there.
    """
    weasyprint()
    source = to_json(result)
    result, digest = from_json(source), result_digest(source)
    for detail in DETAILS:
        page = render_summary(result, detail, digest=digest)
        data, pages = to_pdf(_source(result, page, digest=digest, kind="summary", archive=archive, attachment={}))
        if pages <= SUMMARY_PAGES:
            break
    return data


def archive_files(result: AuditResult) -> dict[str, bytes]:
    """Return ``report-archive.pdf``, as ``mnemoscope report --format pdf-archive`` writes it."""
    return {ARCHIVE_NAME: report_pdf(result, archive=True)}


def write_pdf(result: AuditResult, out: Path | str, *, archive: bool = False) -> PdfPaths:
    """Write the report and its summary into a folder, each whole or not at all.

    Args:
        result: what an audit found, of the edition that is to be shown.
        out: made when it is not there.
        archive: generate both as PDF/A-3a rather than as PDF/UA-1, the report under the name of the archive copy.

    Returns:
        The paths of both files.

    Raises:
        InvalidInput: the result does not fit its schema, the folder cannot be written, or SOURCE_DATE_EPOCH is no time.
        MissingNeed: WeasyPrint or Pango is not there; neither file is written.
    """
    folder = Path(out)
    summary, report = summary_pdf(result, archive=archive), report_pdf(result, archive=archive)
    name = ARCHIVE_NAME if archive else REPORT_NAME
    return PdfPaths(write_whole(folder / name, report), write_whole(folder / SUMMARY_NAME, summary))
