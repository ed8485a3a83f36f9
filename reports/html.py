"""One self-contained page from one result: verdict first, readable without scripts, without network, and on paper."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.drawing import overview, subject_figures
from mnemoscope.reports.facts import accuracy, by_subject, gap, headline, main_role, next_step, sanity_checks
from mnemoscope.reports.schema import RESULT_NAME, from_json, result_digest, to_json, without_individuals, write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["ReportPaths", "render_html", "template_environment", "write_report"]

REPORT_NAME = "report.html"

MODES = {
    "procedure": "deletion procedure, judged over a fleet of models",
    "one-model": "one model, before and after deletion",
    "membership": "one model, membership only: no deletion is judged",
}


@dataclass(frozen=True)
class ReportPaths:
    """The files of one report."""

    result: Path
    html: Path


def _name(value: object, limit: int = phrases.SHOWN_CHARACTERS) -> Any:
    """A string of unknown origin: control characters visible, its direction kept to itself, HTML escaped."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(phrases.plain(value, limit))


def _svg(text: str) -> Any:
    """Our own drawing; everything in it that came from a result was escaped by the drawing library."""
    from markupsafe import Markup

    return Markup(text)


@cache
def template_environment() -> "Environment":
    """Return the templates with their filters; built once."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = files("mnemoscope.reports") / "templates"
    names = ["report.html.j2", "subject.html.j2", "parts.html.j2", "league.html.j2", "report.css"]
    names += ["history.html.j2", "history.js"]  # a page of its own: history.py
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in names}
    made = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
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
        prose=lambda text: phrases.plain(text, 2_000),
    )
    made.globals.update(kind_of=phrases.kind_of, bound=phrases.bound, SHAPES=phrases.SHAPES, TIERS=phrases.TIERS)
    made.globals.update(MODES=MODES, css=_svg(sources["report.css"]), drawing=_svg)
    return made


def _games(subject: Subject) -> list[dict[str, Any]]:
    """Findings grouped by game, in the order in which they come."""
    names = dict.fromkeys(f.game for f in subject.findings)
    return [
        {
            "name": name,
            "question": GAMES[name].question if name in GAMES else "",
            "findings": [f for f in subject.findings if f.game == name],
        }
        for name in names
    ]


def _view(result: AuditResult, subject: Subject, number: int, *, figures: bool) -> dict[str, Any]:
    role = main_role(result)
    return {
        "number": number,
        "it": subject,
        "h": headline(result, subject),
        "gap": gap(subject),
        "next": next_step(subject),
        "forget": accuracy(subject, "forget", role),
        "holdout": accuracy(subject, "holdout", role),
        "test": accuracy(subject, "test", role),
        "figures": subject_figures(result, subject, number) if figures else [],
        "games": _games(subject),
        "deciding": [e for e in subject.endpoints if e.primary or not e.attack],
        "other": [e for e in subject.endpoints if not e.primary and e.attack],
    }


def render_html(result: AuditResult, *, figures: bool = True) -> str:
    """Render the page.

    Args:
        result: what an audit found. Exposed individuals are shown in the restricted edition only.
        figures: False leaves out the drawings (and does without Matplotlib).

    Returns:
        An HTML document: inline CSS and SVG, no script, no link elsewhere; the same result gives the same bytes.

    Raises:
        InvalidInput: the result does not fit its schema (the page prints the digest of its ``result.json``).
    """
    # As read back from the file: JSON sorts keys and writes 10.0 as 10, and the page must be that of the file.
    result = from_json(to_json(without_individuals(result)))
    subjects = [_view(result, s, i, figures=figures) for i, s in enumerate(result.subjects, 1)]
    records, sanity = sanity_checks(result)
    template = template_environment().get_template("report.html.j2")
    return template.render(
        r=result,
        subjects=subjects,
        requests=by_subject(result),
        overview=overview(result) if figures else None,
        digest=result_digest(result),
        record_checks=records,
        sanity=sanity,
        judged=main_role(result),
        total_seconds=sum(c.seconds for c in result.costs),
    )


def write_report(result: AuditResult, out_dir: Path | str) -> ReportPaths:
    """Write ``result.json`` and ``report.html`` into a folder, each whole or not at all.

    Args:
        result: what an audit found.
        out_dir: made when it is not there.

    Returns:
        The paths of both files.

    Raises:
        InvalidInput: the result does not fit its schema, or the folder cannot be written.
    """
    folder = Path(out_dir)
    data, page = to_json(result), render_html(result).encode("utf-8")
    return ReportPaths(write_whole(folder / RESULT_NAME, data), write_whole(folder / REPORT_NAME, page))
