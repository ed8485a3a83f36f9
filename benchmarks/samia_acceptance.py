"""Claim: SAMIA beats or ties the class-dependent thresholds on an overfitted MLP and on a CNN pruned to 5 % of weights.

Membership game on fleets, cross-fitted in two folds of models; differences of pooled AUC are paired over the same cells
and clustered by model and record.

    python benchmarks/samia_acceptance.py location30 PATH/location30.npz
    python benchmarks/samia_acceptance.py cifar10 FOLDER    # as torchvision lays it out

Each adds its part to benchmarks/results/samia_acceptance.json. Beside the attack as registered: the same without noise
(posterior and label alone), with the published sensitivity, and with the published optimiser too, in as many steps as
ours takes: the 100 epochs of the release cost fifty times as much. Last, how much of the sensitivity is information:
the share of true-class values that a float32 softmax makes exactly zero, and the rank correlation of each way's values
at noise 0.001 with those at 0.01.
"""

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn
from torch.nn.utils import prune

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.samia import PUBLISHED, Samia
from mnemoscope.attacks.threshold import RULES
from mnemoscope.audit.answers.protocols import Attack, queries_of, score_fleet
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import RECIPES, Recipe, Runtime
from mnemoscope.audit.models.training import fit, train_model
from mnemoscope.audit.records.datasets import Dataset, load_dataset
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.fleet_differences import difference
from mnemoscope.audit.statistics.trials import Estimate

SEED, ALPHA, SPARSITY, CHECKED_MODELS = 0, 0.01, 0.95, 2
RUNTIME = Runtime(device="cpu", threads=1)
WORLDS: dict[str, dict[str, Any]] = {
    "location30": {"models": 16, "audited": 1200, "background": 0, "recipe": RECIPES["location-mlp"], "tune": 0},
    "cifar10": {
        "models": 8,
        "audited": 2000,
        "background": 1000,
        "recipe": replace(RECIPES["cifar-small-cnn"], epochs=25),
        "tune": 8,
    },
}
"""Each audited record is in half of the models of each fold; ``tune``: epochs after pruning, 0 does not prune."""

THRESHOLDS = [f"{rule}_by_class" for rule in RULES]


def pruned(model: nn.Module, recipe: Recipe, data: DeviceData, ids: NDArray[np.int64], epochs: int, seed: int) -> float:
    """Prune weights by global magnitude, fine-tune the others on the same records, return the share of zeros."""
    weights = [(part, "weight") for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=SPARSITY)
    fit(model, recipe, data, ids, seed=seed, runtime=RUNTIME, epochs=epochs, lr=recipe.lr / 5)
    for part, name in weights:
        prune.remove(part, name)
    values = torch.cat([part.weight.detach().flatten() for part, _ in weights])
    return float((values == 0).double().mean())


