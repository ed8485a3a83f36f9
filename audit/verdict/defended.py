"""What would help: the same models behind a defence, against an attack that is left. Description only."""

from collections.abc import Sequence

from mnemoscope.audit.answers.defences import Defence, defend
from mnemoscope.audit.answers.protocols import Attack, offered_by
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Defended, ModelRole

__all__ = ["defended_row", "strongest"]

SIDES = Need.SHADOW_IN | Need.SHADOW_OUT


def strongest(attacks: Sequence[Attack], reference: Reference, defence: Defence | None = None) -> Attack | None:
    """Return the first of the attacks that the answers still allow behind a defence; None where none is left.

    Args:
        attacks: the strongest first, as far as anybody knows: the primary one, then in the plan's order.
        reference: all recorded answers, not defended.
        defence: what is published instead; None for the answers as they are.
    """
    behind = reference.select([0])
    offered = offered_by(behind if defence is None else defend(behind, defence))
    # The sides are the game's to fill: a fleet with roles always offers shadow models of both.
    return next((attack for attack in attacks if not attack.needs & ~offered & ~SIDES), None)


def defended_row(
    defence: str,
    attack: Attack,
    game: str,
    models: ModelRole,
    scores: FleetScores,
    alpha: float | None,
    policy: Policy,
    test_accuracy: Estimate,
) -> Defended:
    """Return one defence's row, its rates at the audit's FPR."""
    tpr = Estimate(None, reason="the counts bear no rate")
    note = ""
    if alpha is not None:
        rate = scores.rates([alpha])[0]
        tpr = rate.tpr_estimate(policy.interval_level)
        if rate.fpr < alpha / 2:
            # A rate of 0 % at an FPR of 0 % would read as a perfect defence.
            note = f"equal scores leave no threshold at this FPR: {rate.fp} of {rate.n_out} never-seen were flagged"
            tpr = Estimate(None, reason="no threshold at this FPR; read the AUC")
    auc = scores.auc().estimate(policy.interval_level)
    return Defended(defence, attack.name, game, models, auc, tpr, alpha, test_accuracy, note)
