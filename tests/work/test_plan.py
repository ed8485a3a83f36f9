"""Plans: all faults at once, each with its path and the nearest allowed key; the digest says what would be done."""

import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.plan import (
    AttacksPlan,
    DesignPlan,
    Plan,
    RecipePlan,
    RuntimePlan,
    SubjectPlan,
    check_names,
    load_attack,
    load_method,
    load_plan,
    parse_plan,
    plan_template,
)


def test_the_template_is_the_default_plan_and_what_it_comments_out_is_allowed() -> None:
    assert parse_plan(plan_template()) == Plan()
    uncommented = re.sub(r"^# (?=\[|\w+ = )", "", plan_template(), flags=re.MULTILINE)
    plan = parse_plan(uncommented)
    assert plan.recipe.overrides == {"epochs": 30, "lr": 0.2}
    assert [subject.name for subject in plan.subjects] == ["finetune", "mine"]
    assert plan.attacks.settings == {"rmia": {"gamma": 1.0}}
    assert plan.design.counts == (24, 24, 24)
    assert plan.runtime.workers == 2
    assert plan.policy == {"alpha": 0.01}


def test_every_fault_is_listed_with_its_path_and_the_nearest_key() -> None:
    text = """
sed = 1
name = ""
[design]
modles = 12
audited = "many"
folds = true
[[subjects]]
methd = "noop"
[runtime]
engine = "ray"
[attacks]
queries = []
"""
    with pytest.raises(InvalidInput) as caught:
        parse_plan(text, source="my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    for part in (
        "sed: unknown key: did you mean 'seed'?",
        "design.modles: unknown key: did you mean 'models'?",
        "design.audited='many': input should be a valid integer",
        "design.folds=True: input should be a valid integer",
        "subjects.0.methd: unknown key: did you mean 'method'?",
        "subjects.0.method: is missing",
        "runtime.engine='ray': input should be 'serial' or 'process'",
        "attacks.queries",
        "name=''",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a = ", "not valid TOML"),
        ("seed = nan", "finite"),
        ("seed = -1", "seed=-1: input should be greater than or equal to 0"),
        ("day = 2020-01-01", "is a date"),
        ('folder = "x"', "folder: unknown key"),
        ('[[subjects]]\nmethod = "a"\n[[subjects]]\nmethod = "a"', "'a' is given 2 times"),
        ('[attacks]\nrun = ["lira", "lira"]', "attacks.run: 'lira' is listed 2 times; list it once"),
        ('[attacks]\nqueries = ["identity", "flip", "identity"]', "attacks.queries: 'identity' is listed 2 times"),
        ('[attacks]\nmeasures = ["swap", "swap", "swap"]', "attacks.measures: 'swap' is listed 3 times"),
        (
            '[attacks]\nreconstructions = ["label_inversion", "label_inversion"]',
            "attacks.reconstructions: 'label_inversion' is listed 2 times",
        ),
        ('[defences]\nanswers = ["top:1", "top:1"]', "defences.answers: 'top:1' is listed 2 times"),
        ("[defences]\ndp_noise = [1.0, 0.5, 1]", "defences.dp_noise: 1.0 is listed 2 times"),
        ('[attacks]\nrun = ["lira"]\nprimary = "lirra"', "did you mean 'lira'"),
        ('[attacks]\nrun = ["lira"]\n[attacks.settings.rmia]\ngamma = 1.0', "'rmia' is not in attacks.run"),
        ('policy = "absent.toml"', "absent.toml"),
        ('seed = "1"', "valid integer"),
    ],
)
def test_plans_that_are_refused(text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(match)):
        parse_plan(text)


