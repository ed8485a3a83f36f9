"""Claims: RMIA by sorting counts exactly what the n x z comparison counts, fast and in O(n + z) memory.

1. equal counts; 2. at most 2.4 times the time when n and z double; 3. at most 64 bytes x (n + z) of extra memory;
4. at least 20 times a cache-blocked NumPy comparison at 20,000 x 5,000. Ratios are taken in one run, medians.

    python benchmarks/rmia.py [--out benchmarks/results/rmia.json]
"""

import argparse
import json
import math
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope.attacks.rmia import rmia_counts

Floats = NDArray[np.float64]
LOG_GAMMA = math.log(2.0)


def blocked_counts(x: Floats, z: Floats, block: int = 256) -> NDArray[np.int64]:
    """Compare every record with every population record, in blocks that stay in the cache."""
    counts = np.empty(x.size, np.int64)
    for start in range(0, x.size, block):
        part = x[start : start + block, None] - LOG_GAMMA
        counts[start : start + block] = np.count_nonzero(part > z, axis=1)
    return counts


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median time of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rmia.json")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x, z = rng.normal(0.3, 1.0, 20_000), rng.normal(0.0, 1.0, 5_000)
    equal = bool((rmia_counts(x, z, LOG_GAMMA) == blocked_counts(x, z)).all())
    block = min((16, 32, 64, 128, 256, 512), key=lambda b: seconds(lambda: blocked_counts(x, z, b), 3))
    slow = seconds(lambda: blocked_counts(x, z, block), 5)
    fast = seconds(lambda: rmia_counts(x, z, LOG_GAMMA), 51)

    doubling = []
    for n in (250_000, 500_000, 1_000_000):
        xs, zs = rng.normal(0.3, 1.0, n), rng.normal(0.0, 1.0, n)
        tracemalloc.start()
        rmia_counts(xs, zs, LOG_GAMMA)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        taken = seconds(lambda xs=xs, zs=zs: rmia_counts(xs, zs, LOG_GAMMA), 9)
        doubling.append({"n": n, "z": n, "seconds": round(taken, 4), "bytes_per_n_plus_z": round(peak / (2 * n), 1)})
    ratios = [round(b["seconds"] / a["seconds"], 2) for a, b in zip(doubling, doubling[1:], strict=False)]
    result = {
        "claim": "counts equal; <= 2.4 x time per doubling; <= 64 bytes x (n + z); >= 20 x a blocked comparison",
        "machine": f"{platform.machine()}, numpy {np.__version__}, one thread",
        "counts_equal_at_20000x5000": equal,
        "blocked_rows": block,
        "blocked_seconds": round(slow, 4),
        "sorted_seconds": round(fast, 5),
        "speedup": round(slow / fast, 1),
        "doubling": doubling,
        "time_ratios_when_doubled": ratios,
        "holds": equal
        and slow / fast >= 20
        and max(ratios) <= 2.4
        and max(row["bytes_per_n_plus_z"] for row in doubling) <= 64,
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
