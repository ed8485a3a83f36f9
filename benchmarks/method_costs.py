"""Claim: what each way of deleting costs, as a fraction of retraining the same model in the same run.

One MLP is trained on Location30 (1,500 records, 400 of them to be forgotten), and every registered method that serves
single records deletes from it with the settings that tuning chose, one after another, ``--repeats`` times; medians.
A method that trains its models itself (SISA) deletes from one of its own, and ``controlled`` runs another inside.

    python benchmarks/method_costs.py --data FOLDER_OF_LOCATION30 [--repeats 3] [--out FILE]
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.protocol import trainer_of
from mnemoscope.audit.models.recipes import RECIPES, Runtime
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.request import Request
from mnemoscope.unlearning import METHODS

ROOT = Path(__file__).parents[1]
TRAINED, FORGET, VALIDATION = 1_500, 400, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with location30.npz")
    parser.add_argument("--tuned", type=Path, default=ROOT / "examples/tuned_location30.json")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/method_costs.json")
    args = parser.parse_args()
    tuned = json.loads(args.tuned.read_text(encoding="utf-8"))
    dataset, recipe, runtime = (
        load_dataset(str(args.data / "location30.npz")),
        RECIPES["location-mlp"],
        Runtime(device="cpu"),
    )
    data = DeviceData(dataset, runtime.torch_device())
    order = np.random.default_rng(0).permutation(dataset.ids)
    trained, validation = np.sort(order[:TRAINED]), np.sort(order[TRAINED : TRAINED + VALIDATION])
    forget = np.sort(order[:FORGET])
    request = Request("records", forget, np.setdiff1d(trained, forget), validation, trained=trained)
    plain = train_model(recipe, data, trained, seed=0, runtime=runtime).module
    spent: dict[str, list[float]] = {}
    left: dict[str, str] = {}
    for repeat in range(args.repeats):
        for name in dict.fromkeys(["retrain", *args.methods]):
            settings = tuned.get(name, {}).get("chosen", {})
            method = METHODS[name](**settings)
            if "records" not in method.kinds:
                left[name] = "serves classes alone"
                continue
            trainer = trainer_of(method)
            model = plain
            if trainer is not None:
                model = trainer.train(recipe, data, trained, seed=0, runtime=runtime).module
            more = {"history": History(trained, 0)} if Need.HISTORY in method.needs else {}
            rng = np.random.default_rng(repeat)
            start = time.perf_counter()
            try:
                method.unlearn(model, request, recipe=recipe, data=data, runtime=runtime, rng=rng, **more)
            except AuditError as error:
                left[name] = str(error)
                continue
            spent.setdefault(name, []).append(time.perf_counter() - start)
    whole = float(np.median(spent["retrain"]))
    rows = {
        name: {
            "fraction_of_retraining": round(float(np.median(seconds)) / whole, 3),
            "least": round(min(seconds) / whole, 3), "most": round(max(seconds) / whole, 3),
            "settings": tuned.get(name, {}).get("chosen", {}), "reading": METHODS[name]().reading,
        }
        for name, seconds in spent.items()
    }  # fmt: skip
    made = {
        "claim": "cost of each method as a fraction of retraining, same model, same run",
        "machine": platform.machine(), "torch": torch.__version__, "threads": os.environ.get("OMP_NUM_THREADS"),
        "trained": TRAINED, "forgotten": FORGET, "repeats": args.repeats, "rows": rows, "left_out": left,
    }  # fmt: skip
    args.out.write_text(json.dumps(made, indent=1) + "\n")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["fraction_of_retraining"]):
        print(f"{name:34s} {row['fraction_of_retraining']:7.3f}")


if __name__ == "__main__":
    main()
