"""What a plan names beside its verdict arrives in result.json, and what cannot work is refused before any model."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.work.plan import parse_plan
from mnemoscope.audit.work.store import Store
from mnemoscope.pipeline import run_plan
from mnemoscope.planning import check_plan, export_orders
from mnemoscope.preparation import PreparedAudit
from mnemoscope.reports.editions import for_edition
from mnemoscope.reports.schema import from_json, read_result, to_json

SMALL = """
name = "attack layer"
[data]
name = "digits"
{data}
[design]
models = {models}
audited = 60
background = 60
population = 60
calibration = 0
test = 60
[recipe.overrides]
architecture = "mlp:8"
epochs = {epochs}
batch_size = 64
[[subjects]]
method = "noop"
[attacks]
{attacks}
[defences]
{defences}
[policy]
alpha = 0.1
control_permutations = 99
[runtime]
device = "cpu"
threads = 1
stack = 1
"""


def plan(
    attacks: str = 'run = ["loss"]\nmeasures = []',
    defences: str = "answers = []",
    data: str = "",
    epochs: int = 1,
    models: int = 6,
) -> Any:
    text = SMALL.format(attacks=attacks, defences=defences, data=data, epochs=epochs, models=models)
    return parse_plan(text)


EVERYTHING = """
run = ["loss", "lira", "gradient_norm", "label_noise", "difference_margin"]
primary = "lira"
queries = ["identity"]
measures = ["gaussian_poisoning", "klom_gaussian", "swap", "ruli_efficacy", "loss_tnr_reading"]
reconstructions = ["model_inversion", "linear_reconstruction"]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def audit(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """One run of everything at once, as an object and as its folder."""
    pytest.importorskip("opacus")
    out = tmp_path_factory.mktemp("out")
    wanted = plan(
        EVERYTHING, 'answers = ["label-only", "top:1"]\ndp_noise = [1.0]', "canary_noise = 0.5", epochs=5, models=12
    )
    return run_plan(wanted, store=store, out=out), out


def the_subject(audit: tuple[Any, Path]) -> Any:
    (subject,) = audit[0].subjects
    return subject


@pytest.mark.slow
def test_the_document_comes_back_as_it_was(audit: tuple[Any, Path]) -> None:
    result, out = audit
    text = (out / "result.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in result.json"))
    shown = for_edition(result)  # single records stay in memory: they belong to the restricted edition
    assert read_result(out / "result.json") == shown
    assert from_json(to_json(result)) == shown
    whole = replace(result, edition="restricted")
    assert all(subject.individuals for subject in whole.subjects)
    assert from_json(to_json(whole)) == for_edition(whole)


@pytest.mark.slow
def test_every_measure_arrives_with_floor_excess_and_no_op(audit: tuple[Any, Path]) -> None:
    rows = {row.measure: row for row in the_subject(audit).measured}
    assert list(rows) == ["gaussian_poisoning", "klom_gaussian", "swap", "ruli_efficacy", "loss_tnr_reading"]
    for name, row in rows.items():
        assert math.isfinite(row.value.value), name
        assert math.isfinite(row.floor.value), name
        if row.excess is not None:
            assert row.excess.value == pytest.approx(row.value.value - row.floor.value, abs=1e-9), name
        if row.no_op is not None:  # the subject is no-op itself
            assert row.no_op.value == pytest.approx(row.value.value, abs=1e-9), name
    gus = rows["gaussian_poisoning"]
    assert "never seen" in gus.note
    assert gus.excess is not None


@pytest.mark.slow
def test_both_versions_are_described_with_all_controls_and_decide_nothing(audit: tuple[Any, Path]) -> None:
    subject = the_subject(audit)
    found = {(f.game, f.models) for f in subject.findings if f.attack == "difference_margin"}
    games, controls = ("difference-never", "difference-kept"), ("after", "retrained", "reseeded", "no-op")
    assert found == {(game, models) for game in games for models in controls}
    assert not [e for e in subject.endpoints if e.attack == "difference_margin"]
    for f in subject.findings:
        if f.attack == "difference_margin" and f.models in ("after", "no-op"):  # one version twice
            assert f.auc.value == 0.5
    reseeded = [c for c in audit[0].costs if c.step == "train before B"]
    assert [c.computed for c in reseeded] == [12]


@pytest.mark.slow
def test_live_attacks_and_own_questions_are_scored(audit: tuple[Any, Path]) -> None:
    subject = the_subject(audit)
    names = {f.attack for f in subject.findings if f.game == "forgetting"}
    assert {"gradient_norm", "label_noise"} <= names
    assert {e.attack for e in subject.endpoints} >= {"lira", "loss", "gradient_norm", "label_noise"}


