"""The first screen: what a reader needs before any plot, in one fixed order, in 80 columns, plain when piped."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import AuditResult, Check, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.facts import (
    accuracy,
    both_versions,
    by_subject,
    claims,
    gap,
    headline,
    next_step,
    request_of,
    sanity_checks,
)
from mnemoscope.reports.schema import result_digest

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["render_first_screen"]

LABEL = 12
WIDEST = 100
REASONS_SHOWN = 3
DIGESTS_SHOWN = 3
COLOURS = {
    "WITHIN BOUND": "bold green",
    "OUTSIDE BOUND": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "NOT ASSESSED": "bold",
}
MARKS = {"circle": ("●", "(o)"), "triangle": ("▲", "/!\\"), "square": ("■", "[?]"), "ring": ("○", "( )")}
"""The word's shape on a terminal and in plain text."""


class _Page:
    """Lines of text under labels; wraps itself, so that a pipe and a terminal show the same."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.plain = not console.is_terminal or not console.encoding.lower().startswith("utf")
        self.width = max(40, min(console.width, 80 if self.plain else WIDEST))

    def text(self, value: object, limit: int = 400) -> str:
        shown = phrases.plain(value, limit)
        if self.plain:
            for nice, simple in (("−", "-"), ("±", "+-"), ("\u00a0", " ")):
                shown = shown.replace(nice, simple)
            shown = shown.encode("ascii", "backslashreplace").decode()
        return shown

    def line(self, text: str = "", style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(text, style=style), soft_wrap=True, highlight=False, markup=False)

    def wrap(self, text: str, indent: int, limit: int = 400) -> list[str]:
        # A number stays on the line of its percent sign.
        bound = self.text(text, limit).replace(" %", "\u00a0%")
        lines = textwrap.wrap(bound, self.width - indent, break_on_hyphens=False) or [""]
        return [line.replace("\u00a0", " ") for line in lines]

    def section(self, label: str, items: Iterable[str], style: str = "") -> None:
        """One label, then its items; continuation lines are indented under the text."""
        from rich.text import Text

        head = f"{label:<{LABEL}}"
        for item in items:
            for i, line in enumerate(self.wrap(item, LABEL + 2)):
                row = Text(head, style="bold")
                row.append(("" if i == 0 else "  ") + line, style=style)
                self.console.print(row, soft_wrap=True, highlight=False, markup=False)
                head = " " * LABEL


def _short(e: Estimate, kind: phrases.Kind = "rate") -> str:
    return "-" if e.value is None else phrases.amount(e.value, kind)


def _subject_lines(result: AuditResult) -> list[str]:
    data = result.data
    lines = [
        result.title,
        f"{data.name}: {data.n_records:,} records, {data.n_classes} classes, "
        f"sha256 {phrases.short_digest(data.digest)}",
        f"plan sha256 {phrases.short_digest(result.plan.digest)}, result sha256 "
        f"{phrases.short_digest(result_digest(result))}, seed {result.plan.seed}",
    ]
    groups = list(dict.fromkeys((m.name, m.n_models, m.digest) for s in result.subjects for m in s.models))
    lines += [
        f"{phrases.plain(name, 40)}: {n} model{'s' if n != 1 else ''}, sha256 {phrases.short_digest(digest)}"
        for name, n, digest in groups[:DIGESTS_SHOWN]
    ]
    if len(groups) > DIGESTS_SHOWN:
        lines.append(f"and {len(groups) - DIGESTS_SHOWN} more groups of models, listed in the report")
    return lines


def _check(check: Check) -> str:
    remedy = f" What to do: {check.remedy}" if check.status == "fail" and check.remedy else ""
    return f"{check.id}: {check.status.upper() if check.status == 'fail' else check.status}; {check.observed}{remedy}"


def _change(subject: Subject, records: str) -> str:
    before, after = accuracy(subject, records, "before"), accuracy(subject, records, "after")
    return f"{records} {_short(before)} -> {_short(after)}"


def _sanity_lines(result: AuditResult, checks: tuple[Check, ...]) -> list[str]:
    lines = [_check(check) for check in checks]
    if result.mode == "membership":
        for s in result.subjects:
            seen, unseen = accuracy(s, "retain", "before"), accuracy(s, "holdout", "before")
            lines.append(f"accuracy on members {phrases.estimate(seen)}; on holdout {phrases.estimate(unseen)}")
        return lines
    lines.append("accuracy, before -> after:")
    many = len(result.subjects) > 1
    for s in result.subjects:
        name = f"{_name(result, s)}: " if many else ""
        lines.append(f"{name}{_change(s, 'forget')}; {_change(s, 'holdout')}")
    counts = [
        f"{records} {e.n:,}"
        for records in ("forget", "holdout")
        for e in (accuracy(result.subjects[0], records, "after") if result.subjects else Estimate(None),)
        if e.n is not None
    ]
    if counts:
        lines[-1] += f" (n: {', '.join(counts)})"
    return lines


def _table(page: _Page, result: AuditResult) -> None:
    """A row a subject: word, tier, TPR at alpha with counts and interval, retrained TPR, accuracy after."""
    fpr = next((h.fpr for s in result.subjects if (h := headline(result, s)).fpr is not None), None)
    rate = "TPR" if fpr is None else f"TPR at {phrases.percent(fpr)} FPR"
    widths = (16, 17, 24, 9)
    titles = ("subject", "verdict", rate, "retrained", "accuracy")

    def cells(parts: tuple[str, ...], style: str = "") -> None:
        padded = [f"{p:<{w}}" for p, w in zip(parts, widths, strict=False)]
        page.line(" ".join([*padded, *parts[len(widths) :]]).rstrip(), style)

    page.line()
    cells(titles, "bold")
    page.line("-" * 79)
    for s in result.subjects:
        h, v = headline(result, s), s.verdict
        mark = MARKS[phrases.SHAPES[v.word]][page.plain]
        after = accuracy(s, "holdout", "before" if result.mode == "membership" else "after")
        counts = "" if h.after.k is None else f" ({h.after.k:,} of {h.after.n:,})"
        row = request_of(result, s)
        name = page.text(s.name if row is None else row.subject, 19)[:16]
        cells((name, f"{mark} {v.word}", _short(h.after) + counts, _short(h.retrained), _short(after)), COLOURS[v.word])
        ci = page.text(phrases.interval(h.after)) if h.after.value is not None else ""
        twin = "" if h.retrained.k is None else f"({h.retrained.k:,})"
        request = "" if row is None else f"request {row.request} of {row.requests}"
        cells((request, f"    tier {v.tier}" if v.tier else "    no tier", ci, twin, "holdout"))
    page.line()


def _verdict_lines(s: Subject, *, plain: bool) -> list[str]:
    v = s.verdict
    mark = MARKS[phrases.SHAPES[v.word]][plain]
    tier = f"tier {v.tier}: {phrases.TIERS[v.tier]}" if v.tier else "no tier"
    direction = f"; direction: {v.direction}" if v.direction else ""
    flags = f"; flags: {', '.join(v.flags)}" if v.flags else ""
    lines = [f"{mark} {v.word} ({tier}{direction}{flags})", v.sentence]
    lines += [f"why: {reason}" for reason in v.reasons[:REASONS_SHOWN]]
    if len(v.reasons) > REASONS_SHOWN:
        lines.append(f"and {len(v.reasons) - REASONS_SHOWN} more reasons, listed in the report")
    return lines


def _compact_verdict(result: AuditResult, s: Subject) -> str:
    v = s.verdict
    extra = [*([v.direction] if v.direction else []), *v.flags]
    more = f" (and {len(v.reasons) - 1} more reasons)" if len(v.reasons) > 1 else ""
    why = f" {v.reasons[0]}{more}" if v.reasons else ""
    marks = f" [{', '.join(extra)}]" if extra else ""
    return f"{_name(result, s)}: {v.word}{marks}.{why}"


def _count_lines(result: AuditResult, s: Subject) -> list[str]:
    h = headline(result, s)
    at = "" if h.fpr is None else f" at {phrases.percent(h.fpr)} FPR"
    lines = [f"{h.attack}{at}, {h.game} game: {phrases.estimate(h.after)}"]
    if result.mode != "membership":
        lines.append(f"over-forgotten tail: {phrases.estimate(h.over)}")
        lines.append(f"retrained models, same attack: {phrases.estimate(h.retrained)}")
        lines.append(f"accuracy minus retrained: {phrases.estimate(gap(s), 'difference')}")
    return lines


def _compact_counts(result: AuditResult, s: Subject) -> str:
    over = f"over-forgotten tail {phrases.estimate(headline(result, s).over)}"
    return f"{_name(result, s)}: {over}; accuracy minus retrained {phrases.estimate(gap(s), 'difference')}"


def _claim_lines(result: AuditResult) -> list[str]:
    """Each claimed epsilon beside what the attack showed; a claim shared by the subjects is told once."""
    lines = [
        f"{phrases.plain(e.fleet, 60)}: epsilon {e.claimed:.2f} is claimed, {e.attack} shows at least "
        f"{e.bound.value:.2f} (confidence {phrases.percent(e.level)}, delta {e.delta:g}; this sample could show "
        f"{e.ceiling:.2f} at most): {'the claim is REFUTED' if e.refuted else 'not refuted, which confirms nothing'}"
        for s in result.subjects
        for e in claims(s)
    ]
    return list(dict.fromkeys(lines))


def _request_table(page: _Page, result: AuditResult) -> None:
    """A table a subject: what is found of all, of the newest and of the first request's records, after each request."""
    first = result.requests[0]
    at = "" if first.fpr is None else f" at {phrases.percent(first.fpr)} FPR"
    head = f"{first.requests}, one after another; TPR of {first.attack}{at} on records asked for so far, with intervals"
    page.section("Requests", [head])
    widths = (8, 13, 13, 13, 13)

    def cells(parts: Iterable[str], style: str = "") -> None:
        *most, last = (page.text(part) for part in parts)
        page.line(" ".join([*(f"{p:<{w}}" for p, w in zip(most, widths, strict=True)), last]).rstrip(), style)

    for rows in by_subject(result):
        page.line()
        page.line(page.text(rows[0].subject, 60), "bold")
        cells(("after", "all so far", "retrained", "newest", "first", "first, change"), "bold")
        for row in rows:
            rates = (row.tpr, row.retrained, row.newest, row.first)
            cells([f"{row.request} of {row.requests}", *map(_short, rates), _short(row.first_change, "difference")])
            cells(["", *map(_limits, rates), _limits(row.first_change, "difference")])
        gaps = [f"after {row.request}: {_with_limits(row.test_gap, 'difference')}" for row in rows]
        page.section("", [f"test accuracy minus retrained, {'; '.join(gaps)}"])
    page.line()


