"""Policy files: every bound with an owner and a reason, fixed before the scores, and what was changed afterwards."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnemoscope import api, cli
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.gate_rules import GateRules
from mnemoscope.audit.verdict.limits import limits_of
from mnemoscope.audit.verdict.policy import LARGEST_FILE, Policy, load_policy
from mnemoscope.audit.verdict.policy_file import policy_lines, policy_record, read_policy
from mnemoscope.audit.verdict.policy_record import Deviation
from mnemoscope.audit.verdict.policy_template import EXPLAINED, policy_template
from mnemoscope.audit.verdict.rules import decide
from mnemoscope.audit.work.plan import load_plan, parse_plan
from mnemoscope.commitment import commit_plan, plan_changes
from mnemoscope.reports.schema import read_result

WHOLE = """
reason = "few people, sensitive records"
[owner]
name = "A. Person"
role = "officer"
[policy]
auc_margin = 0.03
[reasons]
auc_margin = "scores are served to anybody"
[gate]
min_tier = "B"
"""


def write(folder: Path, text: str, name: str = "policy.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_template_is_the_default_policy_and_explains_every_key() -> None:
    text = policy_template()
    assert list(EXPLAINED) == [f.name for f in fields(Policy)]
    assert all(meaning and why for meaning, why, _ in EXPLAINED.values())
    found = read_policy(tomllib.loads(text))
    assert (found.bounds, found.gate, found.changed()) == (Policy(), GateRules(), {})
    for f in fields(Policy):
        line = next(line for line in text.splitlines() if line.removeprefix("# ").startswith(f"{f.name} = "))
        assert line.startswith("# ") is (f.default is None), line
    for f in fields(GateRules):
        assert any(line.removeprefix("# ").startswith(f"{f.name} = ") for line in text.splitlines()), f.name


def test_what_the_template_shows_in_comments_is_allowed() -> None:
    text = policy_template().replace('# auc_margin = "..."', "")  # under [reasons]
    shown = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and " = " in line]
    keys = {f.name for f in fields(Policy)} | {f.name for f in fields(GateRules)}
    examples = [line for line in shown if line.partition(" = ")[0] in keys]
    assert len(examples) > 10
    bounds = [line for line in examples if line.partition(" = ")[0] in {f.name for f in fields(Policy)}]
    rules = [line for line in examples if line not in bounds]
    load_policy(tomllib.loads("\n".join(bounds)))
    read_policy(tomllib.loads("[gate]\n" + "\n".join(rules)))


def test_a_hostile_file_name_stays_a_comment() -> None:
    text = policy_template('x"\n[gate]\nsubjects = ["none"]')
    assert read_policy(tomllib.loads(text)).gate == GateRules()


def test_a_whole_policy_is_read_with_owner_reasons_and_gate(tmp_path: Path) -> None:
    found = read_policy(write(tmp_path, WHOLE))
    assert (found.owner, found.role, found.reason) == ("A. Person", "officer", "few people, sensitive records")
    assert found.reasons == {"auc_margin": "scores are served to anybody"}
    assert found.bounds == Policy(auc_margin=0.03)
    assert found.gate == GateRules(min_tier="B")
    assert load_policy(tmp_path / "policy.toml") == found.bounds
    lines = policy_lines(found)
    assert "owner: A. Person, officer" in lines
    assert "auc_margin = 0.03 instead of 0.05: because scores are served to anybody" in lines
    assert 'gate.min_tier = "B"' in lines


def test_the_digest_is_of_everything_in_it(tmp_path: Path) -> None:
    digests = [read_policy(tomllib.loads(WHOLE)).digest]
    for old, new in (
        ("A. Person", "B. Other"),
        ("0.03", "0.04"),
        ("anybody", "few"),
        ('"B"', '"C"'),
        ("sensitive", ""),
    ):
        digests.append(read_policy(tomllib.loads(WHOLE.replace(old, new))).digest)
    assert len(set(digests)) == len(digests)
    assert read_policy(tomllib.loads(WHOLE)).digest == digests[0]
    # The bounds' own digest is untouched by who decided them: power that was simulated is found again.
    assert read_policy(tomllib.loads(WHOLE)).bounds.digest == Policy(auc_margin=0.03).digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policy]\nauc_margn = 0.1", "did you mean 'auc_margin'?"),
        ("[owner]\nnme = 'x'", "a table with name and role"),
        ("owner = 3", "a table with name and role"),
        ("reason = 3", "must be text"),
        (f"reason = '{'x' * 3000}'", "at most 2,000 characters"),
        ("[reasons]\nauc_margn = 'x'", "did you mean 'auc_margin'?"),
        ("reasons = 'all'", "must be a table"),
        ("[policy]\nalpha = 0.1\n[extra]\nx = 1", "stand outside of"),
        ("[policy]\nalpha = 0.1\n[policy.owner]\nname = 'x'\n[owner]\nname = 'y'", "both inside and outside"),
        ("[policy]\nprofile = 'quick'", "allowed are 'full' and 'smoke'"),
        ("[gate]\nmin_teir = 'B'", "did you mean 'min_tier'?"),
        ("[gate]\nmin_tier = 'E'", "allowed are 'A', 'B', 'C', 'D'"),
        ("[gate]\ninconclusive = 'ignore'", "allowed are 'block' and 'warn'"),
        ("[gate]\nmax_age_days = -1", "days above 0"),
        ("[gate]\nmax_age_days = true", "days above 0"),
        ("[gate]\nsubjects = []", "decides nothing"),
        ("[gate]\nsubjects = 'all'", "must be a list of names"),
        ("[gate]\ngates = ['G9']", "'G9' is no gate"),
        ("gate = 3", "must be a table"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    for read in (read_policy, load_policy):
        with pytest.raises(InvalidInput, match=said):
            read(path)
    done = CliRunner().invoke(cli.app, ["policy", "check", str(path)])
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_policy_is_refused_without_reading_all_of_it(tmp_path: Path) -> None:
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(InvalidInput, match="is larger than"):
        read_policy(large)
    deep = write(tmp_path, "a = " + "[" * 5_000)
    with pytest.raises(InvalidInput, match="not valid TOML"):
        read_policy(deep)


def test_the_commands_write_a_policy_once_and_say_what_it_decides(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert api.policy_new(path) == path
    done = CliRunner().invoke(cli.app, ["policy", "new", str(path)])
    assert done.exit_code == 2
    assert "exists" in done.stderr
    done = CliRunner().invoke(cli.app, ["policy", "check", str(path)])
    assert done.exit_code == 0
    assert "owner: nobody is named" in done.stdout
    assert "every bound has its default" in done.stdout
    write(tmp_path, "[policy]\nauc_margin = 0.1\n", "bare.toml")
    assert "no reason is given" in "\n".join(api.policy_check(tmp_path / "bare.toml"))


# ------------------------------------------------- plans


def test_a_plan_names_a_policy_file_and_its_digest_is_of_what_stands_in_it(tmp_path: Path) -> None:
    plan = write(tmp_path, 'policy = "policy.toml"\n', "plan.toml")
    policy = write(tmp_path, WHOLE)
    first = load_plan(plan)
    assert load_policy(first.policy) == Policy(auc_margin=0.03)
    assert policy_record(first.policy) == read_policy(policy).record()
    digests = {first.digest}
    for old, new in (("A. Person", "B. Other"), ("0.03", "0.04"), ("anybody", "few"), ('"B"', '"C"')):
        write(tmp_path, WHOLE.replace(old, new))
        digests.add(load_plan(plan).digest)
    assert len(digests) == 5
    policy.unlink()
    with pytest.raises(InvalidInput, match="policy='policy.toml'"):
        load_plan(plan)


def test_plans_without_owner_or_reasons_keep_their_digests(tmp_path: Path) -> None:
    """Digests under which results were published: a change of the policy's code must not move them."""
    inline = parse_plan("[policy]\nauc_margin = 0.03")
    write(tmp_path, "[policy]\nauc_margin = 0.03\n")
    named = load_plan(write(tmp_path, 'policy = "policy.toml"\n', "plan.toml"))
    write(tmp_path, "auc_margin = 0.03\n")
    flat = load_plan(tmp_path / "plan.toml")
    assert inline.digest == named.digest == flat.digest
    assert parse_plan("").digest == "sha256:857439d75262dba7d80748292e577eeb94d200682dc71b763eecd4241d9b773a"
    assert Policy().digest == "sha256:ec293085b8ded7ea8f034f021c6cab313703d83e0afbb746f65126f208f5affc"
    assert policy_record({"auc_margin": 0.03}) is None


