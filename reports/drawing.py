"""From one subject's findings to the rows and lines of its figures, with number, caption, alt text and data table."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import AuditResult, Curve, ModelRole, Subject
from mnemoscope.reports import alt, figures, phrases, svg
from mnemoscope.reports.facts import ROLE_ORDER, headline, main_game, primary_curves, tpr_at

__all__ = ["Drawn", "overview", "subject_figures"]

TABLE_ROWS = 12


@dataclass(frozen=True)
class Drawn:
    """A figure ready for a page.

    Attributes:
        key: unique in the page.
        title: states the finding.
        caption: what is drawn, how the interval was made, n.
        svg: the ``<svg>`` element.
        head, rows: the data behind it.
    """

    key: str
    title: str
    caption: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _short(e: Estimate) -> str:
    if e.value is None:
        return "not measured"
    ends = (
        ""
        if e.ci is None
        else f" ({phrases.percent(e.ci.lower, unit=False)}–{phrases.percent(e.ci.upper, unit=False)})"
    )
    return f"{phrases.percent(e.value)}{ends}"


def _line(curve: Curve, exact: Estimate) -> figures.RocLine:
    return figures.RocLine(
        curve.models, curve.fpr, curve.tpr, curve.low, curve.high, curve.n_in, curve.n_out, exact.value
    )


def _rate_row(label: str, role: ModelRole, e: Estimate, *, group: str = "", hollow: bool = False) -> figures.RateRow:
    low, high = (e.low, e.high) if e.ci is not None else (None, None)
    if e.ci is not None and e.ci.sides == "lower":
        high = e.value
    return figures.RateRow(label, role, e.value, low, high, _short(e), group, hollow)


def _bound(result: AuditResult, subject: Subject) -> float | None:
    found = (e.bound for e in subject.endpoints if e.id == "P1" and e.primary and e.bound is not None)
    return next(found, None)


def _rates(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    h, bound = headline(result, subject), _bound(result, subject)
    rows = [_rate_row(role, role, h.of(role)) for role in ROLE_ORDER if h.of(role).value is not None]
    both_tails = h.over.value is not None and result.mode != "membership"
    if both_tails:
        rows.append(_rate_row("after, over-forgotten tail", "after", h.over, hollow=True))
    if not rows:
        return None
    at = "" if h.fpr is None else f" at {phrases.percent(h.fpr)} FPR"
    judged = h.after.value
    title = (
        f"{h.attack} picks out {phrases.percent(judged)} of the records{at}"
        if judged is not None
        else f"Rates of {h.attack}{at}"
    )
    if bound is not None and judged is not None:
        title += f"; the bound is {phrases.percent(bound)}"
    table: list[tuple[str, ...]] = [
        (role, phrases.estimate(h.of(role))) for role in ROLE_ORDER if h.of(role).value is not None
    ]
    if both_tails:
        table.append(("after, over-forgotten tail", phrases.estimate(h.over)))
    method = h.after.ci.method if h.after.ci is not None else "not given"
    return Drawn(
        key, title, f"True positive rates of the primary attack in the {h.game} game; lines are intervals ({method}).",
        svg.inline(svg.svg(lambda: figures.rates(rows, bound=bound)), key=key, alt=alt.rates_alt(rows, bound)),
        ("models", "records picked out"), tuple(table),
    )  # fmt: skip


def _groups(result: AuditResult) -> figures.Groups:
    return ("member", "non-member") if main_game(result) == "membership" else figures.DELETION


def _roc(result: AuditResult, subject: Subject, key: str, attack: str | None = None) -> Drawn | None:
    curves = primary_curves(result, subject, attack)
    if not curves:
        return None
    alpha, name = result.plan.alpha, curves[0].attack
    lines = [_line(c, tpr_at(subject, name, c.game, c.models, alpha)) for c in curves]
    title = f"ROC of {name}, both axes logarithmic"
    step = max(1, len(curves[0].fpr) // TABLE_ROWS)
    rows = tuple(
        (
            c.models,
            phrases.percent(c.fpr[i]),
            phrases.percent(c.tpr[i]),
            f"{phrases.percent(c.low[i], unit=False)} to {phrases.percent(c.high[i])}",
        )
        for c in curves
        for i in range(0, len(c.fpr), step)
    )  # fmt: skip
    groups = _groups(result)
    caption = (
        f"{groups[0].capitalize()} (n = {curves[0].n_in:,}) against {groups[1]} (n = {curves[0].n_out:,}) trials, "
        "residual tail; bands are pointwise 95 % intervals. Left of 8/n the false positive rate is not known well "
        "enough (grey). Chance is the diagonal."
    )
    return Drawn(
        key, title, caption,
        svg.inline(
            svg.svg(lambda: figures.roc(lines, alpha=alpha, groups=groups)), key=key, alt=alt.roc_alt(lines, alpha)
        ),
        ("models", "FPR", "TPR", "band"), rows,
    )  # fmt: skip


def _distributions(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    game, attack = main_game(result), result.plan.primary_attack
    panels = []
    for role in ROLE_ORDER:
        pair = {d.group: d for d in subject.distributions if (d.attack, d.game, d.models) == (attack, game, role)}
        if "in" in pair and "out" in pair:
            panels.append(figures.ScorePanel(role, pair["in"].edges, pair["in"].counts, pair["out"].counts))
    if not panels:
        return None
    rows = tuple(
        (p.role, f"{p.edges[i]:.2f} to {p.edges[i + 1]:.2f}", f"{p.in_counts[i]:,}", f"{p.out_counts[i]:,}")
        for p in panels
        for i in range(len(p.in_counts))
        if p.in_counts[i] or p.out_counts[i]
    )
    groups = _groups(result)
    return Drawn(
        key, f"Scores of {attack} for {groups[0]} and {groups[1]} trials",
        "Share of each group in each bin; where both outlines lie on each other, the attack sees no difference.",
        svg.inline(
            svg.svg(lambda: figures.distributions(panels, groups=groups)[0]), key=key,
            alt=alt.distributions_alt(panels, groups),
        ),
        ("models", "score", "in", "out"), rows,
    )  # fmt: skip


def _bounds(subject: Subject, key: str) -> Drawn | None:
    rows = []
    for e in subject.endpoints:
        if (
            not e.bound
            or e.id == "P7"
            or (e.attack and not e.primary)
            or e.estimate.ci is None
            or e.estimate.value is None
        ):
            continue
        sides: Literal["both", "upper", "lower"] = "both" if e.id == "P2" else "lower" if e.id == "P5" else "upper"
        ci, kind = e.estimate.ci, phrases.kind_of(e)
        low = None if ci.sides == "upper" else ci.lower
        high = None if ci.sides == "lower" else ci.upper
        value = phrases.amount(e.estimate.value, kind)
        tail = "over-forgotten" if "over-forgotten" in e.part else ""
        short = {"P1": "TPR", "P3": "exposed individuals", "P4": "retained records", "P5": "accuracy"}.get(e.id, "")
        if e.id == "P2":
            short = "AUC difference" if "AUC" in e.part else "TPR difference"
        label = " ".join(part for part in (e.id, short, f"({tail})" if tail else "") if part)
        rows.append(
            figures.BoundRow(
                label, e.estimate.value, low, high, abs(e.bound), sides, e.outcome, f"{value}: {e.outcome}"
            )
        )
    if not rows:
        return None
    beyond = [row.label for row in rows if row.outcome == "beyond"]
    open_ = [row.label for row in rows if row.outcome == "undecided"]
    title = (
        f"Beyond its bound: {', '.join(beyond)}" if beyond
        else f"Undecided: {', '.join(open_)}" if open_
        else "Every endpoint lies within its bound"
    )  # fmt: skip
    table = tuple(
        (f"{e.id} {e.part}", phrases.estimate(e.estimate, phrases.kind_of(e)), phrases.bound(e), e.outcome)
        for e in subject.endpoints
        if e.primary or not e.attack
    )
    return Drawn(
        key, title,
        "Each endpoint of the primary attack in units of its own bound; hatched = beyond it. An interval that reaches "
        "the hatched part is not within bound; one wholly in it is beyond. An arrow marks a value off the scale.",
        svg.inline(svg.svg(lambda: figures.against_bounds(rows)), key=key, alt=alt.bounds_alt(rows)),
        ("endpoint", "estimate", "bound", "outcome"), table,
    )  # fmt: skip


def subject_figures(
    result: AuditResult, subject: Subject, number: int, *, only: Collection[str] | None = None
) -> list[Drawn]:
    """Draw everything there is data for: endpoints, rates, ROC and distributions of one subject.

    Args:
        result: the whole result.
        subject: one of its subjects.
        number: its number, part of each figure's key.
        only: names of the figures that are wanted, the last parts of their keys; None = all.
    """
    makers: dict[str, Callable[[str], Drawn | None]] = {
        "bounds": lambda key: _bounds(subject, key),
        "rates": lambda key: _rates(result, subject, key),
        "roc": lambda key: _roc(result, subject, key),
        "scores": lambda key: _distributions(result, subject, key),
    }
    drawn = (make(f"s{number}-{name}") for name, make in makers.items() if only is None or name in only)
    return [figure for figure in drawn if figure is not None]


def overview(result: AuditResult) -> Drawn | None:
    """Draw the leakage of all subjects side by side, both tails, with the retrained models as the reference."""
    rows: list[figures.RateRow] = []
    for s in result.subjects:
        h, group = headline(result, s), phrases.plain(s.name, 40)
        for label, role, e, hollow in (
            ("after", "after", h.after, False),
            ("over-forgotten", "after", h.over, True),
            ("retrained", "retrained", h.retrained, False),
        ):
            if e.value is not None:
                rows.append(_rate_row(label, role, e, group=group, hollow=hollow))  # type: ignore[arg-type]
    if not rows or len(result.subjects) < 2:
        return None
    first = result.subjects[0]
    h, bound = headline(result, first), _bound(result, first)
    at = "" if h.fpr is None else f" at {phrases.percent(h.fpr)} FPR"
    over = [s.name for s in result.subjects if s.verdict.word == "OUTSIDE BOUND"]
    title = f"Leakage{at}: {len(over)} of {len(result.subjects)} subjects lie outside their bounds"
    table = tuple((row.group, row.label, row.text) for row in rows)
    return Drawn(
        "overview", title,
        f"True positive rate of {h.attack} after deletion, both tails (open marker: over-forgotten), beside models "
        "that were retrained without the records. Lines are two-sided intervals.",
        svg.inline(svg.svg(lambda: figures.rates(rows, bound=bound)), key="overview", alt=alt.rates_alt(rows, bound)),
        ("subject", "models", "rate"), table,
    )  # fmt: skip
