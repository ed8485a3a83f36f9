"""One static page over many audits: a row each, what is overdue, and how leakage moved from model to model."""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.reports import phrases
from mnemoscope.reports.drawing import Drawn
from mnemoscope.reports.history_find import Found, Limit, Unread, find_results
from mnemoscope.reports.history_rows import Audit, Row, audit_of, with_due
from mnemoscope.reports.html import template_environment
from mnemoscope.reports.schema import write_whole
from mnemoscope.reports.trend import TrendPoint, trend, trend_alt

__all__ = ["PAGE_NAME", "History", "day_of", "history_lines", "read_history", "render_history", "write_history"]

PAGE_NAME = "index.html"
MARK = '<meta name="generator" content="mnemoscope index">'
"""What tells a page of ours, which may be written anew, from somebody's own."""
DRAWN = 40
"""Figures on one page; of further series only the numbers are given."""


@dataclass(frozen=True)
class History:
    """What was found under a folder.

    Attributes:
        root: the folder searched.
        audits: newest first; those whose date cannot be read come last.
        unread: what was passed over, with reasons.
        today: the day against which "overdue" is meant.
    """

    root: Path
    audits: tuple[Audit, ...]
    unread: tuple[Unread, ...]
    today: date

    @property
    def n_overdue(self) -> int:
        """Rows whose next test lies behind us without a later audit."""
        return sum(row.due is not None and row.due.state == "overdue" for audit in self.audits for row in audit.rows)


@dataclass(frozen=True)
class _Point:
    audit: Audit
    row: Row


def read_history(root: Path | str, *, today: date | None = None, limit: Limit | None = None) -> History:
    """Read all results under a folder.

    Args:
        root: the folder.
        today: the day against which due dates are held; None is today in UTC.
        limit: how far the search goes.

    Raises:
        InvalidInput: there is no such folder. Results that cannot be read are listed, not raised.
    """
    root = Path(root)
    today = datetime.now(UTC).date() if today is None else today
    by_digest: dict[str, Audit] = {}
    unread: list[Unread] = []
    for found in find_results(root, limit):
        if isinstance(found, Unread):
            unread.append(found)
        elif found.digest in by_digest:
            by_digest[found.digest] = _with_copy(by_digest[found.digest], found)
        else:
            by_digest[found.digest] = audit_of(found)
    audits = sorted(with_due(list(by_digest.values()), today), key=_newest_first)
    return History(root, tuple(audits), tuple(unread), today)


def _with_copy(audit: Audit, found: Found) -> Audit:
    """Name the second place of the same bytes; a report beside it serves where the first place has none."""
    if audit.files:
        return replace(audit, copies=(*audit.copies, found.place))
    other = audit_of(found)
    if not other.files:
        return replace(audit, copies=(*audit.copies, found.place))
    return replace(other, copies=(*audit.copies, audit.place))


def _newest_first(audit: Audit) -> tuple[bool, float, str]:
    return (audit.when is None, 0.0 if audit.when is None else -audit.when.timestamp(), audit.place)


def render_history(history: History, *, beside: Path | None = None, figures: bool = True) -> str:
    """Render the page: inline CSS and SVG, a script of ours that only filters and sorts, no link to elsewhere.

    Args:
        history: what :func:`read_history` found.
        beside: folder in which the page will lie, for its links; None is the folder searched.
        figures: False leaves out the drawings.

    Returns:
        An HTML document; the same files and the same day give the same bytes.
    """
    environment = template_environment()
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "history.js")[0]
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    way = _way(history.root, history.root if beside is None else beside)
    return environment.get_template("history.html.j2").render(
        h=history,
        rows=[(audit, row) for audit in history.audits for row in audit.rows or (None,)],
        trends=_trends(history, figures=figures),
        words=sorted({row.word for audit in history.audits for row in audit.rows}),
        link=lambda *parts: _link(way, parts),
        after=lambda audit: audit.when is not None and audit.when.date() > history.today,
        order=_order,
        script=script,
        hashed=f"sha256-{hashed}",
    )


