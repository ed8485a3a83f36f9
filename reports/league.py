"""The page, the file and the lines of a league table."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.league import LeagueRow, LeagueTable
from mnemoscope.reports import phrases
from mnemoscope.reports.html import ReportPaths, template_environment
from mnemoscope.reports.schema import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LEAGUE_NAME", "league_lines", "read_league", "render_league", "write_league"]

LEAGUE_NAME = "league.json"
PAGE_NAME = "league.html"


def place(row: LeagueRow) -> str:
    """The places that the intervals allow, or why the row has none; a span of places is a tie.

    >>> from mnemoscope.audit.statistics.trials import Estimate
    >>> e = Estimate(None, reason="not measured")
    >>> row = LeagueRow("random", "a", "a", "", e, None, e, e, e, e, None, (), True, False, False, rank=(2, 4))
    >>> place(row)
    '2 to 4'
    """
    if row.rank is None:
        return row.unranked
    first, last = row.rank
    return str(first) if first == last else f"{first} to {last}"


def render_league(table: LeagueTable, *, figures: bool = True) -> str:
    """Render the page: inline CSS and SVG, no script, no link elsewhere; the same table gives the same bytes."""
    parts = []
    for number, forget in enumerate(dict.fromkeys(row.forget for row in table.rows), 1):
        rows = [row for row in table.rows if row.forget == forget]
        parts.append(
            {
                "forget": forget,
                "key": f"set-{number}",
                "rows": rows,
                "fpr": rows[0].fpr,
                "pareto": _pareto(rows, f"pareto-{number}") if figures else None,
            }
        )
    template = template_environment().get_template("league.html.j2")
    return template.render(t=table, parts=parts, place=place)


def write_league(table: LeagueTable, out: Path | str) -> ReportPaths:
    """Write ``league.json`` and ``league.html`` into a folder, each whole or not at all."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(table), indent=1, allow_nan=False, sort_keys=True)
    return ReportPaths(
        write_whole(folder / LEAGUE_NAME, (text + "\n").encode()),
        write_whole(folder / PAGE_NAME, render_league(table).encode()),
    )


def read_league(path: Path | str) -> LeagueTable:
    """Read a ``league.json``, or the one in a folder.

    Raises:
        InvalidInput: there is none, or it is no league table of this version.
    """
    from pydantic import TypeAdapter, ValidationError

    file = Path(path)
    file = file / LEAGUE_NAME if file.is_dir() else file
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read the league table {file}: {error.strerror}; `mnemoscope league` writes it"
        ) from error
    try:
        return TypeAdapter(LeagueTable).validate_json(data)
    except ValidationError as error:
        raise InvalidInput(f"{file} is no league table of this version: {str(error).splitlines()[0]}") from error


def league_lines(table: LeagueTable) -> list[str]:
    """The table as plain lines, for a terminal."""
    lines = []
    for forget in dict.fromkeys(row.forget for row in table.rows):
        rows = [row for row in table.rows if row.forget == forget]
        fpr = "" if rows[0].fpr is None else f" at {phrases.percent(rows[0].fpr)} FPR"
        lines += [
            f"forget set {forget}",
            f"  {'place':28} {'method':26} {'strongest attack, TPR' + fpr:44} gap to retrain   cost",
        ]
        for row in rows:
            cost = "" if row.cost is None else phrases.percent(row.cost)
            gap = "" if row.gap.value is None else f"{100 * row.gap.value:.2f} points"
            found = f"{row.strongest}: {_short(row)}"
            lines.append(f"  {place(row):28} {row.subject:26} {found:44} {gap:16} {cost}")
    return lines


def _short(row: LeagueRow) -> str:
    e = row.tpr
    if e.value is None:
        return e.reason or "not available"
    if e.low is None or e.high is None:
        return phrases.percent(e.value)
    return f"{phrases.percent(e.value)} [{phrases.percent(e.low, unit=False)}, {phrases.percent(e.high, unit=False)}]"


def _pareto(rows: "Sequence[LeagueRow]", key: str) -> str | None:
    from mnemoscope.reports import figures
    from mnemoscope.reports.svg import inline, svg

    points = [
        figures.ParetoPoint(phrases.plain(row.subject, 28), row.cost, row.tpr.value, row.tpr.low, row.tpr.high, row.fit)
        for row in rows
        if row.cost is not None and row.cost > 0 and row.tpr.value is not None
    ]
    if len(points) < 2:
        return None
    fpr = rows[0].fpr
    best = figures.frontier(points)
    names = ", ".join(point.label for point in best)
    alt = f"Leakage against cost of {len(points)} methods; no other method is both cheaper and leaks less than: {names}"
    return inline(svg(lambda: figures.pareto(points, chance=fpr)), key=key, alt=alt)
