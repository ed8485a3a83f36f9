"""Every registered attack has its evidence, and the evidence is what it says it is."""

import dataclasses
import json
import tomllib

import pytest
from evidence_rows import ROOT, load_script, marked_in_list, states_something, written_rows

from mnemoscope import listing
from mnemoscope.attacks import ATTACKS, MEASURES, RECONSTRUCTIONS, evidence
from mnemoscope.attacks.evidence import Evidence, Figure, load_evidence
from mnemoscope.audit.testing import LEAST_AUC, silent_band

NAMES = [*ATTACKS, *MEASURES, *RECONSTRUCTIONS]
ROWS = load_evidence()


@pytest.fixture(scope="module")
def script():
    return load_script("attack_evidence")


def test_every_registered_name_has_one_row_and_no_row_is_orphaned():
    assert [name for name, _ in written_rows("mnemoscope.attacks")] == NAMES
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_known_answer_is_a_test_that_states_something(name):
    assert states_something(ROWS[name].known_answer), ROWS[name].known_answer


def test_a_test_that_states_nothing_is_known_for_one(tmp_path):
    lines = [
        "def check(x): assert x",
        "def twice(x): check(x)",
        "def test_asserts(): assert work()",
        "def test_compares(): np.testing.assert_array_equal(work(), 1)",
        "def test_has_a_helper_that_asserts(): check(work())",
        "def test_runs(): work()",
        "def test_has_a_helper_of_a_helper(): twice(work())",
    ]
    path = tmp_path / "tests/test_toy.py"
    path.parent.mkdir()
    path.write_text("\n".join(lines), encoding="utf-8")
    said = {
        name
        for name in ("asserts", "compares", "has_a_helper_that_asserts", "runs", "has_a_helper_of_a_helper")
        if states_something(f"tests/test_toy.py::test_{name}", tmp_path)
    }
    assert said == {"asserts", "compares", "has_a_helper_that_asserts"}
    assert not states_something("tests/test_toy.py::test_absent", tmp_path)
    assert not states_something("tests/test_toy.py::check", tmp_path)