def fleet_of(dataset: Dataset, world: dict[str, Any]) -> tuple[Reference, dict[str, float], NDArray[np.float32]]:
    """Train the fleet and ask it; also what was measured on the way, and two models at ten times the noise."""
    rng, data, recipe = generator(SEED, "records"), DeviceData(dataset), world["recipe"]
    drawn = rng.choice(dataset.ids, world["audited"] + world["background"], replace=False)
    ids, background = np.sort(drawn[: world["audited"]]), drawn[world["audited"] :]
    column = np.repeat(np.array([1, 0], np.int8), world["models"] // 4)[:, None]
    halves = [rng.permuted(np.tile(column, (1, ids.size)), axis=0) for _ in range(2)]
    side, fold = np.concatenate(halves), np.repeat(np.array([0, 1], np.int8), world["models"] // 2)
    wide, queries = Samia(scale=1e-2).queries, Samia().queries
    answers, at_wide, zeros = [], [], []
    for k in range(world["models"]):
        members = np.sort(np.concatenate([ids[side[k] == 1], background]))
        model = train_model(recipe, data, members, seed=child_seed(SEED, "train", k), runtime=RUNTIME).module
        if world["tune"]:
            zeros.append(pruned(model, recipe, data, members, world["tune"], child_seed(SEED, "tune", k)))
        answers.append(infer_logits(model, data, ids, runtime=RUNTIME, queries=queries))
        if k < CHECKED_MODELS:
            at_wide.append(infer_logits(model, data, ids, runtime=RUNTIME, queries=wide))
        print("model", k, flush=True)
    labels = dataset.labels[dataset.positions(ids)]
    reference = Reference(ids, labels, np.stack(answers), side=side, fold=fold, queries=queries)
    correct = reference.signal("correctness")[..., 0]
    facts = {"accuracy_in": float(correct[side == 1].mean()), "accuracy_out": float(correct[side == 0].mean())}
    if zeros:
        facts["share_of_zero_weights"] = float(np.mean(zeros))
    return reference, facts, np.stack(at_wide)


def information(reference: Reference, wide: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Return what is left of the true class's sensitivity in a float32 softmax, and in float64."""

    def sensitivity(logits: NDArray[np.float32], scale: float, dtype: torch.dtype) -> NDArray[np.float64]:
        p = torch.softmax(torch.tensor(logits).to(dtype), dim=-1)
        s = ((p[:, :, 1:] - p[:, :, :1]).abs().mean(dim=2) / scale).double().numpy()
        true = reference.labels[None, :, None]
        return np.take_along_axis(s, np.broadcast_to(true, (*s.shape[:2], 1)), axis=2).ravel()

    narrow = reference.logits[:CHECKED_MODELS]
    steady = sensitivity(wide, 1e-2, torch.float64)
    result = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        s = sensitivity(narrow, 1e-3, dtype)
        result[name] = {"zero": float((s == 0).mean()), "rank_correlation": float(spearmanr(s, steady).statistic)}
    return result


def numbers(estimate: Estimate) -> dict[str, float]:
    """Return value and 95 % interval."""
    value, low, high = estimate.value, estimate.low, estimate.high
    assert value is not None
    assert low is not None
    assert high is not None
    return {"value": round(float(value), 5), "low": round(float(low), 5), "high": round(float(high), 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=tuple(WORLDS))
    parser.add_argument("data", type=Path, help="location30.npz, or the folder that holds CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "samia_acceptance.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    world = WORLDS[args.world]
    dataset = load_dataset(args.data) if args.data.is_file() else load_dataset(args.world, data_root=args.data)
    reference, facts, wide = fleet_of(dataset, world)
    print(facts, flush=True)

    attacks: dict[str, tuple[Attack, Reference]] = {
        name: (ATTACKS[name](), reference.asking(("identity",))) for name in THRESHOLDS
    }
    attacks["samia"] = (Samia(), reference)
    attacks["samia, published sensitivity"] = (Samia(sensitivity="plain"), reference)
    attacks["samia, no noise"] = (Samia(), replace(reference.asking(("identity",)), queries=()))
    attacks["samia, published sensitivity and optimiser"] = (
        Samia(**{**PUBLISHED, "epochs": Samia().epochs}),
        reference,
    )
    scores, table = {}, {}
    for name, (attack, asked) in attacks.items():
        scored = score_fleet(attack, asked, rng=generator(SEED, "attack", name))
        scores[name] = FleetScores(scored, reference.side, reference.fold)
        rate = scores[name].rates([ALPHA])[0]
        table[name] = {
            "auc": numbers(scores[name].auc().estimate()),
            "tpr_at_1_percent": round(rate.tp / rate.n_in, 4),
            "realised_fpr": round(rate.fp / rate.n_out, 4),
            "queries": len(queries_of(attack) or ("identity",)) if asked is reference else 1,
        }
        print(name, table[name], flush=True)
    best = max(THRESHOLDS, key=lambda name: scores[name].auc_value())
    gains = {
        name: numbers(difference(scores[name].auc(), scores[best].auc(), level=0.95))
        for name in attacks
        if name not in THRESHOLDS
    }
    report = {
        "models": world["models"],
        "audited": world["audited"],
        "background": world["background"],
        "recipe": world["recipe"].key_parts(),
        "pruned_to": round(1 - SPARSITY, 6) if world["tune"] else 1.0,
        **{key: round(value, 4) for key, value in facts.items()},
        "attacks": table,
        "best_threshold": best,
        "auc_minus_best_threshold": gains,
        "beats": gains["samia"]["low"] > 0,
        "beats_or_ties": gains["samia"]["high"] >= 0,
        "sensitivity_of_the_true_class": information(reference, wide),
        "seed": SEED,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    args.out.write_text(json.dumps({**known, args.world: report}, indent=1) + "\n")
    print(
        json.dumps(
            {key: report[key] for key in ("best_threshold", "auc_minus_best_threshold", "beats", "beats_or_ties")}
        )
    )
    assert report["beats_or_ties"]


if __name__ == "__main__":
    main()
