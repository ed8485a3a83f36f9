"""The game of unlearning: its losses by their formulas, its regulariser by a plain twin, and what it forgets."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import RUNTIME, N, mlp_subject, network_subject
from toy_models import request as deletion
from twins import accuracy, state, unlearn

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.records.design import Role, random_design
from mnemoscope.audit.statistics.counts import auc
from mnemoscope.audit.work.plan import parse_plan
from mnemoscope.one_model_round import round_records
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.adversarial import Adversarial, defender_objective
from mnemoscope.unlearning.adversarial_attacker import Attacker
from mnemoscope.unlearning.barlow_twins import barlow_twins, cross_correlation
from mnemoscope.unlearning.base import Batch, Deletion
from mnemoscope.unlearning.game import meetings
from mnemoscope.unlearning.masks import prunable
from mnemoscope.unlearning.network_parts import feature_layer, given_to


def tensor(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def start(request=None, *, subject=None, seed=0):
    """A deletion and a copy of the model to work on, as a method makes them."""
    s = mlp_subject() if subject is None else subject
    original = copy.deepcopy(s.model).eval().requires_grad_(False)
    request = s.request if request is None else request
    rng = np.random.default_rng(seed)
    return copy.deepcopy(s.model).train(), Deletion("adversarial", original, request, s.recipe, s.data, RUNTIME, rng)


def loss(model, ids):
    s, ids = mlp_subject(), np.asarray(ids)
    logits = torch.from_numpy(infer_logits(model, s.data, ids, runtime=RUNTIME)[:, 0])
    return nn.functional.cross_entropy(logits, s.data.y[s.data.positions(ids)], reduction="none").numpy()


def test_the_regulariser_is_its_formula():
    first, second = tensor(7, 4, seed=1).numpy(), tensor(7, 4, seed=2).numpy()
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    total = 0.0
    for i in range(4):
        for j in range(4):
            c = sum(a[r, i] * b[r, j] for r in range(7)) / math.sqrt(sum(a[:, i] ** 2) * sum(b[:, j] ** 2))
            total += (1 - c) ** 2 if i == j else 5e-3 * c**2
            assert cross_correlation(torch.from_numpy(first), torch.from_numpy(second))[i, j] == pytest.approx(c)
    assert float(barlow_twins(torch.from_numpy(first), torch.from_numpy(second))) == pytest.approx(total)
    # No scale and no shift of a feature changes it.
    moved = torch.from_numpy(first * np.array([2.0, 0.1, 30.0, 1.0]) + 5.0)
    assert float(barlow_twins(moved, torch.from_numpy(second))) == pytest.approx(total)


def test_the_regulariser_is_least_for_equal_uncorrelated_features_and_survives_constant_ones():
    q = torch.linalg.qr(tensor(9, 9) - 0)[0]
    z = torch.linalg.qr(q[:, :3] - q[:, :3].mean(dim=0))[0]
    assert float(barlow_twins(z, z)) == pytest.approx(0.0, abs=1e-12)
    first = tensor(6, 3, seed=3)
    first[:, 1] = 2.0
    first.requires_grad_()
    value = barlow_twins(first, tensor(6, 3, seed=4))
    value.backward()
    assert bool(first.grad.isfinite().all())
    assert bool((first.grad[:, 1] == 0).all())
    assert bool((first.grad[:, 0] != 0).any())


def test_the_regulariser_has_the_slope_of_its_values():
    first, second = tensor(5, 3, seed=5).requires_grad_(), tensor(5, 3, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(barlow_twins, (first, second))


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((1, 3), (1, 3)), ((4, 3, 2), (4, 3, 2))])
def test_batches_that_cannot_be_correlated_are_refused(shapes):
    with pytest.raises(InvalidInput, match="one shape"):
        cross_correlation(torch.ones(shapes[0]), torch.ones(shapes[1]))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "batchnorm", "plain", "vit"])
def test_features_are_what_the_last_linear_layer_is_given(network):
    s = mlp_subject() if network == "mlp" else network_subject(network)
    x = s.data.inputs(s.data.positions(np.arange(5)))
    layer = feature_layer(s.model.eval(), x)
    with given_to(layer) as seen, torch.no_grad():
        logits = s.model(x)
    assert len(seen) == 1
    assert torch.equal(layer(seen[0]), logits)


def test_a_network_without_a_linear_layer_has_no_features():
    with seeded(0):
        module = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(UnsupportedModel, match="no linear layer"):
        feature_layer(module, torch.ones(1, 1, 8, 8))


def test_the_defenders_slopes_are_the_formulas():
    odds = torch.tensor([-30.0, -2.0, 0.0, 1.5, 30.0], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([-1.0, 0.5], dtype=torch.float64, requires_grad=True)
    a = torch.sigmoid(odds.detach())
    (slope,) = torch.autograd.grad(defender_objective(odds, None, "non_saturating"), odds)
    assert torch.allclose(slope, a / 5)
    assert slope[-1] == pytest.approx(0.2)
    slopes = torch.autograd.grad(defender_objective(odds, other, "saturating"), (odds, other))
    assert torch.allclose(slopes[0], (1 - a) / 5)
    assert torch.allclose(slopes[1], -torch.sigmoid(other.detach()) / 2)
    assert slopes[0][-1] < 1e-12  # where the attacker is sure, the saturating loss does not move the model
    value = defender_objective(odds, other, "saturating").detach()
    expected = torch.log(torch.sigmoid(odds)).mean() + torch.log(1 - torch.sigmoid(other)).mean()
    assert float(value) == pytest.approx(float(expected.detach()))


def attacker_of(work, run, **settings):
    with seeded(0):
        return Attacker.fresh(work, run, lr=1e-3, **settings)


def batch_of(ids, dtype=torch.float32):
    s = mlp_subject()
    at = s.data.positions(np.asarray(ids))
    return Batch(s.data.inputs(at).to(dtype), s.data.y[at], at)


def test_the_sensitivity_carries_gradients_to_the_weights():
    work, run = start()
    attacker = attacker_of(work, run, scale=0.05, draws=3)
    work.double()
    batch = batch_of(range(4), torch.float64)
    weight = work[1].weight

    def answer(which):
        attacker.noise.manual_seed(5)
        features = attacker.features(work, batch)
        return features[:, which * 10 : which * 10 + 10].square().sum()

    for which in (0, 1):
        (slope,) = torch.autograd.grad(answer(which), weight)
        place = divmod(int(slope.abs().argmax()), slope.shape[1])
        step = 1e-3
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                values.append(float(answer(which)))
                weight[place] -= sign * step
        assert slope[place] != 0
        assert float(slope[place]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2)


def test_a_records_score_depends_on_no_other_record_and_asking_changes_nothing():
    s = network_subject("batchnorm")
    work, run = start(subject=s)
    before = state(work)
    attacker = attacker_of(work, run, draws=0)
    scores = attacker.scores(work, run, np.arange(20))
    assert np.allclose(attacker.scores(work, run, np.arange(5)), scores[:5], atol=1e-5)
    attacker.learn(work, *next(meetings(run)))
    assert state(work) == before
    assert work.training


def test_forget_and_validation_batches_have_one_size_and_meet_every_record():
    _, run = start(deletion(range(50), validation=range(N, N + 23)))
    seen = ([], [])
    for _, pair in zip(range(30), meetings(run), strict=False):
        assert pair[0].y.numel() == pair[1].y.numel() > 1
        for ids, batch in zip(seen, pair, strict=True):
            ids.extend(run.data.ids[batch.positions.numpy()])
    assert set(seen[0]) == set(range(50))
    assert set(seen[1]) == set(range(N, N + 23))


def test_a_forgotten_class_meets_records_of_other_classes():
    request = mlp_subject().others["class"][0]
    _, run = start(request)
    labels = {int(y) for _, (_, other) in zip(range(10), meetings(run), strict=False) for y in other.y}
    assert labels == set(range(10)) - {3}
    own = run.data.ids[(run.data.y == 3).numpy()]
    _, run = start(deletion(request.forget, kind="class", validation=own[own >= N][:4]))
    assert {int(y) for y in next(meetings(run))[1].y} == {3}  # better those than none


GAME = {"epochs": 6, "lr": 0.05, "pretrain": 60, "attacker_lr": 1e-3, "draws": 2, "twins": 0.0}
FORGET, UNSEEN = np.arange(60), np.arange(N + 60, 600)


@functools.cache
def played(**settings):
    """The game on the MLP that knows its records by heart: the attackers' AUCs, and the model.

    One attacker learns for as many steps as the other, but against the model as it was given.
    """
    method = Adversarial(**{**GAME, **settings}).resolved("records")
    work, run = start()
    with RUNTIME.scope(), seeded(3):
        alone = Attacker.fresh(work, run, lr=method.attacker_lr, draws=method.draws)
        pairs = meetings(run)
        for _ in range(method.pretrain + 6 * method.epochs):  # six batches of retained records an epoch
            alone.learn(work, *next(pairs))
        known = attacker_auc(alone, work, run)
        after = method.play(work, run)
    return known, attacker_auc(after, work, run), work.eval()


def attacker_auc(attacker, model, run):
    return auc(*(attacker.scores(model, run, ids) for ids in (run.request.forget, run.request.validation)))


def unseen_auc(model):
    """Forget records against records that took no part in anything."""
    return auc(-loss(model, FORGET), -loss(model, UNSEEN))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["non_saturating", "saturating"])
def test_the_attacker_that_learns_against_a_still_model_is_at_a_loss_in_the_game(objective):
    s = mlp_subject()
    known, after, work = played(objective=objective)
    assert known > 0.65
    assert abs(after - 0.5) < abs(known - 0.5) - 0.1
    assert accuracy(work, s.request.retain) > 0.95
    assert unseen_auc(s.model) > 0.7
    assert unseen_auc(work) < unseen_auc(s.model) - 0.05


@pytest.mark.slow
def test_without_the_attacker_nothing_is_forgotten():
    s = mlp_subject()
    _, _, work = played(weight=0.0)
    assert unseen_auc(work) > unseen_auc(s.model) - 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "label"), [({"twins": 0.0}, 0), ({"projector": 16}, 1), pytest.param({}, 1, marks=pytest.mark.slow)]
)
def test_a_class_is_forgotten_and_the_others_are_kept(settings, label):
    s = mlp_subject()
    request = s.others["class"][label]
    result = unlearn(Adversarial(**settings), request)
    assert accuracy(s.model, request.forget) == 1.0
    assert accuracy(result, request.forget) < 0.1
    assert accuracy(result, request.retain) > 0.9


def test_the_game_forgets_the_class_not_the_retained_steps():
    s = mlp_subject()
    request = s.others["class"][0]
    result = unlearn(Adversarial(weight=0.0, twins=0.0), request)
    assert accuracy(result, request.forget) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("label", [0, 1])
def test_blurred_an_attacker_that_is_sure_of_a_class_still_points_out_of_it(label):
    work, run = start(mlp_subject().others["class"][label])
    attacker = attacker_of(work, run, draws=0, labels=False, blur=1.0)
    pairs = meetings(run)
    for _ in range(130):
        attacker.learn(work, *next(pairs))
    forget, _ = next(pairs)
    work[3].bias.requires_grad_(False)  # a shift of each record's own logits takes its place
    moved = torch.zeros(forget.y.numel(), 10, requires_grad=True)
    handle = work.register_forward_hook(lambda module, args, logits: logits + moved)
    odds = attacker.log_odds(work, forget)
    handle.remove()
    (slope,) = torch.autograd.grad(odds.sum(), moved)
    assert float(odds.detach().min()) > 2.0  # sure of each
    assert float((slope.gather(1, forget.y[:, None]) > 0).float().mean()) > 0.9


def test_an_attacker_that_is_not_told_labels_reads_none():
    work, run = start()
    told, untold = (attacker_of(work, run, draws=0, labels=labels) for labels in (True, False))
    batch = batch_of(range(6))
    lied = Batch(batch.x, (batch.y + 1) % 10, batch.positions)
    assert torch.equal(untold.features(work, batch), untold.features(work, lied))
    assert not torch.equal(told.features(work, batch), told.features(work, lied))
    assert not untold.features(work, batch)[:, 20:].any()


def test_settings_left_out_depend_on_the_request_and_given_ones_do_not():
    plain, given = Adversarial(), Adversarial(weight=2.0, weight_steps=7, draws=3, labels=True, blur=0.5, clip=4.0)
    a_class, records = plain.resolved("class"), plain.resolved("records")
    assert (a_class.weight, a_class.weight_steps, a_class.draws, a_class.labels) == (10.0, 30, 0, False)
    assert (a_class.blur, a_class.clip) == (1.0, 1.0)
    assert (records.weight, records.weight_steps, records.draws, records.labels) == (1.0, None, 10, True)
    assert (records.blur, records.clip) == (0.0, 0.0)
    assert given.resolved("class") == given.resolved("records") == given


def steps_against(monkeypatch, method, request):
    """In how many steps the attacker's answer enters the model's loss, and of how many."""
    count = {"against": 0, "all": 0}
    against, retained = Adversarial._against, Deletion.loss

    def watched(self, *args):
        count["against"] += 1
        return against(self, *args)

    def counted(*args):
        count["all"] += 1
        return retained(*args)

    monkeypatch.setattr(Adversarial, "_against", watched)
    monkeypatch.setattr(Deletion, "loss", counted)
    unlearn(method, request)
    return count["against"], count["all"]


@pytest.mark.slow
def test_the_attackers_weight_is_off_after_thirty_iterations_for_a_class_alone(monkeypatch):
    cheap = {**GAME, "epochs": 5, "draws": 0, "pretrain": 0}  # seven batches of retained records an epoch
    request = mlp_subject().others["class"][0]
    assert steps_against(monkeypatch, Adversarial(**cheap), request) == (30, 35)
    assert steps_against(monkeypatch, Adversarial(**cheap, weight_steps=4), request) == (4, 35)
    assert steps_against(monkeypatch, Adversarial(**{**cheap, "epochs": 6}), mlp_subject().request) == (36, 36)


def terms_of(**settings):
    from mnemoscope.unlearning.adversarial import _Terms

    work, run = start()
    optimizer = torch.optim.SGD(work.parameters(), lr=0.1)
    return work, run, optimizer, _Terms(Adversarial(**{**GAME, **settings}), work, run, optimizer)


def test_the_optional_terms_are_their_formulas():
    pair = batch_of(range(8)), batch_of(range(N, N + 8))
    work, _, _, terms = terms_of(ascent=2.0)
    own = nn.functional.cross_entropy(work(pair[0].x), pair[0].y)
    assert float(terms(*pair).detach()) == pytest.approx(2.0 * (math.log(10) - float(own.detach())))
    work, _, _, terms = terms_of(ascent=2.0)
    with torch.no_grad():
        work[3].bias += 100 * torch.nn.functional.one_hot(torch.tensor(9), 10)
    assert float(terms(*pair).detach()) == 0.0  # a guess costs no more: the ascent ends

    work, run, _, terms = terms_of(fisher=3.0)
    information = {name: torch.zeros_like(weight) for name, weight in work.named_parameters()}
    x, y = run.data.inputs(run.data.positions(run.request.retain)), run.labels(run.request.retain)
    for record, label in zip(x, y, strict=True):
        value = nn.functional.cross_entropy(work(record[None]), torch.tensor([label]))
        for name, slope in zip(information, torch.autograd.grad(value, list(work.parameters())), strict=True):
            information[name] += slope.square() / len(y)
    expected = 0.0
    with torch.no_grad():
        for name, weight in work.named_parameters():
            weight += 0.1
            expected += 1.5 * 0.01 * float(information[name].sum())
    assert float(terms(*pair).detach()) == pytest.approx(expected, rel=1e-3)

    work, run, optimizer, terms = terms_of(twins=0.5, projector=6)
    assert len(optimizer.param_groups) == 2
    features = [work[:3](batch.x) for batch in pair]
    value = barlow_twins(*(terms.projector(z) for z in features))
    assert float(terms(*pair).detach()) == pytest.approx(0.5 * float(value.detach()), rel=1e-5)


@pytest.mark.slow
def test_batches_of_the_game_leave_the_statistics_of_normalisation_alone():
    s = network_subject("batchnorm")
    method = Adversarial(**{**GAME, "epochs": 1, "twins": 1e-2, "ascent": 0.1, "fisher": 1.0, "pretrain": 3})
    plain, rich = (unlearn(m, subject=s) for m in (Adversarial(**{**GAME, "epochs": 1, "weight": 0.0}), method))
    tracked = {name: value for name, value in rich.state_dict().items() if name.endswith("num_batches_tracked")}
    assert tracked
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in tracked.items())


@pytest.mark.slow
def test_pruned_weights_stay_zero_through_the_game():
    s = mlp_subject()
    result = unlearn(Adversarial(**{**GAME, "epochs": 2, "twins": 1e-2}, sparsity=0.8, recovery=10))
    gone = sum(int((weight == 0).sum()) for weight in prunable(result).values())
    assert gone == round(0.8 * 4736)
    assert accuracy(result, s.request.retain) > 0.9


CHEAP = {**GAME, "epochs": 1, "pretrain": 3, "draws": 1}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["magnitude", "layerwise", "random", "synflow", "iterative"])
def test_every_way_of_pruning_leaves_the_share_that_was_asked_for(strategy):
    result = unlearn(Adversarial(**CHEAP, pruning=strategy, sparsity=0.5, recovery=1))
    gone = sum(int((weight == 0).sum()) for weight in prunable(result).values())
    assert gone == pytest.approx(0.5 * 4736, abs=2)


@pytest.mark.slow
def test_a_model_that_is_sparse_already_stays_so():
    s = mlp_subject()
    sparse = copy.deepcopy(s.model)
    with torch.no_grad():
        sparse[1].weight[::2] = 0.0
    method = Adversarial(**CHEAP, pruning="zeros")
    result = method.unlearn(
        sparse, s.request, recipe=s.recipe, data=s.data, runtime=RUNTIME, rng=np.random.default_rng(0)
    )
    assert not result[1].weight[::2].any()
    assert not torch.equal(result[1].weight, sparse[1].weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"sensitivity": "log"},
        {"scale": 0.1},
        {"draws": 0},
        {"attacker_steps": 3},
        {"attacker_lr": 1e-2},
        {"weight": 5.0},
        {"labels": False},
        {"blur": 1.0},
        {"clip": 0.1},
        {"lr": 0.01},
        {"twins": 0.1},
        {"twins": 0.1, "off_diagonal": 1.0},
        {"ascent": 1.0},
        {"fisher": 100.0},
    ],
)
def test_every_setting_reaches_the_model(settings):
    without = {name: value for name, value in settings.items() if name == "twins" and len(settings) > 1}
    assert state(unlearn(Adversarial(**{**CHEAP, **settings}))) != state(unlearn(Adversarial(**{**CHEAP, **without})))


@pytest.mark.slow
def test_a_single_forget_record_can_be_forgotten():
    request = deletion([7])
    result = unlearn(Adversarial(**{**GAME, "epochs": 1, "twins": 1e-2}), request)
    assert state(result) != state(mlp_subject().model)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "hinge"},
        {"sensitivity": "none"},
        {"epochs": -1},
        {"attacker_steps": 0},
        {"lr": 0.0},
        {"scale": 0.0},
        {"weight": -1.0},
        {"blur": -1.0},
        {"clip": math.inf},
        {"twins": math.inf},
        {"sparsity": 1.0},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["adversarial"](**settings)


def test_without_validation_records_it_is_refused_also_as_an_inner_method():
    lacking = deletion(range(60), validation=())
    for method in (METHODS["adversarial"](), METHODS["pruned"](method="adversarial")):
        with pytest.raises(MissingNeed, match="validation"):
            unlearn(method, lacking)


@pytest.mark.slow
def test_records_outside_of_the_request_are_not_read():
    s = mlp_subject()
    data = copy.copy(s.data)
    data.x = s.data.x.clone()
    data.x[N + 60 :] = math.nan
    method = Adversarial(**{**GAME, "epochs": 1, "pretrain": 3, "twins": 1e-2, "fisher": 1.0})
    again = method.unlearn(
        s.model, s.request, recipe=s.recipe, data=data, runtime=RUNTIME, rng=np.random.default_rng(0)
    )
    assert state(again) == state(unlearn(method))


PLAN = """
name = "Trained against an attacker"
[design]
models = 12
audited = 360
background = 240
population = 200
calibration = 60
test = 250
validation = 100
[[subjects]]
method = "adversarial"
[attacks]
run = ["loss", "samia"]
"""


def test_validation_records_that_it_trains_on_have_no_other_part_in_a_plan():
    plan = parse_plan(PLAN)
    dataset, d = plan.load_dataset(), plan.design
    design = random_design(
        dataset.labels,
        n_models=d.models,
        audited=d.audited,
        background=d.background,
        population=d.population,
        calibration=d.calibration,
        test=d.test,
        validation=d.validation,
        seed=plan.seed,
    )
    given = design.role == Role.VALIDATION
    assert given.any(axis=0).sum() == 100
    assert (given.all(axis=0) == given.any(axis=0)).all()  # in every model, so in none audited, held out or population
    for forget in ("random:120", "class:3"):
        records = round_records(plan, dataset, forget)
        others = (records.holdout, records.retain, records.population, records.test, records.request.forget)
        assert records.request.validation.size == 100
        assert not np.isin(records.request.validation, np.concatenate(others)).any()


def test_the_attack_that_it_trains_against_is_named():
    assert METHODS["adversarial"]().trains_against == ("samia",)
    assert set(Adversarial.trains_against) <= set(ATTACKS)
    for outer in ("pruned", "controlled"):
        assert METHODS[outer](method="adversarial").trains_against == ("samia",)
        assert METHODS[outer](method="finetune").trains_against == ()
