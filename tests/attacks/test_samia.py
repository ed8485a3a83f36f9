"""The transformer attacker: features and network pinned to the publication, gradients, and what it learns."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks.samia import PUBLISHED, Samia
from mnemoscope.attacks.samia_network import SamiaNetwork, n_tokens, samia_features
from mnemoscope.audit.answers.protocols import fleet_thresholds, score_fleet, score_target
from mnemoscope.audit.answers.views import Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.queries import parse_query


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rng(seed=0):
    return np.random.default_rng(seed)


def draws(shape, seed=0):
    return torch.from_numpy(rng(seed).normal(size=shape))


def auc(scores, side):
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return below.mean() / (2 * outside.size)


# features


@pytest.mark.parametrize("sensitivity", ["plain", "log"])
def test_features_equal_the_definition_record_by_record(sensitivity):
    logits, noisy, labels = draws((5, 4)), draws((3, 5, 4), 1), torch.tensor([0, 3, 1, 1, 2])
    got = samia_features(logits, noisy, labels, scale=0.01, sensitivity=sensitivity)
    assert got.dtype == torch.float64
    for b in range(5):
        row = []
        p = [math.exp(z) / sum(math.exp(v) for v in logits[b].tolist()) for z in logits[b].tolist()]
        s = []
        for k in range(4):
            total = 0.0
            for j in range(3):
                z = noisy[j, b].tolist()
                total += abs(math.exp(z[k]) / sum(math.exp(v) for v in z) - p[k]) / 0.01
            s.append(total / 3)
        row = [*p, *(s if sensitivity == "plain" else [math.log(1e-8 + v) for v in s])]
        row += [float(k == labels[b]) for k in range(4)]
        np.testing.assert_allclose(got[b], row, rtol=1e-12)


def test_small_noise_keeps_its_digits_where_a_float32_softmax_has_none():
    """The published feature in float32 is zero or rounding for a sure model; ours is the derivative."""
    margin, slope, scale = 18.0, 2.0, 1e-3
    logits = torch.tensor([[margin, 0.0]])
    noisy = torch.tensor([[[margin + slope * scale, 0.0]]])
    p = 1 / (1 + math.exp(-margin))
    derivative = slope * p * (1 - p)
    ours = samia_features(logits.double(), noisy.double(), torch.tensor([0]), scale=scale)[0, 2:4]
    np.testing.assert_allclose(ours, derivative, rtol=2e-3)  # the quotient's own curvature, and float32 logits

    def faulty():
        return (torch.softmax(noisy[0], -1) - torch.softmax(logits, -1)).abs()[0] / scale

    assert faulty()[0] == 0.0
    large = samia_features(
        torch.tensor([[800.0, -800.0]]).double(), -torch.tensor([[[800.0, -800.0]]]).double(), torch.tensor([0])
    )
    np.testing.assert_allclose(large[0, 2:4], 1000.0)
    assert torch.isfinite(
        samia_features(torch.full((1, 3), 3e38).double(), draws((2, 1, 3)) * 1e38, torch.tensor([2]))
    ).all()


def test_without_noise_the_sensitivity_is_zero():
    for sensitivity in ("plain", "log"):
        got = samia_features(draws((2, 3)), None, torch.tensor([0, 2]), sensitivity=sensitivity)
        assert (got[:, 3:6] == 0).all()
        np.testing.assert_allclose(got[:, :3], torch.softmax(draws((2, 3)), -1))


def test_many_classes_keep_the_true_one_and_the_likeliest_others():
    logits = torch.tensor([[0.0, 5.0, 1.0, 4.0, 2.0], [9.0, 5.0, 1.0, 4.0, 2.0]], dtype=torch.float64)
    noisy, labels = logits[None] + 0.01 * draws((6, 2, 5)), torch.tensor([0, 0])
    whole = samia_features(logits, noisy, labels)
    cut = samia_features(logits, noisy, labels, top=2)
    assert (n_tokens(5, 2), cut.shape) == (3, (2, 9))
    kept = [0, 1, 3]
    for part in range(3):
        assert torch.equal(cut[:, 3 * part : 3 * part + 3], whole[:, [5 * part + k for k in kept]])
    assert torch.equal(samia_features(logits, noisy, labels, top=4), whole)


@pytest.mark.parametrize("sensitivity", ["plain", "log"])
@pytest.mark.parametrize("top", [None, 2])
def test_features_are_differentiable_in_both_answers(sensitivity, top):
    logits, labels = draws((3, 4)).requires_grad_(), torch.tensor([1, 0, 3])
    # Draws near the answers and far from them take the two branches of the difference.
    noisy = (
        logits.detach() + draws((4, 3, 4), 1) * torch.tensor([0.05, 0.2, 2.0, 4.0])[:, None, None]
    ).requires_grad_()

    def features(a, b):
        return samia_features(a, b, labels, scale=0.1, sensitivity=sensitivity, top=top)

    assert torch.autograd.gradcheck(features, (logits, noisy))


def test_features_refuse_what_does_not_fit():
    with pytest.raises(InvalidInput, match=r"noisy .* must be \(m, b, c\)"):
        samia_features(draws((2, 3)), draws((2, 3)), torch.tensor([0, 1]))
    with pytest.raises(InvalidInput, match="sensitivity='root' is unknown"):
        samia_features(draws((2, 3)), None, torch.tensor([0, 1]), sensitivity="root")


# network


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_the_network_has_the_published_dimensions(classes):
    torch.manual_seed(0)
    network = SamiaNetwork(classes)
    assert network.normalise.num_features == 3 * classes
    assert network.embed.weight.shape == (64, 3)
    assert len(network.encoder.layers) == 3
    for layer in network.encoder.layers:
        assert (layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.norm_first) == (64, 4, False)
        assert (layer.linear1.weight.shape, layer.linear2.weight.shape) == ((128, 64), (64, 128))
        assert [layer.dropout.p, layer.dropout1.p, layer.dropout2.p, layer.self_attn.dropout] == [0.2] * 4
        assert layer.activation is nn.functional.gelu
    assert network.hidden.weight.shape == (64, 64 * classes)
    assert network.head.weight.shape == (2, 64)
    layer = (192 * 64 + 192) + (64 * 64 + 64) + (128 * 64 + 128) + (64 * 128 + 64) + 2 * 128
    expected = 6 * classes + (3 * 64 + 64) + 3 * layer + (64 * 64 * classes + 64) + (64 * 2 + 2)
    assert sum(p.numel() for p in network.parameters()) == expected == 100866 + 4102 * classes


def test_the_network_starts_xavier_normal_with_zero_biases():
    torch.manual_seed(0)
    network = SamiaNetwork(30)
    for part in network.modules():
        if isinstance(part, nn.Linear):
            assert (part.bias == 0).all()
            deviation = math.sqrt(2 / sum(part.weight.shape))
            assert part.weight.std().item() == pytest.approx(deviation, rel=6 / math.sqrt(2 * part.weight.numel()))
            assert part.weight.abs().max() > 1.8 * deviation  # a uniform start of this deviation ends at 1.73
        if isinstance(part, nn.LayerNorm | nn.BatchNorm1d):
            assert (part.weight == 1).all()
            assert (part.bias == 0).all()


def test_the_network_is_the_written_formula():
    """Against a second implementation, layer by layer, from the parameters alone."""
    torch.manual_seed(1)
    network, x, t = SamiaNetwork(5).double().eval(), draws((7, 15)), 5
    with torch.no_grad():
        network.normalise.running_mean.copy_(draws(15, 2))
        network.normalise.running_var.copy_(draws(15, 3) ** 2 + 0.1)
    w = {name: value.detach() for name, value in network.state_dict().items()}

    def layer_norm(v, name):
        centred = v - v.mean(-1, keepdim=True)
        return (
            centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * w[name + ".weight"] + w[name + ".bias"]
        )

    def gelu(v):
        return v * (1 + torch.erf(v / math.sqrt(2))) / 2

    v = (x - w["normalise.running_mean"]) / torch.sqrt(w["normalise.running_var"] + 1e-5)
    tokens = torch.stack([v[:, :t], v[:, t : 2 * t], v[:, 2 * t :]], dim=2)  # (p_k, s_k, e_k)
    h = gelu(tokens @ w["embed.weight"].T + w["embed.bias"])
    for k in range(3):
        at = f"encoder.layers.{k}."
        q, key, value = (h @ w[at + "self_attn.in_proj_weight"].T + w[at + "self_attn.in_proj_bias"]).split(64, dim=-1)
        heads = []
        for a in range(4):
            part = slice(16 * a, 16 * a + 16)
            weights = torch.softmax(q[..., part] @ key[..., part].transpose(1, 2) / 4, dim=-1)
            heads.append(weights @ value[..., part])
        mixed = torch.cat(heads, -1) @ w[at + "self_attn.out_proj.weight"].T + w[at + "self_attn.out_proj.bias"]
        h = layer_norm(h + mixed, at + "norm1")
        fed = gelu(h @ w[at + "linear1.weight"].T + w[at + "linear1.bias"]) @ w[at + "linear2.weight"].T
        h = layer_norm(h + fed + w[at + "linear2.bias"], at + "norm2")
    hidden = torch.relu(h.reshape(7, -1) @ w["hidden.weight"].T + w["hidden.bias"])
    expected = hidden @ w["head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(network(x).detach(), expected, rtol=1e-9, atol=1e-11)


def test_gradients_flow_through_the_attacker_to_the_model():
    """What an unlearning method needs: the attacker's answer, differentiated in the model's logits and weights."""
    torch.manual_seed(0)
    attacker, labels = SamiaNetwork(3).double().eval(), torch.tensor([0, 2])
    logits = draws((2, 3)).requires_grad_()
    noisy = (logits.detach() + 0.1 * draws((2, 2, 3), 1)).requires_grad_()

    def answer(a, b):
        return attacker(samia_features(a, b, labels, scale=0.1))

    assert torch.autograd.gradcheck(answer, (logits, noisy))
    model, x = nn.Linear(6, 3).double(), draws((2, 6), 2)
    answer(model(x), model(x + 0.1 * draws((2, 2, 6), 3))).logsumexp(1).sum().backward()
    assert (model.weight.grad != 0).all()


# attack


def fleet(secret, *, models=8, records=250, classes=3, seed=0):
    """A world in which noise alone tells: an IN model's slope at a record differs, its answers do not.

    ``secret``: how much steeper IN models are, as a power of e.
    """
    g = rng(seed)
    half = np.repeat(np.array([1, 0], np.int8), models // 4)[:, None]
    side = np.concatenate([g.permuted(np.tile(half, (1, records)), axis=0) for _ in range(2)])
    labels = np.arange(records) % classes
    plain = g.normal(size=(models, records, 1, classes))
    slope = np.exp(secret * side + 0.5 * g.normal(size=side.shape))[..., None, None]
    noisy = plain + 1e-3 * slope * g.normal(size=(models, records, 10, classes))
    logits = np.concatenate([plain, noisy], axis=2).astype(np.float32)
    fold = np.repeat(np.array([0, 1], np.int8), models // 2)
    return Reference(np.arange(records), labels, logits, side=side, fold=fold, queries=Samia().queries)


def half_fit(attack, world):
    """Fit on one fold and score the other; returns scores (m/2, n) and their sides."""
    first, second = (np.flatnonzero(world.fold == f) for f in (0, 1))
    scorer = attack.fit(world.select(first), rng=rng())
    return np.stack([scorer.score(world.target(int(k))) for k in second]), world.side[second]


@pytest.mark.slow
def test_it_learns_from_the_sensitivity_what_no_posterior_holds():
    world = fleet(1.5)
    # Two Gaussians in the log slope, 1.5 apart at deviation 0.5, blurred by ten draws: at best Phi(1.5 / 0.71) = 0.983.
    assert 0.9 < auc(*half_fit(Samia(epochs=4), world)) < 0.99
    parts = (world.ids, world.labels, world.logits[:, :, :1])
    blind = Reference(*parts, side=world.side, fold=world.fold)
    assert abs(auc(*half_fit(Samia(epochs=4), blind)) - 0.5) < 0.06


@pytest.mark.slow
def test_without_a_secret_noise_tells_nothing():
    world = fleet(0.0, records=400)
    # 800 + 800 cells: the standard error is 0.014.
    assert abs(auc(*half_fit(Samia(epochs=4), world)) - 0.5) < 0.05


def test_queries_are_those_that_inference_knows():
    attack = Samia(scale=1e-2, draws=3)
    assert attack.queries == ("identity", "noise:0.01:0", "noise:0.01:1", "noise:0.01:2")
    assert Samia().queries == ("identity", *(f"noise:0.001:{j}" for j in range(10)))
    assert [parse_query(q).amount for q in Samia(scale=1e-7).queries[1:]] == [1e-7] * 10


def test_a_named_query_is_found_wherever_it_lies():
    world, attack = fleet(1.5, models=4, records=60), Samia(epochs=1)
    plain = score_fleet(attack, world, rng=rng())
    back = [*range(10, -1, -1)]
    turned = Reference(
        world.ids,
        world.labels,
        world.logits[:, :, back],
        side=world.side,
        fold=world.fold,
        queries=tuple(world.queries[k] for k in back),
    )
    assert np.array_equal(score_fleet(attack, turned, rng=rng()), plain)


def test_missing_noise_is_named():
    world = fleet(1.0, models=4, records=40)
    with pytest.raises(MissingNeed, match="noise:0.001:0"):
        score_fleet(Samia(), world.asking(("identity",)).asking(("identity",)), rng=rng())
    scorer = Samia(epochs=1).fit(world, rng=rng())
    assert scorer.reads_noise
    with pytest.raises(MissingNeed, match="noise:0.001:0"):
        scorer.score(world.asking(("identity",)).target(0))


@pytest.mark.slow
def test_a_prior_of_memberships_does_not_move_the_threshold():
    """Nine in ten rows are IN: even odds still parts the sides, because both weigh the same."""
    world = fleet(3.0, models=4, records=400)
    side = np.where((world.side == 0) & (np.arange(400) % 9 > 0), np.int8(-1), world.side)
    few = Reference(world.ids, world.labels, world.logits, side=side, fold=world.fold, queries=world.queries)
    scores, truth = half_fit(Samia(epochs=12), few)
    assert (side[:2] == 1).sum() > 8 * (side[:2] == 0).sum()
    decided = scores >= 0.0
    assert decided[truth == 1].mean() > 0.8
    assert (~decided[truth == 0]).mean() > 0.8
    attack = Samia(epochs=1)
    np.testing.assert_array_equal(fleet_thresholds(attack, few, rng=rng()), 0.0)


def test_training_rows_are_capped_and_one_row_left_over_is_no_batch_of_its_own():
    world = fleet(1.0, models=4, records=65)  # 130 rows a fold: batches of 43 leave one over
    for settings in ({"max_rows": 20}, {"batch_size": 43}, {"batch_size": 129}):
        scores = score_target(Samia(epochs=1, **settings), world.select([2, 3]), world.target(0), rng=rng())
        assert np.isfinite(scores).all()


def test_the_published_training_runs_and_differs():
    world = fleet(1.5, models=4, records=40)
    settings = {**PUBLISHED, "epochs": 4}
    attack = Samia(**settings)
    assert (attack.optimizer, attack.sensitivity, PUBLISHED["epochs"]) == ("sgd", "plain", 100)
    paces = [attack._pace(step, 100) for step in (0, 49, 50, 74, 75, 99)]
    np.testing.assert_allclose(paces, [1, 1, 0.1, 0.1, 0.01, 0.01])
    assert not np.array_equal(score_fleet(attack, world, rng=rng()), score_fleet(Samia(), world, rng=rng()))


def test_many_classes_are_truncated():
    world = fleet(1.0, models=4, records=40, classes=120)
    scorer = Samia(epochs=1).fit(world.select([0, 1]), rng=rng())
    assert scorer.network.n_tokens == 21
    assert np.isfinite(scorer.score(world.target(2))).all()


def test_bad_settings_and_one_sided_models_are_refused():
    for settings in ({"scale": 0.0}, {"draws": 0}, {"optimizer": "lion"}, {"sensitivity": "x"}, {"top": 0}):
        with pytest.raises(InvalidInput, match=next(iter(settings))):
            Samia(**settings)
    world = fleet(1.0, models=4, records=40)
    with pytest.raises(InvalidInput, match="only OUT records"):
        Samia().fit(world.with_side(np.zeros_like(world.side)), rng=rng())


def test_queries_by_name_become_scores():
    """End to end on models: the queries of the attack, through inference, into scores."""
    from mnemoscope.audit.models.data import DeviceData
    from mnemoscope.audit.models.recipes import Runtime
    from mnemoscope.audit.records.datasets import load_dataset

    attack, dataset = Samia(draws=3, epochs=1), load_dataset("digits")
    ids, data, runtime = dataset.ids[:40], DeviceData(dataset), Runtime("cpu", inference_batch=16)
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(4)]
    logits = np.stack([infer_logits(m, data, ids, runtime=runtime, queries=attack.queries) for m in models])
    side = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.int8).repeat(20, axis=1)
    fold = np.array([0, 0, 1, 1], np.int8)
    world = Reference(ids, dataset.labels[:40], logits, side=side, fold=fold, queries=attack.queries)
    assert np.isfinite(score_fleet(attack, world, rng=rng())).all()
    features = attack._features(logits[0], world.labels)
    moved = features[:, 10:20] - math.log(1e-8)
    assert (moved > 0).all()  # every posterior moved under the noise
    # A linear model's logit moves by |w| times the noise: the first order of the sensitivity is known.
    w, p = models[0][1].weight.detach().double(), features[:, :10].double()
    jacobian = p[:, :, None] * (w[None] - (p[:, :, None] * w[None]).sum(1, keepdim=True))
    expected = jacobian.norm(dim=2) * math.sqrt(2 / math.pi)
    ratio = torch.exp(features[:, 10:20].double()) / expected
    assert abs(ratio.mean().item() - 1) < 0.1  # 400 means of three draws of |normal|, relative deviation 0.44 each
