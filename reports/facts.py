"""What a reader asks first, picked from a result: nothing is computed here that the result does not hold."""

import math
from dataclasses import dataclass

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.result import (
    AuditResult,
    Check,
    Curve,
    EpsilonRow,
    Finding,
    ModelRole,
    RequestRow,
    Subject,
    Tail,
    TprAt,
    Utility,
)

__all__ = [
    "Headline",
    "accuracy",
    "both_versions",
    "by_subject",
    "claims",
    "gap",
    "headline",
    "main_game",
    "next_step",
    "request_of",
    "primary_curves",
    "sanity_checks",
    "tpr_at",
]

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Headline:
    """The counts behind one subject's word.

    Attributes:
        game: game of the rates.
        attack: the primary attack.
        fpr: FPR of the rates; None when no finding carries one.
        after: TPR in the residual tail (of the before model in a membership audit).
        over: TPR in the over-forgotten tail.
        before, retrained, no_op: the same attack's residual TPR on the other models.
    """

    game: str
    attack: str
    fpr: float | None
    after: Estimate
    over: Estimate
    before: Estimate
    retrained: Estimate
    no_op: Estimate

    def of(self, role: ModelRole) -> Estimate:
        """The residual rate of one set of models."""
        return {"after": self.after, "before": self.before, "retrained": self.retrained, "no-op": self.no_op}[role]


def main_game(result: AuditResult) -> str:
    """The game that answers the audit's question."""
    return "membership" if result.mode == "membership" else "forgetting"


def main_role(result: AuditResult) -> ModelRole:
    """The models that are judged: there is only one, "before", in a membership audit."""
    return "before" if result.mode == "membership" else "after"


def _find(subject: Subject, attack: str, game: str, models: ModelRole) -> Finding | None:
    hits = (f for f in subject.findings if f.attack == attack and f.game == game and f.models == models)
    return next(hits, None)


def _rates(subject: Subject, attack: str, game: str, models: ModelRole, tail: Tail) -> list[TprAt]:
    finding = _find(subject, attack, game, models)
    if finding is None and game == "forgetting" and models == "before":
        finding = _find(subject, attack, "membership", models)
    return [] if finding is None else [t for t in finding.tpr if t.tail == tail]


def tpr_at(
    subject: Subject, attack: str, game: str, models: ModelRole, fpr: float | None, tail: Tail = "residual"
) -> Estimate:
    """The TPR of one attack, game and set of models at an FPR; a missing one says that it was not measured.

    For "before" in the forgetting game the membership game on the before models stands in, which is the same question.
    """
    for rate in _rates(subject, attack, game, models, tail):
        if fpr is not None and math.isclose(rate.fpr, fpr, rel_tol=1e-9):
            return rate.tpr
    return Estimate(None, reason=NOT_MEASURED)


def headline_fpr(result: AuditResult, subject: Subject) -> float | None:
    """The plan's alpha, else the smallest FPR that the primary attack's counts carry (not grey)."""
    if result.plan.alpha is not None:
        return result.plan.alpha
    rates = _rates(subject, result.plan.primary_attack, main_game(result), main_role(result), "residual")
    carried = [rate.fpr for rate in rates if rate.tpr.value is not None and not rate.grey]
    return min(carried, default=None)


def headline(result: AuditResult, subject: Subject) -> Headline:
    """Pick the rates of the primary attack at the plan's alpha."""
    attack, game, fpr = result.plan.primary_attack, main_game(result), headline_fpr(result, subject)
    judged = main_role(result)
    after = tpr_at(subject, attack, game, judged, fpr)
    over = tpr_at(subject, attack, game, judged, fpr, "over-forgotten")
    after = _that_decided(after, _endpoint_rate(subject, attack, "residual"))
    over = _that_decided(over, _endpoint_rate(subject, attack, "over-forgotten"))
    before, retrained, no_op = (
        _or_on_curve(tpr_at(subject, attack, game, role, fpr), subject, attack, game, role, fpr)
        for role in ("before", "retrained", "no-op")
    )
    return Headline(game, attack, fpr, after, over, before, retrained, no_op)