def write_history(
    root: Path | str,
    *,
    out: Path | str | None = None,
    today: date | None = None,
    force: bool = False,
    limit: Limit | None = None,
) -> tuple[Path, History]:
    """Write the page over all audits under a folder, whole or not at all.

    Args:
        root: the folder searched.
        out: the file; None is ``index.html`` in that folder.
        today: as for :func:`read_history`.
        force: replace a file that is no page of ours.
        limit: how far the search goes.

    Returns:
        The file and what it shows.

    Raises:
        InvalidInput: there is no such folder, the file exists and is not ours, or it cannot be written.
    """
    file = Path(root) / PAGE_NAME if out is None else Path(out)
    if file.is_dir():
        raise InvalidInput(f"--out {file}: is a folder; give the file, e.g. {file / PAGE_NAME}")
    if not force and file.exists() and not _ours(file):
        raise InvalidInput(f"{file} exists and was not written by this command: give another --out, or --force")
    history = read_history(root, today=today, limit=limit)
    page = render_history(history, beside=file.parent)
    return write_whole(file, page.encode("utf-8")), history


def _ours(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return MARK.encode() in stream.read(4096)
    except OSError:
        return False


def _way(root: Path, beside: Path) -> str:
    """The folder searched, as seen from the page; "." where it is the same."""
    return os.path.relpath(os.path.realpath(root), os.path.realpath(beside))


def _link(way: str, parts: Sequence[str]) -> str:
    """A relative address: it starts with a dot, so that no folder's name can be taken for a scheme or a host."""
    joined = "/".join([*way.split(os.sep), *(part for part in parts if part != ".")])
    safe = quote_from_bytes(os.fsencode(joined), safe="/")
    return safe if safe.startswith((".", "..")) else f"./{safe}"


def _order(value: float | None) -> str:
    """A number as a key to sort by; missing ones come last in either order."""
    return "" if value is None else repr(float(value))


def _trends(history: History, *, figures: bool) -> list[dict[str, Any]]:
    series: dict[tuple[str, str], list[_Point]] = {}
    for audit in reversed(history.audits):
        if audit.when is None:
            continue
        for row in audit.rows:
            if row.tpr.value is not None:
                series.setdefault((audit.data_digest, row.name), []).append(_Point(audit, row))
    told: list[dict[str, Any]] = []
    for (_, name), given in sorted(series.items(), key=lambda item: _latest(item[1])):
        points = _once(given)
        if len(points) < 2:
            continue
        number = len(told) + 1
        told.append(
            {
                "key": f"trend-{number}",
                "name": name,
                "data": points[-1].audit.data,
                "figure": _drawn(points, f"trend-{number}", draw=figures and number <= DRAWN),
                "ways": _ways(points),
            }
        )
    return told


def _latest(points: list[_Point]) -> tuple[float, str]:
    last = points[-1]
    assert last.audit.when is not None
    return (-last.audit.when.timestamp(), last.row.name)


def _once(points: list[_Point]) -> list[_Point]:
    """Editions of one audit differ in their bytes and say the same numbers: they are one point."""
    return list({(p.audit.created_at, p.audit.plan, p.row.model, p.row.tpr): p for p in points}.values())


def _way_of(point: _Point) -> tuple[object, ...]:
    """What two audits must share before their numbers may be joined."""
    return (point.audit.plan, point.audit.policy, point.audit.mode, point.row.attack, point.row.fpr)


def _ways(points: list[_Point]) -> list[dict[str, Any]]:
    ways = list(dict.fromkeys(_way_of(p) for p in points))
    first = {way: next(p for p in points if _way_of(p) == way) for way in ways}
    return [{"letter": _letter(i), "audit": first[way].audit, "row": first[way].row} for i, way in enumerate(ways)]


def _letter(i: int) -> str:
    return chr(ord("A") + i) if i < 26 else f"A{i - 25}"


def _ends(e: Estimate) -> tuple[float | None, float | None]:
    """The limits that an estimate has: a one-sided limit has no other end."""
    if e.ci is None:
        return None, None
    return (None if e.ci.sides == "upper" else e.ci.lower), (None if e.ci.sides == "lower" else e.ci.upper)


def _hex(digest: str, length: int = 8) -> str:
    """The first digits of a digest, as plain characters that every font has."""
    shown = phrases.short_digest(digest, length)
    return "".join(c if c.isascii() and c.isalnum() else "?" for c in shown) or "none"


def _drawn(points: list[_Point], key: str, *, draw: bool) -> Drawn:
    letters = {way: _letter(i) for i, way in enumerate(dict.fromkeys(_way_of(p) for p in points))}
    shown = []
    for p in points:
        assert p.audit.when is not None
        assert p.row.tpr.value is not None
        shown.append(
            TrendPoint(
                p.audit.when.date().isoformat(), _hex(p.row.model), p.row.tpr.value, *_ends(p.row.tpr),
                p.row.over.value, *_ends(p.row.over), letters[_way_of(p)], p.row.bound,
            )
        )  # fmt: skip
    picture = ""
    if draw:
        from mnemoscope.reports.svg import inline, svg

        role = points[-1].row.role
        picture = inline(svg(lambda: trend(shown, role=role)), key=key, alt=trend_alt(shown))
    caption = (
        f"{len(points)} audits, oldest at the left, evenly spaced; under each its date and the first digits of the "
        "models' digest. Filled: residual tail; open: over-forgotten tail; lines up and down are intervals of each "
        "number by itself. Hatched: beyond the policy's bound."
    )
    if len(letters) > 1:
        caption += (
            " Letters mark audits with another plan or policy: these are not joined, for their numbers do not compare."
        )
    table = tuple(
        (
            f"{s.day}, model {s.model}", s.group, phrases.estimate(p.row.tpr), phrases.estimate(p.row.over),
            "none" if s.bound is None else phrases.percent(s.bound), p.row.word,
        )
        for s, p in zip(shown, points, strict=True)
    )  # fmt: skip
    head = ("audit", "plan", "residual tail", "over-forgotten tail", "bound", "word")
    return Drawn(key, _title(points), caption, picture, head, table)


def _title(points: list[_Point]) -> str:
    """The newest number, held against the one before it that was measured in the same way."""
    last = points[-1]
    assert last.row.tpr.value is not None
    now = phrases.percent(last.row.tpr.value)
    rate = "picked out" if last.row.fpr is None else f"picked out at {phrases.percent(last.row.fpr)} FPR"
    if last.row.over.value is not None and last.row.over.value > last.row.tpr.value:
        rate += f" (over-forgotten {phrases.percent(last.row.over.value)})"
    before = [p for p in points[:-1] if _way_of(p) == _way_of(last)]
    if not before:
        return f"{now} {rate} in the newest audit; none before it was made with the same plan and policy"
    then = before[-1].row.tpr
    assert then.value is not None
    assert before[-1].audit.when is not None
    low, high = _ends(last.row.tpr)
    least, most = _ends(then)
    if low is not None and most is not None and low > most:
        held = "above"
    elif high is not None and least is not None and high < least:
        held = "below"
    elif None in (low, high, least, most):
        held = "beside"
    else:
        held = "not told apart from"
    day = before[-1].audit.when.date().isoformat()
    return f"{now} {rate} in the newest audit, {held} the {phrases.percent(then.value)} of {day}"


def history_lines(file: Path, history: History) -> list[str]:
    """What was written and found, for a terminal."""
    rows = sum(len(audit.rows) for audit in history.audits)
    counts = (
        f"audits: {len(history.audits)}, rows: {rows}, overdue: {history.n_overdue}, not read: {len(history.unread)}"
    )
    lines = [f"wrote {file}; {counts}; due dates held against {history.today}"]
    lines += [
        f"overdue since {row.due.day}: {phrases.plain(row.name)} in {phrases.plain(audit.place)}"
        for audit in history.audits
        for row in audit.rows
        if row.due is not None and row.due.state == "overdue"
    ]
    return lines + [f"not read: {phrases.plain(u.place)}: {phrases.plain(u.reason, 300)}" for u in history.unread]


def day_of(text: str | None) -> date | None:
    """Read a day as the command line gives it.

    Raises:
        InvalidInput: it is no day.

    >>> day_of("2026-11-21")
    datetime.date(2026, 11, 21)
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--today {text!r}: must be a day such as 2026-11-21") from error
