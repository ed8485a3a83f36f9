"""The row that a report shows for each class of the audited records: plain numbers, to read it loads no SciPy."""

from dataclasses import dataclass

from mnemoscope.audit.statistics.trials import Estimate

__all__ = ["LEAST_RECORDS", "ClassRow"]

LEAST_RECORDS = 10
"""A class with fewer audited records gets no numbers: they would bear none, and would speak of a handful of people."""


@dataclass(frozen=True)
class ClassRow:
    """How far the primary attack gets with the records of one class, at the threshold of all records.

    Attributes:
        label: the class.
        n_records: audited records of the class that took part; 0 where they are fewer than ``LEAST_RECORDS``.
        after: TPR on its forgotten records after deletion, residual tail.
        over_forgotten: the same in the other tail.
        retrained: ``after`` of models that were trained without them; without value where there are none.
        realised_fpr: share of the class's never-seen records above the same threshold. It need not be the audit's FPR:
            a class that is easy for every model raises both rates.
        p_value: of "in neither tail the rate is above the bound of P1, nor above what the class's own false alarms
            explain", after Holm over the classes that are shown; None where it is suppressed. Description, no part of
            the verdict.
    """

    label: str
    n_records: int
    after: Estimate
    over_forgotten: Estimate
    retrained: Estimate
    realised_fpr: Estimate
    p_value: float | None = None

    @property
    def suppressed(self) -> bool:
        """Whether the class has too few records for numbers; the estimates say so."""
        return self.after.value is None
