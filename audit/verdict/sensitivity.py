"""Would the word be another one under another rule? Every row is decided by the rules themselves.

Endpoints and gates of each choice come from the same functions as those of the audit, and the word from
``rules.decide``. A row says where it cannot know all that an audit planned like it would.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mnemoscope.audit.verdict.basis import Basis
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult
from mnemoscope.audit.verdict.sensitivity_rows import SensitivityRow

__all__ = ["Choice", "Rules", "alternative_alphas", "sensitivity_rows"]

RATIOS = (1.5, 2.0, 3.0)
"""Bounds tried: how many times the false positive rate the true positive rate may be."""

OPTIONAL = ("P2", "P3", "P4", "P6")
"""Questions that an audit can do without; P5 and P7 are no part of the word, and without P1 there is none."""

LEAST_EXPECTED = 8
"""Expected false positives below which a rate is never an endpoint."""


@dataclass(frozen=True)
class Choice:
    """What is fixed before any score: bounds and levels, the false positive rate, and who decides."""

    policy: Policy
    alpha: float
    primary: str


class Rules(Protocol):
    """The endpoints and gates of one subject under any choice."""

    def endpoints(self, choice: Choice) -> list[Endpoint]:
        """Every endpoint, in the order of the audit."""
        ...

    def gates(self, choice: Choice) -> list[GateResult]:
        """Every gate."""
        ...

    def note(self, choice: Choice) -> str:
        """What is not known of this choice; "" where all is."""
        ...


def alternative_alphas(policy: Policy, alpha: float, n_out: int) -> tuple[float, ...]:
    """Return the false positive rates to try: the policy's candidates that these never-seen trials bear, and its own.

    >>> alternative_alphas(Policy(), 0.05, 2_000)
    (0.01, 0.05, 0.1)
    """
    borne = {a for a in policy.alpha_candidates if a * n_out >= LEAST_EXPECTED - 1e-9}
    return tuple(sorted({alpha, *borne}))


def sensitivity_rows(
    rules: Rules, actual: Choice, basis: Basis, *, alphas: Sequence[float], attacks: Sequence[str]
) -> tuple[SensitivityRow, ...]:
    """Decide the audit again at every varied choice.

    Args:
        rules: endpoints and gates.
        actual: the audit as it was planned.
        basis: what the word rests on beside them; its alpha is that of the choice.
        alphas: false positive rates to try, the audit's own among them.
        attacks: attacks that ran and take part in verdicts, the primary one among them.

    Returns:
        The rows, in groups of one varied choice; the audit itself is marked in each group.
    """
    endpoints, gates = rules.endpoints(actual), rules.gates(actual)
    rows = list(_choices(rules, actual, basis, alphas, attacks))

    def without(varied: str, value: str, kept: Sequence[Endpoint]) -> None:
        choice = actual if len(kept) == len(endpoints) else None
        rows.append(_row(varied, value, kept, gates, actual, basis, actual=choice is not None))

    if len(attacks) > 1:
        without("attacks", "all", endpoints)
        for attack in attacks:
            kept = [e for e in endpoints if e.attack != attack]
            if attack != actual.primary and len(kept) < len(endpoints):
                without("attacks", f"without {attack}", kept)
    without("endpoints", "all", endpoints)
    for name in OPTIONAL:
        kept = [e for e in endpoints if e.id != name]
        if len(kept) < len(endpoints):
            without("endpoints", f"without {name}", kept)
    return tuple(rows)


def _choices(
    rules: Rules, actual: Choice, basis: Basis, alphas: Sequence[float], attacks: Sequence[str]
) -> Iterator[SensitivityRow]:
    ratio = actual.policy.tpr_ratio
    for times in sorted({*RATIOS, ratio}):
        choice = replace(actual, policy=replace(actual.policy, tpr_ratio=times))
        yield _chosen("bound", f"{times:g} x FPR", rules, choice, basis, times == ratio)
    for alpha in alphas:
        choice = replace(actual, alpha=alpha)
        yield _chosen("alpha", f"{100 * alpha:g} %", rules, choice, basis, alpha == actual.alpha)
    for attack in attacks:
        choice = replace(actual, primary=attack)
        yield _chosen("primary", attack, rules, choice, basis, attack == actual.primary)


def _chosen(varied: str, value: str, rules: Rules, choice: Choice, basis: Basis, actual: bool) -> SensitivityRow:
    row = _row(varied, value, rules.endpoints(choice), rules.gates(choice), choice, basis, actual=actual)
    return row if actual else replace(row, note=rules.note(choice))


def _row(
    varied: str,
    value: str,
    endpoints: Sequence[Endpoint],
    gates: Sequence[GateResult],
    choice: Choice,
    basis: Basis,
    *,
    actual: bool,
) -> SensitivityRow:
    found = replace(basis, alpha=choice.alpha).decide(endpoints, gates, choice.policy)
    return SensitivityRow(varied, value, found.word, found.tier, actual)  # type: ignore[arg-type]
