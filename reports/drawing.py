"""From one subject's findings to the figures of a page, with title, caption, alt text and data."""

from collections.abc import Callable, Collection

from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import alt, figures, phrases
from mnemoscope.reports.drawing_inner import (
    by_class,
    composition,
    equivalence,
    lineage,
    pareto,
    record_map,
    sensitivity,
)
from mnemoscope.reports.drawn import Drawn, made
from mnemoscope.reports.facts import ROLE_ORDER, headline
from mnemoscope.reports.figure_rows import (
    bound_rows,
    groups_of,
    primary_bound,
    rate_row,
    rate_rows,
    roc_lines,
    score_panels,
)

__all__ = [
    "Drawn",
    "all_figures",
    "by_class",
    "composition",
    "equivalence",
    "lineage",
    "overview",
    "pareto",
    "record_map",
    "sensitivity",
    "subject_figures",
]

TABLE_ROWS = 12


def _rates(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    h, bound = headline(result, subject), primary_bound(subject)
    rows = rate_rows(result, subject)
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
    known: dict[str, Estimate] = {role: h.of(role) for role in ROLE_ORDER if h.of(role).value is not None}
    estimates = {**known, **({"after, over-forgotten tail": h.over} if len(rows) > len(known) else {})}
    method = "; ".join(dict.fromkeys(e.ci.method for e in estimates.values() if e.ci is not None)) or "not given"
    return made(
        key, title, f"True positive rates of the primary attack in the {h.game} game; lines are intervals ({method}).",
        lambda: figures.rates(rows, bound=bound),
        alt=alt.rates_alt(rows, bound), section="S7", head=("models", "records picked out"),
        rows=tuple((name, phrases.estimate(e)) for name, e in estimates.items()),
        columns=("models", "tpr", "low", "high", "k", "n", "fpr", "bound"),
        values=tuple((n, e.value, e.low, e.high, e.k, e.n, h.fpr, bound) for n, e in estimates.items()),
    )  # fmt: skip


def _roc(result: AuditResult, subject: Subject, key: str, attack: str | None = None) -> Drawn | None:
    lines = roc_lines(result, subject, attack)
    if not lines:
        return None
    alpha, name = result.plan.alpha, result.plan.primary_attack if attack is None else attack
    step = max(1, len(lines[0].fpr) // TABLE_ROWS)
    rows = tuple(
        (
            x.role,
            phrases.percent(x.fpr[i]),
            phrases.percent(x.tpr[i]),
            f"{phrases.percent(x.low[i], unit=False)} to {phrases.percent(x.high[i])}",
        )
        for x in lines
        for i in range(0, len(x.fpr), step)
    )
    groups = groups_of(result)
    caption = (
        f"{groups[0].capitalize()} (n = {lines[0].n_in:,}) against {groups[1]} (n = {lines[0].n_out:,}) trials, "
        "residual tail; bands are pointwise 95 % intervals. Left of 8/n the false positive rate is not known well "
        "enough (grey). Chance is the diagonal."
    )
    return made(
        key, f"ROC of {name}" + _reading(lines, alpha), caption,
        lambda: figures.roc(lines, alpha=alpha, groups=groups),
        alt=alt.roc_alt(lines, alpha), section="S7", head=("models", "FPR", "TPR", "band"), rows=rows,
        columns=("models", "fpr", "tpr", "low", "high", "n_in", "n_out"),
        values=tuple(
            (x.role, x.fpr[i], x.tpr[i], x.low[i], x.high[i], x.n_in, x.n_out)
            for x in lines
            for i in range(len(x.fpr))
        ),
    )  # fmt: skip


def _reading(lines: list[figures.RocLine], alpha: float | None) -> str:
    """What the curves say at the marked rate; "" where none is marked."""
    if alpha is None:
        return ", both axes logarithmic"
    return f" at {phrases.percent(alpha)} FPR: " + ", ".join(f"{x.role} {phrases.percent(x.at(alpha))}" for x in lines)


def _distributions(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    panels, groups = score_panels(result, subject), groups_of(result)
    if not panels:
        return None
    bins = [(p, i) for p in panels for i in range(len(p.in_counts)) if p.in_counts[i] or p.out_counts[i]]
    return made(
        key, f"Scores of {result.plan.primary_attack} for {groups[0]} and {groups[1]} trials",
        "Share of each group in each bin; where both outlines lie on each other, the attack sees no difference.",
        lambda: figures.distributions(panels, groups=groups)[0],
        alt=alt.distributions_alt(panels, groups), section="S7", head=("models", "score", "in", "out"),
        rows=tuple(
            (p.role, f"{p.edges[i]:.2f} to {p.edges[i + 1]:.2f}", f"{p.in_counts[i]:,}", f"{p.out_counts[i]:,}")
            for p, i in bins
        ),
        columns=("models", "from", "to", "in", "out"),
        values=tuple((p.role, p.edges[i], p.edges[i + 1], p.in_counts[i], p.out_counts[i]) for p, i in bins),
    )  # fmt: skip


def _bounds(subject: Subject, key: str) -> Drawn | None:
    rows = bound_rows(subject)
    if not rows:
        return None
    beyond = [row.label for row in rows if row.outcome == "beyond"]
    open_ = [row.label for row in rows if row.outcome == "undecided"]
    title = (
        f"Beyond its bound: {', '.join(beyond)}" if beyond
        else f"Undecided: {', '.join(open_)}" if open_
        else "Every endpoint lies within its bound"
    )  # fmt: skip
    asked = [e for e in subject.endpoints if e.primary or not e.attack]
    return made(
        key, title,
        "Each endpoint of the primary attack in units of its own bound; hatched = beyond it. An interval that reaches "
        "the hatched part is not within bound; one wholly in it is beyond. An arrow marks a value off the scale.",
        lambda: figures.against_bounds(rows),
        alt=alt.bounds_alt(rows), section="S7", head=("endpoint", "estimate", "bound", "outcome"),
        rows=tuple(
            (f"{e.id} {e.part}", phrases.estimate(e.estimate, phrases.kind_of(e)), phrases.bound(e), e.outcome)
            for e in asked
        ),
        columns=("endpoint", "part", "value", "low", "high", "k", "n", "bound", "outcome"),
        values=tuple(
            (e.id, e.part, e.estimate.value, e.estimate.low, e.estimate.high, e.estimate.k, e.estimate.n, e.bound,
             e.outcome)
            for e in asked
        ),
    )  # fmt: skip


def subject_figures(
    result: AuditResult, subject: Subject, number: int, *, only: Collection[str] | None = None
) -> list[Drawn]:
    """Draw everything there is data for in one subject.

    Args:
        result: the whole result.
        subject: one of its subjects.
        number: its number, part of each figure's key.
        only: names of the figures that are wanted, the last parts of their keys; None = all: "bounds", "equivalence",
            "rates", "roc", "scores" (section S7), "map" (S8), "classes" (S9), "sensitivity" (S12), "lineage" (S5).
    """
    makers: dict[str, Callable[[str], Drawn | None]] = {
        "bounds": lambda key: _bounds(subject, key),
        "equivalence": lambda key: equivalence(subject, key),
        "rates": lambda key: _rates(result, subject, key),
        "roc": lambda key: _roc(result, subject, key),
        "scores": lambda key: _distributions(result, subject, key),
        "map": lambda key: record_map(subject, key),
        "classes": lambda key: by_class(result, subject, key),
        "sensitivity": lambda key: sensitivity(subject, key),
        "lineage": lambda key: lineage(result, subject, key),
    }
    drawn = (make(f"s{number}-{name}") for name, make in makers.items() if only is None or name in only)
    return [figure for figure in drawn if figure is not None]


def overview(result: AuditResult) -> Drawn | None:
    """Draw the leakage of all subjects side by side, both tails, with the retrained models as the reference (S0)."""
    rows: list[figures.RateRow] = []
    for s in result.subjects:
        h, group = headline(result, s), phrases.plain(s.name, 40)
        for label, role, e, hollow in (
            ("after", "after", h.after, False),
            ("over-forgotten", "after", h.over, True),
            ("retrained", "retrained", h.retrained, False),
        ):
            if e.value is not None:
                rows.append(rate_row(label, role, e, group=group, hollow=hollow))  # type: ignore[arg-type]
    if not rows or len(result.subjects) < 2:
        return None
    first = result.subjects[0]
    h, bound = headline(result, first), primary_bound(first)
    at = "" if h.fpr is None else f" at {phrases.percent(h.fpr)} FPR"
    over = [s.name for s in result.subjects if s.verdict.word == "OUTSIDE BOUND"]
    return made(
        "overview", f"Leakage{at}: {len(over)} of {len(result.subjects)} subjects lie outside their bounds",
        f"True positive rate of {h.attack} after deletion, both tails (open marker: over-forgotten), beside models "
        "that were retrained without the records. Lines are two-sided intervals.",
        lambda: figures.rates(rows, bound=bound),
        alt=alt.rates_alt(rows, bound), section="S0", head=("subject", "models", "rate"),
        rows=tuple((row.group, row.label, row.text) for row in rows),
        columns=("subject", "models", "tpr", "low", "high", "fpr", "bound"),
        values=tuple((row.group, row.label, row.value, row.low, row.high, h.fpr, bound) for row in rows),
    )  # fmt: skip


def all_figures(result: AuditResult) -> list[Drawn]:
    """Draw everything there is data for: of the whole result first, then subject by subject."""
    whole = [overview(result), composition(result), *pareto(result)]
    inner = [f for i, s in enumerate(result.subjects, 1) for f in subject_figures(result, s, i)]
    return [*(f for f in whole if f is not None), *inner]