def _or_on_curve(
    found: Estimate, subject: Subject, attack: str, game: str, models: ModelRole, fpr: float | None
) -> Estimate:
    """The finding, else the recorded curve at this FPR: results of earlier releases list fewer rates than they draw."""
    if fpr is None or found.value is not None or found.reason != NOT_MEASURED:
        return found
    games = (game, "membership") if (game, models) == ("forgetting", "before") else (game,)
    for name in games:
        for c in subject.curves:
            if (c.attack, c.game, c.models) == (attack, name, models):
                below = [i for i, x in enumerate(c.fpr) if x <= fpr * (1 + 1e-9)]
                if below:
                    i = below[-1]
                    band = Interval(c.low[i], c.high[i], 0.95, "two", "pointwise band of the curve")
                    return Estimate(c.tpr[i], band, n=c.n_in)
    return found


def _that_decided(found: Estimate, decided: Estimate | None) -> Estimate:
    """The finding, unless the endpoint counted at another threshold: the word rests on the endpoint's counts."""
    return found if decided is None or (found.value is not None and found.k == decided.k) else decided


def _endpoint_rate(subject: Subject, attack: str, tail: str) -> Estimate | None:
    for e in subject.endpoints:
        if e.id == "P1" and e.attack == attack and tail in e.part and e.estimate.k is not None:
            return e.estimate
    return None


def _utility(subject: Subject, records: str, models: ModelRole) -> Utility | None:
    return next((u for u in subject.utility if u.records == records and u.models == models), None)


def accuracy(subject: Subject, records: str, models: ModelRole) -> Estimate:
    """Accuracy of one set of models on one set of records."""
    found = _utility(subject, records, models)
    return Estimate(None, reason=NOT_MEASURED) if found is None else found.accuracy


def by_subject(result: AuditResult) -> list[list[RequestRow]]:
    """The rows of requests one after another, grouped by subject, in the order in which they come."""
    names = dict.fromkeys(row.subject for row in result.requests)
    return [[row for row in result.requests if row.subject == name] for name in names]


def request_of(result: AuditResult, subject: Subject) -> RequestRow | None:
    """The row of the request after which a subject was audited; None where there was one request."""
    return next((row for row in result.requests if row.audit == subject.name), None)


def claims(subject: Subject) -> list[EpsilonRow]:
    """The bounds beside which somebody claims an epsilon."""
    return [row for row in subject.epsilons if row.claimed is not None]


def both_versions(subject: Subject) -> tuple[Finding, Finding | None] | None:
    """What the first attack that reads both versions finds of never-seen records, and of retrained models beside it."""
    after = next((f for f in subject.findings if f.game == "difference-never" and f.models == "after"), None)
    return None if after is None else (after, _find(subject, after.attack, after.game, "retrained"))


def gap(subject: Subject, records: str = "test") -> Estimate:
    """Accuracy of the after models minus that of the retrained ones, on test records where there are any."""
    for name in dict.fromkeys((records, "test", "holdout")):
        found = _utility(subject, name, "after")
        if found is not None and found.gap_to_retrained is not None:
            return found.gap_to_retrained
    return Estimate(None, reason="no retrained model")


def next_step(subject: Subject) -> str:
    """What would decide it, without the heading that some verdicts repeat."""
    return subject.verdict.next_step.removeprefix("What would decide it: ")


def sanity_checks(result: AuditResult) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The pre-flight checks in two groups: on the records, and on the sanity of accuracies."""
    sanity = tuple(c for c in result.data.checks if any(w in c.id.lower() for w in ("sanity", "accuracy")))
    return tuple(c for c in result.data.checks if c not in sanity), sanity


ROLE_ORDER: tuple[ModelRole, ...] = ("no-op", "before", "after", "retrained")


def primary_curves(result: AuditResult, subject: Subject, attack: str | None = None) -> list[Curve]:
    """The curves of one attack in the audit's game, one for each set of models."""
    name = result.plan.primary_attack if attack is None else attack
    chosen: list[Curve] = []
    for role in ROLE_ORDER:
        for game in (main_game(result), "membership" if role == "before" else ""):
            hit = next((c for c in subject.curves if c.attack == name and c.game == game and c.models == role), None)
            if hit is not None:
                chosen.append(hit)
                break
    return chosen