def test_peer_defect_30_a_plan_that_is_no_text_is_refused(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "plan.toml"
    path.write_bytes(pickle.dumps({"seed": 1}))
    with pytest.raises(InvalidInput):
        load_plan(path)
    with pytest.raises(InvalidInput, match="plan new"):
        load_plan(tmp_path / "absent.toml")


def test_recipe_overrides() -> None:
    plan = parse_plan("[recipe.overrides]\nepochs = 3\nschedule = 'multistep'\nmilestones = [0.5]")
    recipe = plan.build_recipe()
    assert (recipe.epochs, recipe.milestones, recipe.architecture) == (3, (0.5,), "mlp:256")
    for table, match in (
        ("[recipe]\nname = 'digit-mlp'", "did you mean 'digits-mlp'"),
        ("[recipe.overrides]\nepoch = 3", "did you mean 'epochs'"),
        ("[recipe.overrides]\nlr = 'high'", "recipe.overrides.lr='high': input should be a valid number"),
        ("[recipe.overrides]\nschedule = 'step'", "recipe.overrides.schedule='step'"),
        ("[recipe.overrides]\nlr = -1", "lr=-1"),
        ("[recipe.overrides]\nsubject = 'x'", "unknown key"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(match)):
            parse_plan(table).build_recipe()


def test_the_digest_covers_what_is_done_and_nothing_else(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("class Mine: pass\n")
    text = 'policy = "p.toml"\n[[subjects]]\nmethod = "mine.py:Mine"\n'
    (tmp_path / "p.toml").write_text("[policy]\nalpha = 0.05\n")
    (tmp_path / "plan.toml").write_text(text)
    base = load_plan(tmp_path / "plan.toml")
    assert base.policy == {"alpha": 0.05}
    assert str(tmp_path) not in str(base.as_dict())
    same = [
        load_plan(tmp_path / "plan.toml"),
        replace(base, runtime=RuntimePlan(device="cuda", threads=4)),
        parse_plan("# a comment\n" + text + "[design]\nmodels = 72\n", folder=tmp_path),
    ]
    assert {plan.digest for plan in same} == {base.digest}
    other = [
        replace(base, seed=1),
        replace(base, policy={"alpha": 0.1}),
        replace(base, design=DesignPlan(models=36)),
        replace(base, recipe=RecipePlan(overrides={"epochs": 31})),
        replace(base, attacks=AttacksPlan(queries=("identity", "flip"))),
        replace(base, subjects=(SubjectPlan("mine.py:Mine", settings={"x": 1}),)),
    ]
    digests = {plan.digest for plan in other} | {base.digest}
    assert len(digests) == len(other) + 1
    spelled = replace(base, recipe=RecipePlan(overrides={"epochs": 30}))
    before = base.digest
    plugin.write_text("class Mine: x = 1\n")
    assert base.digest != before
    assert spelled.recipe != base.recipe
    assert spelled.build_recipe() == base.build_recipe()


@dataclass(frozen=True)
class Shift:
    by: float = 0.0
    name: str = "shift"


def test_names_are_resolved_in_the_registry_given(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Own:\n    def __init__(self, k=1): self.k = k\n")
    plan = parse_plan(
        '[[subjects]]\nmethod="shift"\nsettings={by=2.0}\n[[subjects]]\nmethod="own.py:Own"\nsettings={k=3}\n'
        '[attacks]\nrun=["shift","own.py:Own"]\n[attacks.settings."own.py:Own"]\nk=5',
        folder=tmp_path,
    )
    registry = {"shift": Shift}
    assert load_method(plan.subjects[0], registry, folder=plan.folder) == Shift(2.0)
    own: object = load_method(plan.subjects[1], registry, folder=plan.folder)
    assert (plan.subjects[1].name, own.k) == ("Own", 3)  # type: ignore[attr-defined]
    attacks = [load_attack(spec, registry) for spec in plan.attack_specs()]
    assert attacks[0] == Shift()
    assert attacks[1].k == 5  # type: ignore[attr-defined]
    assert [spec.name for spec in Plan().attack_specs(("a", "b"))] == ["a", "b"]
    check_names(plan, methods=registry, attacks=registry)
    with pytest.raises(InvalidInput, match="does not take settings"):
        load_method(SubjectPlan("shift", settings={"far": 1}), registry)
    text = '[[subjects]]\nmethod="shfit"\n'
    wrong = parse_plan(text + '[[subjects]]\nmethod="no.py:X"\n[attacks]\nrun=["sift"]', folder=tmp_path)
    with pytest.raises(InvalidInput) as caught:
        check_names(wrong, methods=registry, attacks=registry)
    message = str(caught.value)
    assert message.count("did you mean 'shift'") == 2
    assert "there is no file" in message


def test_reading_a_plan_loads_no_torch() -> None:
    code = (
        "import sys; from mnemoscope.audit.work.plan import *; p = parse_plan(plan_template()); p.digest; "
        "p.build_recipe(); p.build_runtime(); print('torch' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
