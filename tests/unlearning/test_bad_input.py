"""Bad input, to every registered method: refused in a sentence that says what to do, or served without harm."""

import copy
import dataclasses
import functools
import re
from types import SimpleNamespace

import contract_settings
import numpy as np
import pytest
import torch
from toy_models import RUNTIME, N, digits, mlp_subject
from toy_models import request as deletion

from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.history import History
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.testing_methods import kinds_of
from mnemoscope.unlearning import METHODS

NOTHING = np.empty(0, np.int64)
STRANGER = 10**6


SETTINGS = {**contract_settings.SETTINGS, "sisa": {"shards": 2, "slices": 2}}


def method_of(name):
    return METHODS[name](**SETTINGS.get(name, {}))


@functools.cache
def sharded():
    s = mlp_subject()
    recipe = dataclasses.replace(s.recipe, epochs=4)
    model = method_of("sisa").train(recipe, s.data, np.arange(N), seed=1, runtime=RUNTIME).module
    return dataclasses.replace(s, model=model, recipe=recipe)


def subject_of(name):
    return sharded() if name == "sisa" else mlp_subject()


def unlearn(name, *, request=None, model=None, data=None, history=None):
    s, method = subject_of(name), method_of(name)
    request = s.requests(method)[0] if request is None else request
    if Need.HISTORY in method.needs and history is None:
        history = History(np.arange(N), s.seed)
    more = {} if history is None else {"history": history}
    return method.unlearn(
        s.model if model is None else model,
        request,
        recipe=s.recipe,
        data=s.data if data is None else data,
        runtime=RUNTIME,
        rng=np.random.default_rng(0),
        **more,
    )


def request_of(name, **changes):
    return dataclasses.replace(subject_of(name).requests(method_of(name))[0], **changes)


def changed(name, change):
    """A copy of the method's subject that was changed in place."""
    model = copy.deepcopy(subject_of(name).model)
    with torch.no_grad():
        change(model)
    return model


def refused(error, *words):
    """An error of a kind whose message has these words, in any order."""
    return pytest.raises(error, match="".join(f"(?=.*{re.escape(word)})" for word in words))


def outcome(error, name, **given):
    """The unlearned model, or what the refusal says."""
    try:
        return unlearn(name, **given), ""
    except error as refusal:
        return None, str(refusal)


