"""Tidy tables of one result as CSV: one file a kind of number, one row a number with its counts and interval.

UTF-8, RFC 4180 (CRLF, quoted where needed), decimal points, proportions in [0, 1]; a missing value is an empty cell
with its reason beside it. The last column of every table is the digest of the ``result.json`` it was made from. Text
that a spreadsheet would take for a formula starts with an apostrophe.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.policy_record import Deviation
from mnemoscope.audit.verdict.result import (
    AuditResult,
    Check,
    ClassRow,
    Cost,
    Coverage,
    Defended,
    Endpoint,
    EpsilonRow,
    EvidenceFile,
    ExposedRecord,
    Finding,
    GateResult,
    Individual,
    Measured,
    ModelGroup,
    NotRun,
    Reconstructed,
    RecordSet,
    RequestRow,
    SensitivityRow,
    TprAt,
    Utility,
    WorstCase,
)
from mnemoscope.reports import phrases
from mnemoscope.reports.schema import from_json, result_digest, to_json

__all__ = ["TABLES", "csv_tables", "csv_text"]

Cell = str | int | float | bool | None
Row = Sequence[Cell]
Table = tuple[Sequence[str], Iterable[Row]]

LONGEST = 4_000
FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"
ESTIMATE = ("value", "low", "high", "level", "sides", "method", "k", "n", "reason")


def _e(e: Estimate) -> tuple[Cell, ...]:
    ci = e.ci
    limits: tuple[Cell, ...] = (None,) * 5 if ci is None else (ci.lower, ci.upper, ci.level, ci.sides, ci.method)
    return (e.value, *limits, e.k, e.n, e.reason)


def _about(r: AuditResult) -> Table:
    rows: list[Row] = [
        ("title", r.title), ("mode", r.mode), ("edition", r.edition), ("schema_version", r.schema_version),
        ("created_at", r.created_at), ("data", r.data.name), ("data_sha256", r.data.digest),
        ("plan_sha256", r.plan.digest), ("committed_before_scores", r.plan.committed_before_scores),
        ("primary_attack", r.plan.primary_attack), ("alpha", r.plan.alpha), ("alpha_source", r.plan.alpha_source),
        ("seed", r.plan.seed), ("mnemoscope", r.environment.mnemoscope),
    ]  # fmt: skip
    if r.plan.decided is not None:
        d = r.plan.decided
        rows += [("policy_owner", d.owner), ("policy_owner_role", d.role), ("policy_reason", d.reason)]
    return ("key", "value"), rows


def _verdicts(r: AuditResult) -> Table:
    head = ("subject", "method", "word", "tier", "direction", "flags", "meaning", "next_step", "cost_of_retraining")
    return head, (
        (s.name, s.method, s.verdict.word, s.verdict.tier, s.verdict.direction, "; ".join(s.verdict.flags),
         s.verdict.meaning, s.verdict.next_step, s.cost_fraction_of_retraining)
        for s in r.subjects
    )  # fmt: skip


def _findings(r: AuditResult) -> Table:
    head, cells = _columns(Finding, leave_out=("tpr",))
    return ("subject", *head), ((s.name, *cells(f)) for s in r.subjects for f in s.findings)


def _rates(r: AuditResult) -> Table:
    head, cells = _columns(TprAt)
    return ("subject", "attack", "game", "models", *head), (
        (s.name, f.attack, f.game, f.models, *cells(t)) for s in r.subjects for f in s.findings for t in f.tpr
    )


def _curves(r: AuditResult) -> Table:
    head = ("subject", "attack", "game", "models", "point", "fpr", "tpr", "low", "high", "n_in", "n_out")
    return head, (
        (s.name, c.attack, c.game, c.models, i, x, y, low, high, c.n_in, c.n_out)
        for s in r.subjects
        for c in s.curves
        for i, (x, y, low, high) in enumerate(zip(c.fpr, c.tpr, c.low, c.high, strict=True))
    )


def _distributions(r: AuditResult) -> Table:
    head = ("subject", "attack", "game", "models", "group", "bin", "from", "to", "count")
    return head, (
        (s.name, d.attack, d.game, d.models, d.group, i, d.edges[i], d.edges[i + 1], count)
        for s in r.subjects
        for d in s.distributions
        for i, count in enumerate(d.counts)
    )


def _policy(r: AuditResult) -> Table:
    reasons = {} if r.plan.decided is None else r.plan.decided.reasons
    return ("key", "value", "reason"), ((k, v, reasons.get(k)) for k, v in sorted(r.plan.policy.items()))


def _limitations(r: AuditResult) -> Table:
    return ("number", "limitation"), enumerate(r.limitations, 1)


def _by_subject(kind: type, field: str) -> Callable[[AuditResult], Table]:
    """A table of one field of every subject: its name, then the row's own fields."""

    def build(r: AuditResult) -> Table:
        head, cells = _columns(kind)
        return ("subject", *head), ((s.name, *cells(row)) for s in r.subjects for row in getattr(s, field))

    return build


