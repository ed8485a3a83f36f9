"""A result recomputed from the scores that its audit stored: endpoints, gates and words, in seconds.

Nothing is trained and no model is asked. What does not follow from scores is taken over from the result, by name.
"""

from dataclasses import dataclass
from pathlib import Path

from mnemoscope.agreement import EXACT, RecomputedRow, Rows
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.evidence import SCORES
from mnemoscope.evidence_check import check_files, check_plan, folder_of
from mnemoscope.recomputed_subjects import compare_subject, of_model, of_procedure
from mnemoscope.stored_scores import StoredScores

__all__ = ["Recomputation", "RecomputedRow", "compare_fixed", "recompute_from_scores"]

NO_EVIDENCE = (
    "this result lists no stored scores, so nothing can be recomputed from them. Releases with schema 1.5 store them "
    "where an audit writes its results: run the audit again"
)
NUMERIC = (ValueError, IndexError, KeyError, ArithmeticError, AssertionError, TypeError)
"""What the rules may raise on arrays that no audit of ours wrote."""


@dataclass(frozen=True)
class Recomputation:
    """A result beside what follows from its evidence.

    Attributes:
        agrees: whether every row does.
        rows: what was compared, in the order of the result.
        taken_over: what was not recomputed and counts as the result has it, each with the reason.
        level: what it was recomputed from: "scores", "answers" or "data".
        tolerance: when two numbers counted as the same, in words.
    """

    agrees: bool
    rows: tuple[RecomputedRow, ...]
    taken_over: tuple[str, ...] = ()
    level: str = "scores"
    tolerance: str = EXACT.name

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

    base = folder_of(Path(folder))
    result = read_result(Path(folder))
    if SCORES not in {file.path for file in result.evidence}:
        raise InvalidInput(NO_EVIDENCE)
    if not (base / SCORES).exists():
        raise InvalidInput(f"{base.name}: {SCORES} is not here; an edition without single records holds no scores")
    rows = Rows()
    if not check_files(base, result, rows, needed=(SCORES,)):
        rows.take("everything else: a file is not the one that the result names, so nothing was computed from it")
        return Recomputation(False, tuple(rows.rows), tuple(rows.taken_over))
    check_plan(base, result, rows)
    stored = StoredScores(base / SCORES)
    try:
        compare_fixed(result, stored, rows)
        _compare_subjects(result, stored, rows)
    except NUMERIC as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{SCORES}: its arrays fit no audit ({type(error).__name__}: {error})") from error
    finally:
        stored.close()
    return Recomputation(rows.agrees, tuple(rows.rows), tuple(rows.taken_over))


def compare_fixed(result: AuditResult, stored: StoredScores, rows: Rows) -> None:
    """Compare what was fixed before the first score, as the result and the scores have it."""
    index = stored.index
    rows.add("mode", result.mode, index.mode)
    rows.add("plan digest", result.plan.digest, index.plan)
    rows.add("primary attack", result.plan.primary_attack, index.primary)
    rows.add("alpha", result.plan.alpha, index.alpha)
    ours, theirs = result.plan.policy, stored.policy.as_dict()
    for key in sorted({*ours, *theirs}):
        # Keys that this release added have their default in results of earlier ones.
        if key in ours and ours[key] != theirs.get(key):
            rows.add(f"policy: {key}", ours[key], theirs.get(key, "no such key"))
    named = [*(entry.name for entry in index.subjects), *(entry.name for entry in index.models)]
    rows.add("subjects", sorted(s.name for s in result.subjects), sorted(named))
    bases = [*(entry.basis for entry in index.subjects), *(entry.basis for entry in index.models)]
    if bases:
        rows.add("limits", result.limits.may_say, bases[-1].limits(stored.policy).may_say)
        rows.add("highest tier", result.limits.highest_tier, bases[-1].limits(stored.policy).highest_tier)


def _compare_subjects(result: AuditResult, stored: StoredScores, rows: Rows) -> None:
    policy = stored.policy
    recorded = {subject.name: subject for subject in result.subjects}
    for entry in stored.index.subjects:
        if entry.name in recorded:
            decided = of_procedure(stored.subject(entry), policy)
            compare_subject(recorded[entry.name], decided, entry.basis, policy, EXACT, rows)
    for model in stored.index.models:
        if model.name in recorded:
            decided = of_model(stored.model(model), policy, membership=stored.index.mode == "membership")
            compare_subject(recorded[model.name], decided, model.basis, policy, EXACT, rows)
    if result.requests:
        rows.take("the table of rates by request")
    rows.take(
        "descriptions beside the verdict: curves, histograms, accuracies, epsilon, measures, defences, classes, single "
        "records, the worst case, other rules"
    )
