"""Privacy losses of records and the fine-tuning that they pace: against an optimiser, an exact case, and autograd."""

import copy
import functools
import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from toy_models import RUNTIME, N, digits, mlp_subject
from toy_models import request as deletion

from mnemoscope.audit.errors import InvalidInput, StaleArtifact
from mnemoscope.audit.models.history import History
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import train_model
from mnemoscope.unlearning import METHODS
from mnemoscope.unlearning.noisy_finetune_reading import NoisyFineTune
from mnemoscope.unlearning.per_instance_privacy import PrivacyAccount, privacy_account

SUBJECT_HISTORY = History(np.arange(N), 1)


@functools.cache
def account():
    s = mlp_subject()
    return privacy_account(
        s.model, SUBJECT_HISTORY, np.arange(60), recipe=s.recipe, data=s.data, runtime=RUNTIME, lr=s.recipe.lr
    )


def by_hand(shifts, rates, *, noise=1.0, order=2.0, decay=0.0):
    """An account of single records from the shift (0 where unused) and the rate of every step."""
    shifts, rates = np.atleast_2d(shifts).astype(float), np.asarray(rates, float)
    scale = np.cumprod(1 - rates * decay)
    variance = np.cumsum((noise * rates / scale) ** 2)
    before = np.append(0.0, variance[:-1])
    rows = [np.broadcast_to(a, shifts.shape) for a in (rates, before, scale)]
    return PrivacyAccount(
        np.arange(len(shifts)), order, noise, shifts, rows[0], rows[1], variance[-1], rows[2], 1 - decay, scale[-1]
    )


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_bound_is_the_best_way_of_charging_shifts_to_noise(steps, decay):
    """Minimise the sum of order a_t^2 / (2 s_t^2) over all charges that never run ahead of the shifts."""
    rng = np.random.default_rng(steps)
    for _ in range(4):
        shifts = rng.gamma(1.0, size=6) * (rng.random(6) < 0.6)
        rates = rng.uniform(0.5, 1.5, 6)
        made = by_hand(shifts, rates, noise=0.7, order=3.0, decay=decay)
        s = np.append(shifts * rates, np.zeros(steps))
        spread = np.append(0.7 * rates, np.full(steps, 0.7))
        c = np.append(1 - rates * decay, np.full(steps, 1 - decay))

        def distance(a, s=s, c=c):
            z, path = 0.0, []
            for shift, charge, factor in zip(s, a, c, strict=True):
                z = factor * z + shift - charge
                path.append(z)
            return np.array(path)

        best = minimize(
            lambda a, spread=spread: (a**2 / spread**2).sum(),
            s,
            bounds=[(0, None)] * len(s),
            constraints=[
                {"type": "ineq", "fun": lambda a: distance(a)[:-1]},
                {"type": "eq", "fun": lambda a: distance(a)[-1]},
            ],
            options={"maxiter": 500, "ftol": 1e-14},
        )
        assert made.remaining(steps)[0] == pytest.approx(3.0 / 2 * best.fun, rel=1e-4, abs=1e-9)


def test_the_bound_is_exact_where_steps_move_both_weights_alike():
    """Linear losses: the two ends are normal, k + 6 noises wide and the sum of shifts apart."""
    made = by_hand([0.3] * 6, [1.0] * 6, noise=0.5, order=4.0)
    for steps in (0, 3, 50):
        at_once = made.remaining(steps)[0]
        exact = 4.0 * 1.8**2 / (2 * 0.25 * (6 + steps))
        assert at_once >= exact - 1e-12
        assert steps or at_once == pytest.approx(exact)
    # A single shift at the first step is the straight line: no slack.
    first = by_hand([1.8, 0, 0, 0, 0, 0], [1.0] * 6, noise=0.5, order=4.0)
    for steps in (0, 3, 50):
        assert first.remaining(steps)[0] == pytest.approx(4.0 * 1.8**2 / (2 * 0.25 * (6 + steps)))
    assert first.losses[0] == pytest.approx(4.0 * 1.8**2 / (2 * 0.25))


