"""The row that a report shows for each of several deletion requests: plain numbers, to read it loads no SciPy."""

from dataclasses import dataclass

from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["RequestRow", "audit_name"]


def audit_name(subject: str, request: int, requests: int) -> str:
    """The name that a subject's audit after one request has; its own where there is one request.

    >>> audit_name("finetune", 2, 3), audit_name("finetune", 1, 1)
    ('finetune, request 2 of 3', 'finetune')
    """
    return f"{subject}, request {request} of {requests}" if requests > 1 else subject


@dataclass(frozen=True)
class RequestRow:
    """One way of deleting after one of several requests.

    Attributes:
        subject: its name in the plan.
        method: its registered name.
        request: number of the newest request, from 1 on.
        requests: how many there are.
        attack: the primary attack.
        fpr: the false positive rate; None where the counts bear none.
        tpr: TPR on all records asked for so far.
        newest: on those of the newest request.
        first: on those of the first.
        first_change: the first request's TPR now minus right after it was carried out, on the same records and models.
        over_forgotten: the other tail, on all asked for so far.
        retrained: ``tpr`` of models trained again without all of them.
        test: test accuracy.
        test_gap: that minus the retrained models'.
        word: the verdict after this request.
        how: what the method was given to work on.
    """

    subject: str
    method: str
    request: int
    requests: int
    attack: str
    fpr: float | None
    tpr: Estimate
    newest: Estimate
    first: Estimate
    first_change: Estimate
    over_forgotten: Estimate
    retrained: Estimate
    test: Estimate
    test_gap: Estimate
    word: str
    how: str

    @property
    def audit(self) -> str:
        """Name of the subject in the result that holds the whole audit behind this row."""
        return audit_name(self.subject, self.request, self.requests)
