"""Deletion requests one after another: an audit after each, on the models that the requests before left behind."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.procedure import ProcedureAudit
from mnemoscope.audit.verdict.request_rows import RequestRow, audit_name
from mnemoscope.audit.verdict.result import AuditResult, Cost, Subject
from mnemoscope.audit.verdict.successive import SuccessiveRates
from mnemoscope.preparation import PreparedAudit

if TYPE_CHECKING:
    from mnemoscope.audit.models.protocol import UnlearningMethod
    from mnemoscope.audit.work.workspace import ModelRef, Workspace

__all__ = ["RequestChain", "Stage", "after_request", "by_request", "limitations_of", "stages_of"]

TRAINED_AGAIN = "trains again, from new weights, without all records asked for so far"
UNDONE = "undoes training, so it forgets all records asked for so far in the model as it was trained"
CONTINUED = "works on what the request before left behind; it is given the newest request's records alone"


@dataclass(frozen=True, eq=False)
class Stage:
    """The audit after one request.

    Attributes:
        number: of the request, from 1 on.
        total: how many requests.
        prepared: the plan with the design of this request.
    """

    number: int
    total: int
    prepared: PreparedAudit

    def title(self, name: str) -> str:
        """The name of a subject in this stage; its own where there is one request."""
        return audit_name(name, self.number, self.total)

    def costs(self, costs: Sequence[Cost]) -> tuple[Cost, ...]:
        """The costs, with the request in the name of each step."""
        end = self.title("")
        return tuple(cost if cost.step.endswith(end) else replace(cost, step=cost.step + end) for cost in costs)


def stages_of(prepared: PreparedAudit) -> tuple[Stage, ...]:
    """Return a stage for each request of the plan; alpha and its power are the same for all of them."""
    prepared.powers  # noqa: B018  # before the copies, which share what is known by then
    total = prepared.requests.total
    return tuple(Stage(number, total, after_request(prepared, number)) for number in range(1, total + 1))


def after_request(prepared: PreparedAudit, number: int) -> PreparedAudit:
    """Return the plan with the design after one request; what is known of it by now is shared."""
    one = copy.copy(prepared)
    one.design = prepared.requests.step(number)
    return one


def limitations_of(prepared: PreparedAudit) -> tuple[str, ...]:
    """What the reader must know of several requests; nothing where there is one."""
    total = prepared.requests.total
    if total == 1:
        return ()
    return (
        f"Each of the {total} requests is audited by itself: limits and verdicts hold at their level for one request, "
        "not for all of them together. The false positive rate is the same after every request, and the power stated "
        "is the least of them.",
    )


def by_request(result: AuditResult) -> list[tuple[str, AuditResult]]:
    """Return the audits after each request by themselves, subjects named as in the plan.

    Returns:
        ("request 1 of R", its result), and so on; ("", the result) where there is one request.
    """
    if not result.requests:
        return [("", result)]
    audits = {subject.name: subject for subject in result.subjects}
    parts = []
    for number in range(1, result.requests[0].requests + 1):
        rows = [row for row in result.requests if row.request == number]
        subjects = tuple(replace(audits[row.audit], name=row.subject) for row in rows)
        parts.append((f"request {number} of {rows[0].requests}", replace(result, subjects=subjects)))
    return parts


class RequestChain:
    """The models and the rates of every subject, request by request.

    Args:
        prepared: the plan with its requests.
    """

    def __init__(self, prepared: PreparedAudit) -> None:
        self.prepared = prepared
        self._left: dict[str, tuple[ModelRef, ...]] = {}
        self._rates: dict[str, SuccessiveRates] = {}
        self._rows: dict[str, list[RequestRow]] = {}

    @property
    def rows(self) -> tuple[RequestRow, ...]:
        """A row for each subject and request, subject by subject; none where there is one request."""
        return tuple(row for subject in self.prepared.subjects for row in self._rows.get(subject.name, ()))

    def models(
        self, stage: Stage, name: str, method: "UnlearningMethod", workspace: "Workspace"
    ) -> "tuple[ModelRef, ...]":
        """Return the fleet of one subject after a stage's request; stages come in order.

        Args:
            stage: which request.
            name: the subject's name in the plan.
            method: what deletes.
            workspace: of the stage's design.
        """
        from mnemoscope.audit.work.chain import NextRequest
        from mnemoscope.unlearning.retrain import Retrain

        if isinstance(method, Retrain):
            # Exact retraining as a subject is the third fleet: other seeds than the reference, trained like it.
            return workspace.fleet("retrained", replica="C")
        if stage.total == 1 or Need.HISTORY in method.needs:
            return workspace.unlearned(stage.title(name), method)
        requests = self.prepared.requests
        given = self._left.get(name) or workspace.fleet("before")
        forget = tuple(requests.named(ref.index, stage.number) for ref in given)
        self._left[name] = workspace.unlearned(
            stage.title(name), method, request=NextRequest(stage.number, given, forget)
        )
        return self._left[name]

    def add(
        self,
        stage: Stage,
        name: str,
        method: "UnlearningMethod",
        subject: Subject,
        scores: FleetScores,
        audit: ProcedureAudit,
    ) -> None:
        """Add the row of one subject after a stage's request; nothing where there is one request.

        Args:
            stage: which request.
            name: the subject's name in the plan.
            method: what deleted.
            subject: its audit.
            scores: of the primary attack, forgotten so far against never-seen.
            audit: whose retrained fleet stands beside it.
        """
        if stage.total == 1:
            return
        prepared = stage.prepared
        if name not in self._rates:
            numbers = prepared.requests.numbers_of(prepared.design.audited)
            self._rates[name] = SuccessiveRates(numbers, prepared.alpha, prepared.policy.interval_level)
        retrained = audit.shared(audit.primary, "forgetting", "retrained")
        none = Estimate(None, reason="no test records")
        test = next((u for u in subject.utility if (u.records, u.models) == ("test", "after")), None)
        self._rows.setdefault(name, []).append(
            RequestRow(
                subject=name,
                method=method.name,
                request=stage.number,
                requests=stage.total,
                attack=prepared.primary,
                fpr=prepared.alpha,
                **self._rates[name].rates(scores, retrained, stage.number),
                test=none if test is None else test.accuracy,
                test_gap=none if test is None or test.gap_to_retrained is None else test.gap_to_retrained,
                word=subject.verdict.word,
                how=_how(method),
            )
        )


def _how(method: "UnlearningMethod") -> str:
    from mnemoscope.unlearning.retrain import Retrain

    if isinstance(method, Retrain):
        return TRAINED_AGAIN
    return UNDONE if Need.HISTORY in method.needs else CONTINUED
