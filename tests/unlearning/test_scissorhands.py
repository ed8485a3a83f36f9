"""Scissorhands: which weights start anew and how, GEM's projection, and the steps written out."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from toy_models import N, TinyViT, mlp_subject, network_subject
from twins import accuracy, mean_loss, spoil, state, tensors, unlearn, weights

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.training import fresh_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.base import Deletion
from mnemoscope.unlearning.scissorhands import projected, trim

FORGET, RETAIN = np.arange(60), np.arange(60, N)


def run_of(subject=None, seed=0, **changed):
    s = mlp_subject() if subject is None else subject
    frozen = copy.deepcopy(s.model).eval().requires_grad_(False)
    recipe = dataclasses.replace(s.recipe, **changed)
    return Deletion("scissorhands", frozen, s.request, recipe, s.data, s.runtime, np.random.default_rng(seed))


def flat(tensors_of):
    return torch.cat([part.detach().reshape(-1) for part in tensors_of])


def test_the_most_salient_of_all_weights_start_anew_where_they_are_late():
    """One batch of all forget records: |gradient x weight|, ranked over the network, cut in the last layer alone."""
    s = mlp_subject()
    work = copy.deepcopy(s.model)
    trim(work, run_of(batch_size=60), frozenset({"3.weight", "3.bias"}), share=0.03, batches=1)

    exact = copy.deepcopy(s.model).double()
    x, y = tensors(FORGET)
    nn.functional.cross_entropy(exact(x.double()), y).backward()
    scores = flat([(weight.grad * weight).abs() for weight in exact.parameters()])
    number = int(0.03 * scores.numel())
    least = scores.sort(descending=True).values[number - 1]
    moved = torch.cat([(a != b).reshape(-1) for a, b in zip(work.parameters(), s.model.parameters(), strict=True)])
    last = torch.arange(scores.numel()) >= 64 * 64 + 64
    assert 0 < int(moved.sum()) < number
    assert bool(moved[(scores > 1.001 * least) & last].all())
    assert not bool(moved[(scores < 0.999 * least) | ~last].any())


def test_fresh_values_are_those_of_a_new_layer_and_biases_are_zero():
    work = copy.deepcopy(network_subject("batchnorm").model)
    before = copy.deepcopy(work).state_dict()
    trim(work, run_of(network_subject("batchnorm")), frozenset(before), share=1.0, batches=2)
    for name, value in work.state_dict().items():
        place, kind = name.split(".")
        if isinstance(work[int(place)], nn.BatchNorm2d):
            assert torch.equal(value, before[name])
        elif kind == "bias":
            assert not value.any()
        else:
            bound = value[0].numel() ** -0.5
            assert float(value.abs().max()) <= bound
            assert float(value.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
            assert not bool((value == before[name]).any())


def test_attention_starts_anew_and_places_of_patches_do_not():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        work = TinyViT()
    nn.init.normal_(work.places)
    before = copy.deepcopy(work.state_dict())
    subject = network_subject("plain")
    trim(work, run_of(subject), frozenset(before), share=1.0, batches=1)
    after = work.state_dict()
    inner = "encoder.layers.0.self_attn"
    assert not bool((after[f"{inner}.in_proj_weight"] == before[f"{inner}.in_proj_weight"]).any())
    assert not after[f"{inner}.in_proj_bias"].any()
    assert torch.equal(after["places"], before["places"])
    assert torch.equal(after["encoder.layers.0.norm1.weight"], before["encoder.layers.0.norm1.weight"])


@pytest.mark.parametrize("memories", [1, 2, 4])
def test_the_projection_solves_gems_program(memories):
    rng = np.random.default_rng(memories)
    for margin in (0.0, 0.5):
        kept = rng.normal(size=(memories, 12))
        gradient = rng.normal(size=12) - kept.sum(axis=0)
        program = kept @ kept.T + 1e-3 * np.eye(memories)

        def objective(v, program=program, linear=kept @ gradient):
            return v @ program @ v / 2 + linear @ v

        solved = minimize(objective, np.full(memories, 1.0), bounds=[(margin, None)] * memories, tol=1e-12)
        ours = projected(torch.tensor(gradient), torch.tensor(kept), margin)
        np.testing.assert_allclose(ours.numpy(), gradient + solved.x @ kept, atol=1e-4)
        assert float((torch.tensor(kept) @ ours).min()) > -1e-2


def test_a_gradient_that_goes_against_no_memory_stays_to_the_bit():
    gradient, memory = torch.tensor([0.3, -0.7]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    assert projected(gradient, memory, 0.5) is gradient
    assert projected(-gradient, memory, 0.0).tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("project", [False, True])
def test_steps_are_the_papers(project):
    """Batches as large as the sets: a step an epoch, with the memory of the whole forget set; nothing is trimmed.

    The network is untrained, so what retained and forget records ask of it is alike, and steps have to be projected.
    """
    s, lam, margin = mlp_subject(), 0.01, 0.5
    s = dataclasses.replace(s, model=fresh_model(s.recipe, s.data, seed=3).eval())
    method = METHODS["scissorhands"](sparsity=1.0, epochs=5, lr=0.05, lam=lam, margin=margin, project=project)
    ours = unlearn(method, subject=s, batch_size=1000, weight_decay=0.01)
    net = copy.deepcopy(s.model)
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    (xf, yf), (xr, yr) = tensors(FORGET), tensors(RETAIN)
    late = list(net[3].parameters())
    hits = 0
    for _ in range(5):
        memory = -flat(torch.autograd.grad(nn.functional.cross_entropy(net(xf), yf), late))
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(net(xr), yr) - lam * nn.functional.cross_entropy(net(xf), yf)
        loss.backward()
        gradient = flat([weight.grad for weight in late])
        product = float(gradient @ memory)
        if project and product < 0:
            hits += 1
            gradient = gradient + max(margin, -product / (float(memory @ memory) + 1e-3)) * memory
            late[0].grad.copy_(gradient[:640].view(10, 64))
            late[1].grad.copy_(gradient[640:])
        sgd.step()
    assert hits == (5 if project else 0)
    assert float((weights(net) - weights(s.model)).abs().max()) > 1e-3
    torch.testing.assert_close(weights(ours), weights(net), rtol=0, atol=1e-5)


def test_after_the_last_forget_batch_steps_are_on_retained_records_alone():
    """60 forget and 180 retained records in batches of 60: forget records take part in the first step of three."""
    s, run = mlp_subject(), run_of(batch_size=60)
    method = METHODS["scissorhands"](sparsity=1.0, epochs=1, lr=0.05, lam=0.5, project=False)
    ours = unlearn(method, batch_size=60, momentum=0.0, weight_decay=0.0)
    run.seed()  # draws of the method, in their order
    trim(copy.deepcopy(s.model), run, frozenset(), share=0.0, batches=1)
    stream = run.stream(RETAIN)
    net = copy.deepcopy(s.model)
    for step, batch in enumerate(run.batches(stream)):
        loss = nn.functional.cross_entropy(net(batch.x), batch.y)
        if not step:
            x, y = tensors(FORGET)
            loss = loss - 0.5 * nn.functional.cross_entropy(net(x), y)
        slopes = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for weight, slope in zip(net.parameters(), slopes, strict=True):
                weight -= 0.05 * slope
    assert step == 2
    assert float((weights(net) - weights(s.model)).abs().max()) > 1e-3
    torch.testing.assert_close(weights(ours), weights(net), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "batchnorm"])
def test_each_part_moves_forget_records_towards_what_retraining_makes_of_them(network):
    s = mlp_subject() if network == "mlp" else network_subject(network)
    retrained = mean_loss(unlearn(METHODS["retrain"](), subject=s), FORGET, s)
    method = METHODS["scissorhands"]()
    whole, loose, untrimmed = (
        mean_loss(unlearn(dataclasses.replace(method, **changed), subject=s), FORGET, s)
        for changed in ({}, {"project": False}, {"sparsity": 1.0})
    )
    assert mean_loss(s.model, FORGET, s) < untrimmed < whole < retrained
    assert loose < whole
    model = unlearn(method, subject=s)
    assert accuracy(model, RETAIN, s) == 1.0


def test_forget_records_leave_no_trace_in_running_statistics():
    """Where their loss counts for nothing, their values change no bit, of weights or of statistics."""
    s = network_subject("batchnorm")
    method = METHODS["scissorhands"](sparsity=1.0, epochs=1, project=False)
    spoilt = spoil(FORGET, s)
    deaf, hearing = (
        [state(unlearn(dataclasses.replace(method, lam=lam), subject=s, data=data)) for data in (s.data, spoilt)]
        for lam in (0.0, 0.05)
    )
    assert deaf[0] == deaf[1]
    assert hearing[0] != hearing[1]


def test_late_layers_that_are_all_frozen_are_refused():
    s = mlp_subject()
    model = copy.deepcopy(s.model)
    model[3].requires_grad_(False)
    with pytest.raises(UnsupportedModel, match="last 1 of 2 layers are frozen"):
        unlearn(METHODS["scissorhands"](), subject=dataclasses.replace(s, model=model))


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": -1},
        {"lr": 0.0},
        {"sparsity": 1.1},
        {"lam": -0.1},
        {"margin": -1.0},
        {"memories": 0},
        {"trim_batches": 0},
        {"late": 0.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS["scissorhands"](**settings)