def test_an_inline_policy_may_hold_owner_reasons_and_gate() -> None:
    text = '[policy]\nalpha = 0.05\n[policy.owner]\nname = "A. Person"\n[policy.reasons]\nalpha = "counts"\n'
    plan = parse_plan(text)
    record = policy_record(plan.policy)
    assert record is not None
    assert (record.owner, record.reasons) == ("A. Person", {"alpha": "counts"})
    assert plan.digest != parse_plan("[policy]\nalpha = 0.05").digest


def test_the_first_plan_stays_the_one_that_was_committed(tmp_path: Path) -> None:
    first = parse_plan("seed = 1")
    changed = parse_plan("seed = 2\n[policy]\nauc_margin = 0.1\n[[subjects]]\nmethod = 'finetune'")
    assert commit_plan(first, 0.01, tmp_path).before_scores
    assert commit_plan(changed, 0.01, tmp_path).before_scores, "nothing was scored yet"
    assert commit_plan(first, 0.01, tmp_path).before_scores
    when = json.loads((tmp_path / "plan.json").read_text())["committed_at"]
    (tmp_path / "result.json").write_text("{}")
    assert commit_plan(first, 0.01, tmp_path).before_scores, "the same plan again"
    assert json.loads((tmp_path / "plan.json").read_text())["committed_at"] == when
    for _ in range(2):  # the changed plan does not become the committed one by running twice
        found = commit_plan(changed, 0.05, tmp_path)
        assert not found.before_scores
        assert Deviation("seed", "1", "2") in found.deviations
        assert Deviation("policy.auc_margin", None, "0.1") in found.deviations
        assert Deviation("subjects[0].method", None, '"finetune"') in found.deviations
        document = json.loads((tmp_path / "plan.json").read_text())
        assert (document["digest"], document["first"]["digest"]) == (changed.digest, first.digest)
    assert commit_plan(first, 0.01, tmp_path).before_scores
    assert not commit_plan(changed, 0.01, tmp_path).before_scores


