"""SISA: exact bit for bit, isolated, a model that answers, its cost, and the contract on models of its own training."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import NETWORKS, RUNTIME, N, digits, mlp_subject, network_subject
from toy_models import request as deletion

from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.checkpoints import load_into, save_model
from mnemoscope.audit.models.gradients import log_norms
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import fresh_model, train_model
from mnemoscope.audit.testing_methods import method_contract, method_keeps_form, method_works
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.sharded import ShardedModel
from mnemoscope.unlearning.sisa import SISA, _slice_steps, expected_share, slice_epochs

METHOD = SISA(shards=3, slices=3)
RECIPE = Recipe("mlp:32", lr=0.2, epochs=10, batch_size=16)
SEED = 5


@functools.cache
def model():
    return METHOD.train(RECIPE, digits(), np.arange(N), seed=SEED, runtime=RUNTIME).module


def unlearn(model, request, *, method=METHOD, recipe=RECIPE, data=None, seed=0):
    rng = np.random.default_rng(seed)
    return method.unlearn(model, request, recipe=recipe, data=data or digits(), runtime=RUNTIME, rng=rng)


def state(module):
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


@functools.cache
def own_subject():
    return replace(mlp_subject(), model=model(), recipe=RECIPE, seed=SEED)


CONTRACT = method_contract({"sisa": METHODS["sisa"]}, own_subject, settings={"sisa": {"shards": 3, "slices": 3}})


@pytest.mark.slow
@pytest.mark.parametrize("check", [c for _, c in CONTRACT], ids=[i for i, _ in CONTRACT])
def test_contract(check):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_networks(network):
    subject, method = network_subject(network), SISA(shards=2, slices=2)
    recipe = replace(subject.recipe, epochs=2)
    trained = method.train(recipe, subject.data, np.arange(N), seed=1, runtime=RUNTIME).module
    own = replace(subject, model=trained, recipe=recipe)
    method_works(method, own)
    method_keeps_form(method, own)
    kept = np.setdiff1d(np.arange(N), subject.request.forget)
    scratch = method.train(recipe, subject.data, kept, seed=1, runtime=RUNTIME).module
    assert state(unlearn(trained, subject.request, method=method, recipe=recipe, data=subject.data)) == state(scratch)


@pytest.mark.parametrize("forget", [[7], range(0, 240, 24), range(60), range(200)], ids=["1", "10", "60", "200"])
def test_deletion_is_training_from_scratch_on_what_is_left_bit_for_bit(forget):
    kept = np.setdiff1d(np.arange(N), forget)
    scratch = METHOD.train(RECIPE, digits(), kept, seed=SEED, runtime=RUNTIME).module
    given = copy.deepcopy(model())
    given.shards[0].requires_grad_(False)  # flags of the given model are no part of the training
    assert state(unlearn(given, deletion(forget))) == state(scratch)
    assert state(scratch) != state(model())


def test_one_deletion_after_another_is_one_deletion_of_both():
    first, second = np.arange(5), np.arange(100, 110)
    once = unlearn(model(), deletion(first))
    left = deletion(second)
    left = replace(left, retain=np.setdiff1d(left.retain, first))
    assert state(unlearn(once, left)) == state(unlearn(model(), deletion(np.union1d(first, second))))


def test_untouched_shards_are_not_read_and_stay_as_they_are():
    forget = np.array([7])
    (touched,), (part,) = model().places(forget)
    at, _ = model().places(np.arange(N))
    data = copy.copy(digits())
    data.x, data.y = digits().x.clone(), digits().y.clone()
    others = torch.from_numpy(np.append(np.flatnonzero(at != touched), forget))
    data.x[others], data.y[others] = torch.nan, -1
    after = unlearn(model(), deletion(forget), data=data)
    assert state(after) == state(unlearn(model(), deletion(forget)))
    for shard in range(3):
        same = state(after.shards[shard]) == state(model().shards[shard])
        assert same == (shard != touched)
        for before in range(2):
            kept = [
                torch.equal(v[shard, before], w[shard, before])
                for v, w in zip(after.checkpoints.buffers(), model().checkpoints.buffers(), strict=True)
            ]
            assert all(kept) == (shard != touched or before < part)


def test_training_is_the_papers_loop():
    """Shard by shard, slice by slice, written out."""
    from mnemoscope.audit.rng import child_seed

    at, part_of = model().places(np.arange(N))
    for shard in range(3):
        module = fresh_model(RECIPE, digits(), seed=child_seed(SEED, "shard", shard))
        for part in range(3):
            ids = np.array([i for i in range(N) if at[i] == shard and part_of[i] <= part])
            seed = child_seed(SEED, "shard", shard, "slice", part)
            once = replace(RECIPE, epochs=(5, 5, 5)[part])
            module = train_model(once, digits(), ids, seed=seed, runtime=RUNTIME, init=module).module
            found = model().checkpoint(shard, part)
            assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    assert slice_epochs(10, 3) == (5, 5, 5)


def test_epochs_of_slices_amount_to_the_recipes():
    for epochs, slices in [(30, 3), (20, 5), (7, 4), (12, 1), (182, 50)]:
        each = np.array(slice_epochs(epochs, slices))
        assert each.sum() == 2 * epochs * slices // (slices + 1)
        work = (each * np.arange(1, slices + 1)).sum() / slices
        assert abs(work - epochs) <= 1.0
        assert each.max() - each.min() <= 1
    with pytest.raises(InvalidInput, match="epochs=1 are too few for 3 slices"):
        METHOD.train(replace(RECIPE, epochs=1), digits(), np.arange(N), seed=0, runtime=RUNTIME)


def test_a_record_lies_where_its_id_and_the_seed_say_and_nowhere_else():
    everything = model().places(np.arange(N))
    some = np.arange(3, N, 7)
    assert all(np.array_equal(a[some], b) for a, b in zip(everything, model().places(some), strict=True))
    other = SISA(shards=3, slices=3).fresh(RECIPE, digits())
    other.root_seed.fill_(SEED + 1)
    assert not np.array_equal(other.places(np.arange(N))[0], everything[0])
    cells = np.bincount(other.places(np.arange(90_000))[0] * 3 + other.places(np.arange(90_000))[1])
    assert cells.size == 9
    assert ((cells - 10_000) ** 2 / 10_000).sum() < 26.1  # chi-square, 8 degrees of freedom, 0.001
    assert model().records.sum() == N


def test_answers_are_the_shards_vote_or_their_mean():
    logits = torch.stack([shard(digits().inputs(torch.arange(N, N + 50))) for shard in model().shards]).detach()
    p, top = logits.double().softmax(-1).numpy(), logits.argmax(-1).numpy()
    ids, sizes = np.arange(N, N + 50), model().records.sum(1).numpy()
    for weighting, weight in (("uniform", np.full(3, 1 / 3)), ("size", sizes / sizes.sum())):
        module = copy.deepcopy(model())
        module.weighting = weighting
        votes = infer_logits(module, digits(), ids, runtime=RUNTIME)[:, 0]
        for record in range(50):
            shares = [weight[top[:, record] == k].sum() for k in range(10)]
            np.testing.assert_allclose(np.exp(votes[record]), (np.array(shares) * 3 + 0.1) / 4, rtol=1e-5)
            assert votes[record].argmax() == int(np.argmax(shares)) or weighting == "size"
        module.aggregate = "mean"
        mean = infer_logits(module, digits(), ids, runtime=RUNTIME)[:, 0]
        np.testing.assert_allclose(mean, np.log((weight[:, None, None] * p).sum(0)), rtol=1e-4, atol=1e-5)


def test_a_shard_without_records_has_no_say():
    at, _ = model().places(np.arange(N))
    left = np.flatnonzero(at != 1)
    method = replace(METHOD, aggregate="mean")
    trained = method.train(RECIPE, digits(), left, seed=SEED, runtime=RUNTIME).module
    assert trained.records[1].sum() == 0
    x = digits().inputs(torch.arange(20))
    p = torch.stack([trained.shards[s](x).softmax(-1) for s in (0, 2)]).mean(0)
    torch.testing.assert_close(trained(x).exp(), p)
    again = unlearn(trained, replace(deletion([int(left[0])]), retain=left[1:]), method=method)
    assert state(again) == state(method.train(RECIPE, digits(), left[1:], seed=SEED, runtime=RUNTIME).module)


def test_weights_travel_through_a_file(tmp_path):
    save_model(model(), tmp_path / "m.safetensors")
    fresh = METHOD.fresh(RECIPE, digits())
    assert load_into(fresh, tmp_path / "m.safetensors") == ""
    fresh.eval()
    assert state(fresh) == state(model())
    request = deletion([3, 50])
    assert state(unlearn(fresh, request)) == state(unlearn(model(), request))
    one = SISA(shards=2, slices=1)
    trained = one.train(RECIPE, digits(), np.arange(N), seed=0, runtime=RUNTIME).module
    save_model(trained, tmp_path / "one.safetensors")
    load_into(one.fresh(RECIPE, digits()), tmp_path / "one.safetensors")


def test_white_box_attacks_can_differentiate_it():
    x, y = digits().inputs(torch.arange(30)), digits().y[:30]
    mean = copy.deepcopy(model()).eval()
    mean.aggregate = "mean"
    norms = log_norms(mean, x, y)
    for i in range(3):
        mean.zero_grad()
        nn.functional.cross_entropy(mean(x[i : i + 1]), y[i : i + 1]).backward()
        plain = torch.stack([p.grad.double().square().sum() for p in mean.parameters()]).sum().sqrt()
        torch.testing.assert_close(norms[i].exp(), plain, rtol=1e-3, atol=1e-8)
    assert torch.isfinite(log_norms(model(), x, y)).all()  # a vote has gradient zero, and says so


def test_cost_is_what_is_trained_again():
    seen = []

    def counted(*args, **kwargs):
        run = train_model(*args, **kwargs)
        recipe, _, ids = args
        seen.append(recipe.epochs * -(-ids.size // recipe.batch_size))
        return run

    request = deletion(range(0, 240, 48))
    cost = METHOD.cost(model(), request, RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnemoscope.unlearning.sisa.train_model", counted)
        unlearn(model(), request)
        assert sum(seen) == cost.steps
        seen.clear()
        METHOD.train(RECIPE, digits(), request.retain, seed=SEED, runtime=RUNTIME)
        assert sum(seen) == cost.full_steps
    assert 0 < cost.share < 1
    assert cost.share == cost.steps / cost.full_steps


@pytest.mark.parametrize(("shards", "slices", "k"), [(1, 1, 1), (5, 3, 1), (5, 3, 10), (4, 8, 3), (10, 1, 7)])
def test_expected_cost_is_the_closed_form(shards, slices, k):
    method, recipe = SISA(shards=shards, slices=slices), Recipe("mlp:4", epochs=slices + 1, batch_size=1)
    module = method.fresh(recipe, digits())
    n, rng, shares = 20_000, np.random.default_rng(0), []
    ids = np.arange(n)
    work = _slice_steps(module.tally(ids)[0].numpy(), recipe)
    for _ in range(600):
        at, part = module.places(rng.choice(n, k, replace=False))
        shares.append(sum(work[s, part[at == s].min() :].sum() for s in np.unique(at)) / work.sum())
    error = np.std(shares) / len(shares) ** 0.5
    assert abs(np.mean(shares) - expected_share(shards, slices, k)) <= 4 * error + 0.005
    if k == 1:
        assert expected_share(shards, slices) == pytest.approx((2 * slices + 1) / (3 * slices * shards))


@pytest.mark.parametrize("kind", ["features", "labels"])
def test_corrections_are_training_from_scratch_on_corrected_records(kind):
    request = mlp_subject().others[kind][0]
    corrected = digits().corrected(request)
    scratch = METHOD.train(RECIPE, corrected, np.arange(N), seed=SEED, runtime=RUNTIME).module
    assert state(unlearn(model(), request)) == state(scratch)
    assert state(scratch) != state(model())


@pytest.mark.slow
def test_deleted_records_are_no_longer_known_better_than_others():
    """Records of a wrong label are known by a shard that holds them, and by none after their deletion."""
    data = copy.copy(digits())
    data.y = digits().y.clone()
    planted = np.arange(30)
    data.y[:30] = (data.y[:30] + 1) % 10
    method = SISA(shards=1, slices=2)
    recipe = replace(RECIPE, architecture="mlp:64", epochs=40)
    before = method.train(recipe, data, np.arange(N), seed=1, runtime=RUNTIME).module
    after = unlearn(before, deletion(planted), method=method, recipe=recipe, data=data)
    right = [
        (infer_logits(m, data, planted, runtime=RUNTIME)[:, 0].argmax(1) == data.y[:30].numpy()).mean()
        for m in (before, after)
    ]
    assert right[0] > 0.9
    assert right[1] < 0.2


def test_what_it_cannot_do_is_refused():
    s = mlp_subject()
    with pytest.raises(UnsupportedModel, match=f"trained in shards and slices; this {type(s.model).__name__} was not"):
        unlearn(s.model, deletion([1]))
    with pytest.raises(InvalidInput, match="3 shards of 3 slices"):
        unlearn(model(), deletion([1]), method=SISA(shards=4, slices=3))
    request = deletion([1])
    shard = int(model().places(np.array([1]))[0][0])
    mates = np.flatnonzero(model().places(np.arange(N))[0] == shard)
    mates = mates[mates != 1]
    with pytest.raises(InvalidInput, match=f"trains shard {shard} again on its retained records"):
        unlearn(model(), replace(request, retain=np.setdiff1d(request.retain, mates[:1])))
    elsewhere = np.setdiff1d(request.retain, [i for i in range(N) if i not in mates][:1])
    assert state(unlearn(model(), replace(request, retain=elsewhere))) == state(unlearn(model(), request))
    with pytest.raises(InvalidInput, match="trains shard"):  # a record that it never saw
        unlearn(model(), replace(request, forget=np.array([400])))
    with pytest.raises(MissingNeed, match="retain"):
        unlearn(model(), replace(request, retain=np.empty(0, np.int64)))
    for settings in ({"shards": 0}, {"slices": 0}, {"aggregate": "median"}, {"weighting": "age"}):
        with pytest.raises(InvalidInput, match=next(iter(settings))):
            SISA(**settings)
    with pytest.raises(InvalidInput, match="DP-SGD"):
        METHOD.train(replace(RECIPE, dp_clip=1.0), digits(), np.arange(N), seed=0, runtime=RUNTIME)
    with pytest.raises(InvalidInput, match="once each"):
        METHOD.train(RECIPE, digits(), np.array([1, 1]), seed=0, runtime=RUNTIME)


def test_training_tells_what_it_saw():
    trained = METHOD.train(RECIPE, digits(), np.arange(0, N, 2), seed=1, runtime=RUNTIME)
    assert np.array_equal(trained.seen_ids, np.arange(0, N, 2))
    assert len(trained.loss) == 5
    assert trained.loss[-1] < trained.loss[0]
    assert isinstance(trained.module, ShardedModel)
    assert not trained.module.training
