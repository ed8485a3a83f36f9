"""Claim: every closed-form black-box attack scores 200,000 records x 64 models x 10 classes in under 4 GB.

The logits lie in a memory-mapped float32 file (512 MB), drawn once with a leak. A fresh process for each attack maps
it, scores the whole fleet with each model left out, and reports its peak resident memory and its times; a process
that only reads the file once, block by block into one sum, gives the time to compare with, from the same warm cache.
Processor time is compared, so that a busy machine does not count; wall time stands beside it. Split off: the signal,
which all attacks of an audit share. One pass of float64 exponentials over the logits shows the least it can take.

    python benchmarks/scoring_streams.py [--records 200000] [--out benchmarks/results/scoring_streams.json]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

GIB, TIMES = 4.0, 5.0
MODELS, CLASSES, POPULATION = 64, 10, 2_000
ATTACKS = (
    "lira", "lira_shared", "lira_per_record", "lira_offline", "lira_finite_population", "lira_calibrated",
    "bavaria_n", "bavaria_t", "bavaria_n_offline", "bavaria_t_offline",
    "base", "base_offline", "base_offline_tuned", "base2", "base3",
    "rmia", "rmia_offline", "rmia_offline_tuned",
    "difficulty", "sablayrolles", "attack_s", "attack_r", "population", "quantile_by_class",
    "loss", "confidence", "entropy", "modified_entropy", "correctness",
)  # fmt: skip
CHILD = """
import json, resource, sys, time
import numpy as np
folder, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers import views
logits = np.load(folder + "/logits.npy", mmap_mode="r")
if name == "read":
    start = time.process_time()
    total = sum(float(np.sum(model)) for model in logits)
    print(json.dumps({"seconds": time.process_time() - start, "total": total}))
    sys.exit()
if name == "exponentials":
    start, block = time.process_time(), np.empty((20_000, logits.shape[-1]))
    for model in logits:
        for first in range(0, n, 20_000):
            part = block[: min(20_000, n - first)]
            part[:] = model[first : first + 20_000, 0]
            np.exp(part, out=part)
    print(json.dumps({"seconds": time.process_time() - start}))
    sys.exit()
side, labels = np.load(folder + "/side.npy"), np.load(folder + "/labels.npy")
z, z_labels = np.load(folder + "/population.npy"), np.load(folder + "/population_labels.npy")
attack = ATTACKS[name]()
spent = {"signal": 0.0}
plain = views.compute_signal
def timed(*args, **settings):
    start = time.process_time()
    values = plain(*args, **settings)
    spent["signal"] += time.process_time() - start
    return values
views.compute_signal = timed
start, wall = time.process_time(), time.perf_counter()
population = views.Answers(np.arange(z_labels.size) + n, z_labels, z)
reference = views.Reference(np.arange(n), labels, logits, side=side, population=population,
                            fold=(np.arange(side.shape[0]) % 2).astype(np.int8))
scores = score_fleet(attack, reference, rng=np.random.default_rng(0))
seconds, wall = time.process_time() - start, time.perf_counter() - wall
inside, outside = scores[:4][side[:4] == 1], np.sort(scores[:4][side[:4] == 0])
auc = float((np.searchsorted(outside, inside) + np.searchsorted(outside, inside, "right")).mean() / (2 * outside.size))
print(json.dumps({
    "attack": name, "seconds": round(seconds, 2), "wall_seconds": round(wall, 2),
    "signal_seconds": round(spent["signal"], 2), "auc": round(auc, 4),
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


def write(folder: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    column = np.repeat(np.array([1, 0], np.int8), MODELS // 2)[:, None]
    side = rng.permuted(np.tile(column, (1, n)), axis=0)
    hard = rng.normal(3.0, 1.5, n).astype(np.float32)
    logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float32, (MODELS, n, 1, CLASSES))
    for k in range(MODELS):
        z = rng.standard_normal((n, CLASSES), dtype=np.float32)
        z[np.arange(n), labels] += hard + 1.0 * (side[k] == 1)
        logits[k, :, 0] = z
    logits.flush()
    z_labels = rng.integers(0, CLASSES, POPULATION)
    z = rng.standard_normal((MODELS, POPULATION, 1, CLASSES), dtype=np.float32)
    z[:, np.arange(POPULATION), 0, z_labels] += rng.normal(3.0, 1.5, POPULATION).astype(np.float32)
    for name, array in (("side", side), ("labels", labels), ("population", z), ("population_labels", z_labels)):
        np.save(folder / f"{name}.npy", array)


def summary(
    rows: list[dict[str, float]], reading: float, exponentials: float, options: argparse.Namespace
) -> dict[str, object]:
    most = max(row["peak_bytes"] for row in rows)
    return {
        "claim": (__doc__ or "").splitlines()[0].removeprefix("Claim: "),
        "machine": f"{platform.machine()}, numpy {np.__version__}, one thread",
        "records": options.records, "models": MODELS, "classes": CLASSES, "seed": options.seed,
        "reading_seconds": round(reading, 3), "exponentials_seconds": round(exponentials, 3),
        "attacks": len(rows), "largest_peak_bytes": most, "holds": most < GIB * 2**30,
        "within_5_times_reading": [row["attack"] for row in rows if row["times_reading"] <= TIMES],
        "beyond_5_times_reading": [row["attack"] for row in rows if row["times_reading"] > TIMES],
        "rows": rows,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scoring_streams.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.records, options.seed)

        def run(what: str) -> dict[str, float]:
            command = [sys.executable, "-c", CHILD, name, what, str(options.records)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured: dict[str, float] = json.loads(done.stdout)
            return measured

        run("read")  # fills the cache
        reading = float(np.median([run("read")["seconds"] for _ in range(5)]))
        exponentials = run("exponentials")["seconds"]
        rows = []
        for attack in options.attacks:
            row = run(attack)
            row["times_reading"] = round(row["seconds"] / reading, 1)
            rows.append(row)
            print(row, flush=True)
            result = summary(rows, reading, exponentials, options)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