def _whole(kind: type, rows: Callable[[AuditResult], Iterable[Any]]) -> Callable[[AuditResult], Table]:
    def build(r: AuditResult) -> Table:
        head, cells = _columns(kind)
        return head, (cells(row) for row in rows(r))

    return build


def _columns(kind: type, leave_out: Sequence[str] = ()) -> tuple[tuple[str, ...], Callable[[Any], tuple[Cell, ...]]]:
    """Columns of a row class, under the names of the schema, and what reads them from a row.

    An estimate becomes its value, limits, counts and reason: plain names where the class has one, else under its field.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind) if f.name not in leave_out]
    estimates = [name for name in names if hints[name] == Estimate or Estimate in get_args(hints[name])]
    single = len(estimates) == 1
    head: list[str] = []
    for name in names:
        if name in estimates:
            head += [part if single and part not in names else f"{name}_{part}" for part in ESTIMATE]
        else:
            head.append(name)

    def cells(row: Any) -> tuple[Cell, ...]:
        found: list[Cell] = []
        for name in names:
            value = getattr(row, name)
            if name in estimates:
                found += _e(value or Estimate(None))
            else:
                found.append("; ".join(map(str, value)) if isinstance(value, tuple) else value)
        return tuple(found)

    return tuple(head), cells


TABLES: dict[str, Callable[[AuditResult], Table]] = {
    "about": _about,
    "verdicts": _verdicts,
    "endpoints": _by_subject(Endpoint, "endpoints"),
    "gates": _by_subject(GateResult, "gates"),
    "findings": _findings,
    "rates": _rates,
    "curves": _curves,
    "distributions": _distributions,
    "utility": _by_subject(Utility, "utility"),
    "epsilons": _by_subject(EpsilonRow, "epsilons"),
    "measured": _by_subject(Measured, "measured"),
    "defended": _by_subject(Defended, "defended"),
    "reconstructed": _by_subject(Reconstructed, "reconstructed"),
    "classes": _by_subject(ClassRow, "by_class"),
    "worst_case": _by_subject(WorstCase, "worst_case"),
    "sensitivity": _by_subject(SensitivityRow, "sensitivity"),
    "models": _by_subject(ModelGroup, "models"),
    "requests": _whole(RequestRow, lambda r: r.requests),
    "coverage": _whole(Coverage, lambda r: r.coverage),
    "records": _whole(RecordSet, lambda r: r.data.sets),
    "checks": _whole(Check, lambda r: r.data.checks),
    "policy": _policy,
    "deviations": _whole(Deviation, lambda r: r.plan.deviations),
    "costs": _whole(Cost, lambda r: r.costs),
    "not_run": _whole(NotRun, lambda r: r.not_run),
    "evidence": _whole(EvidenceFile, lambda r: r.evidence),
    "limitations": _limitations,
}
"""Every table by its file's name, without ".csv"."""

RESTRICTED: dict[str, Callable[[AuditResult], Table]] = {
    "exposed": _by_subject(ExposedRecord, "exposed"),
    "individuals": _by_subject(Individual, "individuals"),
}
"""Tables of single records: the restricted edition alone has them."""


def csv_tables(result: AuditResult) -> dict[str, bytes]:
    """Return every table of a result that has rows, as the bytes of its file.

    Tables of single records (``RESTRICTED``) are there in the restricted edition only.

    Args:
        result: what an audit found.

    Returns:
        File name -> UTF-8 bytes; equal results give equal bytes.
    """
    data = to_json(result)
    result, digest = from_json(data), result_digest(data)
    tables = {**TABLES, **(RESTRICTED if result.edition == "restricted" else {})}
    made: dict[str, bytes] = {}
    for name, build in tables.items():
        head, rows = build(result)
        listed = [(*row, digest) for row in rows]
        if listed or name in ("verdicts", "endpoints", "gates", "findings"):
            made[f"{name}.csv"] = csv_text((*head, "result_sha256"), listed)
    return made


def csv_text(head: Sequence[str], rows: Iterable[Row]) -> bytes:
    r"""Write one table.

    >>> csv_text(("name", "value"), [("=1+1", -0.5), ("a", None)])
    b"name,value\r\n'=1+1,-0.5\r\na,\r\n"
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_cell(cell) for cell in row])
    return out.getvalue().encode("utf-8")


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return repr(cell)
    text = phrases.plain(cell, LONGEST)
    return f"'{text}" if text.lstrip()[:1] in FORMULA and text.strip() else text
