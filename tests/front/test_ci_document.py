"""What docs/ci.md shows can be parsed, and every command and option in it exists."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mnemoscope import cli
from mnemoscope.audit.verdict.gate_rules import GateRules
from mnemoscope.audit.verdict.policy import Policy
from mnemoscope.audit.verdict.policy_file import read_policy
from mnemoscope.audit.verdict.rules import EXIT_CODES
from mnemoscope.audit.work.plan import parse_plan

TEXT = (Path(__file__).parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
YAML = [yaml.safe_load(code) for language, code in BLOCKS if language == "yaml"]


def scripts(value: Any) -> list[str]:
    """Every shell text of a pipeline: GitHub's ``run``, GitLab's ``script`` and its kin."""
    if isinstance(value, list):
        return [text for item in value for text in scripts(item)]
    if not isinstance(value, dict):
        return []
    found = []
    for key, item in value.items():
        if key == "run" and isinstance(item, str):
            found.append(item)
        elif key in ("script", "before_script", "after_script"):
            found += item
        else:
            found += scripts(item)
    return found


def commands() -> list[list[str]]:
    shells = [code for language, code in BLOCKS if language == "sh"] + scripts(YAML)
    lines = [line for code in shells for line in code.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[*line] for line in words if line and line[0] == "mnemoscope"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_exists(words: list[str]) -> None:
    if "||" in words:
        assert words[words.index("||") :] == ["||", "test", "$?", "-eq", str(EXIT_CODES["NOT ASSESSED"])]
        words = words[: words.index("||")]
    command: Any = typer.main.get_command(cli.app)
    rest = words[1:]
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, words
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(words[1], list(rest), resilient_parsing=False)
    required = [p.name for p in command.params if p.required]
    assert all(context.params[name] is not None for name in required)


def test_there_is_a_pipeline_for_each_host_with_both_profiles_a_schedule_and_the_gate() -> None:
    github, gitlab = YAML
    triggers = github.get("on", github.get(True))  # YAML 1.1 reads a bare "on" as true
    assert triggers["schedule"][0]["cron"].split()[-1] == "1"
    assert set(github["jobs"]) == {"smoke", "full"}
    assert {"smoke", "audit"} <= set(gitlab)
    assert any(rule.get("if") == '$CI_PIPELINE_SOURCE == "schedule"' for rule in gitlab["audit"]["rules"])
    for jobs in (github["jobs"]["smoke"], gitlab["smoke"]):
        assert any("smoke-policy.toml" in text and "test $? -eq 5" in text for text in scripts(jobs))
    for jobs in (github["jobs"]["full"], gitlab["audit"]):
        gates = [text for text in scripts(jobs) if "mnemoscope gate" in text]
        assert len(gates) == 1
        assert "||" not in gates[0], "the word must reach the pipeline"
        assert "--junit runs/audit/junit.xml" in gates[0]
    assert gitlab["audit"]["artifacts"]["reports"]["junit"] == "runs/audit/junit.xml"


def test_plans_and_policies_are_read(tmp_path: Path) -> None:
    policy, smoke, plan = (code for language, code in BLOCKS if language == "toml")
    whole = read_policy(tomllib.loads(policy))
    assert set(tomllib.loads(policy)["gate"]) == {f.name for f in fields(GateRules)}
    assert set(whole.changed()) == set(whole.reasons) == {"alpha", "auc_margin"}
    (tmp_path / "smoke-policy.toml").write_text(smoke, encoding="utf-8")
    made = parse_plan(plan, folder=tmp_path)
    assert read_policy(made.policy).bounds == Policy(profile="smoke", alpha=0.1, power_runs=10, control_permutations=99)
    assert made.design.models == 12


def test_the_tables_name_every_key_of_the_gate_and_every_code() -> None:
    for f in fields(GateRules):
        assert re.search(rf"^\|[^|]*`{f.name}`", TEXT, re.MULTILINE), f.name
    codes = [int(code) for code in re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)]
    assert sorted(codes) == sorted([*EXIT_CODES.values(), 1, 2])


def test_no_host_of_anybody_and_no_claim() -> None:
    assert not re.search(r"https?://|@[\w-]+\.", TEXT)
    assert not re.search(r"\b(compliant|anonymous|certified|certifies)\b", TEXT, re.IGNORECASE)
