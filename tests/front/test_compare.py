"""`compare` on checkpoints that a script without mnemoscope made from an image folder."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import api
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.result import AuditResult
from mnemoscope.companions import checkpoints_in, choose_recipe, shadow_sides
from mnemoscope.comparison import Comparison, _identity

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/compare"


@dataclass(frozen=True)
class World:
    """Two checkpoints, the images they were trained on, and who was to be forgotten."""

    folder: Path

    def compare(self, after: str, **options: object) -> AuditResult:
        chosen: dict[str, object] = {
            "model": self.folder / "subject.py",
            "data": self.folder / "images",
            "forget": str(self.folder / "forget.csv"),
            "holdout": str(self.folder / "holdout.csv"),
            "store": self.folder / "store",
            "device": "cpu",
            "out": None,
            **options,
        }
        return api.compare(self.folder / "before.pt", self.folder / after, **chosen)  # type: ignore[arg-type]


def script(name: str, *arguments: object, cwd: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, name, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    for file in EXAMPLE.iterdir():
        if file.suffix in (".py", ".toml"):
            shutil.copy(file, folder)
    # Wrong labels can only be memorised: without them this network learns digits well and leaks little.
    script("images.py", "--source", "digits", "--label-noise", 0.3, "--out", ".", cwd=folder)
    script("train.py", "--images", "images", "--leave-out", "holdout.csv", "--out", "before.pt", cwd=folder)
    lists = ("--leave-out", "holdout.csv", "forget.csv")
    script("train.py", "--images", "images", *lists, "--seed", 1, "--out", "retrained.pt", cwd=folder)
    shutil.copy(folder / "before.pt", folder / "unchanged.pt")
    return World(folder)


def test_the_script_knows_nothing_of_mnemoscope() -> None:
    for name in ("images.py", "train.py", "subject.py"):
        lines = (EXAMPLE / name).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(("import", "from")) and "mnemoscope" in line]


@pytest.mark.slow
def test_a_deletion_that_did_nothing_is_outside_and_a_retrained_model_is_not(world: World) -> None:
    references = {"references": 5, "recipe": str(world.folder / "recipe.toml"), "alpha": 0.1}
    leaking = world.compare("unchanged.pt", **references)
    assert [subject.verdict.word for subject in leaking.subjects] == ["OUTSIDE BOUND"]
    clean = world.compare("retrained.pt", **references)
    assert clean.subjects[0].verdict.word != "OUTSIDE BOUND"
    trained = [next(c.computed for c in r.costs if c.step == "companion models") for r in (leaking, clean)]
    assert trained == [5, 0], "references of the first call serve the second"
    both = {(f.game, f.models): f.auc for f in leaking.subjects[0].findings if f.game.startswith("difference")}
    assert set(both) == {("difference-never", "after"), ("difference-never", "retrained")}
    assert both["difference-never", "after"].value == 0.5, "the same version twice"
    assert both["difference-never", "retrained"].low > 0.5, "what exact deletion gives away"
    gates = {gate.id: gate for gate in clean.subjects[0].gates}
    assert gates["G5"].status == "not run"
    assert gates["G7"].status != "not run"
    assert {s.role: s.n_records for s in clean.data.sets} == {"forget": 450, "holdout": 450}


@pytest.mark.slow
def test_permuted_labels_are_caught_before_anything_is_trained(world: World, tmp_path: Path) -> None:
    wrong = tmp_path / "images"
    for name in range(10):
        shutil.copytree(world.folder / f"images/{name}", wrong / str((name + 1) % 10))
    options = {"data": wrong, "references": 5, "store": tmp_path / "store"}
    for part in ("forget", "holdout"):
        with (world.folder / f"{part}.csv").open(newline="") as source:
            head, *rows = csv.reader(source)
        moved = [[f"{(int(key[0]) + 1) % 10}{key[1:]}"] for (key,) in rows]
        with (tmp_path / f"{part}.csv").open("w", newline="") as target:
            csv.writer(target).writerows([head, *moved])
        options[part] = str(tmp_path / f"{part}.csv")
    with pytest.raises(InvalidInput, match="labels or preprocessing are probably wrong"):
        world.compare("unchanged.pt", **options)
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    assert not (tmp_path / "store/keys").exists()


@pytest.mark.slow
def test_outputs_in_another_order_are_read_by_their_names(world: World, tmp_path: Path) -> None:
    """The same network with its last layer's rows reversed, and ``classes`` that say so, answers the same."""
    import torch

    straight = world.compare("unchanged.pt")
    state = torch.load(world.folder / "before.pt", weights_only=True)["model_state_dict"]
    for name in list(state)[-2:]:
        assert state[name].shape[0] == 10
        state[name] = state[name].flip(0)
    torch.save(state, tmp_path / "after.pt")
    source = (world.folder / "subject.py").read_text(encoding="utf-8")
    (tmp_path / "subject.py").write_text(source + "\nclasses = classes[::-1]\n", encoding="utf-8")
    options = {"model": tmp_path / "subject.py", "store": world.folder / "store", "device": "cpu", "out": None}
    parts = {name: str(world.folder / f"{name}.csv") for name in ("forget", "holdout")}
    reversed_ = api.compare(
        tmp_path / "after.pt", tmp_path / "after.pt", data=world.folder / "images", **parts, **options
    )  # type: ignore[arg-type]
    assert reversed_.subjects[0].endpoints == straight.subjects[0].endpoints


