"""What a word rests on beside endpoints and gates; the same for a live audit and for a recomputation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Limits, Verdict
from mnemoscope.audit.verdict.rules import decide

__all__ = ["Basis"]


@dataclass(frozen=True)
class Basis:
    """What was given, and what was said of it from elsewhere.

    Attributes:
        mode: which question could be asked.
        n_retrained: retrained models (one-model mode).
        process_evidence: records of the deletion process were given.
        has_before: the model before deletion answered.
        per_record: an attack on single records ran.
        alpha: FPR of the endpoints; None where the counts bear none.
        flags: given to the rules.
        failures: computations that failed.
        hint: what would decide it.
        added: flags that were added after the rules had spoken.
    """

    mode: Literal["procedure", "one-model", "membership"]
    n_retrained: int = 0
    process_evidence: bool = False
    has_before: bool = True
    per_record: bool = True
    alpha: float | None = None
    flags: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    hint: str = ""
    added: tuple[str, ...] = ()

    def limits(self, policy: Policy) -> Limits:
        """What this input can say at most."""
        return limits_of(
            self.mode,
            n_retrained=self.n_retrained,
            has_fleet=self.mode == "procedure",
            process_evidence=self.process_evidence,
            has_before=self.has_before,
            per_record=self.per_record,
            policy=policy,
        )

    def decide(self, endpoints: Sequence[Endpoint], gates: Sequence[GateResult], policy: Policy) -> Verdict:
        """The word, by the rules."""
        return decide(
            endpoints,
            gates,
            policy=policy,
            limits=self.limits(policy),
            alpha=self.alpha,
            flags=self.flags,
            failures=self.failures,
            hint=self.hint,
        )
