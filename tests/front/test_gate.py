"""The gate's exit codes: one result for every word, every failed gate, and everything that a policy can ask for."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_results import audit, clean, edited, factory, leaking, made, with_drift, without_gate
from typer.testing import CliRunner

from mnemoscope import api, cli
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.statistics.trials import Estimate
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.policy_file import read_policy
from mnemoscope.audit.verdict.policy_record import Deviation, PolicyRecord
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.audit.verdict.rules import SENTENCES
from mnemoscope.gate import GateOutcome, decide_gate, junit_cases
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.junit import junit_xml
from mnemoscope.reports.schema import to_json

MADE_AT = datetime(2026, 11, 21, 5, 40, tzinfo=UTC)  # of the factory's results
SMOKE = {
    "policy": {"profile": "smoke"},
    "limits": limits_of("procedure", has_fleet=True, policy=Policy(profile="smoke")),
}


def undecided() -> AuditResult:
    wide = Estimate(0.009, replace(factory().number(0.009, 0.004).ci, lower=0.001, upper=0.03), n=600)
    return audit(edited(clean(), lambda e: replace(e, outcome="undecided", estimate=wide, p_value=0.6), id="P3"))


def lost() -> AuditResult:
    none = Estimate(None, reason="the attack failed")
    gone = {"id": "P1", "attack": "lira"}
    return audit(edited(clean(), lambda e: replace(e, outcome="not computed", estimate=none, p_value=None), **gone))


def rows_inside() -> AuditResult:
    return audit(edited(clean(), lambda e: replace(e, outcome="beyond", estimate=factory().rate(3, 600)), id="P6"))


def slow_model() -> AuditResult:
    worse = factory().number(-0.2, 0.001)
    return audit(edited(clean(failed=("G6",)), lambda e: replace(e, outcome="beyond", estimate=worse), id="P5"))


def both(*words: str) -> AuditResult:
    gates = {"lost": "G2", "open": "G1"}
    return audit(*(clean(w, failed=(gates[w],)) if w in gates else leaking(w) for w in words))


def one_old() -> AuditResult:
    return replace(audit(clean()), created_at="2025-01-01T00:00:00Z")


TRUTH: list[tuple[str, Callable[[], AuditResult], dict[str, object], int, str]] = [
    # every word
    ("WITHIN BOUND", lambda: audit(clean()), {}, 0, "meets the policy"),
    ("OUTSIDE BOUND", lambda: audit(leaking()), {}, 3, "mine is OUTSIDE BOUND"),
    ("INCONCLUSIVE", undecided, {}, 4, "mine is INCONCLUSIVE"),
    ("NOT ASSESSED", lost, {}, 5, "mine is NOT ASSESSED"),
    ("rows in the artefact", rows_inside, {}, 3, "OUTSIDE"),
    # every gate of the audit that failed
    ("G1 failed", lambda: audit(clean(failed=("G1",))), {}, 4, "INCONCLUSIVE"),
    ("G2 failed", lambda: audit(clean(failed=("G2",))), {}, 5, "NOT ASSESSED"),
    ("G3 failed", lambda: audit(clean(failed=("G3",))), {}, 4, "INCONCLUSIVE"),
    ("G4 failed", lambda: audit(clean(failed=("G4",))), {}, 4, "INCONCLUSIVE"),
    ("G5 failed", lambda: audit(clean(failed=("G5",))), {}, 5, "NOT ASSESSED"),
    ("G6 failed", slow_model, {}, 4, "not fit for use"),
    ("G6 failed, warned", slow_model, {"not_fit_for_use": "warn"}, 0, "PASSED with warnings"),
    ("G7 failed", lambda: audit(clean(failed=("G7",))), {}, 0, "PASSED"),
    ("G8 failed", lambda: audit(clean(failed=("G8",))), {}, 5, "exploratory"),
    ("G8 failed, warned", lambda: audit(clean(failed=("G8",))), {"exploratory": "warn"}, 0, "PASSED with warnings"),
    ("not fixed before the scores", lambda: audit(clean(failed=("G8",)), committed=False), {}, 5, "exploratory"),
    ("drift, and retrained models decide", lambda: audit(with_drift(clean())), {}, 0, "PASSED"),
    # INCONCLUSIVE as a warning
    ("undecided, warned", undecided, {"inconclusive": "warn"}, 0, "PASSED with warnings"),
    ("G3 failed, warned", lambda: audit(clean(failed=("G3",))), {"inconclusive": "warn"}, 0, "with warnings"),
    ("OUTSIDE is never a warning", lambda: audit(leaking()), {"inconclusive": "warn"}, 3, "OUTSIDE"),
    # a verdict without controls
    ("G1 not run", lambda: audit(clean(missing=("G1",))), {}, 4, "it was not run, the positive control"),
    ("G2 not run", lambda: audit(clean(missing=("G2",))), {}, 5, "it was not run, the negative control"),
    ("controls not run, warned", lambda: audit(clean(missing=("G1", "G2"))), {"controls": "warn"}, 0, "with warnings"),
    ("G1 not there", lambda: audit(without_gate(clean(), "G1")), {}, 5, "does not mention the positive control"),
    ("G2 not there, warned", lambda: audit(without_gate(clean(), "G2")), {"controls": "warn"}, 5, "does not mention"),
    # what the policy asks for
    ("tier kept", lambda: audit(clean()), {"min_tier": "B"}, 0, "PASSED"),
    ("tier missed", lambda: audit(clean()), {"min_tier": "A"}, 4, "tier at least A: tier B"),
    ("tier lowered by G7", lambda: audit(clean(failed=("G7",))), {"min_tier": "B"}, 4, "tier C"),
    ("young enough", lambda: audit(clean()), {"max_age_days": 2}, 0, "PASSED"),
    ("too old", one_old, {"max_age_days": 90}, 5, "days old: run the audit again"),
    ("old, and no age is asked for", one_old, {}, 0, "PASSED"),
    ("from the future", lambda: replace(audit(clean()), created_at="2027-01-01T00:00:00Z"), {"max_age_days": 9}, 5,
     "ahead of now"),
    ("no time", lambda: replace(audit(clean()), created_at="yesterday"), {"max_age_days": 9}, 5, "no time with a zone"),
    ("no zone", lambda: replace(audit(clean()), created_at="2026-11-21T05:40:00"), {"max_age_days": 9}, 5, "no time"),
    ("attack run", lambda: audit(clean()), {"attacks": ["lira"]}, 0, "PASSED"),
    ("attack not run", lambda: audit(clean()), {"attacks": ["quantile"]}, 5, "attack quantile: it was not run"),
    ("class executed", lambda: audit(clean()), {"coverage": ["membership inference"]}, 0, "PASSED"),
    ("class not executed", lambda: audit(clean()), {"coverage": ["model inversion"]}, 5, "not executed: none"),
    ("class unknown", lambda: audit(clean()), {"coverage": ["telepathy"]}, 5, "no such class"),
    ("gate passed", lambda: audit(clean()), {"gates": ["G4"]}, 0, "PASSED"),
    ("gate not run", lambda: audit(clean()), {"gates": ["G5"]}, 4, "gate G5: not run"),
    ("gate not there", lambda: audit(clean()), {"gates": ["drift"]}, 4, "not in the result"),
    # which subjects count
    ("noop is there to be found", lambda: audit(clean(), replace(leaking("noop"), method="noop")), {}, 0, "PASSED"),
    ("unless it is named", lambda: audit(clean(), replace(leaking("noop"), method="noop")), {"subjects": ["noop"]}, 3,
     "noop is OUTSIDE BOUND"),
    ("a subject called noop counts", lambda: audit(leaking("noop")), {}, 3, "noop is OUTSIDE BOUND"),
    ("one of two", lambda: audit(clean(), leaking("worse")), {"subjects": ["mine"]}, 0, "mine meets the policy"),
    ("only a control", lambda: audit(replace(leaking("noop"), method="noop")), {}, 5, "every subject is a control"),
    ("exact retraining counts", lambda: audit(replace(clean(failed=("G1",)), method="retrain")), {}, 4, "INCONCLUSIVE"),
    # no deletion verdict at all
    ("no subject", lambda: audit(), {}, 5, "the result holds no subject"),
    ("members of one model", lambda: made("membership"), {}, 5, "no word about deletion can follow"),
    ("a subject without findings", lambda: audit(replace(clean(), findings=())), {}, 5, "no attack produced a number"),
    ("a smoke run", lambda: audit(clean(), **SMOKE), {}, 5, "a smoke run shows that the pipeline works"),
    ("a smoke run that leaks", lambda: audit(leaking(), **SMOKE), {}, 5, "a smoke run"),
    # the worst of several
    ("outside before not assessed", lambda: both("out", "lost", "open"), {}, 3, "out is OUTSIDE BOUND"),
    ("not assessed before inconclusive", lambda: both("open", "lost"), {}, 5, "lost is NOT ASSESSED"),
    ("inconclusive before within", lambda: audit(clean(), clean("open", failed=("G1",))), {}, 4, "open is INC"),
]  # fmt: skip


def ask(result: AuditResult, rules: dict[str, object] | None = None, **bounds: object) -> GateOutcome:
    policy = read_policy({**bounds, "gate": rules or {}, "owner": "A. Person"})
    return decide_gate(result, policy, now=MADE_AT + timedelta(days=1), digest="sha256:r")


@pytest.mark.parametrize(("make", "rules", "code", "said"), [pytest.param(*row[1:], id=row[0]) for row in TRUTH])
def test_every_reason_has_its_code_and_its_sentence(make, rules: dict[str, object], code: int, said: str) -> None:
    result = make()
    found = ask(result, rules)
    assert found.code == code, found.lines()
    assert said in found.headline
    # The test report says what the exit code says.
    policy = read_policy({"gate": rules})
    root = ET.fromstring(junit_xml(result, rules=policy.gate, conditions=junit_cases(found)))
    assert (root.get("failures") == "0") is (code == 0), [
        (case.get("classname"), case.get("name")) for case in root.iter("testcase") if case.find("failure") is not None
    ]


def test_bounds_that_were_changed_after_the_scores_state_nothing_and_are_named() -> None:
    for result in (audit(clean()), audit(leaking())):
        found = ask(result, auc_margin=0.4, alpha=0.1)
        assert found.code == 5
        assert [key for key, _, _ in found.changed] == ["alpha", "auc_margin"]
        assert "Bounds cannot be changed after the scores" in found.headline
        assert "bound auc_margin: fixed as 0.05 before scoring, the policy now says 0.4" in found.lines()
        assert (
            "bound alpha: fixed as the default by the counts before scoring, the policy now says 0.1" in found.lines()
        )
    # Stricter bounds are other bounds too, and an audit by lax ones does not pass for one by the defaults.
    assert ask(audit(clean()), auc_margin=0.01).code == 5
    assert ask(audit(clean(), policy={"min_power": 0.2})).code == 5
    assert ask(audit(clean(), policy={"min_power": 0.2}), min_power=0.2).code == 0


def test_a_result_of_an_older_release_lacks_keys_that_had_one_value_then() -> None:
    result = audit(clean())
    older = {key: value for key, value in result.plan.policy.items() if key not in ("profile", "claimed_delta")}
    result = replace(result, plan=replace(result.plan, policy=older))
    assert ask(result).changed == ()
    assert ask(result, claimed_delta=0.1).changed == (("claimed_delta", "0.0", "0.1"),)


def test_a_smoke_run_is_told_as_such_and_a_smoke_policy_on_a_full_audit_is_another_policy() -> None:
    assert ask(audit(clean(), **SMOKE), profile="smoke").changed == ()
    assert ask(audit(clean(), **SMOKE)).changed == ()
    assert ask(audit(clean()), profile="smoke").changed == (("profile", "full", "smoke"),)


def test_subjects_after_several_requests_are_named_once_or_one_by_one() -> None:
    base = factory().successive()
    rows = [replace(row, requests=2, subject="mine", request=r, word=w) for row, r, w in
            ((base.requests[0], 1, "WITHIN BOUND"), (base.requests[1], 2, "OUTSIDE BOUND"))]  # fmt: skip
    result = replace(audit(clean(rows[0].audit), leaking(rows[1].audit)), requests=tuple(rows))
    assert ask(result, {"subjects": ["mine"]}).code == 3
    assert ask(result, {"subjects": ["mine, request 1 of 2"]}).code == 0


def test_a_subject_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InvalidInput, match="'yours' is no subject of this result; it holds mine"):
        ask(audit(clean()), {"subjects": ["yours"]})


def test_an_edited_result_is_refused() -> None:
    result = audit(leaking())
    subject = result.subjects[0]
    word = replace(subject.verdict, word="WITHIN BOUND", sentence=SENTENCES["WITHIN BOUND"])
    with pytest.raises(InvalidInput, match="contradicts itself.*OUTSIDE BOUND follows"):
        ask(replace(result, subjects=(replace(subject, verdict=word),)))


def test_notes_say_what_was_fixed_with_the_plan_and_what_cannot_be_checked() -> None:
    result = audit(clean())
    decided = PolicyRecord("sha256:p", "B. Other", "officer", gate={"min_tier": '"A"'})
    noted = ask(replace(result, plan=replace(result.plan, decided=decided)), {"max_age_days": 5}).notes
    assert "note: the gate's rules are not those fixed with the plan; they differ in max_age_days, min_tier" in noted
    assert "policy decided by B. Other, officer" in noted
    assert any("public edition" in note for note in ask(for_edition(result, "public")).notes)
    changed = tuple(Deviation(f"policy.k{i}", None, "0.1") for i in range(12))
    late = audit(clean(failed=("G8",)), committed=False)
    late = replace(late, plan=replace(late.plan, deviations=changed))
    told = [note for note in ask(late).notes if "changed" in note]
    assert told[0] == "note: changed after another plan was fixed and scored: policy.k0, not there -> 0.1"
    assert told[-1] == "note: and 2 more keys of the plan were changed then"
    unowned = decide_gate(result, read_policy({}), now=MADE_AT)
    assert "note: the policy names no owner" in unowned.notes


def test_the_text_shows_the_worst_endpoint_and_what_would_decide_it() -> None:
    text = ask(audit(clean(failed=("G1",)))).text()
    assert "worst: P1 TPR at 1.0% FPR" in text
    assert "would decide it: an attack with more power" in text
    assert "result sha256:r; policy sha256:" in text
    hostile = ask(audit(clean("\x1b[2J\u202egnp"))).text()
    assert "\x1b" not in hostile
    assert "\u202e" not in hostile


# ---------------------------------------------------------------- the command


def call(*args: object) -> "object":
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, result in (("good", audit(clean())), ("bad", audit(leaking())), ("open", undecided()), ("lost", lost())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(to_json(result))
    (tmp_path / "policy.toml").write_text('[owner]\nname = "A. Person"\n', encoding="utf-8")
    return tmp_path


def test_the_command_leaves_with_the_word_and_writes_what_it_is_asked_for(folder: Path) -> None:
    for name, code in (("good", 0), ("bad", 3), ("open", 4), ("lost", 5)):
        done = call("gate", folder / name, "--policy", folder / "policy.toml", "--junit", folder / f"{name}.xml",
                    "--summary", folder / "gate.md")  # fmt: skip
        assert done.exit_code == code, done.output
        assert (ET.parse(folder / f"{name}.xml").getroot().get("failures") == "0") is (code == 0)
    text = (folder / "gate.md").read_text(encoding="utf-8")
    assert text.count("## Four ways") == 4  # appended, as a pipeline collects summaries
    assert "**PASSED: mine meets the policy**" in text
    assert "**BLOCKED: OUTSIDE BOUND: mine is OUTSIDE BOUND**" in text
    assert "| yes |" in text


def test_json_is_the_outcome_and_nothing_else(folder: Path) -> None:
    done = call("gate", folder / "bad", "--policy", folder / "policy.toml", "--json")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert (found["code"], found["subjects"][0]["word"]) == (3, "OUTSIDE BOUND")


@pytest.mark.slow
def test_a_terminal_that_cannot_show_a_sign_gets_it_escaped(folder: Path) -> None:
    words = [sys.executable, "-m", "mnemoscope", "gate", str(folder / "good"), "--policy", str(folder / "policy.toml")]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(words, env=env, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii").startswith("PASSED")


def test_nothing_is_overwritten_without_force(folder: Path) -> None:
    (folder / "good.xml").write_text("mine")
    command = ("gate", folder / "good", "--policy", folder / "policy.toml", "--junit", folder / "good.xml")
    done = call(*command)
    assert done.exit_code == 2
    assert "is there already and holds something else" in done.stderr
    assert (folder / "good.xml").read_text() == "mine"
    assert call(*command, "--force").exit_code == 0
    assert call(*command).exit_code == 0  # the same bytes again


def test_input_that_cannot_be_used_is_two_and_a_sentence(folder: Path) -> None:
    newer = json.loads((folder / "good" / "result.json").read_text())
    newer["schema_version"] = "9.0.0"
    (folder / "newer.json").write_text(json.dumps(newer))
    (folder / "cut.json").write_bytes((folder / "good" / "result.json").read_bytes()[:999])
    edit = (folder / "bad" / "result.json").read_text().replace("OUTSIDE BOUND", "WITHIN BOUND")
    (folder / "edited.json").write_text(edit)
    (folder / "typo.toml").write_text("[gate]\nmax_age = 3\n")
    (folder / "bytes.toml").write_bytes(b"\xff\xfe")
    policy = folder / "policy.toml"
    for result, rules, said in (
        (folder / "absent", policy, "cannot read"),
        (folder / "newer.json", policy, "newer release"),
        (folder / "cut.json", policy, "not a JSON document"),
        (folder / "edited.json", policy, "contradicts itself"),
        (folder / "good", folder / "typo.toml", "did you mean 'max_age_days'?"),
        (folder / "good", folder / "absent.toml", "cannot be read"),
        (folder / "good", folder / "bytes.toml", "not valid TOML"),
    ):
        done = call("gate", result, "--policy", rules)
        assert done.exit_code == 2, (said, done.output)
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_two(folder: Path) -> None:
    (folder / "file").write_text("")
    for option in ("--junit", "--summary"):
        done = call("gate", folder / "good", "--policy", folder / "policy.toml", option, folder / "file" / "x")
        assert done.exit_code == 2
        assert "cannot" in done.stderr


def test_the_function_is_the_command(folder: Path) -> None:
    outcome = api.gate(folder / "open", folder / "policy.toml")
    assert outcome.code == 4
    assert outcome.result.startswith("sha256:")


# ---------------------------------------------------------------- views by name


def test_a_result_is_written_in_the_forms_asked_for(folder: Path) -> None:
    command = ("report", folder / "good", "--out", folder / "views", "--format", "markdown,junit,csv")
    done = call(*command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"wrote {folder / 'views' / 'summary.md'}")
    names = {path.relative_to(folder / "views").as_posix() for path in (folder / "views").rglob("*") if path.is_file()}
    assert {"summary.md", "junit.xml", "result.json", "tables/endpoints.csv", "tables/gates.csv"} <= names
    assert call(*command).exit_code == 0  # the same bytes again
    other = call("report", folder / "bad", *command[2:])
    assert other.exit_code == 2
    assert "--force" in other.stderr
    assert call("report", folder / "bad", *command[2:], "--force").exit_code == 0
    unknown = call("report", folder / "good", "--format", "docx")
    assert unknown.exit_code == 2
    assert "'docx' is unknown; allowed, separated by commas: html, " in unknown.stderr