def weights(model):
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def same(model, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


# Requests that cannot be made, whatever the method


def test_an_empty_forget_set_is_refused():
    with refused(InvalidInput, "forget set is empty", "at least one record"):
        Request("records", NOTHING, np.arange(4), NOTHING)


def test_forgetting_all_that_was_trained_on_is_refused():
    with refused(InvalidInput, "whole training set (5 records)", "untrained model"):
        Request("records", np.arange(5), NOTHING, NOTHING, trained=np.arange(5))


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_records_that_were_never_trained_on_are_refused(part):
    sets = {"forget": np.arange(3), "retain": np.arange(3, 9)}
    sets[part] = np.append(sets[part], STRANGER)
    with refused(InvalidInput, f"{part} records were never in this model's training", str(STRANGER), "leave them out"):
        Request("records", sets["forget"], sets["retain"], NOTHING, trained=np.arange(9))


@pytest.mark.parametrize("ids", [np.array([1.0, 2.0]), np.array([[1, 2]]), [1, 2], np.array([1, 1])])
def test_ids_that_are_none_are_refused(ids):
    with refused(InvalidInput, "forget must be"):
        Request("records", ids, np.arange(3, 9), NOTHING)


def test_right_labels_are_whole_numbers_one_for_each_record():
    for labels in (np.array([1.0, 2.0]), np.array([1])):
        with refused(InvalidInput, "labels"):
            Request("labels", np.arange(2), np.arange(3, 9), NOTHING, labels=labels)


def test_a_right_label_that_is_no_class_is_refused_by_all_that_correct_labels():
    wrong = request_of("finetune", kind="labels", labels=np.full(60, 10))
    served = [name for name in METHODS if "labels" in kinds_of(method_of(name)) and name != "noop"]
    assert {"retrain", "finetune", "sisa"} <= set(served)
    for name in served:
        with refused(InvalidInput, "labels 10 to 10", "0 to 9"):
            unlearn(name, request=wrong)


@pytest.mark.parametrize("labels", [np.linspace(0, 9, 600), np.array(["cat"] * 600)], ids=["floats", "text"])
def test_labels_of_the_data_are_whole_numbers(labels):
    values = np.zeros((600, 4), np.float32)
    given = SimpleNamespace(
        name="toy", kind="table", ids=np.arange(600), labels=labels, classes=("0",), values=values, source_values=values
    )
    with refused(InvalidInput, "'toy'", str(labels.dtype), "int64"):
        DeviceData(given)


# Every method


@pytest.mark.parametrize("name", METHODS)
def test_labels_as_floats_are_refused(name):
    data = copy.copy(digits())
    data.y = data.y.to(torch.float32)
    with refused(InvalidInput, name, "torch.float32", "whole numbers"):
        unlearn(name, data=data)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_and_is_not_given_is_named(name):
    method = method_of(name)
    for need, field in ((Need.RETAIN_DATA, "retain"), (Need.VALIDATION_DATA, "validation")):
        if need in method.needs:
            with refused(MissingNeed, name, f"({field})", "another method") as caught:
                unlearn(name, request=request_of(name, **{field: NOTHING}))
            assert type(caught.value) is MissingNeed
    if Need.HISTORY in method.needs:
        s = subject_of(name)
        with refused(MissingNeed, name, "the model's training"):
            method.unlearn(
                s.model, s.request, recipe=s.recipe, data=s.data, runtime=RUNTIME, rng=np.random.default_rng(0)
            )


@pytest.mark.parametrize("name", [name for name in METHODS if Need.RETAIN_DATA not in method_of(name).needs])
def test_without_retained_records_a_method_that_needs_none_works_or_says_what_it_lacks(name):
    """Also what a request for everything looks like where nobody recorded what was trained on."""
    everything = {"retain": NOTHING}
    if "records" in kinds_of(method_of(name)):
        everything["forget"] = np.arange(N)
    result, refusal = outcome(AuditError, name, request=request_of(name, **everything))
    if result is None:
        assert name in refusal
    else:
        assert weights(result).isfinite().all()
        assert same(result, subject_of(name).model) == (name == "noop")


@pytest.mark.parametrize("name", METHODS)
def test_a_kind_of_request_that_a_method_does_not_serve_is_refused(name):
    s, served = subject_of(name), kinds_of(method_of(name))
    known = {"records": s.request, **{kind: pair[0] for kind, pair in s.others.items()}}
    for kind in set(known) - set(served):
        words = ["serves requests of kind", repr(kind), *served]
        with refused(InvalidInput, name, *words, *(["class:NAME"] if kind == "records" else [])):
            unlearn(name, request=known[kind])


@pytest.mark.parametrize("name", [name for name in METHODS if "class" in kinds_of(method_of(name))])
def test_records_at_random_are_no_class_and_a_class_goes_as_a_whole(name):
    if name == "sisa":  # the set of its training is checked too, and needs the whole of it
        name = "retrain"
    with refused(InvalidInput, "forgets one class", "labels"):
        unlearn(name, request=deletion(range(60), kind="class"))
    whole = mlp_subject().others["class"][0]
    part, left = whole.forget[1:], np.append(whole.retain, whole.forget[0])
    with refused(InvalidInput, "whole class 3", "1 of its records", "kind 'records'"):
        unlearn(name, request=dataclasses.replace(whole, forget=part, retain=left))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_weights_of_another_precision_are_refused(name, kind):
    with refused(UnsupportedModel, name, str(kind), "model.float()"):
        unlearn(name, model=changed(name, lambda model: model.to(kind)))


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_not_finite_are_not_blamed_on_the_method(name):
    def spoil(model):
        next(iter(model.parameters())).view(-1)[0] = torch.nan

    with refused(UnsupportedModel, name, "given model", "not finite", "checkpoint"):
        unlearn(name, model=changed(name, spoil))


@pytest.mark.parametrize("name", METHODS)
def test_a_model_whose_layers_are_all_frozen_is_refused(name):
    with refused(UnsupportedModel, name, "every weight is frozen", "requires_grad_(True)"):
        unlearn(name, model=changed(name, lambda model: model.requires_grad_(False)))


@pytest.mark.parametrize("open_layer", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("name", contract_settings.costly_apart(METHODS))
def test_frozen_layers_stay_or_the_method_says_which_it_needs(name, open_layer):
    """What trains anew, or undoes a training that had no frozen layers, starts all layers anew: it may change them."""
    method = method_of(name)

    def freeze(model):
        model.requires_grad_(False)
        layers = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
        layers[open_layer].requires_grad_(True)

    model = changed(name, freeze)
    given = copy.deepcopy(model)
    result, refusal = outcome(UnsupportedModel, name, model=model)
    assert same(model, given)
    if result is None:
        assert "frozen" in refusal
        assert "unfreeze" in refusal
        return
    assert weights(result).isfinite().all()
    flags = {place: weight.requires_grad for place, weight in given.named_parameters()}
    assert {place: weight.requires_grad for place, weight in result.named_parameters()} == flags
    before = dict(given.named_parameters())
    moved = {place for place, weight in result.named_parameters() if not torch.equal(weight, before[place])}
    assert bool(moved) == (name != "noop")
    if not method.exact and Need.HISTORY not in method.needs:
        assert all(flags[place] for place in moved), moved


@pytest.mark.parametrize("name", METHODS)
def test_records_that_the_data_does_not_hold_are_named(name):
    method, s = method_of(name), subject_of(name)
    request = s.requests(method)[0]
    fields = {Need.FORGET_DATA: "forget", Need.RETAIN_DATA: "retain", Need.VALIDATION_DATA: "validation"}
    for need, field in fields.items():
        if need in method.needs:
            ids = np.append(getattr(request, field), STRANGER)
            with refused(InvalidInput, str(STRANGER)):
                unlearn(name, request=dataclasses.replace(request, **{field: ids}))


@pytest.mark.parametrize("name", METHODS)
def test_forget_records_that_the_recorded_training_never_saw_are_refused(name):
    request = request_of(name)
    history = History(request.retain, subject_of(name).seed)
    with refused(
        InvalidInput, f"{request.forget.size} forget records are not in the model's history", "leave them out"
    ):
        unlearn(name, request=request, history=history)
