"""The forms in which a result can be written: a name, and what makes the files of that form.

A new form is one line in ``FORMATS``: a function that takes a result and returns file name -> bytes, the main document
first. It writes nothing itself: whether a file may be replaced is decided in one place, for all forms.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports.schema import RESULT_NAME, to_json, write_whole

__all__ = ["FORMATS", "Maker", "append_whole", "parse_formats", "write_formats", "write_kept"]

Maker = Callable[[AuditResult], dict[str, bytes]]


def _json(result: AuditResult) -> dict[str, bytes]:
    return {RESULT_NAME: to_json(result)}


def _html(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.html import REPORT_NAME, render_html

    return {REPORT_NAME: render_html(result).encode("utf-8")}


def _markdown(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.markdown import markdown_summary

    return {"summary.md": markdown_summary(result).encode("utf-8")}


def _junit(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.junit import junit_xml

    return {"junit.xml": junit_xml(result)}


def _csv(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.tables import csv_tables

    return {f"tables/{name}": data for name, data in csv_tables(result).items()}


def _pdf(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.pdf import REPORT_NAME, SUMMARY_NAME, report_pdf, summary_pdf

    return {REPORT_NAME: report_pdf(result), SUMMARY_NAME: summary_pdf(result)}


def _pdf_archive(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.pdf import archive_files

    return archive_files(result)


def _dpia(result: AuditResult) -> dict[str, bytes]:
    from mnemoscope.reports.dpia import DPIA_NAME, dpia_extract

    return {DPIA_NAME: dpia_extract(result).encode("utf-8")}


FORMATS: dict[str, Maker] = {
    "html": _html,
    "pdf": _pdf,
    "pdf-archive": _pdf_archive,
    "json": _json,
    "markdown": _markdown,
    "junit": _junit,
    "csv": _csv,
    "dpia": _dpia,
}
"""Every form by its name in ``mnemoscope report --format``."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Read a list of forms.

    >>> parse_formats("html, csv")
    ('html', 'csv')
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InvalidInput(
            f"format={text!r}: {'is empty' if not names else f'{unknown[0]!r} is unknown'}; allowed, separated by "
            f"commas: {', '.join(FORMATS)}"
        )
    return names


def write_formats(result: AuditResult, names: Sequence[str], out: Path, *, force: bool = False) -> list[Path]:
    """Write a result in several forms, beside the ``result.json`` that all of them were made from.

    Everything is made before anything is written, so that a form that cannot be made leaves nothing behind. Where a
    form lacks something that can be installed, the others are written, and ``report.html`` in its place.

    Args:
        result: what an audit found, in the edition to be shown.
        names: keys of ``FORMATS``.
        out: folder that receives the files; made when it is not there.
        force: replace files that hold something else.

    Returns:
        The files written, the main document of the first form first, ``result.json`` last.

    Raises:
        InvalidInput: a file is there already with other content, or cannot be written.
        MissingNeed: a form lacks a package or a library (a PDF without Pango); all else was written.
    """
    files: dict[str, bytes] = {}
    lacking: MissingNeed | None = None
    for name in names:
        try:
            files |= FORMATS[name](result)
        except MissingNeed as error:
            lacking = error
    if lacking is not None and "html" not in names:
        files |= FORMATS["html"](result)
    files.setdefault(RESULT_NAME, to_json(result))
    written = write_kept({out / name: data for name, data in files.items()}, force=force)
    if lacking is not None:
        raise MissingNeed(f"{lacking}. Written without it: {', '.join(map(str, written))}") from lacking
    return written


def write_kept(files: dict[Path, bytes], *, force: bool = False) -> list[Path]:
    """Write files, each whole or not at all; refuse to replace what differs, before the first is written.

    Args:
        files: path -> content.
        force: replace it.

    Raises:
        InvalidInput: a file is there already with other content, or cannot be written.
    """
    if not force:
        kept = [path for path, data in files.items() if _differs(path, data)]
        if kept:
            more = f" (and {len(kept) - 1} more)" if len(kept) > 1 else ""
            raise InvalidInput(
                f"{kept[0]}{more} is there already and holds something else: give another place, or --force"
            )
    return [write_whole(path, data) for path, data in files.items()]


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.exists() and (path.stat().st_size != len(data) or path.read_bytes() != data)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror or error}): give another place") from error


def append_whole(path: Path, data: bytes) -> Path:
    """Add to the end of a file, which need not exist: job summaries of a pipeline are collected so.

    Raises:
        InvalidInput: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror or error}): give another place") from error
    return path
