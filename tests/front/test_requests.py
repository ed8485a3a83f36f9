"""Deletions one after another on tiny real models: what each step is given, what is computed, what the rates say."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.records.requests import deal_requests
from mnemoscope.audit.statistics.fleet import FleetScores
from mnemoscope.audit.verdict.power import least_power, whole_rule_power
from mnemoscope.audit.verdict.result import Cost
from mnemoscope.audit.verdict.successive import SuccessiveRates
from mnemoscope.audit.work.chain import NextRequest
from mnemoscope.audit.work.plan import LeaguePlan, parse_plan
from mnemoscope.audit.work.store import Store
from mnemoscope.league import run_league
from mnemoscope.pipeline import open_workspace, run_plan
from mnemoscope.planning import check_plan, export_orders
from mnemoscope.preparation import PreparedAudit
from mnemoscope.requests import RequestChain, Stage, after_request, stages_of
from mnemoscope.unlearning.base import Deletion, Method

MODELS, RECORDS = 12, 240
PLAN = """
name = "requests"
[design]
models = 12
audited = 240
background = 0
population = 60
calibration = 0
test = 200
counts = [3, 6, 3]
requests = {requests}
[recipe.overrides]
architecture = "mlp:128"
lr = 0.1
epochs = 40
batch_size = 32
{subjects}
[attacks]
run = ["lira"]
measures = []
[defences]
answers = []
[policy]
alpha = 0.1
control_permutations = 20
power_runs = 20
[runtime]
device = "cpu"
threads = 1
stack = 1
"""
THREE = ("noop", "finetune", "retrain")


def plan(requests: int = 3, subjects: tuple[str, ...] = THREE, **changes: str) -> Any:
    text = PLAN.replace("{requests}", str(requests))
    text = text.replace("{subjects}", "\n".join(f'[[subjects]]\nmethod = "{name}"' for name in subjects))
    for old, new in changes.items():
        text = text.replace(*new) if isinstance(new, tuple) else text.replace(old, new)
    return parse_plan(text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One request, then three with the same store, then three once more: (store, results)."""
    store = tmp_path_factory.mktemp("requests") / "store"
    return store, [run_plan(plan(n), store=store, out=None) for n in (1, 3, 3)]


def computed(result: Any, word: str) -> dict[str, int]:
    return {cost.step: cost.computed for cost in result.costs if cost.step.startswith(word)}


@pytest.mark.slow
def test_the_same_models_stand_before_every_request_and_nothing_is_made_twice(runs: Any) -> None:
    _, (one, three, again) = runs
    assert one.requests == ()
    trained = computed(three, "train")
    # The design of the last request is that of a single one: its retrained fleets are there already.
    for number in (1, 2, 3):
        assert trained[f"train before, request {number} of 3"] == 0
        for replica in "ABC":
            made = trained[f"train retrained {replica}, request {number} of 3"]
            assert made == (0 if number == 3 else MODELS)
        assert computed(three, "unlearn")[f"unlearn finetune, request {number} of 3"] == MODELS
    assert sum(cost.computed for cost in again.costs) == 0
    assert [s.verdict for s in again.subjects] == [s.verdict for s in three.subjects]


@pytest.mark.slow
def test_a_subject_more_computes_itself_alone(runs: Any) -> None:
    store, _ = runs
    more = run_plan(plan(subjects=(*THREE, "gradient_ascent")), store=store, out=None)
    made = {cost.step: cost.computed for cost in more.costs if cost.computed}
    assert set(made) == {f"{what} gradient_ascent, request {r} of 3" for what in ("unlearn", "ask") for r in (1, 2, 3)}
    assert set(made.values()) == {MODELS}


@pytest.mark.slow
def test_no_op_shows_the_same_high_rate_after_every_request_and_retraining_chance(runs: Any) -> None:
    _, (one, three, _) = runs
    rows = {name: [row for row in three.requests if row.subject == name] for name in THREE}
    assert [(row.request, row.requests, row.attack, row.fpr) for row in rows["noop"]] == [
        (r, 3, "lira", 0.1) for r in (1, 2, 3)
    ]
    for row in rows["noop"]:
        for rate in (row.tpr, row.newest, row.first):
            assert rate.low > 0.1
        assert row.retrained.low <= 0.1 <= row.retrained.high
    for row in rows["noop"][1:]:
        change = row.first_change
        assert change.low <= 0 <= change.high  # nothing was done, then or later
        assert change.value == pytest.approx(row.first.value - rows["noop"][0].first.value)
    for row in rows["retrain"]:
        for rate in (row.tpr, row.newest, row.first, row.over_forgotten):
            assert rate.low <= 0.1
        assert row.test_gap.low <= 0 <= row.test_gap.high
    for name in THREE:
        first, _, last = rows[name]
        assert first.tpr == first.newest == first.first
        assert first.first_change.value is None
        assert [row.tpr.n for row in rows[name]] == [2 * RECORDS * r for r in (1, 2, 3)]
        assert [row.newest.n for row in rows[name]] == [2 * RECORDS] * 3
        # All records are forgotten then: the audit of the last request is that of one request, for what has no chain.
        if name != "finetune":
            whole = next(s for s in one.subjects if s.name == name)
            p1 = next(e for e in whole.endpoints if e.id == "P1" and e.attack == "lira")
            assert (last.tpr.k, last.tpr.n) == (p1.estimate.k, p1.estimate.n)


