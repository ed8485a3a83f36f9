"""Who decided a policy and why, and what was changed after a plan was committed: as a result carries it."""

from dataclasses import dataclass, field

__all__ = ["Deviation", "PolicyRecord"]


@dataclass(frozen=True)
class PolicyRecord:
    """What stands beside the bounds in a policy file; the bounds themselves are ``PlanSummary.policy``.

    Attributes:
        digest: of the whole policy: every bound, owner, reasons and the gate's rules ("sha256:...").
        owner: who answers for the bounds; "" where nobody is named.
        role: the owner's role.
        reason: why these bounds, as a whole.
        reasons: key of the policy -> why this value.
        gate: the rules of ``mnemoscope gate`` that were fixed with the bounds, key -> value in JSON.
    """

    digest: str
    owner: str = ""
    role: str = ""
    reason: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    gate: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deviation:
    """One key in which the plan that ran differs from the one that was committed before the first score.

    Attributes:
        key: its path, e.g. "policy.auc_margin" or "subjects[0].settings.epochs".
        committed: the value in the committed plan, as JSON; None where it had none.
        ran: the value in the plan that ran, as JSON; None where it has none.
    """

    key: str
    committed: str | None
    ran: str | None
