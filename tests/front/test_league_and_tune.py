"""The league and tuning, end to end on digits: what ranks whom, what is written, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.tuned import Trial
from mnemoscope.audit.work.plan import LeaguePlan, SubjectPlan, parse_plan
from mnemoscope.league import run_league
from mnemoscope.one_model_round import round_records
from mnemoscope.preparation import PreparedAudit
from mnemoscope.reports.html import render_html
from mnemoscope.reports.league import league_lines, read_league, render_league
from mnemoscope.reports.schema import from_json, read_result, to_json
from mnemoscope.tuning import best_of, run_tune

PLAN = """
name = "A small league"
[design]
models = 12
audited = 360
background = 240
population = 200
calibration = 0
test = 250
validation = 100
[recipe.overrides]
epochs = 12
[league]
mode = "one-model"
forget = ["random:120", "class:3"]
seeds = [0]
references = 2
[[subjects]]
method = "noop"
[[subjects]]
method = "finetune"
settings = { epochs = 2 }
[[subjects]]
method = "retrain"
[attacks]
run = ["loss", "rmia_offline"]
[policy]
alpha = 0.1
power_runs = 20
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("league")


@pytest.mark.slow
def test_one_model_league(folder):
    plan = parse_plan(PLAN)
    table = run_league(plan, store=folder / "store", out=folder / "one")
    assert [row.forget for row in table.rows] == ["random:120"] * 3 + ["class:3"] * 3
    rows = {(row.forget, row.subject): row for row in table.rows}
    for forget in plan.league.forget:
        assert rows[forget, "retrain"].unranked == "reference"
        assert rows[forget, "retrain"].gap.value < rows[forget, "noop"].gap.value
        first, last = rows[forget, "noop"].rank
        assert 1 <= first <= last <= 2
    kept = rows["class:3", "noop"]
    measured = {m.measure: m for m in kept.measured}
    assert measured["UA"].value.value < 0.1  # nothing was deleted: the class is still known
    assert measured["UA"].floor.value > 0.9  # retrained models never heard of it
    # limits hold for both attacks, both tails and the AUC at once
    assert np.isclose(rows["random:120", "noop"].tpr.ci.level, 1 - 0.05 / 6)
    assert all(row.words == ("INCONCLUSIVE",) for row in table.rows)
    again = read_league(folder / "one")
    assert again == table
    assert render_league(again, figures=False) == render_league(table, figures=False)
    assert "<bdi>finetune</bdi>" in render_league(table)
    (folder / "torn.json").write_text(json.dumps({"title": "half"}))
    for name, said in (("torn.json", "no league table"), ("none.json", "cannot read")):
        with pytest.raises(InvalidInput, match=said):
            read_league(folder / name)
    assert any("reference" in line and "retrain" in line for line in league_lines(table))
    result = read_result(folder / "one" / "class-3-0")
    assert result.mode == "one-model"
    assert {s.name for s in result.subjects} == {"noop", "finetune", "retrain"}


def test_a_class_is_forgotten_whole_and_holdout_is_of_it():
    plan = parse_plan(PLAN)
    dataset = plan.load_dataset()
    records = round_records(plan, dataset, "class:3")
    assert set(dataset.labels[records.request.forget]) == {3}
    assert set(dataset.labels[records.holdout]) == {3}
    assert 3 not in set(dataset.labels[records.request.retain])
    assert 3 not in set(dataset.labels[records.test])
    sets = [records.request.forget, records.request.retain, records.holdout, records.population, records.test]
    assert np.unique(np.concatenate(sets)).size == sum(s.size for s in sets)


@pytest.mark.slow
def test_procedure_league_by_difficulty(folder):
    plan = replace(parse_plan(PLAN), league=LeaguePlan(forget=("random", "high-memorisation"), seeds=(0,), share=0.5))
    plan = replace(plan, league=replace(plan.league, verdicts=False))
    table = run_league(plan, store=folder / "store", out=folder / "procedure")
    assert not any(row.words for row in table.rows)
    assert any("withheld" in note for note in table.notes)
    leaks = {(row.forget, row.subject): row.tpr.value for row in table.rows}
    assert leaks["high-memorisation", "noop"] > leaks["random", "noop"]
    assert leaks["random", "retrain"] < 0.2
    audited = json.loads((folder / "procedure" / "high-memorisation-0" / "plan.json").read_text())["plan"]["design"]
    assert audited["audited"] == 180
    assert audited["background"] == 240 + 120  # as many as before are trained on


def test_withholding_the_words_is_part_of_the_plan_and_showing_them_leaves_older_digests_alone():
    plan = parse_plan(PLAN)
    shown = parse_plan(PLAN.replace("references = 2", "references = 2\nverdicts = true"))
    withheld = parse_plan(PLAN.replace("references = 2", "references = 2\nverdicts = false"))
    assert shown.digest == plan.digest != withheld.digest
    assert "verdicts" not in plan.as_dict()["league"]