def _limits(e: Estimate, kind: phrases.Kind = "rate") -> str:
    if e.value is None or e.low is None or e.high is None:
        return ""
    low, high = (phrases.percent(end, unit=False, sign=kind == "difference") for end in (e.low, e.high))
    return f"[{low}, {high}]"


def _with_limits(e: Estimate, kind: phrases.Kind = "rate") -> str:
    return f"{_short(e, kind)} {_limits(e, kind)}".rstrip()


def _name(result: AuditResult, s: Subject) -> str:
    """A subject's name, cut short but for the request it was audited after."""
    row = request_of(result, s)
    return phrases.plain(s.name, 24) if row is None else phrases.plain(row.subject, 24) + row.audit[len(row.subject) :]


def _version_lines(result: AuditResult) -> list[str]:
    """What who holds both versions can tell: description, which exact retraining does not take away either."""
    lines = []
    for s in result.subjects:
        if (found := both_versions(s)) is None:
            continue
        after, retrained = found
        name = f"{_name(result, s)}: " if len(result.subjects) > 1 else ""
        beside = "no retrained model beside it" if retrained is None else f"retrained {_short(retrained.auc, 'score')}"
        lines.append(f"{name}AUC {phrases.estimate(after.auc, 'score')}; {beside}")
    if lines:
        lines.insert(0, "who holds both versions, forgotten against never-seen (no part of the verdict):")
    return lines


