"""A league table of deletion methods, from the results of their audits: ranks with intervals, ties shown as ties.

What a method leaves behind is what the strongest attack finds, and which attack that is, is not known beforehand: the
largest of k rates lies between the largest lower and the largest upper limit of k simultaneous intervals. Whoever runs
the audits sets their interval level accordingly (``simultaneous_level``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.result import AuditResult, Endpoint, Finding, Measured, Subject, Tail

__all__ = ["LeagueEntry", "LeagueRow", "LeagueTable", "league_table", "simultaneous_level"]

UTILITY = ("forget", "retain", "test")
"""Records on which accuracy is compared with retrained models: FA (100 % minus UA), RA and TA of the literature."""

UNFIT = "not fit for use"

DECIMALS = 12
"""Of means over seeds: what differs beyond is rounding, and would be printed as a sign."""


NONE = Estimate(None, reason="not measured")


@dataclass(frozen=True)
class LeagueEntry:
    """One audit of the league.

    Attributes:
        forget: kind of forget set.
        seed: of the audit.
        result: what it found.
    """

    forget: str
    seed: int
    result: AuditResult


@dataclass(frozen=True)
class LeagueRow:
    """One method on one kind of forget set, over all seeds. Rates and accuracies in [0, 1].

    Attributes:
        forget: kind of forget set.
        subject: its name in the plan.
        method: its registered name.
        strongest: the attack with the highest TPR on the forgotten records after deletion, over seeds.
        tpr: that TPR at ``fpr``, with simultaneous limits over all attacks.
        fpr: the false positive rate; None where the counts bear none.
        over_forgotten: the same in the other tail: how many stand out as *less* known than never-seen records.
        retained: rise of the retained records' TPR over retrained models (P4).
        gap: mean absolute difference to retrained models of the accuracies on forgotten, retained and test records.
        test: test accuracy minus that of retrained models.
        cost: seconds of a deletion as a fraction of retraining.
        words: verdict of each seed; empty where the league withholds them.
        measured: measures of each audit, values and floors averaged over seeds.
        fit: False where the models are not fit for use after it.
        reading: known from an abstract alone; never ranked.
        reference: exact retraining, which the others are measured against.
        rank: first and last place that the intervals allow, among ranked methods; None where it is not ranked. What
            counts is the worse tail, for a record that stands out as forgotten is found like one that is still known,
            and the distance of the AUC from one half: one method is placed before another where the limits say that
            it is better in one of the two, and the estimates do not say that it is worse in the other.
        unranked: why not.
        auc: of the attack whose AUC, forgotten against never-seen records, lies farthest from one half, with limits
            that are simultaneous over all attacks.
    """

    forget: str
    subject: str
    method: str
    strongest: str
    tpr: Estimate
    fpr: float | None
    over_forgotten: Estimate
    retained: Estimate
    gap: Estimate
    test: Estimate
    cost: float | None
    words: tuple[str, ...]
    fit: bool
    reading: bool
    reference: bool
    measured: tuple[Measured, ...] = ()
    rank: tuple[int, int] | None = None
    unranked: str = ""
    auc: Estimate = NONE


@dataclass(frozen=True)
class LeagueTable:
    """All rows, best first within each kind of forget set.

    Attributes:
        title: of the plan.
        mode: "procedure" or "one-model".
        data: name of the data set.
        digest: of the plan.
        seeds: roots of randomness.
        attacks: all that were run.
        level: joint confidence of the limits on the strongest attack.
        rows: the table.
        results: file of each audit, relative to the table's.
        notes: what the reader must know, and which methods have no row, and why.
    """

    title: str
    mode: str
    data: str
    digest: str
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    level: float
    rows: tuple[LeagueRow, ...]
    results: tuple[str, ...]
    notes: tuple[str, ...] = ()


def simultaneous_level(level: float, attacks: int) -> float:
    """Return the level that each of the attacks' intervals needs for a joint one (Bonferroni).

    >>> round(simultaneous_level(0.95, 10), 3)
    0.995
    """
    return 1 - (1 - level) / max(1, attacks)


def league_table(
    entries: Sequence[LeagueEntry],
    *,
    title: str,
    digest: str,
    level: float,
    readings: frozenset[str] = frozenset(),
    references: frozenset[str] = frozenset(),
    results: Sequence[str] = (),
    notes: Sequence[str] = (),
    verdicts: bool = True,
) -> LeagueTable:
    """Make the table.

    Args:
        entries: audits of the same subjects, their limits made joint over all attacks, both tails and the AUC.
        title: of the plan.
        digest: of the plan.
        level: joint confidence of the limits.
        readings: methods that are never ranked, being known from an abstract alone.
        references: methods that the others are measured against.
        results: file of each audit.
        notes: what the reader must know.
        verdicts: False leaves the audits' words out.
    """
    rows: list[LeagueRow] = []
    for forget in dict.fromkeys(entry.forget for entry in entries):
        chosen = [entry for entry in entries if entry.forget == forget]
        # What a method could not do on one seed stands in that audit, and a mean over the others would flatter it.
        names = [s.name for s in chosen[0].result.subjects if len(_named(chosen, s.name)) == len(chosen)]
        made = [_row(forget, name, chosen, readings, references) for name in names]
        every = {f.attack for entry in chosen for s in entry.result.subjects for f in _after(s)}
        failed: dict[str, list[str]] = {}
        for name in names:
            run = [{f.attack for f in _after(subject)} for subject in _named(chosen, name)]
            failed[name] = sorted(attack for attack in every if not all(attack in one for one in run))
        rows += _ranked(made if verdicts else [replace(row, words=()) for row in made], failed)
    first = entries[0].result
    missing = [
        f"No row: {left.what}, seed {entry.seed}: {left.why}"
        for entry in entries
        for left in entry.result.not_run
        if left.what.endswith(f" on {entry.forget}")
    ]
    return LeagueTable(
        title,
        first.mode,
        first.data.name,
        digest,
        tuple(dict.fromkeys(entry.seed for entry in entries)),
        first.plan.attacks,
        level,
        tuple(rows),
        tuple(results),
        (*notes, *missing),
    )


def _row(
    forget: str, name: str, entries: Sequence[LeagueEntry], readings: frozenset[str], references: frozenset[str]
) -> LeagueRow:
    found = [(e.result, next(s for s in e.result.subjects if s.name == name)) for e in entries]
    subjects = [subject for _, subject in found]
    strongest, tpr = _strongest(found, "residual")
    _, over = _strongest(found, "over-forgotten")
    method = subjects[0].method
    costs = [s.cost_fraction_of_retraining for s in subjects if s.cost_fraction_of_retraining is not None]
    return LeagueRow(
        forget=forget,
        subject=name,
        method=method,
        strongest=strongest,
        tpr=tpr,
        fpr=found[0][0].plan.alpha,
        over_forgotten=over,
        retained=_mean([_endpoint(s, "P4") for s in subjects]),
        gap=_mean([_accuracy_gap(s) for s in subjects]),
        test=_mean([_gap_on(s, "test") or _gap_on(s, "holdout") or NONE for s in subjects]),
        cost=float(np.mean(costs)) if costs else None,
        words=tuple(s.verdict.word for s in subjects),
        fit=not any(UNFIT in flag for s in subjects for flag in s.verdict.flags),
        reading=method in readings,
        reference=method in references,
        measured=_measures(subjects),
        auc=_farthest([[(f.attack, f.auc) for f in _after(subject)] for subject in subjects]),
    )


REACH = 2.0
"""Realised false positive rates farther from alpha than by this factor are not rates at alpha (as of gate G3)."""


def _measures(subjects: Sequence[Subject]) -> tuple[Measured, ...]:
    """Average what every seed measured."""
    rows = []
    for first in subjects[0].measured:
        same = [row for subject in subjects for row in subject.measured if row.measure == first.measure]
        if len(same) == len(subjects):
            value, floor = _mean([row.value for row in same]), _mean([row.floor for row in same])
            rows.append(replace(first, value=value, floor=floor, excess=None, no_op=None))
    return tuple(rows)


def _named(entries: Sequence[LeagueEntry], name: str) -> list[Subject]:
    return [subject for entry in entries for subject in entry.result.subjects if subject.name == name]


def _after(subject: Subject) -> list[Finding]:
    return [f for f in subject.findings if f.game == "forgetting" and f.models == "after"]


def _strongest(found: Sequence[tuple[AuditResult, Subject]], tail: Tail) -> tuple[str, Estimate]:
    """The attack with the highest rate over seeds, and the highest rate of all with simultaneous limits."""
    by_attack: dict[str, list[Estimate]] = {}
    for result, subject in found:
        for finding in _after(subject):
            by_attack.setdefault(finding.attack, []).append(_at(finding, result.plan.alpha, tail))
    whole = {name: [r for r in rates if r.value is not None] for name, rates in by_attack.items()}
    whole = {name: rates for name, rates in whole.items() if len(rates) == len(found)}
    if not whole:
        return "", NONE
    means = {name: _mean(rates) for name, rates in whole.items()}
    name = max(means, key=lambda one: means[one].value or 0.0)
    low = max(mean.low or 0.0 for mean in means.values())
    high = max(1.0 if mean.high is None else mean.high for mean in means.values())
    best = means[name]
    value = best.value or 0.0
    return name, Estimate(value, _interval(min(low, value), max(high, value), best), n=best.n)


def _farthest(seeds: Sequence[Sequence[tuple[str, Estimate]]]) -> Estimate:
    """The AUC farthest from one half, meaned over seeds, with limits of the distance that hold for all attacks."""
    by_attack: dict[str, list[Estimate]] = {}
    for found in seeds:
        for attack, auc in found:
            by_attack.setdefault(attack, []).append(auc)
    means = [_mean(aucs) for aucs in by_attack.values() if len(aucs) == len(seeds)]
    means = [mean for mean in means if mean.value is not None]
    if not means:
        return NONE
    best = max(means, key=lambda mean: abs((mean.value or 0.0) - 0.5))
    if best.ci is None:
        return best
    value, distances = best.value or 0.0, [_distance(mean) for mean in means]
    near, far = (max(ends) for ends in zip(*distances, strict=True))
    near, far = min(near, abs(value - 0.5)), max(far, abs(value - 0.5))
    if near == 0:
        low, high = 0.5 - far, 0.5 + far  # which side it lies on is open
    else:
        low, high = (0.5 + near, 0.5 + far) if value > 0.5 else (0.5 - far, 0.5 - near)
    return Estimate(value, _interval(low, high, best), n=best.n)


def _distance(auc: Estimate) -> tuple[float, float]:
    """Least and largest distance from one half that the limits allow."""
    if auc.low is None or auc.high is None:
        return 0.0, 0.5
    ends = abs(auc.low - 0.5), abs(auc.high - 0.5)
    return (0.0 if auc.low <= 0.5 <= auc.high else min(ends)), max(ends)


def _at(finding: Finding, alpha: float | None, tail: Tail) -> Estimate:
    """The rate at alpha; none where ties keep every threshold away from it: what flags nobody finds nobody."""
    for rate in finding.tpr:
        if rate.tail == tail and alpha is not None and abs(rate.fpr - alpha) < 1e-9:
            realised = rate.realised_fpr.value
            if realised is None or not alpha / REACH <= realised <= alpha * REACH:
                return Estimate(None, reason="no threshold of this attack comes near the false positive rate")
            return rate.tpr
    return NONE


def _endpoint(subject: Subject, number: str) -> Estimate:
    found: Endpoint | None = next((e for e in subject.endpoints if e.id == number), None)
    return NONE if found is None else found.estimate


def _gap_on(subject: Subject, records: str) -> Estimate | None:
    for utility in subject.utility:
        if utility.records == records and utility.models == "after":
            return utility.gap_to_retrained
    return None


def _accuracy_gap(subject: Subject) -> Estimate:
    """Mean absolute gap; its limits are the means of the nearest and farthest absolute values of each interval."""
    gaps = [gap for records in UTILITY if (gap := _gap_on(subject, records)) is not None and gap.value is not None]
    if not gaps:
        return NONE
    value = float(np.mean([abs(gap.value or 0.0) for gap in gaps]))
    if any(gap.low is None or gap.high is None for gap in gaps):
        return Estimate(value, n=gaps[0].n)
    ends = [(gap.low or 0.0, gap.high or 0.0) for gap in gaps]
    near = float(np.mean([0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in ends]))
    far = float(np.mean([max(abs(low), abs(high)) for low, high in ends]))
    return Estimate(value, _interval(near, far, gaps[0]), n=gaps[0].n)


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over seeds; the mean of the limits, which is wider than an interval of the mean need be."""
    known = [e for e in estimates if e.value is not None]
    if len(known) < len(estimates) or not known:
        return next((e for e in estimates if e.value is None), NONE)
    value = round(float(np.mean([e.value for e in known if e.value is not None])), DECIMALS) + 0.0
    if any(e.low is None or e.high is None for e in known):
        return Estimate(value, n=known[0].n)
    low, high = (float(np.mean([getattr(e, end) for e in known])) for end in ("low", "high"))
    return Estimate(value, _interval(low, high, known[0]), n=sum(e.n or 0 for e in known) or None)


