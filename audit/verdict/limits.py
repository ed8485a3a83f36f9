"""What each input can say at most: the cap on the tier, decided by what was given, not by what was found."""

from typing import Literal

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Limits

__all__ = ["limits_of"]


def limits_of(
    mode: Literal["procedure", "one-model", "membership"],
    *,
    n_retrained: int = 0,
    has_fleet: bool = False,
    process_evidence: bool = False,
    has_before: bool = True,
    per_record: bool = True,
    policy: Policy | None = None,
) -> Limits:
    """State the highest tier and what may and may not be said.

    Args:
        mode: which question can be asked at all.
        n_retrained: retrained models with different seeds (one-model mode).
        has_fleet: a fleet with roles exists (procedure mode needs one).
        process_evidence: records of the deletion process were provided and checked; tier A needs them.
        has_before: the model before deletion answered the same records.
        per_record: a per-record attack was run; with a population attack alone tier C is the most.
        policy: for the numbers of retrained models at which tiers change; None = defaults.

    Returns:
        The limits. A gate that was not run can lower the tier further (``rules.decide``).

    Raises:
        InvalidInput: procedure mode without a fleet, or a negative count.

    >>> limits_of("one-model", n_retrained=5).highest_tier
    'B'
    """
    policy = Policy() if policy is None else policy
    if n_retrained < 0:
        raise InvalidInput(f"n_retrained={n_retrained}: must be 0 or more")
    if policy.profile == "smoke":
        return Limits(
            None,
            "that the pipeline runs from end to end: the policy asks for a smoke run (profile = 'smoke')",
            "anything about deletion: a smoke run states nothing, on purpose, whatever its numbers are",
        )
    if mode == "membership":
        return Limits(
            None,
            "how much this model reveals about who was trained on: leakage estimates with intervals",
            "anything about deletion: one model and a list of members bear no deletion verdict",
        )
    if mode == "procedure":
        if not has_fleet:
            raise InvalidInput("mode='procedure' needs a fleet of models with roles; without one use mode='one-model'")
        tier: Literal["A", "B", "C"] = "C" if not per_record else "A" if process_evidence else "B"
        return Limits(
            tier,
            "how this deletion procedure behaves on records like these, with an online per-record attack, "
            "equivalence to retraining, and individuals under false-discovery control (parametric tail, stated)",
            "that one served model forgot one request; the numbers describe the procedure"
            + ("" if process_evidence else "; tier A needs process evidence"),
        )
    if mode != "one-model":
        raise InvalidInput(f"mode={mode!r}: allowed are 'procedure', 'one-model' and 'membership'")
    absolute = "whether the signal in this model lies below an absolute bound" + (
        ", and the change beyond the drift of the holdout records (difference in differences)" if has_before else ""
    )
    no_before = "" if has_before else "; whether the attacks had power: there is no model before deletion to see it on"
    if n_retrained == 0:
        return Limits("D", absolute, "that the model behaves as if retrained: there is no retrained model" + no_before)
    if n_retrained < policy.min_references:
        return Limits(
            "C",
            absolute + f", with an offline per-record attack on {n_retrained} retrained model(s) as description",
            f"equivalence to retraining: it needs at least {policy.min_references} retrained models with "
            "different seeds" + no_before,
        )
    if n_retrained < policy.references_for_a:
        cap: Literal["A", "B", "C"] = "B" if per_record else "C"
        lacks = f"tier A: it needs {policy.references_for_a} retrained models, process evidence and every gate run"
    else:
        cap = "C" if not per_record else "A" if process_evidence else "B"
        lacks = "more than the attacks run here can see" if process_evidence else "tier A: it needs process evidence"
    return Limits(
        cap,
        absolute + f", and equivalence to {n_retrained} retrained models within the declared margins",
        lacks + no_before,
    )
