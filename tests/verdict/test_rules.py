"""Truth table of the verdict: every word, every gate, every row of the order, and the texts."""

import dataclasses
import itertools
import re

import pytest

from mnemoscope.audit.statistics.trials import Estimate, Interval
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.result import Endpoint, GateResult, Limits, Verdict
from mnemoscope.audit.verdict.rules import EXIT_CODES, FORBIDDEN_WORDS, SENTENCES, decide, exit_code

POLICY = Policy()
B = limits_of("one-model", n_retrained=5)
A = limits_of("one-model", n_retrained=19, process_evidence=True)
D = limits_of("one-model")
GATES = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "drift")


def endpoint(
    id: str,
    outcome: str = "within",
    p: float | None = 0.99,
    *,
    part: str = "TPR, residual",
    attack: str = "first",
    primary: bool = True,
    required: bool = True,
    value: float | None = 0.01,
    bound: float | None = 0.02,
    k: int | None = 6,
) -> Endpoint:
    ci = None if value is None else Interval(value / 2, value * 1.5, 0.9, "two", "test")
    estimate = Estimate(value, ci, k, 600 if k is not None else None)
    return Endpoint(id, part, attack, primary, required, estimate, bound, outcome, p, "detail")  # type: ignore[arg-type]


def gates(**status: str) -> list[GateResult]:
    return [GateResult(g, f"title {g}", f"rule {g}", status.get(g, "pass"), f"saw {g}", "?") for g in GATES]  # type: ignore[arg-type]


def all_within() -> list[Endpoint]:
    return [
        endpoint("P1"),
        endpoint("P1", part="TPR, over-forgotten"),
        endpoint("P2", part="TPR difference, residual"),
        endpoint("P2", part="AUC difference", bound=0.05, k=None),
        endpoint("P3", part="exceedance share difference", k=None),
        endpoint("P4", part="retained TPR difference", k=None),
        endpoint("P5", part="accuracy difference", attack="", primary=False, required=False, p=None, k=None),
        endpoint("P1", attack="second", primary=False, required=False),
    ]


def word(
    endpoints: list[Endpoint], gate_list: list[GateResult] | None = None, limits: Limits = B, **kw: object
) -> Verdict:
    return decide(
        endpoints, gates() if gate_list is None else gate_list, policy=POLICY, limits=limits, alpha=0.01, **kw
    )  # type: ignore[arg-type]


def with_outcome(index: int, **change: object) -> list[Endpoint]:
    found = all_within()
    found[index] = dataclasses.replace(found[index], **change)  # type: ignore[arg-type]
    return found


def test_all_within() -> None:
    v = word(all_within())
    assert (v.word, v.tier, v.direction, v.flags, v.next_step) == ("WITHIN BOUND", "B", None, (), "")
    assert v.sentence == SENTENCES["WITHIN BOUND"]
    assert "6 of 600" in v.meaning
    assert "1 %" in v.meaning


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("G1", "INCONCLUSIVE"), ("G2", "NOT ASSESSED"), ("G3", "INCONCLUSIVE"), ("G4", "INCONCLUSIVE"),
        ("G5", "NOT ASSESSED"), ("G6", "WITHIN BOUND"), ("G7", "WITHIN BOUND"), ("G8", "WITHIN BOUND"),
    ],
)  # fmt: skip
def test_each_gate_failure(gate: str, expected: str) -> None:
    v = word(all_within(), gates(**{gate: "fail"}))
    assert v.word == expected
    if expected in ("INCONCLUSIVE", "NOT ASSESSED"):
        assert any(f"saw {gate}" in reason for reason in v.reasons)
        assert v.next_step
    assert v.flags == {"G6": ("not fit for use",), "G8": ("exploratory",)}.get(gate, ())
    assert v.tier == (None if expected == "NOT ASSESSED" else "C" if gate == "G7" else "B")


@pytest.mark.parametrize("status", ["not run", "not applicable"])
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_was_not_run_caps_the_tier_and_never_fails(gate: str, status: str) -> None:
    v = word(all_within(), gates(**{gate: status}), A)
    assert v.word == "WITHIN BOUND"
    assert v.tier == ("A" if status == "not applicable" else "C" if gate in ("G1", "G2") else "B")


BEYOND = {"outcome": "beyond", "p_value": 1e-6}


