"""What a user can get wrong: one message with value, allowed and remedy, exit code 2, and nothing half written."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

from mnemoscope import cli
from mnemoscope.audit.work.plan import load_plan
from mnemoscope.audit.work.store import Store
from mnemoscope.guard import check_out
from mnemoscope.planned_records import refuse_changed_data
from mnemoscope.preparation import PreparedAudit

N = 400
PLAN = """
name = "tiny"
seed = 0
[data]
name = "digits"
[design]
models = 6
audited = 600
background = 400
population = 300
calibration = 200
test = 297
[recipe]
name = "digits-mlp"
[recipe.overrides]
architecture = "mlp:16"
epochs = 5
[[subjects]]
method = "noop"
[attacks]
run = ["lira"]
[policy]
alpha = 0.01
[runtime]
stack = 6
"""
SUBJECT = """
from torch import nn
def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""


def refused(*args: str, says: tuple[str, ...], out: Path | None = None) -> str:
    """Run a command that must be refused, and return what it said."""
    done = CliRunner().invoke(cli.app, [*args, *([] if out is None else ["--out", str(out)])])
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    said = done.stderr
    for part in says:
        assert part in said, said
    assert "Traceback" not in said
    assert out is None or not out.exists() or not out.is_dir() or not any(out.iterdir())
    return said