def test_leagues_that_cannot_be(folder):
    plan = parse_plan(PLAN)
    with pytest.raises(InvalidInput, match="high-memorisation"):
        run_league(replace(plan, league=LeaguePlan(forget=("high-memorization",))), store=folder / "store")
    few = replace(plan, league=replace(plan.league, forget=("random:3",)))
    with pytest.raises(InvalidInput, match="at least 20"):
        run_league(few, store=folder / "store")


@pytest.mark.slow
def test_tuning_is_recorded_and_read_back(folder):
    plan = replace(parse_plan(PLAN), subjects=(SubjectPlan("gradient_ascent", settings={"epochs": 3}),))
    found = run_tune(plan, budget=3, store=folder / "store", out=folder / "tune")["gradient_ascent"]
    assert len(found.trials) == 3
    assert found.trials[0].settings == {}
    assert all("lr" in trial.settings for trial in found.trials[1:])
    assert all(trial.accuracy is not None for trial in found.trials)
    assert found.chosen == best_of(found.trials, 2.0).settings
    assert "at most 2 points of test accuracy" in found.rule
    named = replace(plan, folder=str(folder), subjects=(replace(plan.subjects[0], tuned="tune/tuned.json"),))
    named = replace(named, league=replace(plan.league, forget=("random:120",)))
    assert named.digest != plan.digest
    run_league(named, store=folder / "store", out=folder / "tuned")
    result = read_result(folder / "tuned" / "random-120-0")
    assert result.subjects[0].tuned == found
    assert result.subjects[0].settings == {"epochs": 3, **found.chosen}
    assert "Settings tried" in render_html(result, figures=False)
    assert from_json(to_json(result)) == result


def test_a_ruined_model_is_not_chosen_however_near_its_metrics_are():
    nothing, good, ruined = (
        Trial({}, 24.0, accuracy=2.5),
        Trial({"lr": 0.1}, 11.0, accuracy=-1.9),
        Trial({"lr": 1.0}, 5.0, accuracy=-14.0),
    )
    assert best_of([nothing, good, ruined], 2.0) is good
    assert best_of([nothing, good, ruined], 20.0) is ruined
    assert best_of([ruined, replace(ruined, gap=9.0, accuracy=-3.0)], 2.0).accuracy == -3.0


def test_tuning_files_that_do_not_fit_are_refused(folder):
    plan = parse_plan(PLAN)
    (folder / "bad.json").write_text("[]")
    (folder / "text.json").write_text("not JSON")
    for name, said in (
        ("none.json", "cannot read"),
        ("bad.json", "no file of `mnemoscope tune`: Input should be an object. Give the tuned.json"),
        ("text.json", "no file of `mnemoscope tune`: Invalid JSON"),
    ):
        wrong = replace(plan, folder=str(folder), subjects=(SubjectPlan("finetune", tuned=name),))
        with pytest.raises(InvalidInput, match=said):
            run_league(wrong, store=folder / "store")
    with pytest.raises(InvalidInput, match="budget=1"):
        run_tune(plan, budget=1, store=folder / "store")
    with pytest.raises(InvalidInput, match="finetune"):
        run_tune(plan, budget=3, only=["finetun"], store=folder / "store")


@pytest.mark.parametrize(
    ("forget", "served"), [(("class:3",), True), (("random:40", "class:3"), True), (("random:40",), False)]
)
def test_methods_for_classes_belong_where_a_class_is_forgotten(forget, served):
    plan = parse_plan(PLAN)
    plan = replace(
        plan,
        subjects=(*plan.subjects, SubjectPlan("relevance_perturbation")),
        league=LeaguePlan(mode="one-model", forget=forget),
    )
    if served:
        assert PreparedAudit(plan).methods[-1].name == "relevance_perturbation"
        return
    with pytest.raises(InvalidInput, match="relevance_perturbation serves requests of kind class alone"):
        PreparedAudit(plan)


@pytest.mark.slow
def test_a_ruined_model_is_a_row_and_an_original_that_learnt_nothing_ends_the_league(folder):
    plan = parse_plan(PLAN)
    ruin = SubjectPlan("fisher", settings={"alpha": 10.0})
    one = LeaguePlan(mode="one-model", forget=("random:120",), references=2)
    table = run_league(replace(plan, subjects=(*plan.subjects, ruin), league=one), store=folder / "store")
    rows = {row.subject: row for row in table.rows}
    assert not rows["fisher"].fit
    assert rows["fisher"].rank is None
    assert rows["finetune"].fit
    untrained = replace(plan, league=one, recipe=replace(plan.recipe, overrides={"epochs": 1, "lr": 1e-9}))
    with pytest.raises(InvalidInput, match=r"labels or preprocessing are probably wrong: the original has"):
        run_league(untrained, store=folder / "store")
