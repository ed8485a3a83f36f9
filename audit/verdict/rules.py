"""From endpoints and gates to one of four words, in a fixed order that was written before any score existed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mnemoscope.audit.statistics.multiple import holm
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Limits, Tier, Verdict, Word

__all__ = ["EXIT_CODES", "FORBIDDEN_WORDS", "SENTENCES", "beyond_bound", "decide", "exit_code"]

SENTENCES: dict[Word, str] = {
    "WITHIN BOUND": "With the attacks and records listed, no signal above the declared bound was found. "
    "This is not proof that the data is gone.",
    "OUTSIDE BOUND": "At least one test still tells forgotten records apart beyond the declared bound.",
    "INCONCLUSIVE": "The test could not decide; reason and the sample needed are given.",
    "NOT ASSESSED": "No statement is made.",
}

EXIT_CODES: dict[Word, int] = {"WITHIN BOUND": 0, "OUTSIDE BOUND": 3, "INCONCLUSIVE": 4, "NOT ASSESSED": 5}

FORBIDDEN_WORDS = ("compliant", "deleted", "safe", "anonymous", "certified")
"""Words no verdict may use: attacks that fail prove none of them."""

RATE_ENDPOINTS = ("P1", "P2", "P3", "P4")
AGAINST_NEVER_SEEN = ("P1", "P3")
"""Endpoints that compare forgotten with never-seen records: description when the two groups differ by themselves."""

TITLES = {
    "P1": "signal in the forgotten records",
    "P2": "difference from retrained models",
    "P3": "share of exposed individuals",
    "P4": "exposure of the records that stayed",
    "P5": "accuracy",
    "P6": "forgotten rows inside the artefact",
    "P7": "claimed privacy parameter",
}

REMEDIES = {
    "G1": "an attack with more power: more reference models, or more forget records",
    "G3": "more never-seen records, a larger alpha fixed before scoring, or an attack whose scores tie less",
    "G4": "an audit without the forget records that have a duplicate elsewhere",
    "drift": "at least 5 retrained models (they show what models that never saw the records score), "
    "or never-seen records drawn like the forget records",
}

Direction = Literal["residual", "over-forgotten", "both"]


def exit_code(word: Word) -> int:
    """Exit code for automation: 0 within, 3 outside, 4 inconclusive, 5 not assessed."""
    return EXIT_CODES[word]


def decide(
    endpoints: Sequence[Endpoint],
    gates: Sequence[GateResult],
    *,
    policy: Policy,
    limits: Limits,
    alpha: float | None = None,
    flags: Sequence[str] = (),
    drift_failed: bool = False,
    failures: Sequence[str] = (),
    hint: str = "",
) -> Verdict:
    """Turn endpoints and gates into the verdict.

    The order: (1) G2 or G5 fails: NOT ASSESSED. (2) An endpoint of any attack lies beyond its bound after Holm over
    attacks, endpoints and tails, or P6 fails: OUTSIDE BOUND; a failed positive control does not erase it. (3) The
    primary attack could not be computed: NOT ASSESSED. (4) G1, G3 or G4 fails, drift is left undecided, or a required
    endpoint is neither within nor beyond: INCONCLUSIVE. (5) Otherwise WITHIN BOUND.

    Conventions on endpoints: ``bound=None`` marks description, which decides nothing. ``undecided`` with no value means
    that the counts bear no decision; ``not computed`` that the computation failed or its input is missing. P5 is no
    part of the word. With drift, P1 and P3 (both compare forgotten with never-seen records) become description and P2
    decides; without a decidable P2 of the primary attack the word is INCONCLUSIVE.

    Args:
        endpoints: of all attacks; ``p_value`` is that of "beyond the bound", before Holm.
        gates: G1 to G8 and "drift".
        policy: levels and margins.
        limits: the cap of the tier; ``highest_tier=None`` means that no deletion verdict is possible.
        alpha: the endpoints' false-alarm rate, for the plain sentence; None where the counts bear none.
        flags: added to the computed ones.
        drift_failed: True when the blind baseline failed (also read from a gate "drift").
        failures: computations that failed; they can never lower the risk.
        hint: what would decide it and at what cost, from whoever knows the costs.

    Returns:
        The verdict; tier None for NOT ASSESSED.
    """
    status = {gate.id: gate for gate in gates}
    failed = [gate for gate in gates if gate.status == "fail"]
    drift = drift_failed or any(gate.id == "drift" for gate in failed)
    all_flags = _flags(endpoints, failed, flags, drift)
    broken = [gate for gate in failed if gate.id in ("G2", "G5")]
    named = [f"Not computed: {e.id} {e.part} ({e.detail or 'no reason given'})." for e in _uncomputed(endpoints)]

    if limits.highest_tier is None:
        return _verdict(
            "NOT ASSESSED", None, f"This input can say at most: {limits.may_say}.",
            [f"It cannot say {limits.cannot_say}."], all_flags, None,
            "The same audit with policy.profile = 'full'." if policy.profile == "smoke"
            else hint or "Answers of the models before and after deletion, on forget and never-seen records.",
        )  # fmt: skip
    if broken:
        return _verdict(
            "NOT ASSESSED", None, "A control of the audit itself failed, so its numbers carry no statement.",
            [_gate_reason(gate) for gate in broken], all_flags, None,
            hint or "Find out why the control failed (records, roles or files mixed up) and run the audit again.",
        )  # fmt: skip

    tier = _tier(endpoints, gates, limits)
    found = beyond_bound(endpoints, gates, policy=policy, drift_failed=drift_failed)
    if found:
        reasons = [_endpoint_reason(e) for e in found]
        if "G1" in status and status["G1"].status == "fail":
            reasons.append("The positive control failed; that cannot erase a signal that was found.")
        return _verdict(
            "OUTSIDE BOUND",
            tier,
            _meaning_outside(found, alpha),
            reasons + named,
            all_flags,
            _direction(found),
            "",
        )

    required = [e for e in endpoints if e.primary and e.required and not (drift and e.id in AGAINST_NEVER_SEEN)]
    lost = list(failures)
    if not drift:
        p1 = [e for e in required if e.id == "P1"]
        lost += [f"P1 {e.part}: {e.detail or 'not computed'}" for e in p1 if e.outcome == "not computed"]
        if not p1:
            lost.append("P1 of the primary attack is missing")
    if lost:
        return _verdict(
            "NOT ASSESSED", None, "A part of the audit that the word depends on could not be computed.",
            lost + named, all_flags, None, hint or "Repair the failed part and run the audit again.",
        )  # fmt: skip

    open_points, remedies = [], []
    for gate in failed:
        if gate.id in ("G1", "G3", "G4"):
            open_points.append(_gate_reason(gate))
            remedies.append(REMEDIES[gate.id])
    p2 = [e for e in required if e.id == "P2" and e.bound is not None and e.outcome != "not computed"]
    if drift and not p2:
        open_points.append(
            "Forget and never-seen records differ even without the model (drift), and there are too few retrained "
            "models to take the difference out."
        )
        remedies.append(REMEDIES["drift"])
    undecided = [e for e in required if e.outcome not in ("within", "not computed")]
    open_points += [_endpoint_reason(e) for e in undecided]
    if undecided:
        remedies.append("more forget and never-seen records")
    if open_points:
        return _verdict(
            "INCONCLUSIVE", tier, "The records and attacks at hand cannot tell whether the bound is kept.",
            open_points + named, all_flags, None, hint or "What would decide it: " + "; ".join(remedies) + ".",
        )  # fmt: skip
    reasons = [_endpoint_reason(e) for e in required if e.outcome == "within"]
    return _verdict("WITHIN BOUND", tier, _meaning_within(required, alpha), reasons + named, all_flags, None, "")


def beyond_bound(
    endpoints: Sequence[Endpoint], gates: Sequence[GateResult], *, policy: Policy, drift_failed: bool = False
) -> list[Endpoint]:
    """Return the endpoints that make a word OUTSIDE BOUND, after Holm over attacks, endpoints and tails."""
    drift = drift_failed or any(gate.id == "drift" and gate.status == "fail" for gate in gates)
    deciding = [e for e in endpoints if e.bound is not None and not (drift and e.id in AGAINST_NEVER_SEEN)]
    return _beyond(deciding, policy)


def _verdict(
    word: Word,
    tier: Tier | None,
    meaning: str,
    reasons: Sequence[str],
    flags: Sequence[str],
    direction: Direction | None,
    next_step: str,
) -> Verdict:
    return Verdict(word, tier, SENTENCES[word], meaning, tuple(reasons), tuple(flags), direction, next_step)


def _flags(
    endpoints: Sequence[Endpoint], failed: Sequence[GateResult], given: Sequence[str], drift: bool
) -> tuple[str, ...]:
    flags = list(given)
    gates = {gate.id for gate in failed}
    if "G6" in gates or any(e.id == "P5" and e.outcome == "beyond" for e in endpoints):
        flags.append("not fit for use")
    if "G8" in gates:
        flags.append("exploratory")
    if drift:
        flags.append("drift: P1 and P3 are description")
    if any(e.id == "P7" and e.outcome == "beyond" for e in endpoints):
        flags.append("claimed privacy parameter refuted")
    return tuple(dict.fromkeys(flags))


def _uncomputed(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    return [e for e in endpoints if e.required and e.outcome == "not computed"]


def _tier(endpoints: Sequence[Endpoint], gates: Sequence[GateResult], limits: Limits) -> Tier | None:
    """Worst of the input's cap and what was not run: a missing control C, any other missing gate B, missing parts C."""
    caps: list[Tier] = [limits.highest_tier] if limits.highest_tier is not None else []
    for gate in gates:
        if gate.status == "not run":
            caps.append("C" if gate.id in ("G1", "G2") else "B")
        elif gate.status == "fail" and gate.id == "G7":
            caps.append("C")
    for e in _uncomputed(endpoints):
        caps.append("D" if e.id == "P2" else "C")
    return max(caps, default=None)