@pytest.mark.slow
def test_every_request_has_its_own_audit_named_after_it(runs: Any) -> None:
    _, (_, three, _) = runs
    assert [s.name for s in three.subjects] == [f"{n}, request {r} of 3" for n in THREE for r in (1, 2, 3)]
    assert [row.word for row in three.requests] == [s.verdict.word for s in three.subjects]
    for s in three.subjects:
        assert {"G1", "G2", "G3", "G5"} <= {gate.id for gate in s.gates}
    digests = {
        next(m.digest for m in s.models if m.name == "retrained A") for s in three.subjects if s.name.startswith("noop")
    }
    assert len(digests) == 3
    assert len({next(m.digest for m in s.models if m.name == "before") for s in three.subjects}) == 1
    assert any("audited by itself" in text for text in three.limitations)
    assert "named by 3 requests" in next(s.note for s in three.data.sets if s.role == "audited")


SEEN: list[tuple[str, np.ndarray, np.ndarray, float, int, Any]] = []


@dataclass(frozen=True)
class Nudge(Method):
    """Adds one to every bias, and notes what it was given."""

    name = "nudge"
    needs: ClassVar[Need] = Need.FORGET_DATA | Need.RETAIN_DATA

    def _forget(self, work: Any, deletion: Deletion) -> Any:
        state = work.state_dict()
        first = next(name for name in state if name.endswith("bias"))
        request, history = deletion.request, deletion.history
        SEEN.append((self.name, request.forget, request.retain, float(state[first].mean()), deletion.seed(), history))
        state[first] += 1.0
        return work


@dataclass(frozen=True)
class Undo(Nudge):
    """The same, by a method that undoes training."""

    name = "undo"
    needs: ClassVar[Need] = Need.FORGET_DATA | Need.RETAIN_DATA | Need.HISTORY


@pytest.fixture
def small(tmp_path: Path) -> Any:
    small_plan = plan(subjects=("noop",), epochs=("epochs = 40", "epochs = 1"), wide=("mlp:128", "mlp:4"))
    return PreparedAudit(small_plan, store=Store(tmp_path / "store"))


def carry_out(prepared: Any, method: Any, upto: int = 3) -> list[Any]:
    SEEN.clear()
    chain, made = RequestChain(prepared), []
    for number in range(1, upto + 1):
        stage = Stage(number, 3, after_request(prepared, number))
        made.append(chain.models(stage, "it", method, open_workspace(stage.prepared)))
    return made


@pytest.mark.slow
def test_each_request_works_on_what_the_one_before_left_and_sees_its_own_records(small: Any) -> None:
    fleets = carry_out(small, Nudge())
    requests = small.requests
    assert len(SEEN) == 3 * MODELS
    for number in (1, 2, 3):
        for k, (_, forget, retain, _, _, history) in enumerate(SEEN[(number - 1) * MODELS : number * MODELS]):
            step = requests.step(number)
            assert np.array_equal(forget, requests.named(k, number))
            assert np.array_equal(retain, step.records(k, Role.BACKGROUND, Role.KEPT))
            earlier = [requests.named(k, r) for r in range(1, number)]
            assert not np.isin(np.concatenate([forget, retain]), np.concatenate([[-1], *earlier])).any()
            assert history is None
    starts = np.array([start for _, _, _, start, _, _ in SEEN]).reshape(3, MODELS)
    assert starts[1:] - starts[:-1] == pytest.approx(1.0, abs=1e-5)  # one deletion more behind each
    assert len({seed for _, _, _, _, seed, _ in SEEN}) == 3 * MODELS  # the same noise twice would not be noise
    assert len({ref.key for fleet in fleets for ref in fleet}) == 3 * MODELS


@pytest.mark.slow
def test_a_later_request_reuses_what_the_earlier_ones_left(small: Any) -> None:
    first = carry_out(small, Nudge(), upto=2)
    assert len(SEEN) == 2 * MODELS
    again = carry_out(small, Nudge(), upto=3)
    assert len(SEEN) == MODELS
    assert again[:2] == first


