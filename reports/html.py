"""One self-contained page from one result: verdict first, readable without scripts, without network, and on paper."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.reports import phrases
from mnemoscope.reports.editions import Edition, for_edition
from mnemoscope.reports.schema import RESULT_NAME, from_json, result_digest, to_json, write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["SECTIONS", "Numbers", "ReportPaths", "render_html", "template_environment", "write_report"]

REPORT_NAME = "report.html"

SECTIONS = (
    ("S0", "Summary"),
    ("S1", "Scope"),
    ("S2", "Plan and policy"),
    ("S3", "Coverage"),
    ("S4", "Data"),
    ("S5", "Models"),
    ("S6", "Validity gates"),
    ("S7", "Findings"),
    ("S8", "Worst case"),
    ("S9", "Side effects"),
    ("S10", "Epsilon"),
    ("S11", "Structure"),
    ("S12", "Sensitivity"),
    ("S13", "Limitations"),
    ("S14", "Cross-reference"),
    ("S15", "Evidence"),
    ("A", "Words"),
)
"""Ids are anchors, the names of bookmarks, and what the cross-reference points to."""

MODES = {
    "procedure": "deletion procedure, judged over a fleet of models",
    "one-model": "one model, before and after deletion",
    "membership": "one model, membership only: no deletion is judged",
}
QUESTIONS = {
    "procedure": "Asked: does this procedure leave a trace of the records that it was told to remove?",
    "one-model": "Asked: does this model still show a trace of the records that were to be removed from it?",
    "membership": "Asked: how much does this model reveal about who was in its training data?",
}
ROLE_NAMES = {
    "requester": "Requester of the audit",
    "assessor": "Assessor",
    "approver": "Approver",
    "dpo": "Data protection officer",
}

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)

SHOWN_INDIVIDUALS = 200
"""Single records on the page of a restricted edition; all of them are in result.json."""


@dataclass(frozen=True)
class ReportPaths:
    """The files of one report."""

    result: Path
    html: Path


class Numbers:
    """Numbers of figures and tables, one count for each section: "Table S7.2"."""

    def __init__(self) -> None:
        self._count: Counter[tuple[str, str]] = Counter()

    def __call__(self, kind: str, section: str) -> str:
        """Return the next number of a kind in a section."""
        self._count[kind, section] += 1
        return f"{kind} {section}.{self._count[kind, section]}"


def _name(value: object, limit: int = phrases.SHOWN_CHARACTERS) -> Any:
    """A string of unknown origin: control characters visible, its direction kept to itself, HTML escaped."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(phrases.plain(value, limit))


def _counted(n: int, what: str) -> str:
    """A number with its noun.

    >>> _counted(1, "file"), _counted(1200, "file")
    ('1 file', '1,200 files')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _moment(text: str) -> str:
    """A time in UTC to the minute, as people write it; any other text as it is."""
    return f"{text[:10]} {text[11:16]} UTC" if _MOMENT.fullmatch(text) else text


def _own(text: str) -> Any:
    """Text of this package; everything in a drawing that came from a result was escaped by the drawing library."""
    from markupsafe import Markup

    return Markup(text)


def _visible(value: Any) -> Any:
    """Whatever a template prints: control and direction marks of a text that went through no filter are visible too."""
    return value if type(value) is not str or value.isprintable() else phrases.plain(value, len(value))


def _methods_note(estimates: Iterable[Estimate]) -> str:
    """Say how the intervals of a table were made."""
    known = dict.fromkeys(e.ci.method for e in estimates if e.ci is not None and e.value is not None)
    if not known:
        return ""
    shown = "; ".join(phrases.plain(m, 120) for m in list(known)[:4])
    return f" Intervals: {shown}{'; and others' if len(known) > 4 else ''}."


def _sources() -> dict[str, str]:
    """Every template, style sheet and script of this package by its path in the folder of templates."""
    folder = files("mnemoscope.reports") / "templates"
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            inner = [(f"{entry.name}/{file.name}", file) for file in entry.iterdir()]
        else:
            inner = [(entry.name, entry)]
        found |= {
            name: file.read_text(encoding="utf-8") for name, file in inner if name.endswith((".j2", ".css", ".js"))
        }
    return found


@cache
def template_environment() -> "Environment":
    """Return the templates with their filters; built once."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    sources = _sources()
    made = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters.update(
        name=_name,
        rate=phrases.estimate,
        power=phrases.power,
        percent=phrases.percent,
        amount=phrases.amount,
        interval=phrases.interval,
        duration=phrases.duration,
        size=phrases.bytes_text,
        short=phrases.short_digest,
        counted=_counted,
        moment=_moment,
        prose=lambda text: phrases.plain(text, 2_000),
    )
    script = sources["report.js"]
    code = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    made.globals.update(kind_of=phrases.kind_of, bound=phrases.bound, SHAPES=phrases.SHAPES, TIERS=phrases.TIERS)
    made.globals.update(MODES=MODES, QUESTIONS=QUESTIONS, ROLE_NAMES=ROLE_NAMES, SECTIONS=SECTIONS)
    made.globals.update(css=_own(sources["report.css"]), drawing=_own, js=_own(script), js_hash=f"sha256-{code}")
    made.globals.update(methods_note=_methods_note, SHOWN_INDIVIDUALS=SHOWN_INDIVIDUALS)
    return made


def render_html(result: AuditResult, *, figures: bool = True) -> str:
    """Render the page.

    Args:
        result: what an audit found; shown is what its edition may show (``editions.for_edition``).
        figures: False leaves out the drawings (and does without Matplotlib).

    Returns:
        An HTML document: inline CSS and SVG, one script of our own that the page is whole without, no link elsewhere;
        the same result gives the same bytes.

    Raises:
        InvalidInput: the result does not fit its schema (the page prints the digest of its ``result.json``).
    """
    return _render(to_json(result), figures=figures)


def _render(data: bytes, *, figures: bool = True) -> str:
    """Render what a result file says: JSON sorts keys and writes 10.0 as 10, and the page must be that of the file."""
    from mnemoscope.reports.page import page_values

    values = page_values(from_json(data), digest=result_digest(data), figures=figures)
    return template_environment().get_template("report.html.j2").render(**values, num=Numbers())


def write_report(result: AuditResult, out_dir: Path | str, *, edition: Edition | None = None) -> ReportPaths:
    """Write ``result.json`` and ``report.html`` into a folder, each whole or not at all.

    Args:
        result: what an audit found.
        out_dir: made when it is not there.
        edition: what both files may show; None = the result's own edition.

    Returns:
        The paths of both files.

    Raises:
        InvalidInput: the result does not fit its schema, or the folder cannot be written.
    """
    folder, shown = Path(out_dir), for_edition(result, edition)
    data = to_json(shown)
    page = _render(data).encode("utf-8")
    return ReportPaths(write_whole(folder / RESULT_NAME, data), write_whole(folder / REPORT_NAME, page))
