"""Claims of Chen et al. 2021 (arXiv 2005.02205), reproduced: what does holding both versions of a model add?

Protocol of the paper: originals in two halves of the data, the attacker's own and those under attack; of each original
several versions from which records were deleted by exact retraining, whole or by shards (SISA). Five constructions of
features and four classifiers against the classical attack on the original alone, DegCount and DegRate beside the AUC.
Added: controls that were trained again with nothing deleted, retraining from the same initial weights and with nothing
else changed, a classical baseline that is not blind, and our calibrated difference of margins on a fleet with roles.

    OMP_NUM_THREADS=1 python benchmarks/difference_protocol.py --data DIR [--set NAME] [--quick] [--out results.json]

DIR holds location30.npz and letter.npz (x, y). Scaled down from the paper: see "scaled_down" in the result.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.difference import FEATURES, Difference
from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.audit.answers.defences import parse_defence
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.stacking import train_stacked
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.design import Design, Role, random_design
from mnemoscope.audit.records.pairs import Half, pairs_design
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.statistics.clustered import Influence, auc_influence
from mnemoscope.audit.statistics.degradation import degradation
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.statistics.trials import Estimate, Trials
from mnemoscope.audit.work.pairs import PairAnswers, answer_pairs

Floats = NDArray[np.float64]
CLASSIFIERS = ("logistic", "tree", "forest", "mlp")
UNLEARNING = ("direct_diff", "sorted_diff", "direct_concat", "sorted_concat", "l2_distance")
DEFENCES = ("top:3", "top:1", "temperature:2", "temperature:4", "label-only")
NEVER, KEPT = "difference-never", "difference-kept"
RUNTIME = Runtime(device="cpu", threads=1)
SEED = 0

OVERFITTED = Recipe("mlp:128", lr=0.1, epochs=20, batch_size=128)
GENERALISING = Recipe("mlp:32", lr=0.05, epochs=8, batch_size=128, weight_decay=5e-4)
DP = Recipe("mlp:128", lr=0.5, momentum=0.0, epochs=10, batch_size=128, dp_noise=1.2, dp_clip=1.0)
SETS = {"location30": (OVERFITTED, 1000), "letter": (GENERALISING, 6000)}
DP_SETTING = "single, DP-SGD (noise 1.2, clip 1), new seed"


def brief(estimate: Estimate) -> dict[str, float | int | None]:
    """A number and its 95 % interval, in three digits."""
    parts: dict[str, float | int | None] = {
        name: None if value is None else round(value, 3)
        for name, value in (("value", estimate.value), ("low", estimate.low), ("high", estimate.high))
    }
    return parts | ({"k": estimate.k, "n": estimate.n} if estimate.k is not None else {})


class Rows:
    """Rows of one half in one game: posteriors before and after, the truth, and clusters."""

    def __init__(self, answers: PairAnswers, half: Half, game: str, *, removed: bool = True, defence: str = "") -> None:
        design = answers.design
        versions = design.versions_of(half, removed=removed)
        side = GAMES[game].side(design.roles)
        use = np.flatnonzero(side >= 0)
        chosen = np.ix_(versions, use)
        ids = design.asked[chosen].ravel()
        labels = answers.labels[chosen].ravel()

        def posterior(logits: NDArray[np.float32]) -> Floats:
            rows = logits[chosen].reshape(ids.size, -1)
            if defence:
                rows = parse_defence(defence).apply(rows)
            return posteriors(Answers(np.arange(ids.size), labels, rows[:, None, :]))

        self.before, self.after = posterior(answers.before), posterior(answers.after)
        self.is_in = np.tile(side[use] == 1, versions.size)
        self.record = ids
        self.original = np.repeat(design.original[versions], use.size)

    def trials(self, score: Floats) -> Trials:
        """Scores with truth, clustered by original and record."""
        return Trials(score, self.is_in, self.record, self.original)


def attacked(shadow: Rows, target: Rows, feature: str, classifier: str) -> Trials:
    """Train on the shadow half, score the target half: probabilities of "deleted"."""
    attack = Difference(feature, classifier)  # type: ignore[arg-type]
    order = np.lexsort((shadow.original, shadow.record))
    scorer = attack.fit_posteriors(
        shadow.before[order], shadow.after[order], shadow.is_in[order], rng=generator(SEED, feature, classifier)
    )
    return target.trials(scorer.probability(scorer.score_posteriors(target.before, target.after)))


def auc(trials: Trials) -> Influence:
    return auc_influence(trials)


def table(answers: PairAnswers, game: str, classifiers: Sequence[str] = CLASSIFIERS) -> dict[str, Any]:
    """AUC of every feature, with what it adds to both classical baselines, DegCount and DegRate."""
    shadow, target = Rows(answers, Half.SHADOW, game), Rows(answers, Half.TARGET, game)
    result: dict[str, Any] = {}
    for classifier in classifiers:
        scored = {feature: attacked(shadow, target, feature, classifier) for feature in FEATURES}
        classical = {feature: auc(scored[feature]) for feature in ("basic", "sorted_basic")}
        rows: dict[str, Any] = {name: {"auc": brief(found.estimate())} for name, found in classical.items()}
        for feature in UNLEARNING:
            found = auc(scored[feature])
            row: dict[str, Any] = {"auc": brief(found.estimate())}
            for name, base in classical.items():
                worse = degradation(scored[name], scored[feature])
                row[f"against_{name}"] = {
                    "auc_gain": brief((found - base).estimate()),
                    "deg_count": brief(worse.count),
                    "deg_rate": brief(worse.rate),
                }
            rows[feature] = row
        result[classifier] = rows
    return result


def control(answers: PairAnswers) -> dict[str, Any]:
    """Trained again with another seed and nothing deleted: named records against others that stayed."""
    shadow = Rows(answers, Half.SHADOW, KEPT)
    target = Rows(answers, Half.TARGET, KEPT, removed=False)
    moved = np.linalg.norm(target.before - target.after, axis=-1)
    found = {f: brief(auc(attacked(shadow, target, f, "logistic")).estimate()) for f in UNLEARNING}
    return {"mean_l2_distance": round(float(moved.mean()), 3), "auc": found}


def defended(answers: PairAnswers) -> dict[str, Any]:
    """What each defence leaves, both halves answering behind it."""
    result: dict[str, Any] = {}
    plain = (Rows(answers, Half.SHADOW, NEVER), Rows(answers, Half.TARGET, NEVER))
    open_auc = {(f, c): auc(attacked(*plain, f, c)) for f in ("sorted_diff", "sorted_concat") for c in CLASSIFIERS}
    for defence in DEFENCES:
        rows = [Rows(answers, half, NEVER, defence=defence) for half in (Half.SHADOW, Half.TARGET)]
        result[defence] = {}
        for (feature, classifier), undefended in open_auc.items():
            found = auc(attacked(rows[0], rows[1], feature, classifier))
            result[defence][f"{feature} {classifier}"] = {
                "auc": brief(found.estimate()),
                "change": brief((found - undefended).estimate()),
            }
    return result


def fleet(data: DeviceData, labels: NDArray[np.int64], recipe: Recipe, records: int, models: int) -> dict[str, Any]:
    """The calibrated difference of margins beside the paper's attack, where every record has each role in turn."""
    audited = 60
    design = random_design(labels, n_models=models, audited=audited, background=records - 2 * audited // 3, seed=SEED)
    ids = design.audited
    role = design.roles_of(ids)
    everything, retained = (Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN), (Role.BACKGROUND, Role.KEPT)
    worlds = {
        "before": answers_of(data, design, recipe, everything, "first"),
        "new seed": answers_of(data, design, recipe, retained, "second"),
        "same initial weights": answers_of(data, design, recipe, retained, "first"),
        "nothing deleted, new seed": answers_of(data, design, recipe, everything, "second"),
    }
    worlds["no-op"] = worlds["before"]
    y = labels[ids]
    result: dict[str, Any] = {"models": models, "group": audited // 3, "games": {}}
    for game in (NEVER, KEPT):
        side = GAMES[game].side(role)
        before = Reference(ids, y, worlds["before"], side=side, fold=design.fold)
        table: dict[str, Any] = {}
        if game == NEVER:
            score = score_fleet(ATTACKS["lira"](), before, rng=generator(SEED, "lira"))
            table["classical: lira on the original"] = brief(FleetScores(score, side, design.fold).auc().estimate())
        for name, logits in worlds.items():
            if name == "before":
                continue
            after = Reference(ids, y, logits, side=side, fold=design.fold, before=before)
            table[name] = {}
            for attack in (
                *(ATTACKS[f"difference_margin{end}"]() for end in ("", "_offline", "_by_class", "_uncalibrated")),
                *(Difference(feature) for feature in ("sorted_diff", "sorted_concat", "l2_distance", "sorted_basic")),
            ):
                score = score_fleet(attack, after, rng=generator(SEED, attack.name))
                key = f"{attack.feature} logistic" if isinstance(attack, Difference) else attack.name
                table[name][key] = brief(FleetScores(score, side, design.fold).auc().estimate())
        result["games"][game] = table
    return result


def answers_of(
    data: DeviceData, design: Design, recipe: Recipe, roles: tuple[Role, ...], seeds: str
) -> NDArray[np.float32]:
    """Train one model a row of the design on the records of some roles, and ask it about the audited ones."""
    ids = [design.records(k, *roles) for k in range(design.n_models)]
    own = [child_seed(SEED, "fleet", seeds, k) for k in range(design.n_models)]
    trained = train_stacked(recipe, data, ids, own, runtime=replace(RUNTIME, stack=24))
    return np.stack([infer_logits(t.module, data, design.audited, runtime=RUNTIME) for t in trained])


def measured(found: Influence) -> dict[str, float]:
    """An estimate in full digits with its limits and variance, for comparisons between sets."""
    interval = found.interval()
    return {"value": found.value, "low": interval.lower, "high": interval.upper, "variance": found.variance}


def gains(settings: dict[str, PairAnswers]) -> dict[str, dict[str, float]]:
    """What both sorted features, logistic, gain over both classical baselines, and what DP-SGD leaves of them."""
    rows = [Rows(settings["single, new seed"], half, NEVER) for half in Half]
    found: dict[str, dict[str, float]] = {}
    for feature in ("sorted_diff", "sorted_concat"):
        above = auc(attacked(rows[0], rows[1], feature, "logistic"))
        found[f"{feature} open"] = measured(above)
        for base in ("basic", "sorted_basic"):
            found[f"{feature} over {base}"] = measured(above - auc(attacked(rows[0], rows[1], base, "logistic")))
        if DP_SETTING in settings:
            private = [Rows(settings[DP_SETTING], half, NEVER) for half in Half]
            found[f"{feature} DP-SGD"] = measured(auc(attacked(private[0], private[1], feature, "logistic")))
    return found


def read(claim: str, low: float, high: float, value: float, sign: float = 1.0) -> dict[str, Any]:
    """One claim with its interval, and whether a difference of the given sign is shown."""
    ends = sorted((sign * low, sign * high))
    reads = "holds" if ends[0] > 0 else "reversed" if ends[1] < 0 else "not shown"
    return {"claim": claim, "value": round(value, 3), "low": round(low, 3), "high": round(high, 3), "reads": reads}


def apart(claim: str, a: dict[str, float], b: dict[str, float], sign: float = 1.0) -> dict[str, Any]:
    """Read the difference a - b of two estimates of unrelated models."""
    change, half = a["value"] - b["value"], 1.96 * float(np.sqrt(a["variance"] + b["variance"]))
    return read(claim, change - half, change + half, change, sign)


def claims(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """Each claim of the paper with its interval, for the attacks named beforehand: both sorted features, logistic."""
    found = []
    for base in ("basic", "sorted_basic"):
        for feature in ("sorted_diff", "sorted_concat"):
            each = {name: one["gains"][f"{feature} over {base}"] for name, one in sets.items()}
            for name, gain in each.items():
                claim = f"{feature} beats the classical attack ({base}) on {name}, AUC gain"
                found.append(read(claim, gain["low"], gain["high"], gain["value"]))
            if {"letter", "location30"} <= set(each):
                claim = f"{feature} gains more over {base} on the model that generalises (letter minus location30)"
                found.append(apart(claim, each["letter"], each["location30"]))
    for name, one in sets.items():
        for feature in ("sorted_diff", "sorted_concat"):
            for defence, rows in one["defences"].items():
                change = rows[f"{feature} logistic"]["change"]
                claim = f"{defence} reduces the AUC of {feature} logistic on {name}"
                found.append(read(claim, change["low"], change["high"], change["value"], -1.0))
            if f"{feature} DP-SGD" in one["gains"]:
                claim = f"DP-SGD reduces the AUC of {feature} logistic on {name} (other models)"
                found.append(apart(claim, one["gains"][f"{feature} DP-SGD"], one["gains"][f"{feature} open"], -1.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=[*SETS, "all"], default="all", help="the other's result in OUT is kept")
    parser.add_argument("--quick", action="store_true", help="2 originals x 4 versions, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "difference_protocol.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    n_originals, n_versions, n_models = (2, 4, 6) if args.quick else (10, 12, 48)
    earlier = json.loads(args.out.read_text()) if args.out.exists() else {}
    sets: dict[str, Any] = earlier.get("sets", {})
    for name, (recipe, records) in SETS.items():
        if args.set not in (name, "all"):
            continue
        dataset = load_dataset(str(args.data / f"{name}.npz"))
        data = DeviceData(dataset, "cpu")

        def pairs(settings: Recipe, group: int, label: str, **options: Any) -> PairAnswers:
            full = settings.batch_size >= records  # noqa: B023
            share = 0.5 if group > 1 or settings.private or full else 1.0
            design = pairs_design(
                dataset.labels,  # noqa: B023 - called in the same turn of the loop
                originals=max(2, round((0.3 if settings.private else 1.0) * n_originals)),
                versions=max(4, round(share * n_versions)),
                group=group,
                records=records,  # noqa: B023
                controls=options.pop("controls", 0),
                seed=SEED,
            )
            answers = answer_pairs(design, settings, data, runtime=RUNTIME, seed=SEED, **options)  # noqa: B023
            spent = time.perf_counter() - begun
            print(f"{spent:6.0f} s  {name}, {label}: {design.n_versions} versions", file=sys.stderr, flush=True)  # noqa: B023
            return answers

        main_pairs = pairs(recipe, 1, "new seed", controls=max(2, n_versions // 4))
        settings = {
            "single, new seed": main_pairs,
            "single, same initial weights": pairs(recipe, 1, "same", seeds="same"),
            "single, nothing but the deletion differs": pairs(
                replace(recipe, lr=0.2, batch_size=records, epochs=50), 1, "full batch", seeds="same"
            ),
            "group of 10, new seed": pairs(recipe, 10, "group"),
            "single, SISA of 10 shards, new seed": pairs(replace(recipe, batch_size=16), 1, "SISA", shards=10),
        }
        if name == "location30":
            settings[DP_SETTING] = pairs(DP, 1, "DP-SGD")
        one: dict[str, Any] = {"records": records, "settings": {}}
        for label, answers in settings.items():
            seen, unseen = answers.accuracy.mean(axis=0)
            one["settings"][label] = {
                "originals": answers.design.n_originals // 2,
                "versions": int(answers.design.versions_of(Half.TARGET).size),
                "accuracy_members": round(float(seen), 3),
                "accuracy_others": round(float(unseen), 3),
                NEVER: table(answers, NEVER),
                KEPT: table(answers, KEPT, ("logistic",)),
            }
        one["control: nothing deleted, new seed"] = control(main_pairs)
        one["defences"] = defended(main_pairs)
        one["fleet"] = fleet(data, np.asarray(dataset.labels), recipe, records, n_models)
        one["gains"] = gains(settings)
        one["forest_trees"] = Difference().trees
        one["seconds"] = round(time.perf_counter() - begun)
        sets[name] = one
    result = {
        "claim": "arXiv 2005.02205: both versions tell more than the first, above all where the model generalises "
        "well; label only, temperature and DP help",
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "scaled_down": f"{n_originals} originals x {n_versions} versions a half in place of 10 x 20; groups of 10 and "
        "full batches half the versions, DP-SGD 3 originals x 6; networks of one hidden layer; location30 with 1,000 "
        "training records in place of 2,000, for it has 5,010 in all; forests of 40 trees in place of 500",
        "intervals": "95 %, clustered by original and record; those of the fleet by model and record",
        "claims": claims(sets),
        "sets": sets,
    }
    args.out.write_text(json.dumps(result) + "\n")
    for claim in result["claims"]:
        print(
            f"{claim['reads']:10s} {claim['value']:+.3f} [{claim['low']:+.3f}, {claim['high']:+.3f}]  {claim['claim']}"
        )


if __name__ == "__main__":
    main()