def predictions(path: Path, **change: Any) -> Path:
    """A file of predictions that is accepted, with some arrays replaced; None leaves one out."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, N)
    arrays: dict[str, Any] = {
        "logits": rng.normal(size=(N, 10)) + 3 * np.eye(10)[labels],
        "labels": labels,
        "role": np.repeat(["forget", "holdout"], N // 2),
    }
    arrays |= {name: make(arrays) if callable(make) else make for name, make in change.items()}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def put(name: str, at: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
    def make(arrays: dict[str, Any]) -> Any:
        changed = arrays[name].copy()
        changed[at] = value
        return changed

    return make


def softmax(arrays: dict[str, Any]) -> Any:
    p = np.exp(arrays["logits"])
    return p / p.sum(axis=1, keepdims=True)


SCORES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nan": ({"logits": put("logits", (3, 2), np.nan)}, ("logits: 1 of 400", "row 3", "allowed: finite")),
    "infinite": ({"logits": put("logits", (5, 1), np.inf)}, ("NaN or infinite", "Leave these records out")),
    "probabilities as logits": ({"logits": softmax}, ("they are probabilities", "give them as probs")),
    "logits as probabilities": (
        {"logits": None, "probs": lambda a: a["logits"]},
        ("400 of 400", "If these are logits, give them as logits"),
    ),
    "label too large": ({"labels": put("labels", 7, 12)}, ("outside of the model's 10 classes (12)", "0 to 9")),
    "label negative": ({"labels": put("labels", 7, -1)}, ("(-1)", "allowed: 0 to 9")),
    "labels no classes": ({"labels": lambda a: a["labels"] + 0.5}, ("whole numbers from 0 to 9",)),
    "labels too few": ({"labels": lambda a: a["labels"][:-1]}, ("shape (399,)", "(400,)")),
    "other classes": ({"before_logits": lambda a: a["logits"][:, :9]}, ("shape (400, 9)", "(400, 10)")),
    "logits flat": ({"logits": lambda a: a["logits"][:, 0]}, ("shape (400,)", "(n, c)")),
    "one retrained model without an axis": ({"retrained_logits": lambda a: a["logits"]}, ("(r, 400, 10)",)),
    "no holdout": ({"role": np.repeat(["forget"], N)}, ("role holdout: 0 records", "at least 2")),
    "unknown role": ({"role": np.repeat(["forget", "test"], N // 2)}, ("'test'", "allowed: forget, holdout")),
    "roles as numbers": ({"role": np.repeat([0, 1], N // 2)}, ("text of shape (400,)", "member")),
    "ids twice": ({"ids": np.zeros(N, int)}, ("399 ids", "own")),
    "unknown array": ({"befor_logits": lambda a: a["logits"]}, ("did you mean 'before_logits'?", "allowed:")),
    "objects": ({"labels": lambda a: a["labels"].astype(object)}, ("could run code", "plain numbers")),
    "sides": (
        {"shadow_logits": lambda a: a["logits"][None], "side": np.full((1, N), 3)},
        ("1 (trained on), 0 (not trained on)",),
    ),
    "members": ({"role": None, "member": np.arange(N) % 3}, ("allowed are 1 (member) and 0",)),
}


@pytest.mark.parametrize("case", SCORES, ids=str)
def test_scores_refuses_arrays(case, tmp_path):
    change, says = SCORES[case]
    refused("scores", str(predictions(tmp_path / "p.npz", **change)), says=says, out=tmp_path / "out")


def test_scores_refuses_counts_that_bear_no_rate(tmp_path):
    rows = np.r_[:10, 200:210]
    few = {name: (lambda a, name=name: a[name][rows]) for name in ("role", "labels", "logits")}
    made = predictions(tmp_path / "p.npz", **few)
    refused("scores", str(made), says=("10 never-seen records", "at least 2 and 20"), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "no archive of arrays"),
        (b"", "No data left"),
        (b"PK\x03\x04" + b"\0" * 400, "not a zip file"),
    ],
)
def test_scores_refuses_what_is_no_archive(content, says, tmp_path):
    (tmp_path / "p.npz").write_bytes(content)
    said = refused("scores", str(tmp_path / "p.npz"), says=(says, "numpy.savez"), out=tmp_path / "out")
    # NumPy's own text tells how to load a pickle unsafely.
    assert "allow_pickle" not in said
    assert "unsafely" not in said


def test_scores_refuses_a_folder_and_a_missing_file(tmp_path):
    refused("scores", str(tmp_path), says=(tmp_path.name, "Is a directory", ".npz"))
    refused("scores", str(tmp_path / "no.npz"), says=("no.npz: there is no such file",))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--alpha", "5", "not percent"),
        ("--alpha", "0", "between 0 and 1"),
        ("--alpha", "nan", "between 0 and 1"),
        ("--alpha", "0.00001", "200000"),
        ("--policy", "no.toml", "give an existing TOML file"),
        ("--seed", "-1", "--seed"),
        ("--seed", str(2**53), "--seed"),
    ],
)
def test_scores_refuses_options(option, value, says, tmp_path):
    made = predictions(tmp_path / "p.npz")
    refused("scores", str(made), option, value, says=(says,), out=tmp_path / "out")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Digits as .npz, a subject, two checkpoints that are right about most, and lists of records."""
    folder = tmp_path_factory.mktemp("world")
    digits = load_digits()
    x = (digits.images * 15.9).astype(np.uint8)[..., None]
    np.savez(folder / "digits.npz", x=x, y=digits.target)
    (folder / "subject.py").write_text(SUBJECT)
    (folder / "raises.py").write_text("def model():\n    raise ValueError('no weights at home')\n")
    order = np.random.default_rng(0).permutation(len(x))
    for name, ids in {"forget": order[:200], "holdout": order[200:400]}.items():
        (folder / f"{name}.csv").write_text("id\n" + "\n".join(map(str, ids)) + "\n")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    inputs, labels = torch.tensor(x[order[400:]]).float() / 255 - 0.5, torch.tensor(digits.target[order[400:]])
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / "before.pt")
    torch.save(net.state_dict(), folder / "after.pt")
    torch.save(nn.Linear(3, 4).state_dict(), folder / "misfit.pt")
    (folder / "evil.pt").write_bytes(pickle.dumps({"weights": print}))
    (folder / "text.pt").write_text("hello")
    (folder / "empty").mkdir()
    (folder / "alone").mkdir()
    torch.save(net.state_dict(), folder / "alone/s0.pt")
    return folder