@pytest.mark.parametrize("content", ["", "[]", '{"first": 3}', '{"digest": "x", "first": []}', "\x00", '{"plan": 1}'])
def test_a_plan_that_cannot_be_read_is_no_commitment_where_scores_exist(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    (tmp_path / "result.json").write_text("{}")
    assert not commit_plan(parse_plan(""), 0.01, tmp_path).before_scores


def test_long_values_and_many_changes_are_cut() -> None:
    one, two = ({"records": "ids:" + ",".join(map(str, range(n)))} for n in (3_000, 3_001))
    (row,) = plan_changes(one, two)
    assert row.committed is not None
    assert row.ran is not None
    assert len(row.committed) < 500
    assert row.committed != row.ran
    many = plan_changes({str(i): 0 for i in range(500)}, {})
    assert len(many) == 201
    assert many[-1].key == "and 300 more keys"
    assert plan_changes({"a": 1.0}, {"a": 1.0}) == ()


def test_a_smoke_profile_states_nothing_in_every_mode() -> None:
    policy = Policy(profile="smoke")
    assert policy.digest != Policy().digest
    for mode in ("procedure", "one-model", "membership"):
        limits = limits_of(mode, n_retrained=40, has_fleet=True, process_evidence=True, policy=policy)
        verdict = decide([], [], policy=policy, limits=limits)
        assert (verdict.word, verdict.tier) == ("NOT ASSESSED", None)
        assert "smoke" in verdict.meaning
        assert "profile = 'full'" in verdict.next_step


SMOKE = """
name = "smoke"
policy = "policy.toml"
[design]
models = 12
audited = 120
background = 60
population = 40
calibration = 40
test = 60
[recipe.overrides]
epochs = 3
[[subjects]]
method = "finetune"
[attacks]
run = ["population"]
measures = []
[defences]
answers = []
"""
SMOKE_POLICY = """
[owner]
name = "A. Person"
role = "officer"
[policy]
profile = "smoke"
alpha = 0.1
power_runs = 4
control_permutations = 99
[reasons]
alpha = "a handful of records bears no less"
"""


@pytest.mark.slow
def test_a_smoke_run_end_to_end_and_a_plan_changed_after_it(tmp_path: Path) -> None:
    plan, out, store = write(tmp_path, SMOKE, "plan.toml"), tmp_path / "out", tmp_path / "store"
    policy = write(tmp_path, SMOKE_POLICY)
    result = api.run(plan, out=out, store=store)
    assert [s.verdict.word for s in result.subjects] == ["NOT ASSESSED"]
    assert result.plan.decided is not None
    assert (result.plan.decided.owner, result.plan.decided.reasons) == (
        "A. Person", {"alpha": "a handful of records bears no less"}
    )  # fmt: skip
    assert result.plan.committed_before_scores
    assert result.plan.digest == load_plan(plan).digest
    outcome = api.gate(out, policy)
    assert (outcome.code, outcome.changed) == (5, ())
    assert "smoke run" in outcome.headline

    write(tmp_path, SMOKE_POLICY.replace("alpha = 0.1\n", "alpha = 0.1\nauc_margin = 0.4\n"))
    again = api.run(plan, out=out, store=store)
    assert not again.plan.committed_before_scores
    assert again.plan.deviations == (Deviation("policy.auc_margin", None, "0.4"),)
    assert "exploratory" in again.subjects[0].verdict.flags
    assert next(g for g in again.subjects[0].gates if g.id == "G8").status == "fail"
    assert read_result(out).plan == again.plan
    policy.write_text(SMOKE_POLICY, encoding="utf-8")
    assert [key for key, _, _ in api.gate(out, policy).changed] == ["auc_margin"]