@pytest.mark.slow
def test_a_method_that_undoes_training_forgets_all_so_far_from_the_model_as_it_was(small: Any) -> None:
    fleets = carry_out(small, Undo())
    starts = np.array([start for _, _, _, start, _, _ in SEEN]).reshape(3, MODELS)
    assert np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[0], starts[2])
    for number in (1, 2, 3):
        for k, (_, forget, _, _, _, history) in enumerate(SEEN[(number - 1) * MODELS : number * MODELS]):
            assert np.array_equal(forget, small.requests.step(number).records(k, Role.FORGOTTEN))
            assert np.array_equal(history.ids, small.design.records(k, Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN))
    assert len({ref.key for fleet in fleets for ref in fleet}) == 3 * MODELS
    workspace = open_workspace(after_request(small, 2))
    with pytest.raises(InvalidInput, match="undo undoes training, so it works on models as they were trained"):
        workspace.unlearned("it", Undo(), request=NextRequest(2, fleets[0], (np.array([0]),) * MODELS))


@pytest.mark.slow
def test_a_method_that_trains_its_models_itself_deletes_step_by_step_and_exactly(small: Any) -> None:
    """SISA, whose later requests repeat only what they touch, ends bit for bit where one request ends."""
    from mnemoscope.audit.models.protocol import trainer_of
    from mnemoscope.unlearning.sisa import SISA

    method = SISA(shards=2, slices=1)
    chain = RequestChain(small)
    for number in (1, 2, 3):
        stage = Stage(number, 3, after_request(small, number))
        workspace = open_workspace(stage.prepared, trainer=trainer_of(method))
        step_by_step = chain.models(stage, "sisa", method, workspace)
        at_once = workspace.unlearned("at once", method)
        assert [ref.weights for ref in step_by_step] == [ref.weights for ref in at_once]


def test_the_counts_of_the_first_request_decide_what_the_plan_bears(small: Any) -> None:
    assert small.design.digest == small.requests.step(1).digest
    stages = stages_of(small)
    assert [stage.prepared.design.digest for stage in stages] == [small.requests.step(r).digest for r in (1, 2, 3)]
    assert all(stage.prepared.powers is small.powers for stage in stages)
    assert [stage.title("a") for stage in stages] == [f"a, request {r} of 3" for r in (1, 2, 3)]
    costs = stages[1].costs([Cost("train before", 1.0), Cost("unlearn a, request 2 of 3", 1.0)])
    assert [cost.step for cost in costs] == ["train before, request 2 of 3", "unlearn a, request 2 of 3"]


@pytest.mark.slow
def test_the_power_stated_is_the_least_over_the_requests() -> None:
    larger = plan(
        subjects=("noop",),
        models=("models = 12", "models = 18"),
        audited=("audited = 240", "audited = 500"),
        counts=("[3, 6, 3]", "[8, 6, 4]"),
        runs=("power_runs = 20", "power_runs = 10"),
    )
    prepared = PreparedAudit(larger)
    attack, fold, policy = prepared.attacks[0], prepared.design.fold, prepared.policy
    roles = [prepared.requests.step(r).roles_of(prepared.design.audited) for r in (1, 2, 3)]
    alone = [whole_rule_power(attack, role, fold, policy, alphas=[0.1])[0].passed for role in roles]
    assert min(alone) < max(alone)
    assert [power.passed for power in prepared.powers] == [min(alone)]
    last, few = roles[2], roles[2][:, :12]
    assert least_power([(attack, last)], fold, policy, alphas=[0.05, 0.1]) == whole_rule_power(
        attack, last, fold, policy, alphas=[0.05, 0.1]
    )
    # One audit that a rate does not suffice for is enough for the next rate to be tried.
    both = least_power([(attack, last), (attack, few)], fold, policy, alphas=[0.05, 0.1])
    assert [(power.alpha, power.suffices(policy)) for power in both] == [(0.05, False), (0.1, False)]


@pytest.mark.slow
def test_plan_check_counts_the_fleets_of_every_request_and_orders_are_written_for_them(tmp_path: Path) -> None:
    text = check_plan(plan(), store=tmp_path / "store")
    assert "10 fleets of 12 models: 120" in text  # before, and retrained A, B and C for each of three requests
    assert "3 requests one after another" in text
    assert "in model 0 after the first request" in text
    single = check_plan(plan(requests=1), store=tmp_path / "store")
    assert "4 fleets of 12 models: 48" in single
    assert "requests" not in single.replace("plan        requests", "")
    report = export_orders(plan(), tmp_path / "orders", store=tmp_path / "store")
    assert len(report.orders) == len(set(report.orders)) == 120
    assert len(list((tmp_path / "orders").glob("retrained-a-*.json"))) == 3 * MODELS


