"""Fisher forgetting: the noise is that of the formula, and classes are forgotten."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from toy_models import N, mislabelled_subject, mlp_subject, network_subject
from toy_models import request as deletion
from twins import accuracy, mean_loss, unlearn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.unlearning import METHODS

DRAWS = 8


def information(s, ids, expected):
    """The diagonal of the Fisher information, by a loop over records and classes."""
    model = copy.deepcopy(s.model).eval()
    positions = s.data.positions(np.asarray(ids))
    total = {name: torch.zeros_like(w) for name, w in model.named_parameters()}
    for x, y in zip(s.data.inputs(positions), s.data.y[positions], strict=True):
        log_p = torch.log_softmax(model(x[None])[0], dim=0)
        for c in range(10) if expected else [int(y)]:
            share = float(log_p[c].detach().exp()) if expected else 1.0
            for (name, _), g in zip(
                model.named_parameters(),
                torch.autograd.grad(log_p[c], list(model.parameters()), retain_graph=True),
                strict=True,
            ):
                total[name] += share * g.square()
    return {name: value / len(ids) for name, value in total.items()}


def standard(method, request, s, expected):
    """What was added to each weight over its expected standard deviation: standard normal if the formula is right."""
    z = {name: [] for name in expected}
    for seed in range(DRAWS):
        after = dict(unlearn(method, request, seed=seed, subject=s).named_parameters())
        for name, weight in s.model.named_parameters():
            z[name].append(((after[name] - weight) / expected[name]).detach().flatten())
    return {name: torch.cat(values).double() for name, values in z.items()}


def looks_standard(z):
    for values in z.values():
        n = len(values)
        assert abs(float(values.mean())) < 4.5 / n**0.5
        assert abs(float(values.square().mean()) - 1) < 4.5 * (2 / n) ** 0.5
    whole = torch.cat(list(z.values())).numpy()
    assert kstest(whole, "norm").pvalue > 1e-3


def few(s, n=12):
    """A request that keeps few records, so that many draws are cheap."""
    request = deletion(range(N - n))
    assert request.retain.size == n
    return request


def test_the_noise_is_that_of_the_six_steps():
    s = mlp_subject()
    request = few(s)
    alpha = 1e-4
    f, expected = information(s, request.retain, expected=True), {}
    for name, weight in s.model.named_parameters():
        head = name.startswith("3.")
        variance = alpha * (1 / (f[name] + 1e-8)).clamp(max=1e2 if head else 1e3)
        if variance.ndim > 1:
            variance = variance.mean(dim=1, keepdim=True).expand_as(variance)
        if head or weight.ndim == 1:
            variance = 10 * variance
        expected[name] = variance.sqrt()
    assert len({round(float(v), 4) for v in expected["1.weight"][:, 0]}) > 10  # levels differ by unit
    looks_standard(standard(METHODS["fisher"](alpha=alpha), request, s, expected))


def test_the_row_of_a_class_is_drawn_anew():
    s = mlp_subject()
    labels = s.data.y[:N].numpy()
    request = deletion(np.flatnonzero(labels == 3), kind="class")
    runs = [dict(unlearn(METHODS["fisher"](), request, seed=k).named_parameters()) for k in range(20)]
    rows = torch.stack([run["3.weight"][3].detach() for run in runs])
    assert abs(float(rows.mean())) < 5 * 1e-3**0.5 / rows.numel() ** 0.5
    assert float(rows.std()) == pytest.approx((10 * 1e-4) ** 0.5, rel=0.1)


def test_the_empirical_noise_is_that_of_the_formula():
    s = mlp_subject()
    request = few(s)
    alpha, cap = 1e-7, 0.05
    f = information(s, request.retain, expected=False)
    expected = {name: (alpha / f[name]).sqrt().clamp(max=cap) for name in f}
    assert 0.02 < float(torch.cat([(v == cap).float().flatten() for v in expected.values()]).mean()) < 0.98
    expected = {name: 10 * v if name.startswith("3.") else v for name, v in expected.items()}
    looks_standard(standard(METHODS["fisher_empirical"](alpha=alpha, cap=cap), request, s, expected))


def test_a_class_is_forgotten_and_the_others_are_known():
    for s in (mlp_subject(), network_subject("batchnorm")):
        labels = s.data.y[:N].numpy()
        request = deletion(np.flatnonzero(labels == 3), kind="class")
        after = unlearn(METHODS["fisher"](), request, subject=s).eval()

        assert accuracy(after, request.forget, s) < 0.2
        assert accuracy(after, request.retain, s) > 0.95


@pytest.mark.slow
def test_empirical_noise_forgets_wrong_labels_that_it_spares_where_they_are_retained():
    """On average over draws, which are the same in both: one draw may hit or miss what it is about."""
    s, method = mislabelled_subject(), METHODS["fisher_empirical"](alpha=3e-8, cap=0.1)
    forget = s.request.forget
    own, others = (
        [unlearn(method, request, seed=k, subject=s) for k in range(20)] for request in (s.request, s.other_request)
    )
    retrained = unlearn(METHODS["retrain"](), s.request, subject=s)
    gone, kept = (np.array([accuracy(model, forget, s) for model in models]) for models in (own, others))
    assert accuracy(retrained, forget, s) < gone.mean() < accuracy(s.model, forget, s) - 0.1
    spared = kept - gone
    assert spared.mean() > 3 * spared.std(ddof=1) / spared.size**0.5
    assert spared.mean() > 0.05
    losses = [np.mean([mean_loss(model, forget, s) for model in models]) for models in ([s.model], others, own)]
    assert losses[2] - losses[0] > 1.5 * (losses[1] - losses[0]) > 0
    assert np.mean([accuracy(model, s.request.retain, s) for model in own]) > 0.97


@pytest.mark.slow
def test_of_well_labelled_random_records_empirical_noise_forgets_no_more_than_of_others():
    """Its known limit: the weights that say them are needed by the retained records too."""
    method, ids = METHODS["fisher_empirical"](alpha=3e-8, cap=0.05), np.arange(60)
    gone, kept = (
        np.mean([accuracy(unlearn(method, deletion(forget), seed=k), ids) for k in range(20)])
        for forget in (range(60), range(60, 120))
    )
    assert accuracy(mlp_subject().model, ids) - gone < 0.05
    assert abs(kept - gone) < 0.02


def test_no_forget_record_is_read():
    s, request = mlp_subject(), deletion(range(60))
    data = copy.copy(s.data)
    data.x = s.data.x.clone()
    data.x[:60] = 0.0
    for name in ("fisher", "fisher_empirical"):
        one, other = (
            METHODS[name]().unlearn(
                s.model, request, recipe=s.recipe, data=d, runtime=s.runtime, rng=np.random.default_rng(0)
            )
            for d in (s.data, data)
        )
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("settings", [("fisher", {"alpha": 0.0}), ("fisher_empirical", {"cap": 0.0})])
def test_without_noise_the_bits_stay(settings):
    s = mlp_subject()
    labels = s.data.y[:N].numpy()
    request = deletion(np.flatnonzero(labels == 3), kind="class")
    got = unlearn(METHODS[settings[0]](**settings[1]), request)
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), s.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "settings"), [("fisher", {"alpha": -1e-6}), ("fisher_empirical", {"cap": float("nan")})]
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        METHODS[name](**settings)


class _ConvolutionalHead(torch.nn.Module):
    """Digits by a convolution over the whole image: its logits come from no linear layer."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 10, 8)

    def forward(self, x):
        return self.convolution(x.reshape(-1, 1, 8, 8)).flatten(1)


def test_a_class_without_a_row_of_its_own_is_refused():
    s = mlp_subject()
    forget = np.flatnonzero(s.data.y[:N].numpy() == 3)
    args = dict(recipe=s.recipe, data=s.data, runtime=s.runtime, rng=np.random.default_rng(0))
    with pytest.raises(UnsupportedModel, match="no linear layer makes this model's logits"):
        METHODS["fisher"]().unlearn(_ConvolutionalHead(), deletion(forget, kind="class"), **args)
    METHODS["fisher"]().unlearn(_ConvolutionalHead(), deletion(forget), **args)
