"""Two audits side by side: differences with intervals, ties as ties, and what bars a comparison said first."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import audit, clean, factory, leaking, made
from typer.testing import CliRunner

from mnemoscope import api, cli
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.square_and_add import square_and_add
from mnemoscope.audit.verdict.result import AuditResult, ModelGroup, RecordSet, Subject
from mnemoscope.audit.verdict.rules import SENTENCES
from mnemoscope.audit_difference import AuditDifference, audit_difference
from mnemoscope.reports.schema import to_json


def other_models(subject: Subject, tag: str = "later") -> Subject:
    groups = tuple(replace(g, digest=factory().digest(tag, g.name)) for g in subject.models)
    return replace(subject, models=groups)


def other_records(result: AuditResult) -> AuditResult:
    sets = tuple(replace(s, digest=factory().digest("later", s.role)) for s in result.data.sets)
    return replace(result, data=replace(result.data, sets=sets))


def compare(a: AuditResult, b: AuditResult, *subjects: str) -> AuditDifference:
    return audit_difference(a, b, digests=("sha256:a", "sha256:a" if a is b else "sha256:b"), subjects=subjects)


def number(found: AuditDifference, quantity: str, models: str = "after", game: str = "forgetting"):
    rows = [n for n in found.pairs[0].numbers if (n.quantity, n.models, n.game) == (quantity, models, game)]
    assert len(rows) == 1, [(n.quantity, n.models, n.game) for n in found.pairs[0].numbers]
    return rows[0]


def test_a_difference_is_b_minus_a_with_the_interval_of_the_recorded_limits() -> None:
    found = compare(audit(leaking()), audit(other_models(clean())))
    tpr = number(found, "TPR at 1 % FPR, residual")
    assert tpr.difference == square_and_add(tpr.a, tpr.b)
    assert tpr.difference.value == tpr.b.value - tpr.a.value
    assert (tpr.relation, tpr.primary, tpr.same_models) == ("lower", True, False)
    assert number(found, "AUC").relation == "lower"
    assert number(found, "accuracy", game="forget").difference.ci is not None
    assert found.pairs[0].words[0][0] == "OUTSIDE BOUND"
    assert found.pairs[0].words[1][0] == "WITHIN BOUND"
    assert "lower" in found.text()


def test_equal_numbers_of_other_models_are_a_tie_with_an_interval() -> None:
    found = compare(audit(clean()), audit(other_models(clean())))
    tpr = number(found, "TPR at 1 % FPR, residual")
    assert (tpr.relation, tpr.difference.value) == ("tie", 0.0)
    assert tpr.difference.low < 0 < tpr.difference.high
    assert "A tie is no proof of equality" in found.text()
    assert "A tie is no proof of equality" in found.markdown()


def test_one_number_of_the_same_models_printed_twice_has_no_interval() -> None:
    result = audit(clean(), leaking("other"))
    found = compare(result, result, "mine", "other")
    same = number(found, "accuracy", "before", "forget")
    assert (same.relation, same.same_models, same.difference.ci) == ("tie", True, None)
    assert "the same models" in (same.difference.reason or "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: (a, a), "both sides come from one audit"),
        (lambda a: (a, replace(a, created_at="2026-12-01T00:00:00Z")), "the same models, by digest (before, "),
        (lambda a: (a, audit(other_models(clean()))), "they share the same records."),
        (lambda a: (a, other_records(audit(other_models(clean())))), "they share records of the same data."),
    ],
)
def test_what_the_intervals_assume_is_said_as_far_as_it_is_known(change, said: str) -> None:
    found = compare(*change(audit(clean())))
    assert said in found.assumption
    assert "as independent" in found.assumption
    assert "wider than they need be" in found.assumption
    assert "too narrow" in found.assumption
    assert found.assumption in found.text()


def barred(change) -> AuditDifference:
    a = audit(clean())
    return compare(a, change(audit(other_models(leaking()))))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: replace(r, data=replace(r.data, digest=factory().digest("other data"))), "data"),
        (lambda r: replace(r, mode="one-model"), "mode"),
    ],
)
def test_incomparable_numbers_come_first_and_have_no_difference(change, what: str) -> None:
    found = barred(change)
    assert [c.what for c in found.affecting("numbers")] == [what]
    numbers = found.pairs[0].numbers
    assert numbers
    assert all(n.relation == "not compared" and n.difference.value is None for n in numbers)
    assert all(n.a.value is not None for n in numbers if n.quantity == "AUC")
    assert found.assumption == ""
    text = found.text()
    assert text.index("incomparable") < text.index("TPR at 1 % FPR")
    assert f"not comparable: {what}" in text
    assert "incomparable" in found.markdown().partition("###")[0]


def test_other_records_of_one_model_bar_numbers_and_over_a_fleet_they_do_not() -> None:
    fleet = compare(audit(clean()), other_records(audit(other_models(clean()))))
    assert [(c.what, c.affects) for c in fleet.changes if c.what == "record sets"] == [("record sets", "neither")]
    one = [replace(audit(s), mode="one-model") for s in (clean(), other_models(clean()))]
    single = compare(one[0], other_records(one[1]))
    assert [c.what for c in single.affecting("numbers")] == ["record sets"]


def test_other_bounds_bar_words_and_leave_numbers_their_differences() -> None:
    stricter = audit(other_models(clean()), policy={"min_power": 0.9, "drift_level": 0.02})
    found = compare(audit(clean()), stricter)
    assert [c.what for c in found.affecting("words")] == ["policy.min_power", "policy.drift_level"]
    assert number(found, "AUC").difference.value is not None
    assert "These make the words incomparable" in found.text()


def test_everything_else_that_changed_is_listed() -> None:
    a, b = audit(clean()), audit(other_models(clean(failed=("G7",))))
    environment = replace(b.environment, packages={**b.environment.packages, "torch": "9.9"}, mnemoscope="0.2.0")
    plan = replace(b.plan, digest=factory().digest("new plan"), seed=5)
    found = compare(a, replace(b, environment=environment, plan=plan))
    listed = {c.what: (c.a, c.b) for c in found.affecting("neither")}
    assert listed["package torch"] == ("2.15.0", "9.9")
    assert listed["mnemoscope"] == ("0.1.0", "0.2.0")
    assert listed["seed"] == ("0", "5")
    assert "plan" in listed
    assert found.pairs[0].gates == (("G7", "pass", "fail"),)
    assert "gate G7: pass -> fail" in found.text()


def test_rates_are_read_at_an_fpr_that_both_recorded() -> None:
    a, b = audit(clean()), audit(other_models(clean()))
    looser = replace(b, plan=replace(b.plan, alpha=0.1))
    subject = looser.subjects[0]
    # The words of an audit at another alpha rest on other endpoints; take them away, and the controls with them.
    looser = replace(looser, subjects=(replace(subject, endpoints=()),))
    with pytest.raises(InvalidInput, match="the second result: the document contradicts itself"):
        compare(a, looser)
    quantities = {n.quantity for n in compare(a, b).pairs[0].numbers if n.kind == "rate" and n.attack}
    assert quantities == {"TPR at 1 % FPR, residual", "TPR at 1 % FPR, over-forgotten"}
    leak = made("membership")
    shown = {n.quantity for n in compare(leak, leak).pairs[0].numbers if n.kind == "rate" and n.attack}
    assert shown == {"TPR at 1 % FPR, residual", "TPR at 1 % FPR, over-forgotten"}


def test_where_no_rate_stands_at_alpha_the_smallest_that_both_bear_is_read() -> None:
    result = audit(clean())
    found = tuple(replace(f, tpr=tuple(t for t in f.tpr if t.fpr != 0.01)) for f in result.subjects[0].findings)
    other = audit(other_models(replace(clean(), findings=found)))
    shown = {n.quantity for n in compare(result, other).pairs[0].numbers if n.kind == "rate" and n.attack}
    assert shown == {"TPR at 0.1 % FPR, residual", "TPR at 0.1 % FPR, over-forgotten"}


def test_findings_that_one_side_lacks_are_named() -> None:
    less = replace(clean(), findings=clean().findings[:1])
    more = replace(factory().subject("retrain"), name="mine", method="mine")
    found = compare(audit(less), audit(other_models(more)))
    assert any(line.startswith("only in the second: ") and "rmia" in line for line in found.pairs[0].only)


def test_how_often_chance_alone_would_show_a_difference_is_said() -> None:
    found = compare(audit(clean()), audit(other_models(leaking())))
    compared = [n for n in found.pairs[0].numbers if n.relation != "not compared" and not n.same_models]
    assert f"{len(compared)} numbers compared in all" in found.text()


def test_subjects_are_matched_by_name_or_named() -> None:
    a, b = audit(clean("one"), clean("two")), audit(clean("two"), clean("three"))
    assert [(p.a, p.b) for p in compare(a, b).pairs] == [("two", "two")]
    assert [(p.a, p.b) for p in compare(a, b, "one", "three").pairs] == [("one", "three")]
    assert [(p.a, p.b) for p in compare(audit(clean("x")), audit(clean("y"))).pairs] == [("x", "y")]
    with pytest.raises(InvalidInput, match="'three' is not in the first result; it holds one, two"):
        compare(a, b, "three")
    with pytest.raises(InvalidInput, match="share no subject"):
        compare(a, audit(clean("y"), clean("z")))
    with pytest.raises(InvalidInput, match="3 are given"):
        compare(a, b, "one", "two", "three")


def test_an_edited_result_is_refused() -> None:
    b = audit(leaking())
    verdict = replace(b.subjects[0].verdict, word="WITHIN BOUND", sentence=SENTENCES["WITHIN BOUND"])
    with pytest.raises(InvalidInput, match="the second result: .*contradicts itself"):
        compare(audit(clean()), replace(b, subjects=(replace(b.subjects[0], verdict=verdict),)))


def test_views_are_the_same_for_the_same_documents_and_hostile_names_stay_text() -> None:
    name = "<script>\u202e| [x](http://y) \x1b[2J"
    found = compare(audit(clean(name)), audit(leaking(name)))
    assert found.markdown() == compare(audit(clean(name)), audit(leaking(name))).markdown()
    for text in (found.markdown(), found.text()):
        assert "\u202e" not in text
        assert "\x1b" not in text
    assert "<script" not in found.markdown()
    assert json.loads(found.json())["pairs"][0]["a"] == name


def test_the_command_shows_writes_and_does_not_overwrite(tmp_path: Path) -> None:
    for name, result in (("a", audit(clean())), ("b", audit(other_models(leaking())))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(to_json(result))
    command = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert "TPR at 1 % FPR, residual (lira, forgetting, after)" in done.stdout
    assert "higher" in done.stdout
    written = json.loads((tmp_path / "out" / "difference.json").read_text(encoding="utf-8"))
    shown = CliRunner().invoke(cli.app, [*command[:3], "--json"])
    assert json.loads(shown.stdout) == written
    digest = api.diff(tmp_path / "a", tmp_path / "b").a.digest
    assert digest in (tmp_path / "out" / "difference.md").read_text(encoding="utf-8")
    (tmp_path / "out" / "difference.md").write_text("mine")
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert CliRunner().invoke(cli.app, [*command, "--force"]).exit_code == 0
    missing = CliRunner().invoke(cli.app, ["diff", str(tmp_path / "a"), str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "cannot read" in missing.stderr


def test_record_sets_and_groups_are_what_the_document_holds() -> None:
    """The fixtures above replace digests of these; were they renamed, sharing would be tested on nothing."""
    result = audit(clean())
    assert all(isinstance(s, RecordSet) for s in result.data.sets)
    assert {g.role for g in result.subjects[0].models} >= {"before", "after", "retrained"}
    assert all(isinstance(g, ModelGroup) for g in result.subjects[0].models)
