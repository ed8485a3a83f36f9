"""What a data-protection officer reads: word, figure, what was checked and what was not, dates, people; two pages."""

from dataclasses import dataclass, replace

from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.compliance import PersonRow, checked, dates, notices, people, tested_artefact, unchecked
from mnemoscope.reports.facts import headline, next_step
from mnemoscope.reports.schema import result_digest

__all__ = ["Detail", "DETAILS", "render_summary"]

GLYPHS = {"circle": "●", "triangle": "▲", "square": "■", "ring": "○"}
"""The shape of a word as a letter, which stays a letter in copied text and in a text-only reader."""

WORST_FIRST = ("OUTSIDE BOUND", "NOT ASSESSED", "INCONCLUSIVE", "WITHIN BOUND")

DOES_NOT_SAY = (
    "that the data is gone: attacks that fail are no proof of deletion.",
    "that the model may be used, or that a duty was fulfilled: that is for people to decide.",
    "anything about copies, backups, recipients and derived models that are not marked as tested.",
)

PEOPLE = {
    "requester": "Requested by",
    "assessor": "Assessed by",
    "approver": "Approved by",
    "dpo": "Data-protection officer",
}


@dataclass(frozen=True)
class Detail:
    """How much a summary shows; a long result is shown with less until it fits on two pages.

    Attributes:
        subjects: rows of the table of verdicts.
        drawn: subjects in the figure.
        names: things named in one list.
        people: rows of people.
        characters: of one text of unknown length.
    """

    subjects: int
    drawn: int
    names: int
    people: int
    characters: int


DETAILS = (
    Detail(subjects=12, drawn=5, names=16, people=8, characters=420),
    Detail(subjects=10, drawn=4, names=12, people=6, characters=280),
    Detail(subjects=8, drawn=3, names=10, people=4, characters=180),
    Detail(subjects=5, drawn=1, names=6, people=4, characters=110),
    Detail(subjects=3, drawn=0, names=3, people=4, characters=60),
)
"""From the most to the least; the last one fits whatever a result holds."""


def _cut(text: str, most: int) -> str:
    """Text of unknown length, ended at a word where it is too long."""
    whole = phrases.plain(text, 2_000)
    if len(whole) <= most:
        return whole
    head = whole[: most - 1]
    return (head.rsplit(" ", 1)[0] if " " in head[most // 2 :] else head) + "…"


def _checked(result: AuditResult, detail: Detail) -> list[tuple[str, str]]:
    """Five rows: attacks, access, records, references, side effects."""
    return [(fact.name, _cut(fact.text, detail.characters)) for fact in checked(result)]


def _unchecked(result: AuditResult, detail: Detail) -> list[str]:
    """Names of what was not checked; how many are left out is said."""
    names = [_cut(name, 90) for name in unchecked(result)]
    left = len(names) - detail.names
    return names if left <= 0 else [*names[: detail.names], f"and {left} more, in report.pdf"]


def _person(row: PersonRow, detail: Detail) -> str:
    person = row.person
    if person is None:
        return "opinion pending" if row.role == "dpo" else "not declared"
    text = _cut(person.name, 60) or "name withheld or not given"
    if person.independent is not None:
        text += ", independent" if person.independent else ", not independent"
    if person.decision:
        text += f": {_cut(person.decision, detail.characters)}"
    elif row.role == "dpo":
        text += ": opinion pending"
    return text + (f" ({person.at})" if person.at else "")


def _people(result: AuditResult, detail: Detail) -> list[tuple[str, str]]:
    rows = people(result)
    shown = [(PEOPLE[row.role], _person(row, detail)) for row in rows[: detail.people]]
    left = len(rows) - len(shown)
    return [*shown, ("Others", f"{left} more, in report.pdf")] if left else shown


def _row(result: AuditResult, subject: Subject, detail: Detail) -> dict[str, str]:
    h, v = headline(result, subject), subject.verdict
    shape = phrases.SHAPES[v.word]
    return {
        "name": phrases.plain(subject.name, 60),
        "word": v.word,
        "shape": shape,
        "glyph": GLYPHS[shape],
        "tier": f"tier {v.tier}" if v.tier else "no tier",
        "sentence": phrases.plain(v.sentence, 400),
        "meaning": _cut(v.meaning, detail.characters),
        "rate": "" if h.after.value is None else f"{phrases.percent(h.after.value)}; {phrases.interval(h.after)}",
        "next": _cut(next_step(subject), detail.characters),
        "flags": ", ".join(phrases.plain(flag, 60) for flag in v.flags[:3]),
    }  # fmt: skip


def _figure_title(title: str, drawn: int, subjects: int) -> str:
    """What a figure of all subjects says of those in it would be wrong of all of them."""
    return title if drawn == subjects else f"Leakage of {drawn} of {subjects} subjects, the worst words first"


def render_summary(
    result: AuditResult, detail: Detail = DETAILS[0], *, digest: str | None = None, figures: bool = True
) -> str:
    """Render the page that becomes ``summary.pdf``.

    Args:
        result: as read back from its file.
        detail: how much is shown; what is left out is counted in words.
        digest: of that file; None = computed here.
        figures: False leaves out the drawing (and does without Matplotlib).

    Returns:
        An HTML document without style of its own (``pdf.css`` holds it).

    Raises:
        InvalidInput: the result does not fit its schema.
    """
    from importlib.resources import files

    from jinja2 import DictLoader

    from mnemoscope.reports.drawing import overview, subject_figures
    from mnemoscope.reports.html import MODES, template_environment

    ordered = sorted(result.subjects, key=lambda s: WORST_FIRST.index(s.verdict.word))
    shown = ordered[: detail.subjects]
    drawn = None
    if figures and ordered and detail.drawn:
        if len(ordered) == 1:
            number = result.subjects.index(ordered[0]) + 1
            drawn = next(iter(subject_figures(result, ordered[0], number, only=("rates",))), None)
        else:
            drawn = overview(replace(result, subjects=tuple(ordered[: detail.drawn])))
    name = "summary.html.j2"
    source = (files("mnemoscope.reports") / "templates" / name).read_text(encoding="utf-8")
    template = template_environment().overlay(loader=DictLoader({name: source})).get_template(name)
    return template.render(
        r=result,
        mode=MODES[result.mode],
        digest=result_digest(result) if digest is None else digest,
        rows=[_row(result, s, detail) for s in shown],
        left=len(ordered) - len(shown),
        counts=[(word, sum(s.verdict.word == word for s in ordered)) for word in WORST_FIRST],
        figure=drawn,
        figure_title=_figure_title(drawn.title, min(len(ordered), detail.drawn), len(ordered)) if drawn else "",
        left_drawn=0 if drawn is None else len(ordered) - min(len(ordered), detail.drawn),
        checked=_checked(result, detail),
        not_checked=_unchecked(result, detail),
        dates=[(fact.name, _cut(fact.text, 60)) for fact in dates(result)],
        people=_people(result, detail),
        notices=[_cut(line, detail.characters) for line in notices(result)],
        unsaid=DOES_NOT_SAY,
        artefact=tested_artefact(result),
    )
