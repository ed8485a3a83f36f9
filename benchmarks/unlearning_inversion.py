"""Unlearning inversion (arXiv 2404.03233) on Location30: one record deleted, retrained from the same seed.

A random-roles audit deletes far more records at once than this attack can tell apart, so that it is measured on pairs
of its own: a model, and the same training without one record. Control: pairs that differ in another record, which
neither version held, with the deleted record as the secret.

python benchmarks/unlearning_inversion.py --data location30.npz --out benchmarks/results/unlearning_inversion.json
"""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mnemoscope.attacks import RECONSTRUCTIONS
from mnemoscope.audit.answers.reconstruction import Case, VersionPair
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.oracle import ModelOracle
from mnemoscope.audit.models.recipes import RECIPES, Runtime
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.verdict.result import Reconstructed

PAIRS, TRAINED, PUBLIC = 8, 400, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="location30.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(args.data)
    data, recipe, runtime = DeviceData(dataset), RECIPES["location-mlp"], Runtime(threads=1)
    order = np.random.default_rng(args.seed).permutation(dataset.ids)
    public, rest = np.sort(order[:PUBLIC]), order[PUBLIC:]

    def oracle(ids: np.ndarray, seed: int) -> ModelOracle:
        return ModelOracle(train_model(recipe, data, np.sort(ids), seed=seed, runtime=runtime).module, data, runtime)

    cases, controls = [], []
    for k in range(PAIRS):
        part = rest[k * (TRAINED // 2) : k * (TRAINED // 2) + TRAINED + 1]
        secret, other, kept = part[:1], part[1:2], part[2:]
        versions = [oracle(np.concatenate([secret, kept]), k), oracle(kept, k)]
        cases.append(Case.of(VersionPair(*versions, public, TRAINED, 1), secret))
        versions = [oracle(np.concatenate([other, kept]), k), versions[1]]
        controls.append(Case.of(VersionPair(*versions, public, TRAINED, 1), secret))
    settings = {"pairs": PAIRS, "trained": TRAINED, "public": PUBLIC, "seed": args.seed, "recipe": recipe.key_parts()}
    plan = "sha256:" + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    rows = []
    for name in ("unlearning_inversion", "label_inversion"):
        found = run_reconstruction(RECONSTRUCTIONS[name](), cases, controls, rng=np.random.default_rng(args.seed))
        rows.append(
            asdict(
                Reconstructed(
                    name, "after", found.success, found.chance, found.unit, found.n, found.note, control=found.control
                )
            )
            | {"details": dict(found.details)}
        )
        print(name, found.success, found.chance, found.control)
    made = {
        "data": dataset.name,
        "data_digest": dataset.digest,
        "plan": plan,
        "settings": settings,
        "rows": [],
        "reconstructed": {"retrained from the same seed": rows},
    }
    args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
