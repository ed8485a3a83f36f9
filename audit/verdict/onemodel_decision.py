"""What a one-model audit decides, as a function of scores alone: endpoints and the gates that are read from scores.

A live audit and a recomputation from stored scores both call it, so that no rule is written twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.verdict.onemodel_endpoints import (
    TAILS,
    Pairs,
    absolute_endpoints,
    change_beyond_drift,
    equivalence_endpoints,
    exposure_endpoints,
    negative_control,
    positive_control,
    precision_gate,
    retained_endpoint,
    utility_endpoint,
)
from mnemoscope.audit.verdict.onemodel_gates import gate_result
from mnemoscope.audit.verdict.onemodel_rates import Board, tail_rate
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult

__all__ = ["Exposure", "ModelDecision", "ModelScores", "OneModelScores", "Retained", "decide_model"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ModelScores:
    """One attack on the n tested records.

    Attributes:
        after: (n,) float64 of the audited model.
        before: (n,) of the model before deletion; None without one.
        pairs: for each retrained model (audited model, that model), scored without that model as a reference.
    """

    after: Floats
    before: Floats | None
    pairs: Pairs


@dataclass(frozen=True, eq=False)
class Exposure:
    """Margins for the per-record endpoint: (n,) of the audited model, (m, n) of others, (m, n) int8 of ``Side``."""

    margin: Floats
    others: Floats
    side: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Retained:
    """One attack on the tested and the retained records: its name, pairs as in ``ModelScores``, and their deal."""

    attack: str
    pairs: Pairs
    board: Board


@dataclass(frozen=True, eq=False)
class OneModelScores:
    """Everything the endpoints of a one-model audit rest on.

    Attributes:
        primary: name of the attack that decides WITHIN.
        alpha: the endpoints' FPR; None where the counts bear none.
        board: the deal of the tested records.
        attacks: scores of each attack that ran.
        exposure: None where a record has too few reference models.
        retained: None where no attack could compare retained records with retrained models.
        correct: (h,) bool, never-seen records that the audited model gets right.
        correct_retrained: (r, h) bool; None without retrained models.
    """

    primary: str
    alpha: float | None
    board: Board
    attacks: Mapping[str, ModelScores]
    exposure: Exposure | None
    retained: Retained | None
    correct: Bools
    correct_retrained: Bools | None


@dataclass(frozen=True)
class ModelDecision:
    """Endpoints by what they are about, and gates, in the order in which they are printed."""

    rates: tuple[Endpoint, ...]
    exposure: tuple[Endpoint, ...]
    change: tuple[Endpoint, ...]
    retained: tuple[Endpoint, ...]
    use: tuple[Endpoint, ...]
    gates: tuple[GateResult, ...]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (*self.rates, *self.exposure, *self.change, *self.retained, *self.use)


def decide_model(scores: OneModelScores, policy: Policy) -> ModelDecision:
    """Return P1 to P5 and P7, and G1, G2, G3 and G6 where there is something to read them from."""
    alpha, board, primary = scores.alpha, scores.board, scores.primary
    main = scores.attacks.get(primary)
    rates: list[Endpoint] = []
    exposure: list[Endpoint] = []
    retained: list[Endpoint] = []
    gates: list[GateResult] = []
    if alpha is not None:
        for name, found in scores.attacks.items():
            at = {tail: tail_rate(found.after, board, alpha, tail) for tail in TAILS}
            rates += absolute_endpoints(name, name == primary, at, policy, alpha)
            if found.pairs:
                rates += equivalence_endpoints(name, name == primary, found.pairs, board, policy, alpha)
            if name == primary:
                gates.append(precision_gate(at, policy, alpha))
        if main is not None:
            gates.append(negative_control(primary, main.after, board, policy, alpha))
            if main.before is not None:
                gates.append(positive_control(primary, main.before, board, policy, alpha))
            if (x := scores.exposure) is not None:
                exposure = exposure_endpoints("margin, predictive t", x.margin, x.others, x.side, board, policy, alpha)
        if (kept := scores.retained) is not None and kept.pairs:
            retained.append(retained_endpoint(kept.attack, kept.pairs, kept.board, policy, alpha))
    change: list[Endpoint] = []
    if main is not None and main.before is not None:
        change.append(change_beyond_drift(primary, main.after, main.before, board, policy.interval_level))
    use: list[Endpoint] = []
    if scores.correct_retrained is not None:
        use.append(utility_endpoint(scores.correct, scores.correct_retrained, policy))
        outcome = use[0].outcome
        status = {"within": "pass", "beyond": "fail"}.get(outcome, "pass")
        gates.append(gate_result("G6", "use", "accuracy not worse than retrained (P5)", "flag", status, outcome))
    return ModelDecision(tuple(rates), tuple(exposure), tuple(change), tuple(retained), tuple(use), tuple(gates))
