"""What a one-model audit fixes from counts and policy, before it looks at a score."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import rfc8785

from mnemoscope.audit.answers.protocols import NEED_REMEDIES, Attack
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, needs_reference_models, runnable
from mnemoscope.audit.verdict.onemodel_power import Counts, OneModelPower, one_model_power
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.power import choose_alpha
from mnemoscope.audit.verdict.result import PlanSummary

__all__ = ["TESTED", "WITH_RETAINED", "OneModelPlan", "plan_counts", "plan_one_model"]

TESTED = (Group.FORGET, Group.HOLDOUT, Group.CALIBRATION)
WITH_RETAINED = (*TESTED, Group.RETAIN)


@dataclass(frozen=True, eq=False)
class OneModelPlan:
    """What is fixed from counts and policy, before the first score.

    Attributes:
        policy: bounds and levels.
        attacks: those that can run, in the order given.
        primary: name of the attack that decides WITHIN.
        unable: attacks that cannot run with what they lack.
        alpha: the endpoints' FPR; None where the counts bear none.
        powers: whole-rule power at each candidate.
        seed: root seed of the deal and of the attacks.
        n_classes: classes of the model.
    """

    policy: Policy
    attacks: tuple[Attack, ...]
    primary: str
    unable: tuple[tuple[str, str], ...]
    alpha: float | None
    powers: tuple[OneModelPower, ...]
    seed: int

    def summary(self) -> PlanSummary:
        """The plan as it is printed; its digest covers policy, attacks with settings, alpha and seed."""
        used = next((p for p in self.powers if p.alpha == self.alpha), None)
        reason = "no alpha: the counts bear none of the candidates"
        power = Estimate(None, reason=reason) if used is None else used.estimate()
        names = tuple(attack.name for attack in self.attacks)
        content = {
            "policy": self.policy.digest,
            "attacks": [repr(attack) for attack in self.attacks],
            "primary": self.primary,
            "alpha": self.alpha,
            "seed": str(self.seed),
        }
        return PlanSummary(
            digest="sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest(),
            policy=self.policy.as_dict(),
            primary_attack=self.primary,
            attacks=names,
            alpha=self.alpha,
            alpha_source="given" if self.policy.alpha is not None else "chosen from counts",
            power=power,
            power_by_alpha={f"{p.alpha:g}": p.value for p in self.powers},
            committed_before_scores=True,
            seed=self.seed,
        )


def plan_one_model(
    inputs: OneModelInput, attacks: Sequence[Attack], *, policy: Policy | None = None, seed: int = 0
) -> OneModelPlan:
    """Choose the primary attack and alpha from what is there, without looking at a score.

    A given ``policy.alpha`` is kept whatever its power; otherwise the smallest candidate with enough power is taken.

    Raises:
        InvalidInput: no attack can run.
    """
    policy = Policy() if policy is None else policy
    able, unable = runnable(inputs, attacks, TESTED)
    primary = policy.choose_primary([attack.name for attack in able])
    chosen = next(attack for attack in able if attack.name == primary)
    powers = tuple(one_model_power(plan_counts(inputs, chosen, able, policy), policy))
    return OneModelPlan(
        policy,
        tuple(able),
        primary,
        tuple((attack.name, _lacks(missing)) for attack, missing in unable),
        policy.alpha if policy.alpha is not None else choose_alpha(powers, policy),
        powers,
        seed,
    )


def _lacks(missing: Need) -> str:
    return "; ".join(text for need, text in NEED_REMEDIES.items() if need in missing)


def plan_counts(inputs: OneModelInput, primary: Attack, attacks: Sequence[Attack], policy: Policy) -> Counts:
    """Return the counts that the power depends on."""
    # P4 asks something of the power only where an attack can score retained records.
    retained = bool(runnable(inputs, attacks, WITH_RETAINED)[0])
    side = inputs.side(inputs.rows(*TESTED))
    return Counts(
        inputs.count(Group.FORGET),
        inputs.count(Group.HOLDOUT),
        inputs.count(Group.CALIBRATION),
        inputs.count(Group.RETAIN) if retained else 0,
        inputs.n_retrained,
        per_record=bool(side.shape[0]) and int((side == 0).sum(axis=0).min()) >= policy.min_references,
        paired=needs_reference_models(primary) and inputs.n_retrained > 1,
    )