def _beyond(deciding: Sequence[Endpoint], policy: Policy) -> list[Endpoint]:
    """Endpoints that give OUTSIDE BOUND: Holm over the rate endpoints, and P6, which is exact."""
    exact = [e for e in deciding if e.id == "P6" and e.outcome == "beyond"]
    family = [e for e in deciding if e.id in RATE_ENDPOINTS and _p_value(e, policy) is not None]
    if not family:
        return exact
    adjusted = holm(np.array([_p_value(e, policy) for e in family], np.float64))
    hits = [
        (float(p), e)
        for p, e in zip(adjusted, family, strict=True)
        if p <= policy.holm_level and (e.id != "P2" or e.outcome == "beyond")
    ]
    return exact + [e for _, e in sorted(hits, key=lambda pair: (pair[0], not pair[1].primary))]


def _p_value(e: Endpoint, policy: Policy) -> float | None:
    if e.p_value is not None:
        return e.p_value
    if e.outcome != "beyond":
        return None
    # An interval wholly beyond its margin says no more than p <= its one-sided error: take that, Holm needs a number.
    return (1 - policy.equivalence_level) / 2 if e.id == "P2" else 1 - policy.level


def _side(e: Endpoint) -> Direction:
    over = "over-forgotten" in e.part
    if e.id == "P2" and e.estimate.value is not None and e.estimate.value < 0:
        over = not over
    return "over-forgotten" if over else "residual"