@pytest.mark.slow
def test_defences_and_dp_training_stand_beside_the_models_as_they_are(audit: tuple[Any, Path]) -> None:
    rows = the_subject(audit).defended
    by_name = {(row.defence.partition(",")[0], row.game): row for row in rows}
    assert {name for name, _ in by_name} == {"none", "label-only", "top:1", "DP-SGD"}
    assert by_name["none", "membership"].attack == "lira"  # the primary one, although the plan lists it second
    assert by_name["top:1", "forgetting"].attack == "lira"
    assert by_name["label-only", "forgetting"].attack == "label_noise"  # loss and lira read scores
    private = by_name["DP-SGD", "membership"]
    assert "epsilon" in private.defence
    assert "delta 1e-05" in private.defence


@pytest.mark.slow
def test_reconstructions_stand_in_the_coverage(audit: tuple[Any, Path]) -> None:
    rows = {row.attack: row for row in the_subject(audit).reconstructed}
    assert set(rows) == {"model_inversion", "linear_reconstruction"}
    assert all(row.control is not None for row in rows.values())
    executed = {row.attack_class: row.executed for row in audit[0].coverage}
    assert executed["model inversion"]
    assert executed["reconstruction"]
    assert not executed["attribute inference"]


@pytest.mark.slow
def test_the_reader_learns_that_records_carry_noise(audit: tuple[Any, Path]) -> None:
    result, out = audit
    audited = next(part for part in result.data.sets if part.role == "audited")
    assert "60 canaries with Gaussian noise" in audited.note
    assert any("noise that was planted" in line for line in result.limitations)
    assert "60 canaries with Gaussian noise" in (out / "report.html").read_text()


@pytest.mark.slow
def test_the_claimed_epsilon_of_dp_training_stands_beside_what_the_attack_shows(audit: tuple[Any, Path]) -> None:
    from mnemoscope.audit.models.private import dp_epsilon

    result, out = audit
    rows = [row for row in the_subject(audit).epsilons if row.fleet]
    assert {row.fleet for row in rows} == {"DP-SGD, noise 1, clip 1"}
    (row,) = [row for row in rows if row.claimed is not None]
    assert (row.game, row.attack, row.delta) == ("membership", result.plan.primary_attack, 1e-5)
    prepared = PreparedAudit(
        plan(EVERYTHING, "answers = []\ndp_noise = [1.0]", "canary_noise = 0.5", epochs=5, models=12)
    )
    trained = prepared.design.role
    sizes = np.isin(trained, [Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN]).sum(axis=1)
    expected = max(dp_epsilon(prepared.private_recipe(1.0), int(n), 1e-5) for n in set(sizes))
    assert row.claimed == pytest.approx(expected)
    assert 0 <= row.bound.value <= row.ceiling
    # One run under the promise of DP-SGD: what is refuted here would be a fault of training or accounting.
    assert not row.refuted
    assert result.warnings == ()
    assert "DP-SGD, noise 1, clip 1" in (out / "report.html").read_text()


@pytest.mark.slow
def test_what_is_added_later_computes_nothing_that_was_there(audit: tuple[Any, Path], store: Path) -> None:
    more = EVERYTHING.replace('"loss", ', '"loss", "entropy", "label_noise", ').replace('"label_noise", "diff', '"diff')
    more = more.replace('"swap", ', "").replace('"model_inversion", ', "")
    again = run_plan(
        plan(more, 'answers = ["round:2"]\ndp_noise = [1.0]', "canary_noise = 0.5", epochs=5, models=12), store=store
    )
    computed = {cost.step: cost.computed for cost in again.costs if cost.computed}
    assert computed == {}
    assert "entropy" in {f.attack for f in again.subjects[0].findings}
    same = {(f.attack, f.game, f.models): f.auc for f in the_subject(audit).findings}
    for f in again.subjects[0].findings:
        if f.attack in ("lira", "gradient_norm", "label_noise", "difference_margin"):
            assert f.auc == same[f.attack, f.game, f.models]  # another attack in the plan moves no number
    assert again.subjects[0].verdict.word == the_subject(audit).verdict.word


