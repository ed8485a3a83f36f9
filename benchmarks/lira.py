"""Claims: LiRA online at 64 models equals a per-record scipy.stats loop to 1e-9 and is at least 20 times as fast.

Also printed: the time of one leave-one-out scoring of a 64 x 400 fleet, which permutation tests call 2,000 times.

    python benchmarks/lira.py [--out benchmarks/results/lira.json]
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mnemoscope.attacks.lira import LiRA, lira_scores
from mnemoscope.audit.answers.views import Reference, View

Floats = NDArray[np.float64]
MODELS, RECORDS = 64, 5_000


def scipy_loop(phi: Floats, side: NDArray[np.int8], x: Floats) -> Floats:
    """Fit and score record by record, as the textbook says: means, ddof-1 variances, log densities."""
    scores = np.empty(x.size)
    for j in range(x.size):
        inside, outside = phi[side[:, j] == 1, j], phi[side[:, j] == 0, j]
        scores[j] = norm.logpdf(x[j], inside.mean(), inside.std(ddof=1)) - norm.logpdf(
            x[j], outside.mean(), outside.std(ddof=1)
        )
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lira.json")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    column = np.repeat(np.array([1, 0], np.int8), MODELS // 2)[:, None]
    side = rng.permuted(np.tile(column, (1, RECORDS)), axis=0)
    phi = rng.normal(4, 3, RECORDS) + side + rng.normal(size=(MODELS, RECORDS))
    x = rng.normal(4, 3, RECORDS)
    ids, labels = np.arange(RECORDS), np.zeros(RECORDS, np.int64)
    pair = [np.stack([signal, np.zeros_like(signal)], axis=-1)[..., None, :] for signal in (phi, x)]
    reference, view = Reference(ids, labels, pair[0], side=side), View(ids, labels, pair[1])
    reference.signal("margin"), view.signal("margin")  # both ways start from signals

    attack, times = LiRA(variance="per-record"), []
    for _ in range(21):
        start = time.perf_counter()
        fast = attack.fit(reference, rng=rng).score(view)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    slow = scipy_loop(phi, side, x)
    loop = time.perf_counter() - start

    thirds = np.repeat(np.array([1, 0, -1, -1], np.int8), 16)[:, None]
    fleet_side, fleet_phi = rng.permuted(np.tile(thirds, (1, 400)), axis=0), rng.normal(size=(64, 400))
    fleet = []
    for _ in range(201):
        start = time.perf_counter()
        lira_scores(fleet_phi, fleet_side)
        fleet.append(time.perf_counter() - start)
    gap = float(np.abs(fast - slow).max())
    speedup = loop / float(np.median(times))
    result = {
        "claim": "equal to 1e-9 and >= 20 x a per-record scipy.stats loop",
        "machine": f"{platform.machine()}, numpy {np.__version__}, one thread",
        "models": MODELS,
        "records": RECORDS,
        "largest_difference": gap,
        "loop_seconds": round(loop, 3),
        "seconds": round(float(np.median(times)), 5),
        "speedup": round(speedup, 1),
        "leave_one_out_64x400_milliseconds": round(1e3 * float(np.median(fleet)), 2),
        "holds": gap <= 1e-9 and speedup >= 20,
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
