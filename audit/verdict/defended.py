"""What would help: the same models behind a defence, against the strongest attack that is left. Description only."""

from collections.abc import Sequence

from mnemoscope.audit.answers.protocols import Attack, offered_by, queries_of
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Defended, ModelRole

__all__ = ["defended_row", "strongest"]

SIDES = Need.SHADOW_IN | Need.SHADOW_OUT


def strongest(attacks: Sequence[Attack], behind: Reference) -> Attack | None:
    """Return the first attack, in the plan's order, that what is left of the answers allows; None where none is."""
    # The sides are the game's to fill: a fleet with roles always offers shadow models of both.
    missing = [attack.needs & ~offered_by(behind) for attack in attacks]
    allowed = [
        attack
        for attack, lacks in zip(attacks, missing, strict=True)
        if not lacks & ~SIDES and queries_of(attack) is None
    ]
    return next(iter(allowed), None)


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
            note = f"equal scores leave no threshold at this FPR: {rate.fp} of {rate.n_out} never-seen were flagged"
    auc = scores.auc().estimate(policy.interval_level)
    return Defended(defence, attack.name, game, models, auc, tpr, alpha, test_accuracy, note)
