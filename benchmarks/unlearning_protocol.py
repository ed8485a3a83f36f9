r"""The protocol that unlearning papers share, on CIFAR-10 with ResNet-18; meant for a GPU, tried on a CPU at toy sizes.

python benchmarks/unlearning_protocol.py --data DIR --forget random --out benchmarks/results/unlearning_random.json
python benchmarks/unlearning_protocol.py --data DIR --forget class --sparsity 0.95 --out class_sparse.json
python benchmarks/unlearning_protocol.py --data DIR --forget random --records 300 --test 100 --epochs 1 --cases 1 \\
    --references 2 --architecture small_cnn --device cpu --out toy.json

45,000 records train, a tenth of them or a class is forgotten, and each method is compared with models retrained without
them: UA, RA, TA, MIA-efficacy, their average gap, the gap between retrained models as its floor, time, and the AUC of
RMIA between forgotten and test records with the retrained models as references ("FT-AUC"). Published beside it: the
table of AMUN (arXiv 2503.00917, accuracy on forgotten / retained / test records, FT-AUC, mean gap of the four; 10 % at
random, 3 x 3 runs). Differences of protocol: recipe and epochs are ours (printed), ``--cases`` pairs of an original and
a forget set, settings as in SETTINGS (published ones; every one depends on the learning rate: see ``mnemoscope tune``),
and RMIA's references are the retrained models.

Trained models are kept in ``--store``: the same command again goes on where it stopped.
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.views import Answers, Reference, Side, View
from mnemoscope.audit.models.checkpoints import load_into, model_bytes
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import RECIPES, Runtime
from mnemoscope.audit.models.training import fresh_model, train_model
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.rng import child_seed, generator
from mnemoscope.audit.statistics.roc import auc
from mnemoscope.audit.statistics.unlearning import unlearning_metrics
from mnemoscope.audit.work.keys import content_key, ids_digest
from mnemoscope.audit.work.store import Store
from mnemoscope.audit.work.tasks import WEIGHTS
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.pruning import Pruning, sparse_original
from mnemoscope.unlearning_table import LiteratureSets, model_answers

SETTINGS: dict[str, dict[str, object]] = {
    "noop": {},
    "finetune": {"epochs": 10, "lr": 0.01},
    "gradient_ascent": {"epochs": 5, "lr": 1e-4},
    "neggrad_plus": {"epochs": 10, "lr": 0.01, "alpha": 0.95},
    "random_labels": {"epochs": 10, "lr": 0.01},
    "salun": {"epochs": 10, "lr": 0.005, "keep": 0.5},
    "l1_sparse": {"epochs": 10, "lr": 0.01, "alpha": 5e-4},
    "scrub": {},
    "bad_teacher": {},
    "ssd": {},
    "influence": {"alpha": 10.0},
    "boundary_shrink": {"epochs": 10, "lr": 1e-5},
    "boundary_expand": {"epochs": 10, "lr": 1e-5},
    "amun": {},
    "adversarial": {},
}
PUBLISHED = {
    "source": "arXiv 2503.00917, ResNet-18, 10 % at random, with retained records; amun_without: without them",
    "columns": ["forget accuracy", "retain accuracy", "test accuracy", "FT-AUC", "average gap"],
    "retrain": [94.49, 100.0, 94.33, 50.00, 0.0], "finetune": [95.16, 96.64, 92.21, 52.08, 2.06],
    "random_labels": [95.54, 97.47, 92.17, 51.33, 1.74], "gradient_ascent": [98.94, 99.22, 93.39, 60.96, 4.28],
    "boundary_shrink": [99.14, 99.89, 93.04, 57.85, 3.48], "l1_sparse": [94.29, 95.63, 91.55, 51.21, 2.16],
    "salun": [96.25, 98.14, 93.06, 50.88, 1.44], "amun": [95.45, 99.57, 93.45, 50.18, 0.62],
    "amun_without": [94.28, 97.47, 91.67, 52.24, 1.94],
}  # fmt: skip


class Bench:
    """Trains, keeps and asks the models of one case: an original, and what it has to forget."""

    def __init__(self, args: argparse.Namespace, dataset, data, recipe, runtime, case: int) -> None:
        self.args, self.dataset, self.data, self.recipe, self.runtime = args, dataset, data, recipe, runtime
        self.case, self.store = case, Store(args.store)
        rng = generator(args.seed, "protocol", case)
        order = rng.permutation(dataset.ids)
        trained, rest = np.sort(order[: args.records]), order[args.records :]
        self.test = np.sort(rest[: args.test])
        self.validation = np.sort(rest[args.test : args.test + max(20, args.records // 9)])
        labels = dataset.labels[dataset.positions(trained)]
        self.gone = int(rng.integers(0, int(dataset.labels.max()) + 1)) if args.forget == "class" else None
        if self.gone is None:
            forget = np.sort(rng.permutation(trained)[: args.records // 10])
        else:
            forget = trained[labels == self.gone]
        kind = "records" if self.gone is None else "class"
        self.request = Request(kind, forget, np.setdiff1d(trained, forget), self.validation, trained=trained)
        self.sets = LiteratureSets(forget, self.request.retain, self.test, self.labels, self.gone)

    def labels(self, ids):
        """Labels (n,) of ids."""
        return self.dataset.labels[self.dataset.positions(ids)]

    def _kept(self, what: str, number: int, ids, make):
        """Return a model and the seconds it took, from the store or made now."""
        parts = {"what": what, "ids": ids_digest(ids), "recipe": str(self.recipe.key_parts()), "number": number,
                 "case": self.case, "seed": self.args.seed, "sparsity": self.args.sparsity,
                 "data": self.dataset.digest}  # fmt: skip
        key = content_key("unlearning protocol", 1, parts)
        entry = self.store.get(key)
        if entry is None:
            begun = time.perf_counter()
            module = make()
            if self.data.device.type == "cuda":
                torch.cuda.synchronize()
            entry = self.store.put(key, {WEIGHTS: model_bytes(module)}, meta={"seconds": time.perf_counter() - begun})
        module = fresh_model(self.recipe, self.data, seed=0)
        load_into(module, entry.path(WEIGHTS))
        return module.to(self.data.device).eval(), float(entry.meta["seconds"])

    def original(self):
        """Return the model before deletion, and the seconds its training took."""
        seed = child_seed(self.args.seed, "original", self.case)
        return self._trained("original", self.request.trained, seed)

    def retrained(self, number: int):
        """Return the same for a model trained without what is forgotten."""
        seed = child_seed(self.args.seed, "retrained", self.case, number)
        return self._trained("retrained", self.request.retain, seed)

    def _trained(self, what: str, ids, seed: int):
        if self.args.sparsity:
            # Its own masks: those of the original have seen the forgotten records.
            prune = Pruning("magnitude", self.args.sparsity)
            train = partial(sparse_original, pruning=prune, rewind=min(8, self.recipe.epochs))
        else:
            train = train_model
        return self._kept(
            what, seed, ids, lambda: train(self.recipe, self.data, ids, seed=seed, runtime=self.runtime).module
        )

    def unlearned(self, name: str, settings: dict[str, object], original):
        """Return the same for a model after deletion by a method."""
        method = METHODS[name](**settings)
        if self.args.sparsity and name != "noop":
            method = METHODS["pruned"](method=name, settings=json.dumps(settings), strategy="zeros")
        rng = generator(self.args.seed, "unlearn", self.case, name)
        begun = time.perf_counter()
        module = method.unlearn(
            original, self.request, recipe=self.recipe, data=self.data, runtime=self.runtime, rng=rng
        )
        if self.data.device.type == "cuda":
            torch.cuda.synchronize()
        return module, time.perf_counter() - begun

    def ask(self, module, ids):
        """Logits (n, 1, c)."""
        return infer_logits(module, self.data, ids, runtime=self.runtime)

    def answers(self, module):
        """What the metrics of the literature are computed from."""
        return model_answers(partial(self.ask, module), self.sets, rng=generator(self.args.seed, "svm", self.case))

    def ft_auc(self, module, references) -> float:
        """AUC of offline RMIA between forgotten and test records, each reference trained on neither."""
        keep = self.test if self.gone is None else self.test[self.labels(self.test) == self.gone]
        ids = np.concatenate([self.request.forget, keep])
        known = np.stack([self.ask(one, ids) for one in references])
        others = self.validation
        z = np.stack([self.ask(one, others) for one in references])
        side = np.full(known.shape[:2], Side.OUT, np.int8)
        fleet = Reference(ids, self.labels(ids), known, side=side, population=Answers(others, self.labels(others), z))
        own = Answers(others, self.labels(others), self.ask(module, others))
        target = View(ids, self.labels(ids), self.ask(module, ids), population=own)
        scores = ATTACKS["rmia_offline"]().fit(fleet, rng=np.random.default_rng(0)).score(target)
        n = self.request.forget.size
        return float(auc(scores[:n], scores[n:]))


def of_case(bench: Bench, names: list[str]) -> dict[str, dict[str, object]]:
    """One row a method: the metrics of the literature, the four numbers of AMUN's table, and seconds."""
    original, trained_seconds = bench.original()
    again = [bench.retrained(number) for number in range(bench.args.references)]
    before, retrained = bench.answers(original), [bench.answers(module) for module, _ in again]
    modules = [module for module, _ in again]
    # A retrained model is looked at with the others as references.
    aucs = [bench.ft_auc(one, [other for other in modules if other is not one]) for one in modules]
    each = [four(answers, value, bench.gone) for answers, value in zip(retrained, aucs, strict=True)]
    yardstick = np.mean(each, axis=0)
    rows: dict[str, dict[str, object]] = {
        "retrain": {"four": yardstick.tolist(), "four_gap": 0.0, "seconds": float(np.mean([s for _, s in again]))}
    }
    for name in names:
        module, seconds = bench.unlearned(name, SETTINGS[name], original)
        after = bench.answers(module)
        metrics = unlearning_metrics(before, [after], retrained, forgotten_class=bench.gone,
                                     seconds=([seconds], [s for _, s in again]))  # fmt: skip
        numbers = four(after, bench.ft_auc(module, modules), bench.gone)
        rows[name] = {
            "four": numbers, "four_gap": float(np.abs(np.subtract(numbers, yardstick)).mean()), "seconds": seconds,
            "metrics": metrics.as_json(),
        }  # fmt: skip
        print(f"case {bench.case}", name, [round(x, 2) for x in numbers], round(rows[name]["four_gap"], 2), flush=True)
    rows["original"] = {"seconds": trained_seconds}
    return rows


