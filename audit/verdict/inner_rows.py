"""The fields of a subject that tell of classes, single records, the worst case, and other rules."""

from typing import TypedDict

from mnemoscope.audit.verdict.result import ClassRow, Individual, RecordMap, SensitivityRow, WorstCase

__all__ = ["NO_ROWS", "InnerRows"]


class InnerRows(TypedDict):
    """Named as in ``Subject``."""

    by_class: tuple[ClassRow, ...]
    record_map: RecordMap | None
    individuals: tuple[Individual, ...]
    sensitivity: tuple[SensitivityRow, ...]
    worst_case: tuple[WorstCase, ...]


NO_ROWS = InnerRows(by_class=(), record_map=None, individuals=(), sensitivity=(), worst_case=())