def render_first_screen(result: AuditResult, *, console: "Console", report_path: Path | str | None = None) -> None:
    """Print the first screen: subject, records, sanity, verdict, counts, meaning, next step, not run, report.

    Wraps at 80 columns (at most 100 on a terminal); plain ASCII when the console is not a terminal. Nothing of the
    result is read as markup or as terminal control.

    Args:
        result: what an audit found.
        console: a ``rich.console.Console``; its width and encoding are respected.
        report_path: where the report was written; None says that none was.
    """
    page = _Page(console)
    many = len(result.subjects) > 1
    records, sanity = sanity_checks(result)
    page.section("Subject", _subject_lines(result))
    counts = ", ".join(f"{phrases.plain(r.role, 30)} {r.n_records:,}" for r in result.data.sets) or "no record sets"
    page.section("Records", [counts, *(_check(check) for check in records)])
    page.section("Sanity", _sanity_lines(result, sanity))
    if many:
        _table(page, result)
        words = dict.fromkeys(s.verdict.word for s in result.subjects)
        sentences = {s.verdict.word: s.verdict.sentence for s in result.subjects}
        page.section("Verdict", [f"{word}: {sentences[word]}" for word in words])
        page.section("", [_compact_verdict(result, s) for s in result.subjects])
        h = headline(result, result.subjects[0])
        page.section("Counts", [f"in the table: {h.attack}, {h.game} game, residual tail"])
        if result.mode != "membership":
            page.section("", [_compact_counts(result, s) for s in result.subjects])
    else:
        for s in result.subjects:
            page.section("Verdict", _verdict_lines(s, plain=page.plain), COLOURS[s.verdict.word])
            page.section("Counts", _count_lines(result, s))
    if result.requests:
        _request_table(page, result)
    if versions := _version_lines(result):
        page.section("Versions", versions)
    if claimed := _claim_lines(result):
        page.section("Privacy", claimed)
    power = result.plan.power
    if power.value is not None and result.plan.alpha is not None:
        text = f"chance of WITHIN BOUND when nothing leaks, simulated from the counts: {phrases.power(power)}"
        page.section("", [text])
    named = [(f"{_name(result, s)}: " if many else "", s.verdict) for s in result.subjects]
    page.section("Meaning", [f"{name}{v.meaning}" for name, v in named])
    steps = [f"{name}{step}" for (name, _), s in zip(named, result.subjects, strict=True) if (step := next_step(s))]
    page.section("Next", steps or ["nothing more is needed to decide"])
    page.section(
        "Not run",
        [f"{n.what}: {n.why}{f' ({n.remedy})' if n.remedy else ''}" for n in result.not_run]
        or ["nothing was left out"],
    )
    for warning in result.warnings:
        page.section("Warning", [warning])
    # A path is to be copied: it is printed whole, on a line of its own when it is long.
    path = "not written" if report_path is None else str(report_path)
    shown = page.text(path, 4096)
    page.line(f"{'Report':<{LABEL}}{shown}" if len(shown) + LABEL <= page.width else f"Report\n{shown}", "bold")
