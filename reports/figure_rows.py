"""From a result to the rows and lines of its figures: nothing is computed here that the result does not hold."""

from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import AuditResult, ClassRow, Curve, Endpoint, ModelGroup, ModelRole, Subject
from mnemoscope.reports import phrases
from mnemoscope.reports.facts import (
    ROLE_ORDER,
    gap,
    headline,
    main_game,
    primary_curves,
    tpr_at,
)
from mnemoscope.reports.figures.classes import ClassBar, Measure
from mnemoscope.reports.figures.compositions import SetBar
from mnemoscope.reports.figures.endpoints import BoundRow
from mnemoscope.reports.figures.equivalences import EquivalenceRow
from mnemoscope.reports.figures.grids import GridCell
from mnemoscope.reports.figures.histograms import ScorePanel
from mnemoscope.reports.figures.intervals import RateRow
from mnemoscope.reports.figures.lineages import Arrow, Node
from mnemoscope.reports.figures.rocs import RocLine
from mnemoscope.reports.figures.styles import DELETION, Groups
from mnemoscope.reports.figures.trade_offs import ParetoPoint, UtilityPoint

__all__ = [
    "VARIED",
    "bound_rows",
    "class_bars",
    "cost_points",
    "equivalence_rows",
    "grid_cells",
    "groups_of",
    "lineage_boxes",
    "primary_bound",
    "rate_row",
    "rate_rows",
    "roc_lines",
    "score_panels",
    "set_bars",
    "short",
    "utility_points",
    "worst_rate",
]

CLASSES_SHOWN = 16
"""Classes that one figure holds; all are in its data."""

VARIED = {
    "bound": "Bound on the true positive rate",
    "alpha": "False positive rate",
    "primary": "Attack that decides",
    "attacks": "Attacks that can add a finding",
    "endpoints": "Questions asked",
}
"""Headings of the sensitivity table."""


def short(e: Estimate) -> str:
    """An estimate as a few characters beside a mark."""
    if e.value is None:
        return "not measured"
    ends = (
        ""
        if e.ci is None
        else f" ({phrases.percent(e.ci.lower, unit=False)}–{phrases.percent(e.ci.upper, unit=False)})"
    )
    return f"{phrases.percent(e.value)}{ends}"


def rate_row(label: str, role: ModelRole, e: Estimate, *, group: str = "", hollow: bool = False) -> RateRow:
    """One rate with the limits that it has."""
    low, high = (e.low, e.high) if e.ci is not None else (None, None)
    if e.ci is not None and e.ci.sides == "lower":
        high = e.value
    return RateRow(label, role, e.value, low, high, short(e), group, hollow)


def primary_bound(subject: Subject) -> float | None:
    """P1's bound of the primary attack."""
    found = (e.bound for e in subject.endpoints if e.id == "P1" and e.primary and e.bound is not None)
    return next(found, None)


def groups_of(result: AuditResult) -> Groups:
    """What in and out records are called."""
    return ("member", "non-member") if main_game(result) == "membership" else DELETION


def rate_rows(result: AuditResult, subject: Subject) -> list[RateRow]:
    """The primary attack's rates on every set of models, and the other tail after deletion."""
    h = headline(result, subject)
    rows = [rate_row(role, role, h.of(role)) for role in ROLE_ORDER if h.of(role).value is not None]
    if h.over.value is not None and result.mode != "membership":
        rows.append(rate_row("after, over-forgotten tail", "after", h.over, hollow=True))
    return rows


def _line(curve: Curve, exact: Estimate) -> RocLine:
    return RocLine(curve.models, curve.fpr, curve.tpr, curve.low, curve.high, curve.n_in, curve.n_out, exact.value)


def roc_lines(result: AuditResult, subject: Subject, attack: str | None = None) -> list[RocLine]:
    """The curves of one attack, each with its exact rate at the audit's FPR."""
    return [
        _line(c, tpr_at(subject, c.attack, c.game, c.models, result.plan.alpha))
        for c in primary_curves(result, subject, attack)
    ]


