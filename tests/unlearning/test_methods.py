"""Unlearning methods: the contract, what each promises, and a contract that can fail."""

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from shuffled_digits import FORGET, RETAIN, UNSEEN, shuffled_subject
from shuffled_digits import unlearn as unlearn_shuffled
from toy_models import N, mlp_subject
from toy_models import request as deletion
from twins import mean_loss, state, unlearn

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.views import Reference, View
from mnemoscope.audit.errors import AuditError, InvalidInput
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.statistics.counts import auc
from mnemoscope.audit.testing import ContractViolation
from mnemoscope.audit.testing_methods import METHOD_CHECKS, MethodSubject
from mnemoscope.unlearning import DEFAULT_METHODS, METHODS


def found(model):
    """AUC of the loss attack on the forget records of the shuffled digits, against records that took part in nothing.

    Also the standard deviation that it would have, were both alike.
    """
    s, ids = shuffled_subject(), np.concatenate([FORGET, UNSEEN])
    labels = s.data.y[s.data.positions(ids)].numpy()
    logits = infer_logits(model, s.data, ids, runtime=s.runtime)
    nobody = Reference(ids, labels, np.empty((0, *logits.shape), logits.dtype), side=np.empty((0, ids.size), np.int8))
    scores = ATTACKS["loss"]().fit(nobody, rng=np.random.default_rng(0)).score(View(ids, labels, logits))
    m, n = FORGET.size, UNSEEN.size
    return auc(scores[:m], scores[m:]), ((m + n + 1) / (12 * m * n)) ** 0.5


def test_noop_is_the_model():
    assert state(unlearn(METHODS["noop"](), deletion(range(60)))) == state(mlp_subject().model)


@pytest.mark.slow
def test_noop_is_the_model_for_every_request_and_an_attack_finds_as_much_after_it_as_before():
    """The control that must be caught: the attack finds the forget records, which it does not where it retrained."""
    s = mlp_subject()
    for request in (s.request, *s.others["class"], *s.others["features"], *s.others["labels"]):
        model = unlearn(METHODS["noop"](), request)
        assert model is not s.model
        assert state(model) == state(s.model)
    given, (after, deviation) = shuffled_subject().model, found(unlearn_shuffled(METHODS["noop"]()))
    assert after == found(given)[0]
    assert after > 0.5 + 4 * deviation
    assert found(unlearn_shuffled(METHODS["retrain"]()))[0] < 0.5 + 2 * deviation


def test_retraining_reads_nothing_of_the_model_and_nothing_of_the_forget_records():
    s, request = mlp_subject(), deletion(range(60))
    plain = unlearn(METHODS["retrain"](), request)
    spoilt = copy.deepcopy(s.model)
    for parameter in spoilt.parameters():
        parameter.data.fill_(7.0)
    data = copy.copy(s.data)
    data.x = s.data.x.clone()
    data.x[:60] = 0.0
    again = METHODS["retrain"]().unlearn(
        spoilt, request, recipe=s.recipe, data=data, runtime=s.runtime, rng=np.random.default_rng(0)
    )
    assert state(again) == state(plain)
    assert state(unlearn(METHODS["retrain"](), request, seed=1)) != state(plain)


@pytest.mark.slow
def test_retraining_is_training_without_the_records_and_leaves_an_attack_nothing():
    """The other model is trained where the records to forget are nowhere to be found, with the seed that is drawn."""
    s, retained = shuffled_subject(), copy.copy(shuffled_subject().data)
    keep = np.setdiff1d(s.data.ids, FORGET)
    rows = s.data.positions(keep)
    retained.ids, retained.x, retained.y = keep, s.data.x[rows], s.data.y[rows]
    with pytest.raises(InvalidInput):
        retained.positions(FORGET)
    for seed in range(3):
        # The first draw is for the global generators, whatever the method.
        drawn = int(np.random.default_rng(seed).integers(2**63, size=2)[1])
        never = train_model(s.recipe, retained, RETAIN, seed=drawn, runtime=s.runtime).module
        model = unlearn_shuffled(METHODS["retrain"](), seed=seed)
        assert state(model) == state(never)
        left, deviation = found(model)
        assert abs(left - 0.5) < 2 * deviation
    # Whatever stands in the place of the forget records, labels included:
    data, rows = copy.copy(s.data), s.data.positions(FORGET)
    data.x, data.y = s.data.x.clone(), s.data.y.clone()
    data.x[rows], data.y[rows] = 1 - data.x[rows], (data.y[rows] + 1) % 10
    again = METHODS["retrain"]().unlearn(
        s.model, s.request, recipe=s.recipe, data=data, runtime=s.runtime, rng=np.random.default_rng(seed)
    )
    assert state(again) == state(model)


def test_finetuning_reads_no_forget_record():
    s, request = mlp_subject(), deletion(range(60))
    data = copy.copy(s.data)
    data.x = s.data.x.clone()
    data.x[:60] = 0.0
    again = METHODS["finetune"]().unlearn(
        s.model, request, recipe=s.recipe, data=data, runtime=s.runtime, rng=np.random.default_rng(0)
    )
    assert state(again) == state(unlearn(METHODS["finetune"](), request))


