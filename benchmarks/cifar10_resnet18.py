r"""LiRA and RMIA on CIFAR-10 with ResNet-18, beside published figures; meant for a GPU, tried on a CPU at toy sizes.

python benchmarks/cifar10_resnet18.py --data DIR --out benchmarks/results/cifar10_resnet18.json
python benchmarks/cifar10_resnet18.py --data DIR --models 6 --records 240 --population 60 --epochs 1 --device cpu \\
    --architecture small_cnn --out toy.json

Every model is trained on a random half of the records, every record is in half of the models, and each model is the
target in turn against all the others. Published beside it: LiRA online, 16 shadow models, ResNet-18: AUC 0.670, TPR at
0.1 % FPR 4.64 %; "Revisiting LiRA" (arXiv 2603.07567), 256 shadow models, 18 queries, each target against 255 others:
AUC 0.7648 +- 0.0032, TPR at 0.1 % 10.27 +- 0.56 %; RMIA with one offline reference: AUC 0.686 (second hand, WRN-28-2).
Differences of protocol: recipe and epochs are ours (printed), the number of shadow models and queries as given, and
rates use thresholds from other models, where published ones are read off each target's own curve.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Answers, Reference, Side
from mnemoscope.audit.models.recipes import RECIPES, Runtime
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.roc import auc, tpr_at_fpr
from mnemoscope.audit.work.store import Store
from mnemoscope.audit.work.workspace import Workspace

PUBLISHED = [
    {"attack": "lira", "shadow_models": 16, "auc": 0.670, "tpr_at_0.001": 0.0464},
    {"attack": "lira", "shadow_models": 256, "auc": 0.7648, "tpr_at_0.001": 0.1027, "source": "arXiv 2603.07567"},
    {"attack": "rmia_offline", "shadow_models": 1, "auc": 0.686, "source": "second hand"},
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--store", type=Path, default=Path(".mnemoscope"), help="finished models; resume by running again"
    )
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--records", type=int, default=50_000, help="audited; half of them train each model")
    parser.add_argument("--population", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--queries", nargs="+", default=["identity", "flip"])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def by_target(reference: Reference, scores: np.ndarray, fpr: float) -> dict[str, object]:
    """AUC and TPR of each target on its own curve, as published tables read them: mean and spread over targets."""
    aucs, tprs = [], []
    for k in range(reference.n_models):
        inside, outside = (scores[k][reference.side[k] == side] for side in (Side.IN, Side.OUT))
        aucs.append(auc(inside, outside))
        tprs.append(tpr_at_fpr(inside, outside, fpr)[0] / inside.size)
    return {"auc": mean_sd(aucs), f"tpr_at_{fpr:g}": mean_sd(tprs), "targets": len(aucs)}


def mean_sd(values: list[float]) -> dict[str, float]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return {"mean": float(np.mean(values)), "sd": spread}


def one_reference(reference: Reference, seed: int, fpr: float) -> dict[str, object]:
    """RMIA offline with a single reference model a target, on the records that the reference never saw."""
    attack, rng = ATTACKS["rmia_offline"](), np.random.default_rng(seed)
    aucs, tprs = [], []
    for k in range(reference.n_models):
        other = (k + 1) % reference.n_models
        at = np.flatnonzero(reference.side[other] == Side.OUT)
        ids, labels = reference.ids[at], reference.labels[at]
        both = Reference(ids, labels, reference.logits[[k, other]][:, at], side=reference.side[[k, other]][:, at],
                         population=None if reference.population is None else Answers(
                             reference.population.ids, reference.population.labels,
                             reference.population.logits[[k, other]]))  # fmt: skip
        scores = attack.fit(both.select([1]), rng=rng).score(both.target(0))
        truth = reference.side[k, at]
        inside, outside = scores[truth == Side.IN], scores[truth == Side.OUT]
        aucs.append(auc(inside, outside))
        tprs.append(tpr_at_fpr(inside, outside, fpr)[0] / inside.size)
    return {"auc": mean_sd(aucs), f"tpr_at_{fpr:g}": mean_sd(tprs), "targets": len(aucs)}


def main() -> None:
    args = arguments()
    dataset = load_dataset("cifar10", data_root=args.data)
    design = random_design(
        dataset.labels, n_models=args.models, audited=args.records, population=args.population,
        counts=(0.5, 0.0, 0.5), folds=2, seed=args.seed,
    )  # fmt: skip
    base = RECIPES["cifar-resnet18" if args.architecture == "resnet18" else "cifar-small-cnn"]
    precision = base.precision if torch.cuda.is_available() else "fp32"
    recipe = replace(base, architecture=args.architecture, epochs=args.epochs, precision=precision)
    runtime = Runtime(device=args.device, stack=1)
    workspace = Workspace(Store(args.store), dataset, design, recipe, runtime=runtime, seed=args.seed)
    begun = time.perf_counter()
    models = workspace.fleet("before")
    trained = time.perf_counter()
    population = design.records(0, Role.POPULATION)
    ids = np.concatenate([design.audited, population])
    logits = workspace.answers(models, ids, queries=args.queries)
    asked = time.perf_counter()
    n = design.audited.size
    labels = dataset.labels[dataset.positions(ids)]
    outside = Answers(population, labels[n:], logits[:, n:])
    side = GAMES["membership"].side(design.roles_of(design.audited))
    fleet = Reference(design.audited, labels[:n], logits[:, :n], side=side, population=outside, fold=design.fold)
    rows: list[dict[str, object]] = []
    for name in ("lira", "lira_per_record", "lira_offline", "bavaria_n", "rmia", "rmia_offline", "loss"):
        start = time.perf_counter()
        scores = score_fleet(ATTACKS[name](), fleet, rng=np.random.default_rng(args.seed))
        spent = time.perf_counter() - start
        pooled = FleetScores(scores, side, design.fold)
        row: dict[str, object] = {"attack": name, "shadow_models": args.models - 1, "seconds": round(spent, 2)}
        row["pooled_auc"] = asdict(pooled.auc().estimate())
        for fpr in (0.001, 0.01):
            rate = pooled.rates([fpr])[0]
            row[f"pooled_tpr_at_{fpr:g}"] = asdict(rate.tpr_estimate())
            row[f"realised_fpr_at_{fpr:g}"] = rate.fpr
        row["by_target"] = by_target(fleet, scores, 0.001)
        rows.append(row)
        print(name, row["by_target"], flush=True)
    rows.append({"attack": "rmia_offline", "shadow_models": 1, "by_target": one_reference(fleet, args.seed, 0.001)})
    test = logits[:, n:, 0].argmax(axis=-1) == labels[n:]
    made = {
        "device": workspace.device_name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "recipe": recipe.key_parts(),
        "models": args.models,
        "records": args.records,
        "trained_on": int(design.records(0, Role.KEPT).size),
        "queries": args.queries,
        "accuracy_on_unseen": mean_sd([float(row.mean()) for row in test]),
        "seconds": {"train": round(trained - begun, 1), "ask": round(asked - trained, 1)},
        "published": PUBLISHED,
        "rows": rows,
    }
    args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