def four(answers, ft_auc: float, gone: int | None) -> list[float]:
    """Accuracy on forgotten, retained and test records, without a class that was forgotten, and FT-AUC, in percent."""
    test = answers.test.labels != gone if gone is not None else np.ones(answers.test.n_records, bool)
    right = [(a.logits[:, 0].argmax(axis=-1) == a.labels) for a in (answers.forget, answers.retain, answers.test)]
    return [100 * float(value) for value in (right[0].mean(), right[1].mean(), right[2][test].mean(), ft_auc)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path(".mnemoscope"), help="trained models")
    parser.add_argument("--forget", choices=("random", "class"), default="random")
    parser.add_argument("--sparsity", type=float, default=0.0, help="0.95 for the sparse setting")
    parser.add_argument("--records", type=int, default=45_000, help="training records")
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--cases", type=int, default=3, help="pairs of an original and a forget set")
    parser.add_argument("--references", type=int, default=3, help="retrained models a case, at least 2")
    parser.add_argument("--epochs", type=int, default=182)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--device", default="auto")
    known = [name for name in SETTINGS if name in METHODS]
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.references < 2:
        parser.error("--references must be at least 2: a retrained model is compared with another")
    dataset = load_dataset("cifar10", data_root=args.data)
    base = RECIPES["cifar-resnet18" if args.architecture == "resnet18" else "cifar-small-cnn"]
    precision = base.precision if torch.cuda.is_available() else "fp32"
    recipe = replace(base, architecture=args.architecture, epochs=args.epochs, precision=precision)
    runtime = Runtime(device=args.device)
    data = DeviceData(dataset, runtime.torch_device())
    kind = "records" if args.forget == "random" else "class"
    names = [name for name in args.methods if kind in METHODS[name]().kinds]
    cases = [of_case(Bench(args, dataset, data, recipe, runtime, case), names) for case in range(args.cases)]
    summary = {
        name: {"four": np.mean([case[name]["four"] for case in cases], axis=0).tolist(),
               "four_gap": [case[name]["four_gap"] for case in cases],
               "cost": float(np.mean([case[name]["seconds"] / case["retrain"]["seconds"] for case in cases]))}
        for name in ("retrain", *names)
    }  # fmt: skip
    device = torch.cuda.get_device_name() if data.device.type == "cuda" else "CPU"
    made = {
        "device": device, "torch": torch.__version__, "python": platform.python_version(), "forget": args.forget,
        "sparsity": args.sparsity, "records": args.records, "cases": args.cases, "references": args.references,
        "recipe": recipe.key_parts(), "settings": {name: SETTINGS[name] for name in names}, "seed": args.seed,
        "four": PUBLISHED["columns"][:4], "published": PUBLISHED, "summary": summary, "rows": cases,
    }  # fmt: skip
    args.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
