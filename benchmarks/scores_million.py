"""Claim: ``scores`` audits 1,000,000 records x 10 classes with 4 shadow models in under 60 s and 4 GB.

Predictions of a before and an after model and 4 shadow models are drawn (Gaussian logits, seeded), written as .npz, and
audited in a fresh process whose peak memory and time, interpreter start included, are written with the machine's
description to ``benchmarks/results/scores_million.json``. Exit code 1 when a limit is missed.

    python benchmarks/scores_million.py [--records 1000000] [--out FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mnemoscope.provenance import environment, timestamp

SECONDS, GIB = 60.0, 4.0
CLASSES, SHADOWS = 10, 4
CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from mnemoscope.predictions import run_scores
result = run_scores(sys.argv[1])
subject = result.subjects[0]
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "steps": {cost.step: cost.seconds for cost in result.costs},
    "attacks": list(result.plan.attacks),
    "primary": result.plan.primary_attack,
    "alpha": result.plan.alpha,
    "word": subject.verdict.word,
    "torch_loaded": "torch" in sys.modules,
}))
"""


def write_predictions(path: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    role = rng.choice(["forget", "holdout", "retain", "population"], n, p=[0.3, 0.3, 0.3, 0.1])
    hard = rng.normal(3.0, 1.5, n).astype(np.float32)
    every = np.arange(n)

    def model(member: np.ndarray) -> np.ndarray:
        z = rng.standard_normal((n, CLASSES), dtype=np.float32)
        z[every, labels] += hard + 1.5 * member
        return z

    side = rng.permuted(np.tile(np.array([[0], [0], [1], [1]], np.int8), (1, n)), axis=0)
    side[:, role == "population"] = 0
    shadow = np.stack([model(row == 1) for row in side])
    retained = role == "retain"
    before, after = model(retained | (role == "forget")), model(retained)
    np.savez(path, logits=after, before_logits=before, labels=labels, role=role, shadow_logits=shadow, side=side)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scores_million.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.npz"
        write_predictions(path, options.records, options.seed)
        size = path.stat().st_size
        done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    passed = measured["seconds"] < SECONDS and measured["peak_bytes"] < GIB * 2**30
    result = {
        "claim": (__doc__ or "").splitlines()[0],
        "records": options.records, "classes": CLASSES, "shadow_models": SHADOWS, "seed": options.seed,
        "file_bytes": size, **measured, "limits": {"seconds": SECONDS, "bytes": int(GIB * 2**30)}, "passed": passed,
        "measured_at": timestamp(), "environment": asdict(environment("cpu")),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
