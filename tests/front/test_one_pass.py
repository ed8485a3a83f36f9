"""One inference pass serves all attacks: every model answers each (record, query) once, whoever reads it."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mnemoscope.audit.models import inference
from mnemoscope.audit.work import tasks
from mnemoscope.audit.work.plan import parse_plan
from mnemoscope.pipeline import run_plan

PLAN = """
name = "one pass"
[design]
models = 6
audited = 150
background = 60
population = 60
calibration = 40
test = 60
[recipe.overrides]
architecture = "mlp:8"
epochs = 1
batch_size = 64
[[subjects]]
method = "noop"
[attacks]
run = [{attacks}]
measures = []
[defences]
answers = []
[policy]
alpha = 0.05
[runtime]
device = "cpu"
threads = 1
stack = 1
"""
pytestmark = pytest.mark.slow

FEW = ("loss", "correctness")
MANY = (*FEW, "lira", "lira_offline", "rmia", "population", "entropy", "modified_entropy_by_class", "confidence")


class Log:
    """What models were asked, and which were trained, while an audit ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered: Counter[tuple[str, int, object]] = Counter()
        self.passes = self.trained = 0
        ask, train = inference._ask, tasks.train_model

        def counted(module: Any, data: Any, positions: Any, query: Any, dtype: Any) -> Any:
            self.passes += 1
            weights = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
            self.answered.update((weights, int(i), query) for i in data.ids[positions.numpy()])
            return ask(module, data, positions, query, dtype)

        def trained(*args: Any, **rest: Any) -> Any:
            self.trained += 1
            return train(*args, **rest)

        monkeypatch.setattr(inference, "_ask", counted)
        monkeypatch.setattr(tasks, "train_model", trained)

    def clear(self) -> None:
        """Begin anew."""
        self.answered.clear()
        self.passes = self.trained = 0


def audit(store: Path, attacks: tuple[str, ...]) -> Any:
    quoted = ", ".join(f'"{name}"' for name in attacks)
    return run_plan(parse_plan(PLAN.replace("{attacks}", quoted)), store=store)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def attacks_in(result: Any) -> set[str]:
    return {finding.attack for finding in result.subjects[0].findings}


def test_every_model_answers_each_question_once(log: Log, tmp_path: Path) -> None:
    result = audit(tmp_path, MANY)
    assert set(MANY) <= attacks_in(result)
    models, records = len({model for model, _, _ in log.answered}), 150 + 60 + 60
    # No-op leaves the fleet "before" as it is: its weights are in the store twice and answer twice.
    twice = 6
    assert models == 3 * 6  # before, retrained A, retrained B
    assert log.trained == models
    assert len(log.answered) == models * records
    # The first batch is asked again, to see that the model answers alike: here one batch is everything.
    assert log.passes == 2 * (models + twice)
    assert set(log.answered.values()) == {2, 4}
    assert Counter(log.answered.values()) == {2: 2 * 6 * records, 4: twice * records}


def test_an_attack_that_asks_nothing_new_computes_nothing(log: Log, tmp_path: Path) -> None:
    few = audit(tmp_path, FEW)
    assert log.passes == 48  # as many as the many attacks take above
    log.clear()
    many = audit(tmp_path, MANY)
    assert (log.passes, log.trained) == (0, 0)
    assert attacks_in(many) > attacks_in(few)