@pytest.mark.parametrize("index", [0, 1, 2, 3, 4, 5, 7])
def test_each_rate_endpoint_beyond_gives_outside(index: int) -> None:
    v = word(with_outcome(index, **BEYOND))
    assert v.word == "OUTSIDE BOUND"
    assert v.tier == "B"
    assert v.next_step == ""
    for gate in ("G1", "G3", "G4", "G6", "G7", "G8"):
        assert word(with_outcome(index, **BEYOND), gates(**{gate: "fail"})).word == "OUTSIDE BOUND"
    for gate in ("G2", "G5"):
        assert word(with_outcome(index, **BEYOND), gates(**{gate: "fail"})).word == "NOT ASSESSED"


def test_failed_positive_control_is_named_beside_outside() -> None:
    v = word(with_outcome(0, **BEYOND), gates(G1="fail"))
    assert any("cannot erase" in reason for reason in v.reasons)


@pytest.mark.parametrize("index", range(6))
def test_a_required_endpoint_neither_within_nor_beyond(index: int) -> None:
    v = word(with_outcome(index, outcome="undecided", p_value=0.4))
    assert v.word == "INCONCLUSIVE"
    assert v.sentence == SENTENCES["INCONCLUSIVE"]
    assert "more forget and never-seen records" in v.next_step
    assert word(
        with_outcome(index, outcome="undecided", p_value=0.4), hint="Train 5 models, 12 minutes."
    ).next_step == ("Train 5 models, 12 minutes.")


def test_other_attacks_never_decide_within() -> None:
    assert word(with_outcome(7, outcome="undecided", p_value=0.4)).word == "WITHIN BOUND"


def test_holm_over_attacks_endpoints_and_tails() -> None:
    quiet = [endpoint("P1", attack=f"quiet {i}", primary=False, required=False) for i in range(9)]
    # 7 rate endpoints: 0.007 * 7 <= 0.05; with 9 more it no longer holds.
    hit = with_outcome(7, outcome="beyond", p_value=0.007)
    assert word(hit).word == "OUTSIDE BOUND"
    assert word(hit + quiet).word == "WITHIN BOUND"
    # The same on the primary attack is beyond by itself but not after correction: neither within nor outside.
    assert word(with_outcome(0, outcome="beyond", p_value=0.007) + quiet).word == "INCONCLUSIVE"


def test_p2_counts_only_when_its_whole_interval_lies_beyond() -> None:
    assert word(with_outcome(2, outcome="undecided", p_value=1e-9)).word == "INCONCLUSIVE"
    assert word(with_outcome(2, outcome="beyond", p_value=1e-9)).word == "OUTSIDE BOUND"
    # Without a p-value a 90 % interval beyond the margin is worth p = 5 %: alone it counts, among seven it does not.
    lone = with_outcome(2, outcome="beyond", p_value=None)[2:3]
    assert word([dataclasses.replace(endpoint("P1"), p_value=None), *lone]).word == "OUTSIDE BOUND"
    assert word(with_outcome(2, outcome="beyond", p_value=None)).word == "INCONCLUSIVE"


def test_p6_is_exact_and_needs_no_correction() -> None:
    p6 = endpoint("P6", "beyond", None, part="rows inside the artefact", attack="", bound=0.0, primary=False, k=3)
    quiet = [endpoint("P1", attack=f"quiet {i}", primary=False, required=False) for i in range(50)]
    v = word([*all_within(), *quiet, p6])
    assert v.word == "OUTSIDE BOUND"
    assert "inside the model file" in v.meaning
    assert v.direction is None


def test_p5_never_gives_outside_and_is_no_part_of_within() -> None:
    for outcome in ("beyond", "undecided", "not computed"):
        v = word(
            with_outcome(
                6,
                outcome=outcome,
                p_value=1e-9 if outcome == "beyond" else None,
                required=outcome != "not computed",
            )
        )
        assert v.word == "WITHIN BOUND"
        assert v.flags == (("not fit for use",) if outcome == "beyond" else ())


def test_description_decides_nothing() -> None:
    for index in (2, 5):
        assert word(with_outcome(index, bound=None, required=False, **BEYOND)).word == "WITHIN BOUND"


