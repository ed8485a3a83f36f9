"""Figures of what lies behind a word: equivalence, classes, single records, other rules, models, trade-offs."""

from collections.abc import Sequence

from mnemoscope.audit.verdict.result import AuditResult, Subject
from mnemoscope.reports import alt_inner, figures, phrases
from mnemoscope.reports.drawn import Drawn, made
from mnemoscope.reports.facts import headline
from mnemoscope.reports.figure_rows import (
    STANDS_OUT,
    VARIED,
    class_bars,
    cost_points,
    equivalence_rows,
    grid_cells,
    lineage_boxes,
    primary_bound,
    set_bars,
    utility_points,
    worst_rate,
)

__all__ = ["by_class", "composition", "equivalence", "lineage", "pareto", "record_map", "sensitivity"]


def equivalence(subject: Subject, key: str) -> Drawn | None:
    """Draw the differences from retrained models (S7); None where there are none that decide."""
    rows = equivalence_rows(subject)
    if not rows:
        return None
    beyond, open_ = ([r for r in rows if r.outcome == word] for word in ("beyond", "undecided"))
    equal = len(rows) - len(beyond) - len(open_)
    title = f"{equal} of {len(rows)} differences from retrained models lie within their margins"
    if beyond:
        title += f"; beyond: {', '.join(_bare(r.label) for r in beyond)}"
    asked = [e for e in subject.endpoints if e.id == "P2" and e.primary and e.bound]
    ci = asked[0].estimate.ci
    level, method = ("90 %", "not given") if ci is None else (f"{100 * ci.level:.4g} %", ci.method)
    n = "" if asked[0].estimate.n is None else f", n = {asked[0].estimate.n:,}"
    return made(
        key, title,
        f"After deletion minus retrained models on the same records{n}; lines are {level} intervals ({method}). Two "
        "one-sided tests call a difference equal where its whole interval lies in the shaded zone. An arrow marks a "
        "value off the scale.",
        lambda: figures.equivalence(rows),
        alt=alt_inner.equivalence_alt(rows), section="S7", head=("difference", "estimate", "margin", "outcome"),
        rows=tuple(
            (e.part, phrases.estimate(e.estimate, phrases.kind_of(e)), phrases.bound(e), e.outcome) for e in asked
        ),
        columns=("part", "value", "low", "high", "margin", "outcome"),
        values=tuple((e.part, e.estimate.value, e.estimate.low, e.estimate.high, e.bound, e.outcome) for e in asked),
    )  # fmt: skip


def _bare(label: str) -> str:
    return label.partition(" (")[0]


def record_map(subject: Subject, key: str) -> Drawn | None:
    """Draw records by their place before against after deletion (S8); None where it was not counted."""
    table = subject.record_map
    if table is None:
        return None
    shown = table.n_records - table.hidden
    low = sum(sum(row[:i]) for i, row in enumerate(table.counts))
    title = f"{low:,} of {shown:,} records fall to a lower place, by these bins"
    hidden = f" {table.hidden:,} records in cells too small to show are left out." if table.hidden else ""
    cells = [(i, j, count) for i, row in enumerate(table.counts) for j, count in enumerate(row) if count]
    most = sorted(cells, key=lambda cell: -cell[2])[:MOST_CELLS]

    def span(i: int) -> str:
        return f"{table.edges[i]:.2f} to {table.edges[i + 1]:.2f}"

    return made(
        key, title,
        f"Each record's mean place among never-seen scores of {table.attack}, over the models that forgot it; "
        f"n = {table.n_records:,} records, a dot's area counts them. 0.5 is the middle of records that no model saw. "
        f"Counts, so there is no interval.{hidden}",
        lambda: figures.record_map(table.edges, table.counts, retrained=table.retrained),
        alt=alt_inner.record_map_alt(table), section="S8", head=("place before", "place after", "records"),
        rows=tuple((span(i), span(j), f"{count:,}") for i, j, count in most),
        columns=("before_from", "before_to", "after_from", "after_to", "records"),
        values=tuple(
            (table.edges[i], table.edges[i + 1], table.edges[j], table.edges[j + 1], count) for i, j, count in cells
        ),
    )  # fmt: skip


MOST_CELLS = 30
"""Rows of the table under the map; all are in the figure's CSV."""