COMPARE: list[tuple[tuple[str, str], tuple[str, ...]]] = [
    (("--holdout", "{}/forget.csv"), ("holdout and forget share 200 records", "remove them")),
    (("--population", "{}/forget.csv"), ("population and forget share 200 records",)),
    (("--forget", "nosuch"), ("neither keys nor ids", "allowed: keys or ids with commas")),
    (("--forget", "1,2,77777"), ("1 of 3", "77777")),
    (("--forget", "class:banana"), ("class:banana is unknown", "0, 1, 2")),
    (("--forget", "random:0"), ("0 records", "1..1797")),
    (("--forget", "random:150%"), ("1..1797",)),
    (("--forget", "random:x"), ("random:600 or random:10%",)),
    (("--forget", ""), ("an empty selection",)),
    (("--forget", "gone.csv"), ("gone.csv: there is no such file",)),
    (("--holdout", "3,4"), ("2 never-seen records", "at least 2 and 20")),
    (("--after", "{}/misfit.pt"), ("does not fit", "missing: 1.weight", "Check that model()")),
    (("--after", "{}/evil.pt"), ("is refused", "builtins.print", "convert it once")),
    (("--after", "{}/text.pt"), ("it is no file of torch", "torch.save(model.state_dict(), path)")),
    (("--after", "{}/gone.pt"), ("there is no such checkpoint",)),
    (("--after", "{}"), ("is a folder",)),
    (("--model", "{}/raises.py"), ("raises.py, line 2", "no weights at home")),
    (("--model", "{}/gone.py"), ("mnemoscope init",)),
    (("--data", "{}/gone.npz"), ("neither a data set nor a file or folder",)),
    (("--retrained-models", "{}/empty"), ("holds no checkpoint", ".safetensors")),
    (("--retrained-models", "{}/gone"), ("is no folder",)),
    (("--shadow-models", "1"), ("at least 2",)),
    (("--shadow-models", "{}/alone"), ("s0.csv is missing", "list the records")),
    (("--recipe", "nope"), ("must be one of digits-mlp",)),
    (("--served-digest", "abc"), ("served_digest='abc'", "64 hex digits")),
    (("--device", "banana"), ("device='banana'", "use 'auto' or 'cpu'")),
    (("--alpha", "0.0001"), ("200 never-seen records", "20000")),
    (("--store", "{}/before.pt"), ("is a file; give a folder",)),
    (("--seed", "99999999999999999999"), ("--seed",)),
]


@pytest.mark.parametrize(("option", "says"), COMPARE, ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_compare_refuses(option, says, world, tmp_path, monkeypatch):
    # References are asked for everywhere: what is refused must be refused before any model is trained.
    monkeypatch.setattr("mnemoscope.companions.Workbench.train", _no_training)
    chosen: dict[str, str] = {
        "--before": f"{world}/before.pt",
        "--after": f"{world}/after.pt",
        "--model": f"{world}/subject.py",
        "--data": f"{world}/digits.npz",
        "--forget": f"{world}/forget.csv",
        "--holdout": f"{world}/holdout.csv",
        "--store": str(tmp_path / "store"),
        "--device": "cpu",
        "--references": "0" if option[0] == "--retrained-models" else "2",
    }
    chosen[option[0]] = option[1].format(world)
    refused("compare", *(part for pair in chosen.items() for part in pair), says=says, out=tmp_path / "out")


def _no_training(*args: object) -> None:
    raise AssertionError("a model would have been trained on refused input")


RUN: list[tuple[tuple[str, str], tuple[str, ...]]] = [
    (("models = 6", "modles = 6"), ("design.modles: unknown key", "did you mean 'models'?", "allowed: mode")),
    (("seed = 0", "seed = -1"), ("seed=-1",)),
    (("seed = 0", f"seed = {2**53}"), (f"seed={2**53}", "9007199254740991")),
    (("alpha = 0.01", "alpha = 5"), ("not percent",)),
    (('method = "noop"', 'method = "nop"'), ("did you mean 'noop'?", "allowed:")),
    (('"lira"', '"liar"'), ("did you mean 'lira'?",)),
    (('name = "digits"\n', 'name = "digitz"\n'), ("did you mean 'digits'?",)),
    (("audited = 600", "audited = 6000"), ("only 1797", "fewer")),
    (("audited = 600", "audited = 4"), ("8 never-seen records", "at least 2 and 200")),
    (("audited = 600\n", "audited = 6\nfolds = 2\ncounts = [2, 2, 2]\n"), ("never-seen records",)),
    (("models = 6", "models = 1"), ("design.models=1", "2")),
    (("mlp:16", "mpl:16"), ("architecture='mpl:16'", "Known: 'mlp:WIDTHS'")),
    (("epochs = 5", "epochs = 0"), ("recipe.overrides.epochs=0", "at least 1")),
    (("epochs = 5", "epoch = 5"), ("did you mean 'epochs'?",)),
    (('name = "tiny"', "name = "), ("not valid TOML",)),
]


@pytest.mark.parametrize(("change", "says"), RUN, ids=lambda x: x[1] if len(x) == 2 else "")
def test_run_refuses_and_commits_no_plan(change, says, tmp_path):
    assert PLAN.count(change[0]) == 1
    (tmp_path / "plan.toml").write_text(PLAN.replace(*change))
    store = ("--store", str(tmp_path / "store"))
    refused("run", str(tmp_path / "plan.toml"), *store, says=says, out=tmp_path / "out")


def test_run_refuses_few_records_a_model_before_any_work(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace("audited = 600", "audited = 24").replace("0.01", "0.1"))
    said = ("design.audited=24", "8 forgotten or never-seen", "at least 10")
    refused("run", str(tmp_path / "plan.toml"), "--store", str(tmp_path / "s"), says=said, out=tmp_path / "out")


@pytest.mark.parametrize("command", ["run", "scores", "demo"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "plan.toml").write_text(PLAN)
    given = {
        "run": ["run", str(tmp_path / "plan.toml")],
        "scores": ["scores", str(predictions(tmp_path / "p.npz"))],
        "demo": ["demo"],
    }[command]
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path / "file", tmp_path / "file/below"):
        refused(*given, says=("--out", "is a file; give"), out=out)
    readable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and readable(path, mode))
    refused(*given, says=("cannot be written",), out=tmp_path / "new")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / ".mnemoscope").exists()