@pytest.mark.slow
def test_result_and_report_are_written_and_read_back(world: World, tmp_path: Path) -> None:
    result = world.compare("retrained.pt", out=tmp_path / "found")
    assert json.loads(api.to_json(result))["mode"] == "one-model"
    assert (tmp_path / "found/result.json").read_text(encoding="utf-8") == api.to_json(result)
    assert (
        api.report(tmp_path / "found", out=tmp_path / "again").read_bytes()
        == (tmp_path / "found/report.html").read_bytes()
    )


@pytest.mark.slow
def test_groups_that_share_records_are_refused_by_key(world: World) -> None:
    with pytest.raises(InvalidInput, match=r"share 450 records \(\d/\d+\.png"):
        world.compare("unchanged.pt", holdout=str(world.folder / "forget.csv"))


def question(tmp_path: Path, **options: object) -> Comparison:
    for name in ("before.pt", "after.pt"):
        (tmp_path / name).write_bytes(name.encode())
    here = (tmp_path / "before.pt", tmp_path / "after.pt", tmp_path / "subject.py", "digits", "random:5", "random:5")
    return Comparison(*here, **options)  # type: ignore[arg-type]


def test_identity_passes_on_the_declared_digest_alone(tmp_path: Path) -> None:
    import hashlib

    tested = hashlib.sha256(b"after.pt").hexdigest()
    assert _identity(question(tmp_path), "").status == "not run"
    assert _identity(question(tmp_path, served_digest=tested), "").status == "pass"
    assert _identity(question(tmp_path, served_digest=f"sha256:{tested.upper()}"), "").status == "pass"
    assert _identity(question(tmp_path, served_digest="0" * 64), "").status == "fail"
    with pytest.raises(InvalidInput, match="64 hex digits"):
        _identity(question(tmp_path, served_digest="abc"), "")


def test_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="give one of them"):
        question(tmp_path, references=3, retrained_models=tmp_path)
    with pytest.raises(InvalidInput, match="references=-1"):
        question(tmp_path, references=-1)


def test_a_missing_checkpoint_is_named_before_any_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.pt: there is no such checkpoint"):
        api.compare(tmp_path / "none.pt", tmp_path / "none.pt", tmp_path / "subject.py", "nothing", "1", "2", out=None)


def test_a_recipe_is_a_name_or_a_file_of_known_fields(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    assert choose_recipe(None, subject=digest, is_image=True).architecture == "subject"
    given = choose_recipe(str(EXAMPLE / "recipe.toml"), subject=digest, is_image=True)
    assert (given.lr, given.epochs, given.subject) == (0.05, 30, digest)
    with pytest.raises(InvalidInput, match="must be one of"):
        choose_recipe("nothing", subject=digest, is_image=True)
    bad = tmp_path / "recipe.toml"
    for text, message in (("epoch = 3", "unknown epoch"), ("epochs = 'x'", "type"), ("epochs = ", "TOML")):
        bad.write_text(text)
        with pytest.raises(InvalidInput, match=message):
            choose_recipe(str(bad), subject=digest, is_image=True)


@pytest.mark.parametrize("models", [2, 5, 16])
def test_each_record_is_in_half_of_the_shadow_models(models: int) -> None:
    side = shadow_sides(models, 400, rng=np.random.default_rng(3))
    counts = side.sum(axis=0)
    assert set(counts) <= {models // 2, models - models // 2}
    # Models must differ: with equal rows every record would share one draw.
    assert len({row.tobytes() for row in side}) == models
    assert abs(side.mean() - 0.5) < 0.05


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match="holds no checkpoint"):
        checkpoints_in(tmp_path)
    with pytest.raises(InvalidInput, match="no folder"):
        checkpoints_in(tmp_path / "nothing")