def _direction(found: Sequence[Endpoint]) -> Direction | None:
    sides = {_side(e) for e in found if e.id in ("P1", "P2", "P3")}
    if not sides:
        return None
    return "both" if len(sides) > 1 else sides.pop()


def percent(value: float) -> str:
    """A proportion as percent for a sentence, without needless digits."""
    return f"{100 * value:.3g} %"


def _endpoint_reason(e: Endpoint) -> str:
    name = f"{e.id} {TITLES.get(e.id, '')} ({e.part}{', ' + e.attack if e.attack else ''})"
    if e.estimate.value is None:
        return f"{name}: {e.detail or e.estimate.reason or 'no value'}"
    counts = f" ({e.estimate.k} of {e.estimate.n})" if e.estimate.k is not None else ""
    ci = e.estimate.ci
    between = ""
    if ci is not None:
        between = {
            "two": f", interval {_amount(e, ci.lower)} to {_amount(e, ci.upper)}",
            "upper": f", at most {_amount(e, ci.upper)}",
            "lower": f", at least {_amount(e, ci.lower)}",
        }[ci.sides]
    bound = "" if e.bound is None else f"; the bound is {_amount(e, e.bound)}"
    return f"{name}: {_amount(e, e.estimate.value)}{counts}{between}{bound}: {e.outcome}."


def _amount(e: Endpoint, value: float) -> str:
    """A number of an endpoint as the tables print it: an AUC or an epsilon is no percentage."""
    return f"{value:.3g}" if "AUC" in e.part or e.id == "P7" else percent(value)


def _gate_reason(gate: GateResult) -> str:
    return f"{gate.id} {gate.title} failed: {gate.observed} (rule: {gate.rule})."


def _meaning_outside(found: Sequence[Endpoint], alpha: float | None) -> str:
    rates = [e for e in found if e.id == "P1"]
    # The attack that was named beforehand speaks first: its counts stand in the table beside this sentence.
    first = next((e for e in rates if e.primary), rates[0] if rates else found[0])
    if first.id == "P6":
        return "Rows that were to be removed are still stored inside the model file."
    if first.id == "P1" and first.estimate.k is not None:
        rate = "" if alpha is None else f" that raises a false alarm for {percent(alpha)} of unseen records"
        tail = (
            " They answer worse than records the model never saw, which gives away that they were removed."
            if _side(first) == "over-forgotten"
            else ""
        )
        return (
            f"An attack ({first.attack}){rate} still picks out {first.estimate.k} of {first.estimate.n} "
            f"forgotten records.{tail}"
        )
    if first.id == "P2":
        return "The model differs from models retrained without the forgotten records by more than the declared margin."
    if first.id == "P3":
        return "More forgotten than never-seen records stand out individually, beyond the declared bound."
    if first.id == "P4":
        return "The records that stayed are more exposed than in retrained models, beyond the declared bound."
    return "A signal in the forgotten records lies beyond the declared bound."


def _meaning_within(required: Sequence[Endpoint], alpha: float | None) -> str:
    residual = next((e for e in required if e.id == "P1" and _side(e) == "residual" and e.estimate.k is not None), None)
    if residual is None:
        return "The model cannot be told from models retrained without the forgotten records, within the margins."
    rate = "" if alpha is None else f" that raises a false alarm for {percent(alpha)} of unseen records"
    return (
        f"The attack that was chosen beforehand ({residual.attack}){rate} picks out {residual.estimate.k} of "
        f"{residual.estimate.n} forgotten records, no more than the bound allows."
    )
