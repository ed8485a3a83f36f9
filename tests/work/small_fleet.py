"""A few tiny models on real digits: as a module for tests, as a program for those that kill it."""

import sys

from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.records.datasets import Dataset, load_dataset
from mnemoscope.audit.records.design import Design, random_design
from mnemoscope.audit.work.store import Store
from mnemoscope.audit.work.workspace import Workspace

RECIPE = Recipe("mlp:16", lr=0.1, epochs=2, batch_size=32)


def design(data: Dataset, n_models: int = 6) -> Design:
    return random_design(data.labels, n_models=n_models, audited=120, background=60, test=40, seed=3)


def workspace(store: Store, *, stack: int | None = 1, **options: object) -> Workspace:
    data = options.pop("data", None) or load_dataset("digits")
    settings = {
        "runtime": Runtime(device="cpu", threads=1, stack=stack),
        "seed": 5,
        "recipe": RECIPE,
        "design": None,
        **options,
    }
    recipe, chosen = settings.pop("recipe"), settings.pop("design")
    return Workspace(store, data, chosen or design(data), recipe, **settings)


def main() -> None:
    """Train, forget and ask, as an audit does; says how many models were found in the store."""
    from mnemoscope.unlearning.finetune import FineTune

    store = Store(sys.argv[1])
    work = workspace(store, stack=int(sys.argv[2]))
    print("begun", flush=True)
    before, retrained = work.fleet("before"), work.fleet("retrained")
    after = work.unlearned("tuned", FineTune(epochs=1))
    for fleet in (before, retrained, after):
        work.answers(fleet, work.design.audited)
    print("reused", sum(cost.reused for cost in work.costs), "computed", sum(cost.computed for cost in work.costs))


if __name__ == "__main__":
    main()
