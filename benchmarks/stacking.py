"""Stacked training against the plain loop: seconds for each model, and their ratio, measured in one run.

Claim: for digits MLPs a stack trains several times faster than the loop on a CPU; for wide inputs and for CNNs on a
CPU it does not pay, which is why ``choose_stack`` measures. Data: scikit-learn's digits (real), and random records in
the shapes of Location30 and of 32x32 colour images, since only time is measured on those. Loop and stack alternate, and
each takes its best of ``--repeats`` rounds. The load average before each case is written down: above 1, other work had
its share of the cores, and with 2 threads the waiting between them then makes the loop look worse than it is.
Writes ``benchmarks/results/stacking.json``.

Run: python benchmarks/stacking.py [--threads 1 2] [--repeats 3]
"""

import argparse
import dataclasses
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import RECIPES, Recipe, Runtime
from mnemoscope.audit.models.stacking import choose_stack, train_stacked
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.records.datasets import load_dataset

RESULT = Path(__file__).parent / "results" / "stacking.json"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The part of a data set that training reads."""

    name: str
    kind: str
    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    values: np.ndarray


def random_records(n: int, shape: tuple[int, ...], n_classes: int, *, dtype: type) -> Shape:
    rng = np.random.default_rng(0)
    high = 256 if dtype is np.uint8 else 2
    values = rng.integers(0, high, (n, *shape)).astype(dtype)
    labels = rng.integers(0, n_classes, n)
    return Shape("random", "image", np.arange(n), labels, tuple(map(str, range(n_classes))), values)


def compare(recipe: Recipe, data: DeviceData, size: int, stack: int, threads: int, repeats: int) -> dict[str, object]:
    rng = np.random.default_rng(1)
    ids = [np.sort(rng.choice(data.ids, size, replace=False)) for _ in range(stack)]
    runtime = Runtime(device="cpu", threads=threads)
    load = os.getloadavg()[0]
    looped = max(1, stack // 8)  # a few models tell the loop's time
    loop, stacked = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        for seed in range(looped):
            train_model(recipe, data, ids[seed], seed=seed, runtime=runtime)
        loop.append((time.perf_counter() - start) / looped)
        start = time.perf_counter()
        train_stacked(recipe, data, ids, range(stack), runtime=runtime)
        stacked.append((time.perf_counter() - start) / stack)
    chosen = choose_stack(recipe, data, [size] * stack, runtime=runtime)
    return {
        "recipe": recipe.key_parts(),
        "records": size,
        "models": stack,
        "threads": threads,
        "loop_s_per_model": round(min(loop), 5),
        "stacked_s_per_model": round(min(stacked), 5),
        "stacked_s_whole": round(min(stacked) * stack, 3),
        "ratio": round(min(loop) / min(stacked), 2),
        "chosen_stack": chosen,
        "load_before": round(load, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    digits = DeviceData(load_dataset("digits"))
    table = DeviceData(random_records(2000, (446,), 30, dtype=np.float32))
    images = DeviceData(random_records(600, (32, 32, 3), 10, dtype=np.uint8))
    short = dataclasses.replace
    cases = {
        "digits MLP 64-256-10": (RECIPES["digits-mlp"], digits, 800, 72),
        "location MLP 446-64-30": (short(RECIPES["location-mlp"], architecture="mlp:64", epochs=4), table, 1000, 24),
        "location MLP 446-256-30": (short(RECIPES["location-mlp"], epochs=4), table, 1000, 24),
        "small CNN 32x32": (short(RECIPES["cifar-small-cnn"], epochs=1), images, 500, 8),
    }
    rows = {}
    for name, (recipe, data, size, stack) in cases.items():
        for threads in options.threads:
            row = compare(recipe, data, size, stack, threads, options.repeats)
            rows[f"{name}, {threads} thread{'s' if threads > 1 else ''}"] = row
            print(f"{name:26s} {threads} threads: ratio {row['ratio']}, fleet {row['stacked_s_whole']} s", flush=True)
    environment = {
        "torch": torch.__version__,
        "processor": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"environment": environment, "cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