def score_panels(result: AuditResult, subject: Subject, attack: str | None = None) -> list[ScorePanel]:
    """The score histograms of one attack, one for each set of models."""
    game, name = main_game(result), result.plan.primary_attack if attack is None else attack
    panels = []
    for role in ROLE_ORDER:
        pair = {d.group: d for d in subject.distributions if (d.attack, d.game, d.models) == (name, game, role)}
        if "in" in pair and "out" in pair:
            panels.append(ScorePanel(role, pair["in"].edges, pair["in"].counts, pair["out"].counts))
    return panels


def bound_rows(subject: Subject) -> list[BoundRow]:
    """The endpoints of the primary attack, each with its bound."""
    rows = []
    for e in subject.endpoints:
        if not e.bound or e.id == "P7" or (e.attack and not e.primary):
            continue
        if e.estimate.ci is None or e.estimate.value is None:
            continue
        sides: Literal["both", "upper", "lower"] = "both" if e.id == "P2" else "lower" if e.id == "P5" else "upper"
        ci, kind = e.estimate.ci, phrases.kind_of(e)
        low = None if ci.sides == "upper" else ci.lower
        high = None if ci.sides == "lower" else ci.upper
        value = phrases.amount(e.estimate.value, kind)
        tail = "over-forgotten" if "over-forgotten" in e.part else ""
        name = {"P1": "TPR", "P3": "exposed individuals", "P4": "retained records", "P5": "accuracy"}.get(e.id, "")
        if e.id == "P2":
            name = "AUC difference" if "AUC" in e.part else "TPR difference"
        label = " ".join(part for part in (e.id, name, f"({tail})" if tail else "") if part)
        rows.append(
            BoundRow(label, e.estimate.value, low, high, abs(e.bound), sides, e.outcome, f"{value}: {e.outcome}")
        )
    return rows


def _equal(e: Endpoint, group: str) -> EquivalenceRow | None:
    ci = e.estimate.ci
    if e.id != "P2" or not e.primary or not e.bound or ci is None or e.estimate.value is None or ci.sides != "two":
        return None
    kind = phrases.kind_of(e)
    name = "AUC" if "AUC" in e.part else "TPR, over-forgotten" if "over-forgotten" in e.part else "TPR, residual"
    margin = f"±{e.bound:.3g}" if kind == "shift" else f"±{phrases.percent(e.bound, unit=False)} points"
    text = f"{phrases.amount(e.estimate.value, kind)}: {e.outcome}"
    return EquivalenceRow(
        f"{name} ({margin})", e.estimate.value, ci.lower, ci.upper, abs(e.bound), e.outcome, text, group
    )


def equivalence_rows(subject: Subject, *, group: str = "") -> list[EquivalenceRow]:
    """P2 of the primary attack, where it decides."""
    return [row for row in (_equal(e, group) for e in subject.endpoints) if row is not None]


def _measure(e: Estimate) -> Measure | None:
    if e.value is None:
        return None
    return e.value, e.value if e.low is None else e.low, e.value if e.high is None else e.high


STANDS_OUT = 0.05
"""Family-wise error at which a class is said to stand out."""


def _class_bar(row: ClassRow) -> ClassBar:
    text = f"n = {row.n_records:,}: {short(row.after)}" if not row.suppressed else "too few records"
    beyond = row.p_value is not None and row.p_value <= STANDS_OUT
    return ClassBar(
        phrases.plain(row.label, 26), _measure(row.after), _measure(row.over_forgotten), _measure(row.retrained), text,
        beyond,
    )  # fmt: skip


def worst_rate(row: ClassRow) -> float:
    """The higher of both tails; below zero where the class is suppressed."""
    return max((e.value for e in (row.after, row.over_forgotten) if e.value is not None), default=-1.0)


def class_bars(subject: Subject, *, most: int = CLASSES_SHOWN) -> list[ClassBar]:
    """The classes, the highest rate first and suppressed ones last, at most so many."""
    ordered = sorted(subject.by_class, key=lambda row: (-worst_rate(row), row.label))
    return [_class_bar(row) for row in ordered[:most]]


def grid_cells(subject: Subject) -> list[GridCell]:
    """The word at every varied choice."""
    return [
        GridCell(VARIED[row.varied], phrases.plain(row.value, 30), row.word, row.actual, " *" if row.note else "")
        for row in subject.sensitivity
    ]