def test_row_29_over_forgetting_has_its_own_word() -> None:
    """peer-defects row 29: a ratio of AUCs hides over-forgetting (2e-5); both tails are tested and named."""
    auc_after, auc_retrained = 2e-5, 0.5
    faulty_passes = auc_after / auc_retrained < 1.1
    assert faulty_passes
    v = word(with_outcome(1, outcome="beyond", p_value=1e-30))
    assert (v.word, v.direction) == ("OUTSIDE BOUND", "over-forgotten")
    assert "worse than records the model never saw" in v.meaning
    assert word(with_outcome(0, **BEYOND)).direction == "residual"
    both = with_outcome(0, **BEYOND)
    both[1] = dataclasses.replace(both[1], **BEYOND)  # type: ignore[arg-type]
    assert word(both).direction == "both"
    negative = dataclasses.replace(Estimate(-0.3, None))
    assert word(with_outcome(3, estimate=negative, **BEYOND)).direction == "over-forgotten"


def test_row_25_failure_is_never_low_risk() -> None:
    """peer-defects row 25: a failing attack returned 0.0 and was reported as LOW."""

    def faulty(score: float | None) -> str:
        return "LOW" if (score or 0.0) < 0.1 else "HIGH"

    assert faulty(None) == "LOW"
    lost = with_outcome(
        0,
        outcome="not computed",
        p_value=None,
        estimate=Estimate(None, reason="it crashed"),
        detail="it crashed",
    )
    for v in (
        word(lost),
        word(all_within(), failures=["the primary attack raised"]),
        word([]),
        word([all_within()[7]]),
    ):
        assert (v.word, v.tier) == ("NOT ASSESSED", None)
        assert v.sentence == "No statement is made."
        assert v.reasons
        assert exit_code(v.word) == 5
    # A failure does not hide what another attack has found either.
    assert word(with_outcome(7, **BEYOND), failures=["the primary attack raised"]).word == "OUTSIDE BOUND"


def test_row_26_no_low_word_without_tail_interval_and_positive_control() -> None:
    """peer-defects row 26: "SAFE" when AUC < 0.55; ours needs both tails, intervals and a control that sees a leak."""
    auc = 0.52
    assert ("SAFE" if auc < 0.55 else "RISK") == "SAFE"
    described = endpoint("P2", part="AUC", value=auc, bound=None, p=None, k=None, required=False)
    assert word([described]).word == "NOT ASSESSED"
    assert word(all_within(), gates(G1="fail")).word == "INCONCLUSIVE"
    wide = with_outcome(0, outcome="undecided", p_value=0.3)
    assert word(wide).word == "INCONCLUSIVE"


@pytest.mark.parametrize(("index", "tier"), [(2, "D"), (4, "C"), (5, "C")])
def test_what_could_not_be_computed_is_named_and_caps_the_tier(index: int, tier: str) -> None:
    lost = with_outcome(
        index, outcome="not computed", p_value=None, estimate=Estimate(None, reason="x"), detail="no models"
    )
    v = word(lost)
    assert (v.word, v.tier) == ("WITHIN BOUND", tier)
    assert any("Not computed" in reason and "no models" in reason for reason in v.reasons)


def test_counts_that_bear_no_rate_are_inconclusive_not_a_failure() -> None:
    few = with_outcome(
        0, outcome="undecided", p_value=None, estimate=Estimate(None, reason="below 1/n"), detail="12 records"
    )
    v = word(few, hint="procedure mode: 72 models, about 3 minutes")
    assert v.word == "INCONCLUSIVE"
    assert "procedure mode" in v.next_step
    assert any("12 records" in reason for reason in v.reasons)


def test_drift_lets_p2_decide() -> None:
    leak = with_outcome(0, **BEYOND)
    assert word(leak, gates(drift="fail")).word == "WITHIN BOUND"
    assert word(leak, drift_failed=True).word == "WITHIN BOUND"
    assert "drift: P1 and P3 are description" in word(leak, drift_failed=True).flags
    assert word(with_outcome(4, **BEYOND), drift_failed=True).word == "WITHIN BOUND"
    assert word(with_outcome(2, **BEYOND), drift_failed=True).word == "OUTSIDE BOUND"
    assert word(with_outcome(2, outcome="undecided"), drift_failed=True).word == "INCONCLUSIVE"
    lost = with_outcome(2, outcome="not computed", p_value=None)
    lost[3] = dataclasses.replace(lost[3], outcome="not computed", p_value=None)
    assert word(lost, drift_failed=True).word == "INCONCLUSIVE"