def test_later_steps_only_lower_the_bound_and_decay_lowers_it_faster():
    made, with_decay = (by_hand(np.ones((3, 5)) * [[1], [2], [3]], np.ones(5), decay=d) for d in (0.0, 0.05))
    bounds = np.array([made.remaining(k) for k in (0, 1, 10, 100, 10_000)])
    assert (np.diff(bounds, axis=0) < 0).all()
    assert (np.diff(bounds, axis=1) > 0).all()
    assert (made.remaining(0) <= made.losses + 1e-12).all()
    assert with_decay.remaining(100).max() < 0.01 * made.remaining(100).min()
    assert np.isfinite(with_decay.remaining(100_000)).all()


def test_steps_are_the_fewest_that_reach_the_target():
    made = by_hand([[1.0, 0.0, 2.0]], np.ones(3))
    for target in (5.0, 1.0, 0.1):
        steps = made.steps_for(target, most=1000)
        assert made.remaining(steps).max() <= target
        assert steps == 0 or made.remaining(steps - 1).max() > target
    assert made.steps_for(1e-6, most=1000) == 1000
    assert made.steps_for(100.0, most=1000) == 0
    with pytest.raises(InvalidInput, match="target"):
        made.steps_for(0.0, most=10)


@pytest.mark.slow
def test_norms_are_those_of_the_training_step_by_step():
    s, found = mlp_subject(), account()
    assert np.array_equal(found.ids, np.arange(60))
    assert found.used.shape == (60, s.recipe.epochs)
    row, seen = 7, []

    class Plain:
        def before_step(self, module, batch, inputs, rate):
            at = (batch.positions == row).nonzero().flatten()
            if at.numel():
                twin = copy.deepcopy(module)
                nn.functional.cross_entropy(twin(inputs[at]), s.data.y[[row]]).backward()
                norm = sum(float(p.grad.double().square().sum()) for p in twin.parameters()) ** 0.5
                seen.append((norm / len(batch.positions), rate / s.recipe.lr))

        def after_step(self, module, batch):
            pass

    train_model(s.recipe, s.data, np.arange(N), seed=1, runtime=RUNTIME, watcher=Plain())
    used, rates = np.transpose(seen)
    np.testing.assert_allclose(found.used[row], used, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.rate[row], rates)
    given = {"recipe": s.recipe, "data": s.data, "runtime": RUNTIME, "lr": s.recipe.lr}
    sparse = privacy_account(s.model, SUBJECT_HISTORY, np.arange(5, 9), every=4, **given)
    np.testing.assert_allclose(sparse.used[2], found.used[row, np.arange(20) // 4 * 4], rtol=1e-6)
    assert found.losses[row] == pytest.approx(2.0 * (used**2).sum() / (2 * 0.003**2), rel=1e-3)


@pytest.mark.slow
def test_records_with_wrong_labels_have_the_largest_losses():
    data = copy.copy(digits())
    data.y = digits().y.clone()
    data.y[:10] = (data.y[:10] + 1) % 10
    s, seed = mlp_subject(), 4
    model = train_model(s.recipe, data, np.arange(N), seed=seed, runtime=RUNTIME).module
    made = privacy_account(
        model, History(np.arange(N), seed), np.arange(50), recipe=s.recipe, data=data, runtime=RUNTIME, lr=0.2
    )
    assert np.median(made.losses[:10]) > 3 * np.median(made.losses[10:])
    hardest = made.strata(5)[-1]
    assert np.isin(hardest, np.arange(10)).sum() >= 7
    assert np.array_equal(np.sort(np.concatenate(made.strata(3))), np.arange(50))
    assert [len(part) for part in made.strata(3)] == [17, 17, 16]
    with pytest.raises(InvalidInput, match="parts"):
        made.strata(51)


def unlearn(method, request, *, subject=None, history=SUBJECT_HISTORY):
    s = subject or mlp_subject()
    return method.unlearn(
        s.model, request, recipe=s.recipe, data=s.data, runtime=RUNTIME, rng=np.random.default_rng(0), history=history
    )


def steps_of(request, **settings):
    """How many steps the method makes, beside those of the training that it replays."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        plain = torch.optim.SGD.step
        patch.setattr(torch.optim.SGD, "step", lambda self, *a, **k: (made.append(1), plain(self, *a, **k))[1])
        unlearn(NoisyFineTune(**settings), request)
    return len(made) - mlp_subject().recipe.epochs * 8


@pytest.mark.slow
def test_hard_records_are_fine_tuned_longer_than_easy_ones():
    easy, _, hard = account().strata(3)
    target = float(account().remaining(20)[np.isin(account().ids, easy)].max())
    assert steps_of(deletion(easy), target=target, epochs=12) == 20
    assert steps_of(deletion(hard), target=target, epochs=12) == 12 * 7  # the end of the budget
    assert steps_of(deletion(easy), target=1e9) == 0


@pytest.mark.slow
def test_noise_has_the_deviation_that_the_account_assumes():
    s, request, moved = mlp_subject(), deletion(range(60)), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrivacyAccount, "steps_for", lambda self, target, *, most: 1)
        for noise in (1e-9, 0.05):
            work = unlearn(NoisyFineTune(noise=noise), request)
            moved.append(torch.cat([p.detach().flatten() for p in work.parameters()]))
    drawn = (moved[1] - moved[0]) / s.recipe.lr
    assert float(drawn.std()) == pytest.approx(0.05, rel=0.05)
    assert abs(float(drawn.mean())) < 4 * 0.05 / drawn.numel() ** 0.5


@pytest.mark.slow
def test_wrong_labels_are_forgotten_that_retained_records_contradict():
    data = copy.copy(digits())
    data.y = digits().y.clone()
    data.y[:20] = (data.y[:20] + 1) % 10
    recipe = Recipe(architecture="mlp:64", lr=0.2, epochs=40, batch_size=32)
    model = train_model(recipe, data, np.arange(N), seed=3, runtime=RUNTIME).module
    method = NoisyFineTune(noise=0.02, target=1e-3, epochs=25)
    after = method.unlearn(
        model,
        deletion(range(20)),
        recipe=recipe,
        data=data,
        runtime=RUNTIME,
        rng=np.random.default_rng(0),
        history=History(np.arange(N), 3),
    )
    labels = data.y[:N].numpy()
    right = [infer_logits(m, data, np.arange(N), runtime=RUNTIME)[:, 0].argmax(1) == labels for m in (model, after)]
    assert right[0][:20].mean() > 0.9
    assert right[1][:20].mean() < right[0][:20].mean() - 0.3
    assert right[1][20:].mean() > 0.9


def test_what_cannot_be_accounted_is_refused():
    s = mlp_subject()
    given = {"recipe": s.recipe, "data": s.data, "runtime": RUNTIME, "lr": 0.1}
    with pytest.raises(InvalidInput, match="not trained on"):
        privacy_account(s.model, SUBJECT_HISTORY, np.array([400]), **given)
    with pytest.raises(StaleArtifact, match="another model"):
        privacy_account(s.model, History(np.arange(N), 2), np.array([1]), **given)
    for wrong in ({"order": 1.0}, {"noise": 0.0}, {"lr": -1.0}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            privacy_account(s.model, SUBJECT_HISTORY, np.array([1]), **(given | wrong))
    for wrong in ({"order": 1.0}, {"noise": 0.0}, {"lr": 0.0}, {"every": 0}, {"target": -1.0}, {"epochs": -1}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            NoisyFineTune(**wrong)
    assert METHODS["noisy_finetune_reading"]().reading
    assert json.dumps(account().losses.tolist())
