"""From a page to PDF bytes: WeasyPrint held to what is bundled, so that the same page gives the same file."""

import contextlib
import importlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemoscope.audit.errors import InvalidInput, MissingNeed

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["FONTS", "PdfSource", "moment_of", "to_pdf", "weasyprint"]

LEAST = 66
"""First major release of WeasyPrint that this was written for."""

FONTS = {
    "sans": "DejaVuSans.ttf",
    "sans-bold": "DejaVuSans-Bold.ttf",
    "sans-italic": "DejaVuSans-Oblique.ttf",
    "mono": "DejaVuSansMono.ttf",
    "mono-bold": "DejaVuSansMono-Bold.ttf",
    "serif": "STIXGeneral.ttf",
    "serif-bold": "STIXGeneralBol.ttf",
    "serif-italic": "STIXGeneralItalic.ttf",
}
"""What ``font:NAME`` in pdf.css stands for: files that come with Matplotlib, hence the same on every machine.

Letters that they lack are taken from the fonts of the system where it has any, and are boxes elsewhere; their text can
be copied out of the file in both cases.
"""

INSTALL = "pip install 'mnemoscope[pdf]'"
SYSTEM = (
    "Debian or Ubuntu: apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0; Fedora: dnf install pango; "
    "Arch: pacman -S pango; Alpine: apk add pango font-dejavu; macOS: brew install pango; Windows: Pango of MSYS2"
)
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class PdfSource:
    """One document to make.

    Attributes:
        html: the whole page.
        css: style sheets that come after the page's own.
        head: shown at the top of every page but the first; shortened by whoever gives it.
        foot: shown at the bottom of every page, left of the page number.
        identifier: 16 bytes or more that name the document; equal documents have equal ones.
        moment: creation and modification time written into the file, UTC.
        about: one sentence for the properties of the document.
        attachment: name -> bytes, embedded as the source of the document.
        archive: generate as PDF/A-3a rather than as PDF/UA-1.
        colours: CSS variables of drawings -> colours on paper.
    """

    html: str
    css: str
    head: str
    foot: str
    identifier: bytes
    moment: datetime
    about: str
    attachment: Mapping[str, bytes]
    archive: bool
    colours: Mapping[str, str]


def weasyprint() -> Any:
    """Return the WeasyPrint module.

    Raises:
        MissingNeed: the package or a library of the system that it draws text with is not there, with the remedy.
    """
    try:
        # WeasyPrint prints advice when it finds no Pango; standard output may be somebody's JSON.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("weasyprint")
    except ImportError as error:
        raise MissingNeed(f"a PDF needs WeasyPrint, which cannot be imported ({error}). Run: {INSTALL}") from error
    except OSError as error:
        text = " ".join(str(error).split())[:200]
        raise MissingNeed(
            f"a PDF needs Pango, a library of the system that was not found ({text}). Install it. {SYSTEM}"
        ) from error
    version = str(module.__version__)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < LEAST:
        raise MissingNeed(f"a PDF needs WeasyPrint {LEAST} or newer, found {version}. Run: {INSTALL}")
    return module


def moment_of(created_at: str) -> datetime:
    """Return the time written into the file: ``SOURCE_DATE_EPOCH`` where it is set, else that of the result.

    Args:
        created_at: RFC 3339; a text that is no time counts as the start of 1970.

    Raises:
        InvalidInput: ``SOURCE_DATE_EPOCH`` is set to something else than seconds since 1970.

    >>> moment_of("2026-11-21T05:40:00Z").isoformat()
    '2026-11-21T05:40:00+00:00'
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if given:
        # Eleven digits end in the year 5138; PDF dates have four digits for the year.
        if not (given.isascii() and given.isdigit() and len(given) <= 11):
            raise InvalidInput(
                f"SOURCE_DATE_EPOCH={given[:40]!r}: whole seconds since 1970 are expected; unset it to use the time at "
                "which the result was made"
            )
        return datetime.fromtimestamp(int(given), UTC)
    try:
        found = datetime.fromisoformat(created_at)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC)


def _fetcher(module: Any) -> Any:
    """Answer for the bundled fonts and refuse everything else: no network, no file, not even a data URL."""
    urls = importlib.import_module("weasyprint.urls")

    class Bundled(urls.URLFetcher):  # type: ignore[misc, name-defined]
        def fetch(self, url: str, headers: Any = None) -> Any:
            name = url.removeprefix("font:")
            if name == url or name not in FONTS:
                raise ValueError("a report refers to nothing outside of itself")
            import matplotlib

            path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[name]
            return urls.URLFetcherResponse(url, path.read_bytes(), {"Content-Type": "font/ttf"})

    return Bundled()


_SHORTHAND = re.compile(r"font:\s*(?P<how>[^;]*?)(?P<size>[\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*")
LETTERS = "font-family: Mnemoscope Sans"
_VARIABLE = re.compile(r"var\((--fig-[a-z-]+)\)")


def _drawing(element: "Element", colours: Mapping[str, str]) -> None:
    """Say in the words of WeasyPrint's SVG what a browser takes from the page: colours, fonts, the alternative text."""
    from xml.etree.ElementTree import Element

    def coloured(match: re.Match[str]) -> str:
        return colours.get(match[1], "#000000")

    def lettered(match: re.Match[str]) -> str:
        bold = "; font-weight: 700" if "bold" in match["how"] or "700" in match["how"] else ""
        return f"font-size: {match['size']}; {LETTERS}{bold}"

    for part in element.iter():
        for name, value in part.attrib.items():
            changed = _VARIABLE.sub(coloured, value) if "var(" in value else value
            if name == "style" and "font" in changed:
                changed = _FAMILY.sub(LETTERS, _SHORTHAND.sub(lettered, changed))
            if changed != value:
                part.set(name, changed)
    alternative = element.get("aria-label")
    if alternative and element.find(f"{SVG}title") is None:
        title = Element(f"{SVG}title")
        title.text = alternative
        element.insert(0, title)