def test_drift_without_retrained_models_is_inconclusive() -> None:
    no_p2 = [e for e in all_within() if e.id not in ("P2", "P4", "P5")]
    assert word(no_p2, limits=D).word == "WITHIN BOUND"
    for outcome, p in (("within", 0.9), ("beyond", 1e-9)):
        moved = [dataclasses.replace(e, outcome=outcome, p_value=p) for e in no_p2]  # type: ignore[arg-type]
        v = word(moved, gates(drift="fail"), D)
        assert v.word == "INCONCLUSIVE"
        assert "5 retrained models" in v.next_step
    described = [dataclasses.replace(e, bound=None, required=False) if e.id == "P2" else e for e in all_within()]
    assert word(described, drift_failed=True).word == "INCONCLUSIVE"


def test_membership_mode_has_no_deletion_verdict() -> None:
    v = word(with_outcome(0, **BEYOND), limits=limits_of("membership"))
    assert (v.word, v.tier) == ("NOT ASSESSED", None)
    assert "leakage estimates with intervals" in v.meaning


def test_exit_codes() -> None:
    assert EXIT_CODES == {"WITHIN BOUND": 0, "OUTSIDE BOUND": 3, "INCONCLUSIVE": 4, "NOT ASSESSED": 5}
    assert [exit_code(w) for w in SENTENCES] == [0, 3, 4, 5]


@pytest.mark.slow
def test_no_verdict_uses_a_forbidden_word() -> None:
    verdicts = []
    for outcome, gate, status, limit, drift in itertools.product(
        ("within", "beyond", "undecided", "not computed"),
        GATES,
        ("pass", "fail", "not run"),
        (A, B, D),
        (False, True),
    ):
        for index in range(8):
            verdicts.append(
                word(
                    with_outcome(index, outcome=outcome, p_value=1e-9 if outcome == "beyond" else 0.5),
                    gates(**{gate: status}),
                    limit,
                    drift_failed=drift,
                )
            )
    p6 = endpoint("P6", "beyond", None, part="rows", attack="", bound=0.0, primary=False, k=3)
    verdicts += [word([p6]), word([])]
    assert {v.word for v in verdicts} == set(SENTENCES)
    for v in verdicts:
        text = " ".join((v.sentence, v.meaning, v.next_step, *v.reasons, *v.flags))
        assert v.meaning.endswith(".")
        for bad in FORBIDDEN_WORDS:
            assert not re.search(rf"\b{bad}\b", text, re.I), (bad, text)


@pytest.mark.parametrize(
    ("id", "part", "value", "bound", "said"),
    [
        ("P2", "AUC difference to retrained", 0.0612, 0.05, "0.0612, interval 0.0306 to 0.0918; the bound is 0.05:"),
        ("P2", "AUC minus retrained", -0.07, 0.05, "-0.07, interval -0.035 to -0.105; the bound is 0.05:"),
        ("P7", "lower limit of epsilon, residual", 2.5, 2.0, "2.5, interval 1.25 to 3.75; the bound is 2:"),
        ("P2", "TPR difference to retrained, residual", 0.0612, 0.05, "6.12 %, interval 3.06 % to 9.18 %; the bound"),
        ("P1", "TPR at 1.0% FPR, residual", 0.06, 0.02, "6 %, interval 3 % to 9 %; the bound is 2 %:"),
    ],
)
def test_sentences_print_numbers_as_the_tables_do(id: str, part: str, value: float, bound: float, said: str) -> None:
    found = endpoint(id, "beyond", 1e-6, part=part, value=value, bound=bound, k=None)
    reasons = [reason for reason in word([*all_within(), found], gates()).reasons if part in reason]
    assert reasons
    assert all(said in reason for reason in reasons)


@pytest.mark.parametrize("part", ["AUC difference to retrained", "AUC minus retrained"])
def test_tables_print_every_auc_difference_with_its_sign(part: str) -> None:
    from mnemoscope.reports import phrases

    found = endpoint("P2", part=part, value=0.0612, bound=0.05, k=None)
    assert phrases.estimate(found.estimate, phrases.kind_of(found)).startswith("+0.061 (90 % CI +0.031 to +0.092")
    assert phrases.bound(found) == "within ±0.05"
