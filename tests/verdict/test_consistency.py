"""A document that fits its schema and says what does not follow from the rest of it is found out, and where."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_results import audit, clean, edited, factory, leaking, with_drift

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.consistency import inconsistencies, policy_of, require_consistent
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.policy_record import Deviation
from mnemoscope.audit.verdict.result import NotRun
from mnemoscope.audit.verdict.rules import SENTENCES
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.schema import read_result

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("made", ["result", "all_words", "membership", "successive", "hostile"])
def test_what_the_rules_decided_follows_from_what_is_recorded(made: str) -> None:
    assert inconsistencies(getattr(factory(), made)()) == ()


@pytest.mark.parametrize("name", ["location30", "cifar10_small_cnn", "compare_leaking", "compare_retrained"])
def test_audits_of_every_release_still_follow_from_what_they_record(name: str) -> None:
    assert inconsistencies(read_result(RESULTS / f"{name}.json")) == ()


def test_the_public_edition_can_be_checked_although_it_withholds_numbers() -> None:
    hidden = for_edition(factory().result(), "public", min_group=10**6)
    assert any(e.estimate.value is None and e.outcome == "within" for s in hidden.subjects for e in s.endpoints)
    assert inconsistencies(hidden) == ()


def word(subject, said):
    return replace(subject, verdict=replace(subject.verdict, word=said, sentence=SENTENCES[said]))


def edits():
    """(name, an edited result, what is said of it)."""
    bad, good = audit(leaking()).subjects[0], audit(clean()).subjects[0]
    g = factory()

    def result(subject):
        return replace(audit(clean()), subjects=(subject,))

    yield "a better word", result(word(bad, "WITHIN BOUND")), "OUTSIDE BOUND follows"
    yield "a word that only says less", result(word(bad, "INCONCLUSIVE")), "OUTSIDE BOUND follows"
    yield "an accusation", result(word(good, "OUTSIDE BOUND")), "WITHIN BOUND follows"
    yield "another sentence", result(replace(good, verdict=replace(good.verdict, sentence="All is well."))), "sentence"
    yield "a better tier", result(replace(good, verdict=replace(good.verdict, tier="A"))), "the tier is A"
    yield "a direction", result(replace(bad, verdict=replace(bad.verdict, direction=None))), "direction"
    unfit = audit(clean(failed=("G6",))).subjects[0]
    yield "a flag taken away", result(replace(unfit, verdict=replace(unfit.verdict, flags=()))), "not fit for use"
    yield "a gate that passes now", replace(
        audit(clean(failed=("G2",))), subjects=(replace(audit(clean(failed=("G2",))).subjects[0], gates=g.gates()),)
    ), "WITHIN BOUND follows"  # fmt: skip
    hit = {"id": "P1", "attack": "lira", "outcome": "beyond"}
    yield "an outcome", result(edited(bad, lambda e: replace(e, outcome="within"), **hit)), "'within', and the interval"
    yield "a wider bound", result(edited(bad, lambda e: replace(e, bound=0.9), **hit)), "the policy's is 0.02"
    yield (
        "no p-value to speak of",
        result(edited(bad, lambda e: replace(e, p_value=1.0), **hit)),
        "'beyond', with a p-value of 1",
    )
    low = {"id": "P1", "attack": "lira", "outcome": "within"}
    yield (
        "limits the wrong way round",
        result(
            edited(
                good, lambda e: replace(e, estimate=replace(e.estimate, ci=replace(e.estimate.ci, lower=2.0))), **low
            )
        ),
        "is above the upper limit",
    )
    yield (
        "a number without an outcome",
        result(edited(good, lambda e: replace(e, outcome="not computed"), id="P4")),
        "'not computed', and the value is",
    )
    yield (
        "an undecided one",
        result(edited(good, lambda e: replace(e, outcome="undecided"), id="P3")),
        "'undecided', and the interval",
    )
    rows = {"id": "P6"}
    found = lambda e: replace(e, outcome="within", estimate=g.rate(3, 600))  # noqa: E731
    yield "rows in the artefact", result(edited(good, found, **rows)), "'within' with 3 rows found"
    made = audit(clean())
    yield (
        "a wider policy",
        replace(made, plan=replace(made.plan, policy={**made.plan.policy, "tpr_ratio": 40.0})),
        "the policy's is 0.4",
    )
    yield (
        "no policy",
        replace(made, plan=replace(made.plan, policy={**made.plan.policy, "level": 7.0})),
        "policy is none",
    )
    yield (
        "a plan that was not fixed",
        replace(made, plan=replace(made.plan, committed_before_scores=False)),
        "'exploratory' is missing",
    )
    yield (
        "deviations of a committed plan",
        replace(made, plan=replace(made.plan, deviations=(Deviation("seed", "0", "1"),))),
        "said to be the committed one",
    )
    yield "two of one name", replace(made, subjects=made.subjects * 2), "is there 2 times"
    best = replace(made.limits, highest_tier="A")
    top = replace(good, verdict=replace(good.verdict, tier="A"))
    yield (
        "tier A without process evidence",
        replace(made, limits=best, subjects=(top,), not_run=(NotRun("process evidence", "none was given"),)),
        "process evidence is listed as not given",
    )
    few = replace(good, models=tuple(replace(m, n_models=1) for m in good.models))
    yield "a tier that so few models do not bear", replace(made, mode="one-model", subjects=(few,)), "which bear C"
    none = replace(good, models=tuple(m for m in good.models if m.role != "retrained"))
    yield "a tier without retrained models", replace(made, mode="one-model", subjects=(none,)), "which bear D"
    yield (
        "a tier of a smoke run",
        replace(made, plan=replace(made.plan, policy={**made.plan.policy, "profile": "smoke"})),
        "for a smoke run",
    )
    yield "a tier of members", replace(made, mode="membership"), "for an audit of one model's members"
    yield "no tier at all", replace(made, limits=replace(best, highest_tier=None)), "no tier is said to be possible"
    row = g.successive().requests[0]
    yield (
        "a request's word",
        replace(made, requests=(replace(row, subject="mine", requests=1, request=1, word="OUTSIDE BOUND"),)),
        "the audit after this request says 'WITHIN BOUND'",
    )


@pytest.mark.parametrize(("made", "said"), [pytest.param(r, s, id=n) for n, r, s in edits()])
def test_an_edit_is_found_and_named(made, said: str) -> None:
    assert any(said in fault for fault in inconsistencies(made)), inconsistencies(made)
    with pytest.raises(InvalidInput, match="contradicts itself"):
        require_consistent(made)


def test_a_failed_computation_may_make_a_word_say_less_and_never_more() -> None:
    def lost(subject):
        said = replace(
            subject.verdict, word="NOT ASSESSED", tier=None, sentence=SENTENCES["NOT ASSESSED"], direction=None,
            meaning="A part of the audit that the word depends on could not be computed.", reasons=("lira failed",),
        )  # fmt: skip
        return replace(audit(clean()), subjects=(replace(subject, verdict=said),))

    assert inconsistencies(lost(audit(clean()).subjects[0])) == ()
    assert any("OUTSIDE BOUND follows" in fault for fault in inconsistencies(lost(audit(leaking()).subjects[0])))


def test_a_policy_is_read_back_from_a_result_and_later_keys_are_left_out() -> None:
    ours = Policy(alpha=0.05, alpha_candidates=(0.05, 0.1), primary_order=("a", "b"), profile="smoke")
    assert policy_of({**ours.as_dict(), "of_a_later_release": 1}) == ours
    assert policy_of({}) == Policy()
    with pytest.raises(InvalidInput, match="no number"):
        policy_of({"alpha_candidates": "0.1, many"})


def test_drift_and_undecided_endpoints_keep_their_words() -> None:
    assert inconsistencies(audit(with_drift(clean()))) == ()
