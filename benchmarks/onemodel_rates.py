"""Claim: one-model audits with 600 + 600 records and 5 retrained models err as printed, in worlds of known truth.

In each world the margins are Gaussian over records and models; seeds 0 to N - 1, none chosen afterwards. ``null``: the
audited model is one more retrained model. ``no-op``: it is the model before. Written to
``benchmarks/results/onemodel_rates.json`` with counts of the four words and the printed power.

    python benchmarks/onemodel_rates.py [--runs 300] [--out FILE]
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.statistics.proportions import clopper_pearson
from mnemoscope.audit.verdict.onemodel import audit_one_model
from mnemoscope.audit.verdict.onemodel_input import OneModelInput
from mnemoscope.provenance import environment, timestamp

SIZES = (600, 1000)
MODELS, CLASSES = 5, 5


def world(seed: int, n: int, leak: float) -> OneModelInput:
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], n).astype(np.int8)
    labels = rng.integers(0, CLASSES, 2 * n)
    hard = rng.normal(2.0, 1.5, 2 * n)

    def model(lift: float) -> np.ndarray:
        z = rng.normal(0, 0.3, (2 * n, 1, CLASSES)).astype(np.float32)
        z[np.arange(2 * n), 0, labels] += (hard + lift * (group == 0) + rng.normal(0, 1, 2 * n)).astype(np.float32)
        return z

    retrained = np.stack([model(0.0) for _ in range(MODELS)])
    return OneModelInput(np.arange(2 * n), labels, group, model(leak), before=model(2.0), retrained=retrained)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "onemodel_rates.json")
    options = parser.parse_args()
    attacks = [ATTACKS["lira_offline"](), ATTACKS["loss"]()]
    rows, start = [], time.perf_counter()
    for n in SIZES:
        for name, leak in (("null", 0.0), ("no-op", 2.0)):
            words: Counter[str] = Counter()
            for seed in range(options.runs):
                audit = audit_one_model(world(seed, n, leak), attacks)
                words[audit.subject.verdict.word] += 1
            within = words["WITHIN BOUND"]
            ci = clopper_pearson(within, options.runs, 0.99)
            power = audit.plan.power.value
            rows.append(
                {
                    "records": f"{n} + {n}", "world": name, "runs": options.runs, "words": dict(words),
                    "alpha": audit.plan.alpha, "printed_power": power, "power_by_alpha": audit.plan.power_by_alpha,
                    "within_99": [ci.lower, ci.upper],
                    "power_agrees": name != "null" or power is None or ci.lower <= power <= ci.upper,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    null, leaking = [r for r in rows if r["world"] == "null"], [r for r in rows if r["world"] == "no-op"]
    passed = (
        all(r["power_agrees"] for r in null)
        and all(r["words"].get("OUTSIDE BOUND", 0) <= clopper_limit(options.runs) for r in null)
        and all(r["words"].get("WITHIN BOUND", 0) == 0 for r in leaking)
    )
    result = {
        "claim": (__doc__ or "").splitlines()[0], "rows": rows, "passed": passed,
        "seconds": round(time.perf_counter() - start, 1), "measured_at": timestamp(),
        "environment": asdict(environment("cpu")),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if passed else 1


def clopper_limit(runs: int) -> int:
    """Most OUTSIDE words in a null world that a 5 % family-wise error allows at 99 %."""
    from scipy.stats import binom

    return int(binom.ppf(0.99, runs, 0.05))


if __name__ == "__main__":
    sys.exit(main())