def _only_screen_rows(element: "Element") -> bool:
    """Whether nothing but a head would be left of the tables of a folded part."""
    if element.tag != "details":
        return False
    rows = [row for body in element.iter("tbody") for row in body.iter("tr")]
    return bool(rows) and all("screen" in (row.get("class") or "").split() for row in rows)


def _without_screen_parts(parent: "Element") -> None:
    """Take out what the style sheets hide on paper: to lay out nothing takes as long as to lay out something."""
    previous: Element | None = None
    for child in list(parent):
        classes = set((child.get("class") or "").split())
        hidden = child.tag in ("script", "template") or classes & {"screen", "skip"} or _only_screen_rows(child)
        if hidden or (child.tag == "details" and parent.tag == "figure"):
            if child.tail:
                if previous is None:
                    parent.text = (parent.text or "") + child.tail
                else:
                    previous.tail = (previous.tail or "") + child.tail
            parent.remove(child)
            continue
        if child.tag != f"{SVG}svg":
            _without_screen_parts(child)
        previous = child


SHORT = 7
"""Rows of a table that is kept on one page."""


def _laid_out(body: "Element") -> None:
    """Give paper what the screen does without: contents after the summary, titles that stay with their tables."""
    from xml.etree.ElementTree import Element

    for block in body.iter("div"):
        classes = (block.get("class") or "").split()
        if "figures" in classes and len(block) == 1:
            block.set("class", " ".join([*classes, "single"]))
        table = block.find("table")
        if "scroll" not in classes or table is None:
            continue
        if sum(1 for _ in table.iter("tr")) <= SHORT + 1:
            block.set("class", " ".join([*classes, "short"]))
        title = table.find("caption")
        if title is not None:
            table.remove(title)
            title.tag, title.tail = "p", None
            title.set("class", "table-title")
            block.insert(0, title)
    for page in body.iter("div"):
        contents, main = page.find("nav"), page.find("main")
        if contents is None or main is None or len(main) == 0:
            continue
        page.remove(contents)
        brand = contents.find("p")
        if brand is None:
            brand = Element("p")
            contents.insert(0, brand)
        brand.text = "Contents"
        main.insert(1, contents)


def _prepared(module: Any, source: PdfSource) -> Any:
    """Parse the page and add what only paper has: running head and foot, style, metadata."""
    from xml.etree.ElementTree import Element, SubElement

    # A relative address then cannot be resolved to a file of the working directory.
    page = module.HTML(string=source.html, base_url="about:blank", url_fetcher=_fetcher(module), media_type="print")
    root = page.etree_element
    head, body = root.find("head"), root.find("body")
    for unwanted in [
        e for e in head if e.tag == "meta" and (e.get("name") or "").lower() in ("description", "generator")
    ]:
        head.remove(unwanted)
    stamp = source.moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    for name, content in (
        ("dcterms.created", stamp),
        ("dcterms.modified", stamp),
        ("description", source.about),
        ("generator", "Mnemoscope"),
    ):
        SubElement(head, "meta", {"name": name, "content": content})
    SubElement(head, "style").text = source.css
    for position, (name, text) in enumerate((("running-head", source.head), ("running-foot", source.foot))):
        made = Element("div", {"class": name})
        made.text = text
        body.insert(position, made)
    _without_screen_parts(body)
    _laid_out(body)
    for drawing in root.iter(f"{SVG}svg"):
        _drawing(drawing, source.colours)
    return page


def _associate(_document: Any, pdf: Any) -> None:
    """Mark embedded files as the source of the document; WeasyPrint does so for archives only, and lists them twice."""
    embedded: list[Any] = [o for o in pdf.objects if isinstance(o, dict) and o.get("Type") == "/Filespec"]
    if embedded:
        for file in embedded:
            file["AFRelationship"] = "/Source"
        pdf.catalog["AF"] = importlib.import_module("pydyf").Array([file.reference for file in embedded])


@contextlib.contextmanager
def _fixed_clock(moment: datetime) -> Iterator[None]:
    """Give the font tools the document's time: they stamp fonts that they have to write anew."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = str(max(0, int(moment.timestamp())))
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back a warning for each declaration that paper has no use for, of which there are thousands.

    WeasyPrint 70 leaves the file of its colour profile to the garbage collector.
    """
    log = logging.getLogger("weasyprint")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        log.setLevel(before)


def to_pdf(source: PdfSource) -> tuple[bytes, int]:
    """Lay out a page and write it.

    Args:
        source: the page and what belongs to it.

    Returns:
        The file, and its number of pages. The same source gives the same bytes with the same releases of WeasyPrint,
        Pango and HarfBuzz.

    Raises:
        MissingNeed: WeasyPrint or Pango is not there.
    """
    module = weasyprint()
    with _fixed_clock(source.moment), _quiet():
        document = _prepared(module, source).render()
        attachments = [
            module.Attachment(
                string=data, name=name, description="source of this document", relationship="Source",
                created=source.moment, modified=source.moment,
            )
            for name, data in source.attachment.items()
        ]  # fmt: skip
        data = document.write_pdf(
            finisher=_associate,
            pdf_variant="pdf/a-3a" if source.archive else "pdf/ua-1",
            pdf_identifier=source.identifier,
            attachments=attachments or None,
        )
    return data, len(document.pages)
