"""The demo's audit on seeds 0 to 49, none chosen afterwards: does the word follow the truth at the promised rate?

Claim: exact retraining is WITHIN BOUND in at least 46 and OUTSIDE BOUND in at most 2 of 50 seeds, no-op unlearning is
OUTSIDE BOUND in at least 49, and the printed power agrees with the share of WITHIN (binomial 99 % limits). Every seed
draws its own design and trains its own fleets: 4 x 72 models of the digits. The demo's other subjects are left out
here, because a subject's word does not depend on the others.

    python benchmarks/verdict_seeds.py [--seeds 50] [--workers 2] [--out benchmarks/results/verdict_seeds.json]
"""

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

SUBJECTS = ("noop", "retrain")


def one_seed(seed: int, store: str) -> dict[str, object]:
    """Audit one seed and return its words with the numbers behind them."""
    from mnemoscope.audit.work.plan import RuntimePlan, SubjectPlan
    from mnemoscope.pipeline import demo_plan, run_plan

    plan = replace(
        demo_plan(seed=seed),
        subjects=tuple(SubjectPlan(name) for name in SUBJECTS),
        runtime=RuntimePlan(device="cpu", threads=1),
    )
    begun = time.time()
    result = run_plan(plan, store=store)
    subjects = {}
    for subject in result.subjects:
        primary = [e for e in subject.endpoints if e.primary and e.id in ("P1", "P2", "P3", "P4")]
        subjects[subject.name] = {
            "word": subject.verdict.word,
            "reasons": list(subject.verdict.reasons) if subject.verdict.word != "WITHIN BOUND" else [],
            "tpr": {e.part: e.estimate.value for e in primary if e.id == "P1"},
            "outcomes": [f"{e.id} {e.part}: {e.outcome}" for e in primary if e.outcome != "within"],
            "gates_failed": [g.id for g in subject.gates if g.status == "fail"],
        }
    return {
        "seed": seed,
        "alpha": result.plan.alpha,
        "power": result.plan.power.value,
        "seconds": round(time.time() - begun, 1),
        "subjects": subjects,
    }


def summarise(rows: list[dict[str, object]]) -> dict[str, object]:
    """Count words and compare the printed power with the share of WITHIN BOUND."""
    from mnemoscope.audit.statistics.proportions import clopper_pearson

    words = {name: dict(Counter(row["subjects"][name]["word"] for row in rows)) for name in SUBJECTS}
    within = words["retrain"].get("WITHIN BOUND", 0)
    limits = clopper_pearson(within, len(rows), 0.99)
    power = rows[0]["power"]
    return {
        "seeds": len(rows),
        "words": words,
        "printed_power": power,
        "share_within": within / len(rows),
        "share_within_99": [limits.lower, limits.upper],
        "power_agrees": limits.lower <= power <= limits.upper,
        "retrain_within_at_least_46_of_50": within >= 0.92 * len(rows),
        "retrain_outside_at_most_2_of_50": words["retrain"].get("OUTSIDE BOUND", 0) <= 0.04 * len(rows),
        "noop_outside_at_least_49_of_50": words["noop"].get("OUTSIDE BOUND", 0) >= 0.98 * len(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--store", type=Path, default=None, help="folder for models; a temporary one by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/verdict_seeds.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = str(args.store or folder)
        rows = [one_seed(0, store)]  # alone first: the power and the stack size are then in the store for all
        print(json.dumps(rows[0]), flush=True)
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            for row in pool.map(one_seed, range(1, args.seeds), [store] * (args.seeds - 1)):
                rows.append(row)
                print(json.dumps(row), flush=True)
    document = {"claim": __doc__.splitlines()[0], "python": platform.python_version(), **summarise(rows), "rows": rows}
    args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