def _interval(low: float, high: float, like: Estimate) -> Interval | None:
    if like.ci is None:
        return None
    return Interval(low, high, like.ci.level, like.ci.sides, like.ci.method)


def _ranked(rows: list[LeagueRow], failed: Mapping[str, Sequence[str]]) -> list[LeagueRow]:
    """Sort by what the strongest attack finds in the worse tail, and give each the places that its intervals allow."""

    def why_not(row: LeagueRow) -> str:
        if row.reference:
            return "reference"
        if row.reading:
            return "our reading of an abstract"
        if not row.fit:
            return UNFIT
        if failed[row.subject]:
            return f"{', '.join(failed[row.subject])} could not be run on it"
        tails = (row.tpr, row.over_forgotten)
        return "" if all(tail.value is not None and tail.ci is not None for tail in tails) else "not measured"

    able = [row for row in rows if not why_not(row)]

    def worse_tail(row: LeagueRow, end: str) -> float:
        return max(getattr(tail, end) or 0.0 for tail in (row.tpr, row.over_forgotten))

    def off_half(row: LeagueRow) -> float:
        return 0.0 if row.auc.value is None else abs(row.auc.value - 0.5)

    def safer(one: LeagueRow, other: LeagueRow) -> bool:
        """Whether one is certainly better in a tail or in the bulk, and by the estimates worse in neither.

        Were it "certainly worse in neither", wider intervals would make an order of what narrow ones show to be a tie.
        """
        if worse_tail(one, "value") > worse_tail(other, "value") or off_half(one) > off_half(other):
            return False
        return worse_tail(one, "high") < worse_tail(other, "low") or _distance(one.auc)[1] < _distance(other.auc)[0]

    def places(row: LeagueRow) -> tuple[int, int]:
        return 1 + sum(safer(other, row) for other in able), len(able) - sum(safer(row, other) for other in able)

    marked = [replace(row, rank=None if (reason := why_not(row)) else places(row), unranked=reason) for row in rows]
    return sorted(marked, key=lambda row: (row.tpr.value is None, worse_tail(row, "value"), row.subject))
