"""Models made elsewhere: exported orders, fulfilled with plain torch, adopted, and then really used by the audit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

from mnemoscope import cli

PLAN = """
name = "elsewhere"
[data]
name = "digits"
[design]
models = 6
[recipe]
name = "digits-mlp"
[recipe.overrides]
architecture = "mlp:16"
epochs = 1
[[subjects]]
method = "retrain"
[attacks]
run = ["lira"]
[policy]
alpha = 0.01
[runtime]
stack = 6
"""
FLEETS = ("before", "retrained-a", "retrained-b", "retrained-c")


def fulfil(order: dict, stem: Path, *, answers: bool) -> float:
    """Train as an order says, without mnemoscope; returns the accuracy on the records it asks about."""
    digits = load_digits()
    subtract, divide_by = (float(order["input"][name][0]) for name in ("subtract", "divide_by"))
    assert order["input"]["shape"] == [1, 8, 8]
    x = ((torch.tensor(digits.images).float() - subtract) / divide_by).reshape(-1, 64)
    y = torch.tensor(digits.target)
    assert not set(order["forget"]["ids"]) & set(order["train"]["ids"]) or order["fleet"] == "before"
    torch.manual_seed(int(order["seed"]) % 2**31)
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[order["train"]["ids"]]), y[order["train"]["ids"]]).backward()
        optimizer.step()
    ids = order["answers"]["ids"]
    logits = net(x[ids]).detach()
    if answers:
        np.save(f"{stem}.logits.npy", logits.numpy()[:, None])
    else:
        torch.save(dict(zip(order["state"], net.state_dict().values(), strict=True)), f"{stem}.pt")
    return float((logits.argmax(dim=1) == y[ids]).float().mean())


def call(*args: object) -> str:
    done = CliRunner().invoke(cli.app, list(map(str, args)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_export_fulfil_adopt_run(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    folder, store = tmp_path / "orders", tmp_path / "store"
    assert "24 work orders" in call("export", tmp_path / "plan.toml", folder, "--store", store)
    orders = sorted(folder.glob("*.json"))
    # Retraining is a subject of the plan: its fleet is to be made elsewhere too.
    assert {path.name.rsplit("-", 2)[0] for path in orders} == set(FLEETS)
    right = []
    for path in orders:
        order = json.loads(path.read_text())
        right.append(fulfil(order, path.with_suffix(""), answers=path.name.startswith("retrained-b")))
    said = call("adopt", folder, "--store", store)
    assert "weights of 18 models and answers of 6; 0 were there already, 0 are missing" in said
    assert "0 models and answers of 0; 24 were there" in call("adopt", folder, "--store", store)
    said = call("run", tmp_path / "plan.toml", "--store", store, "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    cost = {c["step"]: c for c in result["costs"]}
    for step in ("train before", "train retrained A", "train retrained B", "train retrained C", "ask retrained B"):
        assert cost.get(step, {"computed": 0})["computed"] == 0, (step, cost)
    # One epoch of the plan's own recipe cannot learn this: the accuracy shows whose models were asked.
    subject = result["subjects"][0]
    seen = next(u for u in subject["utility"] if u["models"] == "before" and u["records"] == "forget")
    assert seen["accuracy"]["value"] > 0.85
    assert min(right) > 0.85