def test_a_place_that_can_be_written_is_not_made_by_the_check(tmp_path):
    check_out(tmp_path / "a/b")
    check_out(None)
    assert not (tmp_path / "a").exists()


def test_run_names_the_keys_of_a_data_set_that_changed(world, tmp_path):
    x, y = (np.load(world / "digits.npz")[name] for name in ("x", "y"))
    np.savez(tmp_path / "d.npz", x=x, y=y)
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace('name = "digits"\n', 'name = "d.npz"\n'))
    prepared = PreparedAudit(load_plan(plan), store=Store(tmp_path / "store"))
    refuse_changed_data(prepared)
    refuse_changed_data(prepared)
    x[5] = 0
    np.savez(tmp_path / "d.npz", x=np.concatenate([x[:-1], x[-1:] + 1]), y=y)
    said = ("2 altered (x/0005, x/1796)", "Restore these", "another name")
    refused("run", str(plan), "--store", str(tmp_path / "store"), says=said, out=tmp_path / "out")
    plan.write_text(plan.read_text().replace('name = "tiny"', 'name = "meant"'))
    refuse_changed_data(PreparedAudit(load_plan(plan), store=Store(tmp_path / "store")))


@pytest.mark.slow
def test_control_c_keeps_the_store_and_the_same_command_goes_on(tmp_path):
    """Models that were committed before the interruption are not trained again."""
    (tmp_path / "plan.toml").write_text(PLAN.replace("epochs = 5", "epochs = 30").replace("stack = 6", "stack = 1"))
    command = [sys.executable, "-m", "mnemoscope", "run", "plan.toml", "--store", "store", "--out", "out"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    silent = subprocess.DEVNULL
    child = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=silent, stderr=subprocess.PIPE, text=True)
    keys = tmp_path / "store/keys"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not keys.is_dir() or len(list(keys.iterdir())) < 6):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "run the same command again to go on" in said
    assert "Traceback" not in said
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["plan.json"]
    kept = {p.name: p.stat().st_mtime_ns for p in keys.iterdir()}
    assert len(kept) >= 6
    assert CliRunner().invoke(cli.app, ["store", "verify", "--store", str(tmp_path / "store")]).exit_code == 0
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out/result.json").exists()
    assert {name: (keys / name).stat().st_mtime_ns for name in kept} == kept


def test_attacks_with_too_few_models_or_one_name_twice_are_refused_before_any_work(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.replace('run = ["lira"]', 'run = ["lira", "ensemble"]'))
    refused("plan", "check", str(plan), says=("'ensemble' needs 2 or more models IN", "design.models of about 12"))
    plan.write_text(PLAN.replace("models = 6", "models = 12").replace('run = ["lira"]', 'run = ["lira", "ensemble"]'))
    assert [attack.name for attack in PreparedAudit(load_plan(plan)).attacks] == ["lira", "ensemble"]
    both = 'run = ["lira", "lira_shared"]\n[attacks.settings.lira]\nvariance = "shared"'
    plan.write_text(PLAN.replace('run = ["lira"]', both))
    refused("plan", "check", str(plan), says=("several attacks go by the name 'lira_shared'", "list each once"))