def test_ascent_reads_no_retained_record():
    s, request = mlp_subject(), deletion(range(60))
    data = copy.copy(s.data)
    data.x = s.data.x.clone()
    data.x[60:N] = 0.0
    again = METHODS["gradient_ascent"]().unlearn(
        s.model, request, recipe=s.recipe, data=data, runtime=s.runtime, rng=np.random.default_rng(0)
    )
    assert state(again) == state(unlearn(METHODS["gradient_ascent"](), request))


def test_ascent_stops_near_what_unseen_records_look_like():
    unseen = np.arange(N, 600)
    request = deletion(range(60), validation=unseen)
    s = mlp_subject()
    target = mean_loss(s.model, request.validation)
    before = mean_loss(s.model, request.forget)
    after = mean_loss(unlearn(METHODS["gradient_ascent"](epochs=40), request), request.forget)
    assert before < target / 3
    assert abs(after - target) <= 0.1 * target


def test_ascent_on_a_class_stops_at_the_cost_of_a_guess_and_a_wild_rate_cannot_run_away():
    labels = mlp_subject().data.y[:N].numpy()
    request = deletion(np.flatnonzero(labels == 3), kind="class")
    guess = np.log(10)
    calm = mean_loss(unlearn(METHODS["gradient_ascent"](epochs=40), request), request.forget)
    assert abs(calm - guess) <= 0.1 * guess
    wild = METHODS["gradient_ascent"](epochs=40, lr=50.0)
    model = unlearn(wild, request)
    assert mean_loss(model, request.forget) <= 1.1 * guess
    # The plain, unbounded objective on the same records:
    from mnemoscope.audit.models.training import fit

    s, plain = mlp_subject(), copy.deepcopy(mlp_subject().model)
    with pytest.raises(AuditError, match="diverged"):
        fit(plain, s.recipe, s.data, request.forget, seed=0, runtime=s.runtime, loss_sign=-1.0, epochs=60, lr=0.5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("finetune", {"epochs": -1}), ("finetune", {"lr": 0.0}), ("gradient_ascent", {"stop_loss": 0.0})],
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("finetune", {"epochs": 1}),
        ("gradient_ascent", {"epochs": 2}),
        ("l1_sparse", {"epochs": 1}),
        ("cf_k", {"epochs": 1}),
        ("neggrad_plus", {"epochs": 1}),
        ("random_labels", {"epochs": 1}),
        ("amun", {"epochs": 1, "steps": 5, "radius": 0.4}),
        ("pseudo_probability_reading", {"epochs": 1}),
        ("top_k_perturbation_reading", {"repair": 1}),
        ("silver_linings_reading", {"epochs": 1, "fit_steps": 2}),
    ],
)
def test_the_learning_rate_is_a_tenth_of_the_recipes_where_none_is_given(name, settings):
    request, tenth = deletion(range(60)), mlp_subject().recipe.lr / 10
    left_out = state(unlearn(METHODS[name](**settings), request))
    assert left_out == state(unlearn(METHODS[name](**settings, lr=tenth), request))
    assert left_out != state(unlearn(METHODS[name](**settings, lr=2 * tenth), request))


def test_default_set_holds_both_controls():
    assert set(DEFAULT_METHODS) <= set(METHODS)
    assert {"noop", "retrain"} <= set(DEFAULT_METHODS)
    assert {name for name in METHODS if METHODS[name]().exact} == {"retrain", "sisa"}


@dataclass(frozen=True)
class Broken:
    """Methods with one fault each, to show that the contract can fail."""

    fault: str = "in place"
    name = "broken"
    needs = METHODS["finetune"]().needs
    exact = False

    def unlearn(self, model, request, *, recipe, data, runtime, rng):
        import torch

        work = model if self.fault == "in place" else copy.deepcopy(model)
        with torch.no_grad():
            for parameter in work.parameters():
                step = float(request.forget.sum()) * 1e-6
                if self.fault == "global random state":
                    step += 1e-3 * float(torch.rand(()))
                if self.fault == "nothing":
                    step = 0.0
                parameter += step
        if self.fault == "mode":
            work.train(not model.training)
        return work


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("in place", "method_leaves_the_original"),
        ("global random state", "method_repeats_itself"),
        ("nothing", "method_works"),
        ("nothing", "method_reads_the_request"),
        ("mode", "method_keeps_form"),
    ],
)
def test_the_contract_catches_a_faulty_method(fault, check):
    s = mlp_subject()
    own = MethodSubject(copy.deepcopy(s.model), s.request, s.other_request, s.recipe, s.data, s.runtime)
    function = {c.__name__: c for c in METHOD_CHECKS}[check]
    function(Broken("none"), own)
    with pytest.raises(ContractViolation):
        function(Broken(fault), own)


@pytest.mark.parametrize("name", METHODS)
def test_every_value_that_tuning_tries_is_a_setting_that_the_method_takes(name):
    method, recipe = METHODS[name], mlp_subject().recipe
    grid = method().grid(recipe)
    fields = {field.name for field in dataclasses.fields(method())}
    assert set(grid) <= fields
    assert ("lr" in grid) == ("lr" in fields)
    for setting, values in grid.items():
        assert len(set(values)) == len(values) > 1
        for value in values:
            assert getattr(method(**{setting: value}), setting) == value
