"""Degree of unlearning on perturbed records: of a stated size, harder to tell than noise, the same for all models."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import nn
from toy_models import RUNTIME, N, digits, mlp_subject, network_subject

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning.spd_gan import SPDGAN, degree_of_unlearning


def perturbed(ids, *, seed=0, data=None, **settings):
    data = digits() if data is None else data
    return SPDGAN(**settings).perturb(data, np.asarray(ids), runtime=RUNTIME, rng=np.random.default_rng(seed))


def standardised(some, x):
    flat = some.clean.flatten(1)
    spread = flat.std(dim=0, correction=0)
    keep = spread > 0
    return ((x.flatten(1) - flat.mean(dim=0))[:, keep] / spread[keep]).numpy()


def told_apart(some, x):
    """Held-out accuracy of a fresh judge of squares and values."""
    a, b = standardised(some, x), standardised(some, some.clean)
    values = np.concatenate([a, b])
    features = np.concatenate([values, values**2], axis=1)
    labels = np.repeat([1, 0], [len(a), len(b)])
    return cross_val_score(LogisticRegression(C=0.01, max_iter=500), features, labels, cv=5).mean()


def test_every_record_moves_by_the_given_size_and_no_constant_input_moves():
    some = perturbed(range(200), size=0.2, steps=20)
    moved = standardised(some, some.x) - standardised(some, some.clean)
    np.testing.assert_allclose(np.sqrt((moved**2).mean(axis=1)), 0.2, rtol=1e-3)
    assert some.size == pytest.approx(0.2, rel=1e-3)
    constant = some.clean.flatten(1).std(dim=0, correction=0) == 0
    assert constant.any()
    assert torch.equal(some.x[:, constant], some.clean[:, constant])


@pytest.mark.slow
def test_training_makes_the_perturbation_harder_to_tell_than_before_training():
    """At a size where it shows; judged by somebody else than the discriminator it was trained against."""
    raw, trained = (perturbed(range(400), size=1.0, steps=k) for k in (0, 1500))
    draw = torch.Generator().manual_seed(0)
    noise = trained.clean + torch.randn(trained.clean.shape, generator=draw) * trained.clean.std(dim=0, correction=0)
    told = {"raw": told_apart(raw, raw.x), "noise": told_apart(trained, noise), "gan": told_apart(trained, trained.x)}
    assert told["gan"] < told["raw"] - 0.05
    assert told["gan"] < told["noise"] - 0.05


def test_the_same_seed_gives_the_same_records_and_another_seed_others():
    states = torch.get_rng_state()
    one, two, three = (perturbed(range(40), seed=s, steps=5) for s in (0, 0, 1))
    assert torch.equal(one.x, two.x)
    assert not torch.equal(one.x, three.x)
    assert torch.equal(states, torch.get_rng_state())


class Always(nn.Module):
    """Answers one class."""

    def __init__(self, label, sure=3.0):
        super().__init__()
        self.label, self.sure = label, sure

    def forward(self, x):
        logits = torch.zeros(len(x), 10)
        logits[:, self.label] = self.sure
        return logits


def test_the_degree_is_the_difference_of_accuracies_on_the_same_perturbed_records():
    some = perturbed(range(60), steps=0)
    threes, fives = ((some.y == label).double().mean() for label in (3, 5))
    got = degree_of_unlearning(Always(3), Always(5), some, runtime=RUNTIME, retrained=[Always(5), Always(3)])
    assert got.degree == pytest.approx(float(threes - fives))
    assert got.degree_clean == pytest.approx(float(threes - fives))
    assert got.degree_retrained == pytest.approx(float(threes - fives) / 2)
    normal = np.log(np.exp(3) + 9)
    assert got.before.loss == pytest.approx(normal - 3 * float(threes), rel=1e-9)
    assert got.loss_degree == pytest.approx(3 * float(threes - fives), rel=1e-9)
    assert degree_of_unlearning(Always(3), Always(3), some, runtime=RUNTIME).degree_retrained is None


def test_retraining_has_a_degree_and_doing_nothing_has_none():
    s, forget = mlp_subject(), np.flatnonzero(mlp_subject().data.y[:N].numpy() == 3)
    keep = np.setdiff1d(np.arange(N), forget)
    retrained = train_model(s.recipe, s.data, keep, seed=9, runtime=s.runtime).module
    some = perturbed(forget, steps=50)
    assert degree_of_unlearning(s.model, s.model, some, runtime=RUNTIME).degree == 0.0
    got = degree_of_unlearning(s.model, retrained, some, runtime=RUNTIME)
    assert got.degree == 1.0
    assert got.loss_degree > 2


def test_images_keep_their_form_and_models_their_modes():
    s = network_subject("batchnorm")
    some = perturbed(range(30), data=s.data, steps=3)
    assert some.x.shape == (30, 1, 8, 8)
    s.model.train()
    try:
        before = {k: v.clone() for k, v in s.model.state_dict().items()}
        degree_of_unlearning(s.model, s.model, some, runtime=RUNTIME)
        assert s.model.training
        assert all(torch.equal(v, before[k]) for k, v in s.model.state_dict().items())
    finally:
        s.model.eval()


def test_what_has_no_distribution_is_refused():
    with pytest.raises(InvalidInput, match="2 or more"):
        perturbed([3])
    with pytest.raises(InvalidInput, match="size=0"):
        SPDGAN(size=0.0)
    with pytest.raises(InvalidInput, match="steps=-1"):
        SPDGAN(steps=-1)