def set_bars(result: AuditResult) -> list[SetBar]:
    """The record sets, the largest first."""
    ordered = sorted(result.data.sets, key=lambda one: -one.n_records)
    return [SetBar(phrases.plain(one.role, 30), one.n_records) for one in ordered]


def cost_points(result: AuditResult) -> list[ParetoPoint]:
    """Each way of deleting: what it costs, and the higher of the primary attack's rates in both tails."""
    points = []
    for s in result.subjects:
        rate, cost = _worse_tail(result, s), s.cost_fraction_of_retraining
        if rate is not None and rate.value is not None and cost is not None and cost > 0:
            points.append(ParetoPoint(phrases.plain(s.name, 24), cost, rate.value, rate.low, rate.high, _fit(s)))
    return points


def utility_points(result: AuditResult) -> list[UtilityPoint]:
    """Each way of deleting: test accuracy against retraining, and the higher of both tails' rates."""
    points = []
    for s in result.subjects:
        rate, lost = _worse_tail(result, s), gap(s)
        if rate is not None and rate.value is not None and lost.value is not None:
            points.append(UtilityPoint(phrases.plain(s.name, 24), lost.value, rate.value, rate.low, rate.high, _fit(s)))
    if not points:
        return []
    twin = headline(result, result.subjects[0]).retrained
    if twin.value is not None:
        points.append(UtilityPoint("retrained models", 0.0, twin.value, twin.low, twin.high, role="retrained"))
    return points


def _fit(subject: Subject) -> bool:
    return "not fit for use" not in subject.verdict.flags


def _worse_tail(result: AuditResult, subject: Subject) -> Estimate | None:
    h = headline(result, subject)
    known = [e for e in (h.after, h.over) if e.value is not None]
    return max(known, key=lambda e: e.value or 0.0, default=None)


LINES_SHOWN = 6
"""Groups of models that one box of a lineage names."""


def lineage_boxes(result: AuditResult, subject: Subject) -> tuple[list[Node], list[Arrow]]:
    """The data, the models of one subject, and what made each of them."""
    data = result.data
    counts = (f"{data.n_records:,} records, {data.n_classes:,} classes", _digest(data.digest))
    nodes, arrows = [Node("data", phrases.plain(data.name, 22), counts, 0.5, 0)], []
    above = "data"
    for group in (g for g in subject.models if g.role in ("before", "after")):
        key = group.role
        nodes.append(Node(key, phrases.plain(group.name, 20), _lines(group), 0.0, len(nodes), group.role))
        said = "trained" if key == "before" else phrases.plain(group.method or subject.method or "deletion", 30)
        arrows.append(Arrow(above, key, said))
        above = key
    others: tuple[tuple[str, str, str], ...] = (
        ("retrained", "retrained", "trained without the forgotten"),
        ("shadow", "reference models", "of the attacker"),
    )
    for role, title, said in others:
        groups = [g for g in subject.models if g.role == role]
        if not groups:
            continue
        # One box for all of a kind: they were trained one beside the other, none from another.
        lines = _lines(groups[0]) if len(groups) == 1 else _listed(groups)
        name = groups[0].name if len(groups) == 1 else title
        nodes.append(Node(role, phrases.plain(name, 20), lines, 1.0, len(nodes), role if role == "retrained" else ""))
        arrows.append(Arrow("data", role, said))
    return nodes, arrows


def _digest(text: str) -> str:
    return phrases.short_digest(text) or "no digest"


def _lines(group: ModelGroup) -> tuple[str, ...]:
    return f"{group.n_models:,} {'model' if group.n_models == 1 else 'models'}", _digest(group.digest)


def _listed(groups: list[ModelGroup]) -> tuple[str, ...]:
    lines = [f"{phrases.plain(g.name, 14)}: {g.n_models:,}, {_digest(g.digest)}" for g in groups[:LINES_SHOWN]]
    more = len(groups) - LINES_SHOWN
    return (*lines, f"and {more} groups more") if more > 0 else tuple(lines)