def test_a_plan_of_one_request_keeps_its_digest() -> None:
    base = plan(requests=1)
    unnamed = replace(base, design=replace(base.design))
    assert "requests" not in base.as_dict()["design"]
    assert base.digest == unnamed.digest != plan(requests=2).digest
    assert plan(requests=2).as_dict()["design"]["requests"] == 2


def test_requests_that_cannot_be_had_are_refused_before_any_work() -> None:
    with pytest.raises(InvalidInput, match=r"requests=7: an audited record is forgotten in 6 of 12 models.*1\.\.6"):
        PreparedAudit(plan(requests=7))
    with pytest.raises(InvalidInput, match="requests"):
        plan(requests=0)
    few = plan(subjects=("noop",), audited=("audited = 240", "audited = 40"))
    with pytest.raises(InvalidInput, match=r"leaves 6 forgotten .* or ask for fewer than design\.requests=3"):
        PreparedAudit(few)
    with pytest.raises(InvalidInput, match=r"design\.requests=3: several requests are audited over a fleet"):
        parse_plan(PLAN.replace("{requests}", "3").replace("{subjects}", "") + '\n[league]\nmode = "one-model"\n')
    with pytest.raises(InvalidInput, match="2 models need a forget set each; given 1"):
        NextRequest(1, (None, None), (np.array([1]),))  # type: ignore[arg-type]


def scored(shift: dict[int, float], number: np.ndarray, role: np.ndarray, seed: int) -> FleetScores:
    """Scores in a world where records of a request stand out by so much."""
    noise = np.random.default_rng(seed).normal(size=number.shape)
    lift = np.vectorize(lambda r: shift.get(int(r), 0.0))(number)
    side = np.where(role == Role.FORGOTTEN, 1, np.where(role == Role.NEVER, 0, -1)).astype(np.int8)
    return FleetScores(noise + lift * (side == 1), side, np.repeat([0, 1], number.shape[0] // 2))


@pytest.mark.slow
def test_an_early_deletion_that_comes_back_is_seen_in_its_own_column() -> None:
    labels = load_dataset("digits").labels
    requests = deal_requests(random_design(labels, n_models=24, audited=400, seed=0), 2)
    ids = requests.design.audited
    number = requests.numbers_of(ids)
    roles = [requests.step(r).roles_of(ids) for r in (1, 2)]
    stayed = 0
    for world in range(20):
        seeds = range(5 * world, 5 * world + 5)
        null = [scored({}, number, role, seed) for role, seed in zip(roles, seeds[:2], strict=True)]
        rates = SuccessiveRates(number, 0.05, 0.95)
        then = rates.rates(scored({1: 0.2}, number, roles[0], seeds[2]), null[0], 1)
        assert then["first_change"].value is None
        assert then["tpr"] == then["newest"] == then["first"]
        back = rates.rates(scored({1: 2.0, 2: 0.2}, number, roles[1], seeds[3]), null[1], 2)
        assert back["first_change"].low > 0.3
        assert back["first"].low > back["tpr"].high > back["newest"].high
        still = rates.rates(scored({1: 0.2, 2: 1.0}, number, roles[1], seeds[4]), null[1], 2)["first_change"]
        stayed += still.low <= 0 <= still.high
    assert stayed >= 16  # at a level of 95 %, 19 of 20 are expected
    none = SuccessiveRates(number, None, 0.95).rates(null[0], null[0], 1)
    assert {estimate.reason for estimate in none.values()} == {"the counts bear no rate"}
    unseen = SuccessiveRates(number, 0.05, 0.95).rates(null[1], null[1], 2)
    assert "not scored" in unseen["first_change"].reason


@pytest.mark.slow
def test_a_league_ranks_after_each_request_by_itself(runs: Any) -> None:
    store, (_, three, _) = runs
    table = run_league(replace(plan(), league=LeaguePlan(forget=("random",), seeds=(0,))), store=store)
    sets = [f"random, request {r} of 3" for r in (1, 2, 3)]
    assert [(row.forget, row.subject) for row in table.rows] == sorted(
        ((row.forget, row.subject) for row in table.rows), key=lambda pair: sets.index(pair[0])
    )
    assert {(row.forget, row.subject) for row in table.rows} == {(name, one) for name in sets for one in THREE}
    found = {(row.request, row.subject): row.tpr for row in three.requests}
    for row in table.rows:
        assert row.tpr.value == pytest.approx(found[sets.index(row.forget) + 1, row.subject].value)
        assert row.rank is None if row.subject == "retrain" else row.rank[1] <= 2
