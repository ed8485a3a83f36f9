"""What a one-model audit tells beside its verdict of classes, single records, the worst case, and other rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from mnemoscope.audit.answers.views import Side
from mnemoscope.audit.statistics.multiple import benjamini_hochberg
from mnemoscope.audit.statistics.proportions import rate
from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.by_class import class_label, model_classes
from mnemoscope.audit.verdict.individual_rows import LISTED_AT_MOST, Individual
from mnemoscope.audit.verdict.inner_rows import NO_ROWS, InnerRows
from mnemoscope.audit.verdict.onemodel_decision import Exposure, OneModelScores, decide_model
from mnemoscope.audit.verdict.onemodel_endpoints import beside_own_models
from mnemoscope.audit.verdict.onemodel_gates import complete
from mnemoscope.audit.verdict.onemodel_rates import Board, Group
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.record_map import record_map, record_places
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Tail, WorstCase
from mnemoscope.audit.verdict.sensitivity import Choice, alternative_alphas, sensitivity_rows

__all__ = ["one_model_rows"]

Floats = NDArray[np.float64]
FROM_SCORES = ("G1", "G2", "G3", "G6")
"""Gates that a choice can change; all others are given."""


def one_model_rows(
    scores: OneModelScores,
    basis: Basis,
    policy: Policy,
    *,
    keys: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str] = (),
    fixed: Sequence[Endpoint] = (),
    gates: Sequence[GateResult] = (),
) -> InnerRows:
    """All rows of one subject.

    Args:
        scores: what its endpoints rest on; b records.
        basis: what its word rests on beside endpoints and gates.
        policy: bounds and levels.
        keys: names of the records, b of them.
        labels: (b,) int64 classes.
        classes: names of the classes.
        fixed: endpoints that do not follow from scores: P6, and those that could not be computed.
        gates: every gate of the audit.
    """
    main, alpha, board = scores.attacks.get(scores.primary), scores.alpha, scores.board
    if main is None:
        return NO_ROWS
    side = np.where(board.rows(Group.FORGET), Side.IN, Side.LEAVE_OUT)
    side[board.rows(Group.HOLDOUT) | board.rows(Group.CALIBRATION)] = Side.OUT
    side = side.astype(np.int8)
    after = _places([main.after], side)
    before = None if main.before is None else _places([main.before], side)
    twin = _places([theirs for _, theirs in main.pairs], side) if main.pairs else None
    p = None if scores.exposure is None else _p_values(scores.exposure)
    rows = InnerRows(
        by_class=(),
        record_map=None if before is None else record_map(scores.primary, before, after, twin),
        individuals=_individuals(keys, labels, classes, before, after, twin, p),
        sensitivity=(),
        worst_case=(),
    )
    if alpha is None:
        return rows
    rows["by_class"] = model_classes(labels, board, main.after, main.pairs, policy, alpha, classes)
    n_out = int((board.rows(Group.HOLDOUT) & (board.judged >= 0)).sum())
    rows["sensitivity"] = sensitivity_rows(
        _ModelRules(scores, tuple(fixed), tuple(g for g in gates if g.id not in FROM_SCORES), tuple(gates)),
        Choice(policy, alpha, scores.primary),
        basis,
        alphas=alternative_alphas(policy, alpha, n_out),
        attacks=tuple(scores.attacks),
    )
    if scores.exposure is not None and p is not None:
        rows["worst_case"] = _worst(scores.exposure, p, board, policy, alpha)
    return rows


def _places(scores: Sequence[Floats], side: NDArray[np.int8]) -> Floats:
    """Each record's mean place over several models, every model among its own never-seen scores."""
    mean: Floats = np.mean([record_places(one[None, :], side[None, :]) for one in scores], axis=0)
    return mean


def _p_values(exposure: Exposure) -> Floats | None:
    """(b,) two-sided p-values of "the margin is one of its own OUT models'"; None below two such models."""
    found = beside_own_models(exposure.margin, exposure.others, exposure.side)
    if found is None:
        return None
    distance, spread, count = found
    t = np.abs(distance) / np.where(spread > 0, spread, np.inf)
    p: Floats = 2.0 * stdtr(count - 1, -t)
    return p


def _individuals(
    keys: Sequence[str],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    before: Floats | None,
    after: Floats,
    retrained: Floats | None,
    p: Floats | None,
) -> tuple[Individual, ...]:
    """The forgotten records, the clearest first."""
    rows = np.flatnonzero(np.isfinite(after))
    clear = -np.abs(after[rows] - 0.5) if p is None else p[rows]
    listed = rows[np.argsort(clear, kind="stable")][:LISTED_AT_MOST]
    return tuple(
        Individual(
            "",
            keys[j],
            class_label(int(labels[j]), classes),
            None if before is None else float(before[j]),
            float(after[j]),
            None if retrained is None else float(retrained[j]),
            None if p is None else float(p[j]),
        )
        for j in listed.tolist()
    )


def _worst(exposure: Exposure, p: Floats, board: Board, policy: Policy, alpha: float) -> tuple[WorstCase, ...]:
    found = beside_own_models(exposure.margin, exposure.others, exposure.side)
    assert found is not None  # there are p-values
    distance, spread, count = found
    limit = stdtrit(count - 1, 1 - alpha) * spread
    forget, never = board.rows(Group.FORGET), board.rows(Group.HOLDOUT)
    tested = int(forget.sum())
    flagged = int((benjamini_hochberg(p[forget]) <= policy.fdr_level).sum())
    rows = []
    tails: tuple[tuple[Tail, float], ...] = (("residual", 1.0), ("over-forgotten", -1.0))
    for tail, sign in tails:
        above = sign * distance > limit
        ours = rate(int(above[forget].sum()), tested, policy.interval_level)
        others = rate(int(above[never].sum()), int(never.sum()), policy.interval_level)
        assert others.value is not None
        rows.append(WorstCase(tail, alpha, ours, others, others.value * tested, flagged, tested, policy.fdr_level))
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class _ModelRules:
    """The rules of a one-model audit under any choice."""

    scores: OneModelScores
    fixed: tuple[Endpoint, ...]
    given: tuple[GateResult, ...]
    placeholders: tuple[GateResult, ...]
    _kept: dict[Choice, tuple[list[Endpoint], list[GateResult]]] = field(default_factory=dict, repr=False)

    def _decided(self, choice: Choice) -> tuple[list[Endpoint], list[GateResult]]:
        if choice not in self._kept:
            self._kept[choice] = self._decide(choice)
        return self._kept[choice]

    def _decide(self, choice: Choice) -> tuple[list[Endpoint], list[GateResult]]:
        found = decide_model(replace(self.scores, alpha=choice.alpha, primary=choice.primary), choice.policy)
        open_ = [replace(g, status="not run") for g in self.placeholders if g.id in FROM_SCORES]
        return [*self.fixed, *found.endpoints], complete([*open_, *found.gates, *self.given])

    def endpoints(self, choice: Choice) -> list[Endpoint]:
        """Those that are given, then what the scores decide."""
        return self._decided(choice)[0]

    def gates(self, choice: Choice) -> list[GateResult]:
        """Gates read from scores; one that has nothing to be read from was not run."""
        return self._decided(choice)[1]

    def note(self, choice: Choice) -> str:
        """Whose scores of retained records decide."""
        kept = self.scores.retained
        if kept is None or choice.primary in (self.scores.primary, kept.attack):
            return ""
        return f"retained records (P4) as scored by {kept.attack}"
