"""Coverage of clustered fleet intervals with strong record and model effects and known truth.

Claim: at nominal 95 %, the two-way intervals of AUC and of TPR (threshold's share included, thresholds from the same
scores or from other folds of models), and of their differences between two fleets of one design, cover in 93 to 97 % of
runs where out cells x alpha >= 8. Fleets of fewer than 30 models may exceed 97 %: t quantiles are conservative there.

    python benchmarks/coverage_clustered.py [--runs 2000] [--out benchmarks/results/coverage_clustered.json]
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy

from mnemoscope.audit.statistics.simulation import FleetWorld, fleet_coverage

WORLDS = (
    FleetWorld(24, 200, 0.0, record_effect=0.7, model_effect=0.3, scored="leave-one-out"),
    FleetWorld(24, 200, 1.0, 0.5, record_effect=0.7, model_effect=0.4, scored="raw"),
    FleetWorld(48, 400, 1.0, record_effect=0.7, model_effect=0.3, scored="raw"),
    FleetWorld(72, 600, 0.0, record_effect=0.7, model_effect=0.3, scored="leave-one-out"),
    FleetWorld(72, 600, 1.0, 1.0, record_effect=0.7, model_effect=0.3, scored="leave-one-out"),
)
ALPHAS = (0.001, 0.01, 0.1)
VARIANTS = ({"paired": False, "folds": 0}, {"paired": False, "folds": 2}, {"paired": True, "folds": 2})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coverage_clustered.json"))
    args = parser.parse_args()
    begun = time.time()
    rows: list[dict[str, object]] = []
    for world in WORLDS:
        alphas = [alpha for alpha in ALPHAS if world.models * world.records / 3 * alpha >= 8]
        for variant in VARIANTS:
            for result in fleet_coverage(
                world, alphas, runs=args.runs, paired=bool(variant["paired"]), folds=int(variant["folds"])
            ):
                share = result.covered / result.runs
                kept = 0.93 <= share <= (0.97 if world.models >= 30 else 0.99)
                rows.append({**asdict(world), **variant, **asdict(result), "coverage": share, "claim_holds": kept})
                print(world.models, world.scored, world.shift, variant, result, round(share, 4), kept, flush=True)
    document = {
        "claim": " ".join(str(__doc__).split("\n\n")[1].split()),
        "nominal": 0.95,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "minutes": round((time.time() - begun) / 60, 1),
        "claims_not_kept": [row for row in rows if not row["claim_holds"]],
        "rows": rows,
    }
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
