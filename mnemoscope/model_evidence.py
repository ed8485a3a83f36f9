"""What the one-model modes leave beside a result: scores and answers of every model they judged."""

from dataclasses import replace
from typing import Any

from mnemoscope.audit.verdict.onemodel import TESTED, OneModelAudit
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import PlanSummary, Verdict
from mnemoscope.audit.work.run_log import FIRST_SCORE, MODELS_READY, PLAN
from mnemoscope.evidence import ANSWERS, SCORES, EvidenceFolder
from mnemoscope.stored_answers import AnswerWriter
from mnemoscope.stored_scores import Mode, ScoreWriter

__all__ = ["ModelEvidence"]


class ModelEvidence:
    """Stores what models are judged by, one after another, all on the same records.

    Args:
        evidence: the folder; one without an output stores nothing.
    """

    def __init__(self, evidence: EvidenceFolder) -> None:
        self.evidence = evidence
        self._scores: ScoreWriter | None = None
        self._answers: AnswerWriter | None = None

    def begin(self, inputs: OneModelInput, plan: str) -> None:
        """Log that the answers are there, the plan is fixed, and scoring begins; only the first time counts."""
        self.evidence.once(MODELS_READY, "answers recorded")
        self.evidence.once(PLAN, plan)
        self.evidence.once(FIRST_SCORE)
        if self._scores is None:
            keys = inputs.keys or tuple(map(str, inputs.ids.tolist()))
            tested = [keys[i] for i in inputs.rows(*TESTED)]
            self._scores = ScoreWriter(self.evidence.arrays(SCORES), self.evidence.pseudonyms(tested))
            self._answers = AnswerWriter(self.evidence.arrays(ANSWERS), self.evidence.pseudonyms(keys))

    def add(self, inputs: OneModelInput, found: OneModelAudit, verdict: Verdict) -> None:
        """Store one model.

        Args:
            inputs: its answers.
            found: its audit.
            verdict: as the result has it, with flags that were added after the rules had spoken.
        """
        assert self._scores is not None
        assert self._answers is not None
        added = tuple(flag for flag in verdict.flags if flag not in found.subject.verdict.flags)
        self._scores.model(found.subject.name, found.scores, replace(found.basis, added=added))
        self._answers.model(found.subject.name, inputs)
        self.evidence.log.add("subject scored", found.subject.name)

    def close(self, mode: Mode, plan: PlanSummary, policy: Policy, attacks: tuple[dict[str, Any], ...]) -> None:
        """Write what says which array is what; ``attacks`` as a plan names them, with their settings."""
        if self._scores is not None and self._answers is not None:
            self._scores.close(
                mode, plan=plan.digest, policy=policy, primary=plan.primary_attack, alpha=plan.alpha, attacks=attacks
            )
            self._answers.close()