@pytest.mark.parametrize(
    ("attacks", "defences", "said"),
    [
        ('run = ["liras"]', "", "did you mean 'lira'"),
        ('measures = ["klomm"]', "", "did you mean 'klom'"),
        ('reconstructions = ["model_inversoin"]', "", "did you mean 'model_inversion'"),
        ('run = ["loss"]', 'answers = ["labels-only"]', "did you mean 'label-only'"),
        ('run = ["loss"]', 'answers = ["top:0"]', "top:0"),
        ('run = ["loss", "difference_margin"]\nprimary = "difference_margin"', "", "reads both versions"),
        ('run = ["difference_margin"]', "", "read both versions"),
        ('measures = ["gaussian_poisoning"]', "", "set data.canary_noise"),
        ('run = ["loss"]\nreconstructions = ["unlearning_inversion"]', "", "at most 4 deleted records"),
        ('run = ["loss"]\nreconstructions = ["attribute_inference"]', "", "is for tables"),
        ('run = ["label_flips"]', "", "label_flips"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(attacks: str, defences: str, said: str) -> None:
    with pytest.raises(AuditError) as caught:
        PreparedAudit(plan(attacks, defences or "answers = []"))
    assert said in str(caught.value)


def test_all_reconstructions_that_cannot_work_are_listed_at_once() -> None:
    both = 'run = ["loss"]\nreconstructions = ["unlearning_inversion", "attribute_inference"]'
    with pytest.raises(InvalidInput) as caught:
        PreparedAudit(plan(both))
    assert "unlearning_inversion: " in str(caught.value)
    assert "attribute_inference: " in str(caught.value)


def test_dp_training_without_opacus_is_refused_before_any_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opacus", None)
    with pytest.raises(AuditError, match="[Oo]pacus"):
        PreparedAudit(plan(defences="answers = []\ndp_noise = [1.0]"))


@pytest.mark.slow
def test_a_measure_that_cannot_work_costs_no_decision(tmp_path: Path) -> None:
    """Six models leave two that forgot a record: too few for KLoM, which is measured by default."""
    result = run_plan(plan('run = ["loss"]'), store=tmp_path)
    rows = {row.measure: row for row in result.subjects[0].measured}
    assert rows["klom_gaussian"].value.value is None
    assert "fewer than 3 models" in rows["klom_gaussian"].value.reason
    assert rows["ruli_efficacy"].value.value is not None
    assert from_json(to_json(result)) == for_edition(result)


@pytest.mark.slow
def test_dp_training_of_a_model_with_batch_normalisation_is_refused_before_any_fleet(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    wanted = plan(defences="answers = []\ndp_noise = [1.0]")
    wanted = replace(
        wanted, recipe=replace(wanted.recipe, overrides={**wanted.recipe.overrides, "architecture": "resnet18"})
    )
    for call in (run_plan, check_plan):
        with pytest.raises(AuditError, match="batch normalisation"):
            call(wanted, store=tmp_path)
    assert not [entry for entry in Store(tmp_path).ls() if entry.meta.get("kind") == "train"]


def test_canaries_take_the_place_of_their_sources() -> None:
    plain, noisy = PreparedAudit(plan()), PreparedAudit(plan(data="canary_noise = 0.5"))
    assert noisy.canaries is not None
    assert plain.canaries is None
    assert np.array_equal(noisy.canaries.sources, plain.design.audited)
    assert np.array_equal(noisy.design.roles_of(noisy.canaries.ids), plain.design.roles_of(plain.design.audited))
    assert (noisy.design.roles_of(noisy.canaries.sources) == Role.UNUSED).all()
    assert plain.canary_note == ""


@pytest.mark.slow
def test_an_attack_on_both_versions_is_counted_and_exported(tmp_path: Path) -> None:
    wanted = plan('run = ["loss", "difference_margin"]\nmeasures = []')
    said = check_plan(wanted, store=tmp_path / "store")
    assert "4 fleets of 6 models: 24" in said
    report = export_orders(wanted, tmp_path / "orders", store=tmp_path / "store")
    assert sum(name.startswith("before-b") for name in report.orders) == 6
    order = json.loads((tmp_path / "orders" / f"{report.orders[0]}.json").read_text())
    assert order["answers"]["suffice"] is True
    assert Store(tmp_path / "store").get(order["key"]) is None


@pytest.mark.slow
def test_orders_want_weights_where_attacks_ask_more(tmp_path: Path) -> None:
    for number, attacks in enumerate(('run = ["loss", "label_noise"]', 'run = ["loss", "gradient_norm"]')):
        folder = tmp_path / f"orders{number}"
        report = export_orders(plan(attacks + "\nmeasures = []"), folder, store=tmp_path / "store")
        order = json.loads((folder / f"{report.orders[0]}.json").read_text())
        assert order["answers"]["suffice"] is False