def test_the_table_of_known_answers_is_the_rows(script):
    assert script.known_answers() == {name: ROWS[name].known_answer for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_planted_leak_is_found_and_nothing_where_there_is_none(name):
    row = ROWS[name]
    assert row.sees, row
    assert row.worlds
    if name in ATTACKS:
        assert row.threshold == LEAST_AUC
        assert row.null_band == pytest.approx(silent_band(ATTACKS[name]()), abs=1e-9)
    else:
        assert row.threshold != 0
        assert row.null_band[1] > 0


@pytest.mark.parametrize("name", ["lira", "rmia", "loss", "correctness", "difference_margin", "iam", "u_lira"])
def test_numbers_are_what_the_worlds_give(script, name):
    again = script.of_attack(name)
    assert again["planted_leak"] == pytest.approx(ROWS[name].planted_leak, abs=2e-3)
    assert again["null"] == pytest.approx(ROWS[name].null, abs=2e-3)


@pytest.mark.parametrize("name", ["klom_gaussian", "swap", "loss_tnr_reading"])
def test_numbers_of_measures_are_what_the_worlds_give(script, name):
    again = script.of_measure(name)
    for part in ("planted_leak", "threshold", "null"):
        assert again[part] == pytest.approx(getattr(ROWS[name], part), abs=2e-3)


def test_numbers_of_a_reconstruction_are_what_the_worlds_give(script):
    again = script.of_reconstruction("attribute_inference")
    for part in ("planted_leak", "threshold", "null"):
        assert again[part] == pytest.approx(getattr(ROWS["attribute_inference"], part), abs=2e-3)


def numbers_in(result, name):
    """All (value, low, high) that a result file has under a name."""
    found = [(r["auc"], r["auc_low"], r["auc_high"]) for r in result["rows"] if r["attack"] == name]
    rows = [r for part in ("measured", "reconstructed") for s in result.get(part, {}).values() for r in s]
    for row in rows:
        if name in (row.get("measure"), row.get("attack")):
            for part in ("value", "excess", "success"):
                estimate = row.get(part)
                if estimate and estimate["ci"]:
                    found.append((estimate["value"], estimate["ci"]["lower"], estimate["ci"]["upper"]))
    return found


def check_figure(name, figure, root=ROOT):
    path = root / figure.result
    assert path.is_file(), path
    assert figure.result.startswith("benchmarks/results/")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert figure.plan == result["plan"]
    assert figure.plan.startswith("sha256:")
    assert (figure.value, figure.low, figure.high) in numbers_in(result, name)
    assert figure.low <= figure.value <= figure.high


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_on_real_data_is_the_one_in_its_file(name):
    if ROWS[name].measured is not None:
        check_figure(name, ROWS[name].measured)


@pytest.fixture
def result(tmp_path, script, monkeypatch):
    """A result file of the shape that attacks_table.py writes, in a repository of its own."""
    row = {"auc": 0.9, "auc_low": 0.8, "auc_high": 0.95, "game": "forgetting", "models": "no-op"}

    def estimate(value):
        return {"value": value, "ci": {"lower": value - 0.1, "upper": value + 0.1}}

    content = {
        "data": "data/toy.npz",
        "plan": "sha256:12",
        "rows": [
            {**row, "attack": "lira", "models": "retrained", "auc": 0.5},
            {**row, "attack": "lira"},
            {**row, "attack": "loss", "auc_low": None},
            {**row, "attack": "iam", "game": "difference-kept", "models": "retrained", "auc": 0.87},
        ],
        "measured": {
            "retrain": [{"measure": "klom", "unit": "nats", "value": estimate(3.0), "excess": estimate(0.0)}],
            "noop": [{"measure": "klom", "unit": "nats", "value": estimate(5.0), "excess": estimate(2.0)}],
        },
        "reconstructed": {
            "retrain": [
                {
                    "attack": "label_inversion",
                    "unit": "share",
                    "success": estimate(0.3),
                    "chance": estimate(0.1),
                    "control": estimate(0.2),
                }
            ]
        },
    }
    monkeypatch.setattr(script, "ROOT", tmp_path)
    path = tmp_path / "benchmarks/results/attacks_toy.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_figures_are_read_from_result_files(script, result, tmp_path):
    found = {name: Figure(**row) for name, row in script.measured([result]).items()}
    assert set(found) == {"lira", "iam", "klom", "label_inversion"}  # a value without an interval is no figure
    assert (found["lira"].value, found["lira"].low, found["lira"].data) == (0.9, 0.8, "toy")
    assert found["lira"].what == "AUC, forgetting, no-op"
    assert found["klom"].value == 2.0
    assert found["label_inversion"].what == "share, retrain (chance 0.10, control 0.20)"
    cell = script.shown(dataclasses.asdict(found["label_inversion"]))
    assert cell == "0.300 [0.200, 0.400] toy (chance 0.10, control 0.20)"
    for name, figure in found.items():
        check_figure(name, figure, tmp_path)
    for change in ({"value": 0.91}, {"plan": "sha256:13"}, {"result": "benchmarks/results/other.json"}):
        with pytest.raises(AssertionError):
            check_figure("lira", dataclasses.replace(found["lira"], **change), tmp_path)
    with pytest.raises(AssertionError):
        check_figure("loss", found["lira"], tmp_path)


FIGURE = Figure("AUC", 0.9, 0.8, 1.0, "toy", "sha256:12", "benchmarks/results/x.json")
WHOLE = Evidence("tests/a.py::test_b", 0.9, 0.6, 0.5, (0.475, 0.525), "drawn", FIGURE)


def test_what_lacks_a_part_is_named():
    assert WHOLE.missing == ()
    assert WHOLE.sees
    for part, word in (("planted_leak", "planted leak"), ("null", "clean world"), ("measured", "figure on real data")):
        assert dataclasses.replace(WHOLE, **{part: None}).missing == (word,)
    assert dataclasses.replace(WHOLE, known_answer="").missing == ("known answer",)
    for change in ({"planted_leak": 0.55}, {"null": 0.53}, {"null": 0.4}, {"planted_leak": None}, {"null": None}):
        assert not dataclasses.replace(WHOLE, **change).sees
    below = dataclasses.replace(WHOLE, planted_leak=-6.0, threshold=-3.0, null=-9.0, null_band=(None, 0.1))
    assert below.sees
    assert not dataclasses.replace(below, planted_leak=6.0).sees


def test_the_list_marks_exactly_what_is_incomplete():
    marked = marked_in_list("attacks", "measures", "reconstructions")
    assert marked == {name: list(ROWS[name].missing) for name in NAMES if ROWS[name].missing}


def test_the_list_marks_a_row_that_lost_a_part_and_one_that_is_not_there(monkeypatch):
    rows = dict.fromkeys(ATTACKS, WHOLE)
    rows["rmia"] = dataclasses.replace(WHOLE, null=None, measured=None)
    del rows["loss"]
    monkeypatch.setattr(evidence, "load_evidence", lambda: rows)
    assert marked_in_list("attacks") == {"rmia": ["clean world", "figure on real data"], "loss": ["all evidence"]}
    lines = dict(listing.LISTINGS["attacks"]())
    assert lines["rmia"].startswith("[not available: lacks clean world, figure on real data] ")


def test_the_rows_are_package_data():
    """That the built wheel holds them is seen in tests/packaging; here, that the package declares them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert declared["mnemoscope.attacks"] == ["evidence.json"]


def test_the_tables_of_the_document_are_filled_from_the_rows(script):
    text = (ROOT / "docs/attacks.md").read_text(encoding="utf-8")
    written = dict(written_rows("mnemoscope.attacks"))
    assert script.filled(text, written) == text
    one = {**written, "lira": {**written["lira"], "measured": dataclasses.asdict(FIGURE)}}
    assert "0.900 [0.800, 1.000] toy" in script.filled(text, one)


def test_the_document_has_every_name_in_one_table_row(script):
    text = (ROOT / "docs/attacks.md").read_text(encoding="utf-8")
    named = []
    for region in script.REGION.finditer(text):
        for line in region[2].split("\n"):
            if line.startswith("|") and script.COLUMN not in line:
                named += [name for name in script.names_in(line) if name in ROWS]
    assert sorted(named) == sorted(NAMES)