def by_class(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    """Draw leakage class by class (S9); None where it was not counted, or there is one class alone."""
    known = [row for row in subject.by_class if not row.suppressed]
    if not known or len(subject.by_class) < 2:
        return None
    bars, bound = class_bars(subject), primary_bound(subject)
    out = [row for row in known if row.p_value is not None and row.p_value <= STANDS_OUT]
    worst = max(known, key=worst_rate)
    title = (
        f"{len(out)} of {len(known)} classes lie above the bound"
        if out
        else f"No class of {len(known)} is shown to lie above the bound"
    ) + f"; the highest rate is {phrases.percent(worst_rate(worst))} ({phrases.plain(worst.label, 30)})"
    ordered = sorted(subject.by_class, key=lambda row: (-worst_rate(row), row.label))
    more = len(ordered) - len(bars)
    fpr = headline(result, subject).fpr
    at = "" if fpr is None else f" at {phrases.percent(fpr)} FPR"
    ci = known[0].after.ci
    said = f" {more} classes with lower rates are in the data." if more > 0 else ""
    return made(
        key, title,
        f"True positive rate of {result.plan.primary_attack}{at} by class, thresholds of all records; "
        f"n = {sum(row.n_records for row in known):,} records of classes that are shown. Open: the "
        f"over-forgotten tail. Lines are intervals ({ci.method if ci else 'not given'}). Bold: above the bound by a "
        f"test over all classes (Holm, {STANDS_OUT:.0%}); description, no part of the verdict.{said}",
        lambda: figures.by_class(bars, bound=bound),
        alt=alt_inner.by_class_alt(ordered, bound), section="S9",
        head=("class", "records", "after", "over-forgotten", "retrained", "never-seen above the threshold"),
        rows=tuple(
            (phrases.plain(row.label, 60), f"{row.n_records:,}" if row.n_records else "too few", *(
                phrases.estimate(e) for e in (row.after, row.over_forgotten, row.retrained, row.realised_fpr)
            ))
            for row in ordered
        ),
        columns=("class", "records", "tpr", "low", "high", "over_forgotten", "retrained", "retrained_low",
                 "retrained_high", "realised_fpr", "p_holm"),
        values=tuple(
            (row.label, row.n_records or None, row.after.value, row.after.low, row.after.high, row.over_forgotten.value,
             row.retrained.value, row.retrained.low, row.retrained.high, row.realised_fpr.value, row.p_value)
            for row in ordered
        ),
    )  # fmt: skip


def sensitivity(subject: Subject, key: str) -> Drawn | None:
    """Draw the word under other rules (S12); None where it was not decided."""
    rows, cells = subject.sensitivity, grid_cells(subject)
    if not rows:
        return None
    others = [row for row in rows if not row.actual]
    turned = [row for row in others if row.word != subject.verdict.word]
    title = f"{len(others) - len(turned)} of {len(others)} other choices give the same word"
    if turned:
        first = turned[0]
        title += f"; {VARIED[first.varied].lower()} {phrases.plain(first.value, 30)} gives {first.word}"
    notes = list(dict.fromkeys(part for row in rows if row.note for part in row.note.split("; ")))
    starred = f" * {'; '.join(notes)}." if notes else ""
    return made(
        key, title,
        "The word of the same audit at other choices, each decided by the same rules from the same scores; framed: as "
        f"planned. n = {len(others)} other choices. They are no audits of their own: a choice after the scores bears "
        f"no error rate.{starred}",
        lambda: figures.sensitivity(cells),
        alt=alt_inner.sensitivity_alt(rows, subject.verdict.word), section="S12",
        head=("choice", "value", "word", "tier", "note"),
        rows=tuple(
            (VARIED[row.varied], phrases.plain(row.value, 60) + (" (as planned)" if row.actual else ""), row.word,
             row.tier or "none", row.note)
            for row in rows
        ),
        columns=("choice", "value", "word", "tier", "as_planned", "note"),
        values=tuple((row.varied, row.value, row.word, row.tier, int(row.actual), row.note) for row in rows),
    )  # fmt: skip


def lineage(result: AuditResult, subject: Subject, key: str) -> Drawn | None:
    """Draw where the models of one subject come from (S5); None where none are listed."""
    nodes, arrows = lineage_boxes(result, subject)
    if not arrows:
        return None
    counts = {group.role: 0 for group in subject.models}
    for group in subject.models:
        counts[group.role] += group.n_models
    said = ", ".join(f"{n:,} {role}" for role, n in counts.items())
    total = sum(counts.values())
    came = "model comes" if total == 1 else "models come"
    return made(
        key, f"{total:,} {came} from {phrases.plain(result.data.name, 40)}: {said}",
        "What was trained on what, and what was done to it. The first digits of digests are shown: whole ones stand in "
        f"the table of models. n = {result.data.n_records:,} records; nothing here is estimated.",
        lambda: figures.lineage(nodes, arrows),
        alt=alt_inner.lineage_alt(nodes, arrows), section="S5", head=("group", "role", "models", "digest", "made by"),
        rows=tuple(
            (phrases.plain(g.name, 60), g.role, f"{g.n_models:,}", phrases.short_digest(g.digest, 16),
             phrases.plain(g.method or g.description or "not said", 120))
            for g in subject.models
        ),
        columns=("group", "role", "models", "digest", "method", "description"),
        values=tuple((g.name, g.role, g.n_models, g.digest, g.method, g.description) for g in subject.models),
    )  # fmt: skip


def composition(result: AuditResult) -> Drawn | None:
    """Draw how many records play which role (S4); None where the result lists none."""
    sets = set_bars(result)
    if not sets:
        return None
    total = sum(one.count for one in sets)
    largest = sets[0]
    return made(
        "composition", f"{len(sets)} sets of {total:,} records; the largest is {largest.label} ({largest.count:,})",
        f"Records by the role they play in this audit, of n = {result.data.n_records:,} in the data. Counts, so there "
        "is no interval.",
        lambda: figures.composition(sets),
        alt=alt_inner.composition_alt(sets), section="S4", head=("set", "records", "note"),
        rows=tuple((s.role, f"{s.n_records:,}", phrases.plain(s.note, 120)) for s in result.data.sets),
        columns=("set", "records"),
        values=tuple((s.role, s.n_records) for s in result.data.sets),
    )  # fmt: skip


def pareto(result: AuditResult) -> list[Drawn]:
    """Draw leakage against cost and against accuracy over the subjects of one result (S0); none below two subjects."""
    drawn = [_cost(result), _utility(result)] if len(result.subjects) > 1 else []
    return [figure for figure in drawn if figure is not None]


def _attack(result: AuditResult) -> str:
    alpha = result.plan.alpha
    at = "" if alpha is None else f" at {phrases.percent(alpha)} FPR"
    return f"the higher of both tails' rates of {result.plan.primary_attack}{at}"


def _names(labels: Sequence[str]) -> str:
    return ", ".join(labels) if labels else "none is fit for use"


def _cost(result: AuditResult) -> Drawn | None:
    points = cost_points(result)
    if len(points) < 2:
        return None
    best, alpha = [p.label for p in figures.frontier(points)], result.plan.alpha
    return made(
        "pareto-cost", f"No other way is both cheaper and leaks less than: {_names(best)}",
        f"Up: {_attack(result)}, with two-sided intervals; n = {len(points)} ways of deleting. Right: time of a "
        "deletion as a share of retraining. Hollow: not fit for use. The dashed line is chance.",
        lambda: figures.pareto(points, chance=alpha),
        alt=alt_inner.cost_alt(points, best), section="S0", head=("way", "share of retraining", "rate"),
        rows=tuple((p.label, phrases.percent(p.cost), phrases.percent(p.value)) for p in points),
        columns=("way", "cost", "tpr", "low", "high", "fit_for_use"),
        values=tuple((p.label, p.cost, p.value, p.low, p.high, int(p.fit)) for p in points),
    )  # fmt: skip


def _utility(result: AuditResult) -> Drawn | None:
    points = utility_points(result)
    if sum(p.role == "after" for p in points) < 2:
        return None
    lost = result.plan.policy.get("utility_margin")
    margin = float(lost) if isinstance(lost, int | float) and not isinstance(lost, bool) else None
    best, alpha = [p.label for p in figures.useful_frontier(points)], result.plan.alpha
    return made(
        "pareto-utility", f"No other way keeps more accuracy and leaks less than: {_names(best)}",
        f"Up: {_attack(result)}, with two-sided intervals; n = {sum(p.role == 'after' for p in points)} ways of "
        "deleting. Right: accuracy on test records minus that of retrained models; hatched: not fit for use. Retrained "
        "models stand at zero.",
        lambda: figures.utility(points, margin=margin, chance=alpha),
        alt=alt_inner.utility_alt(points, best), section="S0", head=("way", "accuracy minus retrained", "rate"),
        rows=tuple((p.label, phrases.amount(p.utility, "difference"), phrases.percent(p.value)) for p in points),
        columns=("way", "accuracy_minus_retrained", "tpr", "low", "high", "fit_for_use"),
        values=tuple((p.label, p.utility, p.value, p.low, p.high, int(p.fit)) for p in points),
    )  # fmt: skip
