"""Unlearning inversion, label inversion, model inversion, attribute inference: planted and absent leaks."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks import RECONSTRUCTIONS
from mnemoscope.attacks.attribute_inference import AttributeInference
from mnemoscope.attacks.model_inversion import ModelInversion
from mnemoscope.attacks.unlearning_inversion import (
    LabelInversion,
    UnlearningInversion,
    gradient_estimate,
    total_variation,
)
from mnemoscope.audit.answers.defences import DefendedOracle, LabelOnly, parse_defence
from mnemoscope.audit.answers.reconstruction import Case, VersionPair
from mnemoscope.audit.errors import AuditError, InvalidInput, MissingNeed
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.statistics.reconstruction import run_reconstruction
from mnemoscope.audit.testing_reconstruction import (
    PUBLIC,
    ascended,
    class_cases,
    digits_data,
    digits_models,
    oracle_of,
    step_cases,
    table_cases,
    toy_dataset,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> DeviceData:
    return digits_data()


@pytest.fixture(scope="module")
def models(digits: DeviceData) -> list[nn.Module]:
    return digits_models(digits)


# Feature recovery.


def test_the_gradient_estimate_is_the_deleted_gradient_in_both_forms(digits) -> None:
    """Closed form: one full-batch step from a public base with n and with n - k records, and one step of ascent."""
    base = build_model("mlp:8", input_shape=(1, 8, 8), n_classes=10, seed=0)
    ids, gone = np.arange(40), np.arange(3)

    def gradient(of: np.ndarray) -> list[torch.Tensor]:
        at = digits.positions(of)
        loss = nn.functional.cross_entropy(base(digits.inputs(at)), digits.y[at], reduction="sum")
        return list(torch.autograd.grad(loss, list(base.parameters())))

    def stepped(of: np.ndarray) -> nn.Module:
        moved, step = copy.deepcopy(base), gradient(of)
        with torch.no_grad():
            for p, g in zip(moved.parameters(), step, strict=True):
                p -= 0.1 * g / of.size
        return moved

    wanted = torch.cat([g.flatten() for g in gradient(gone)])
    full, less = stepped(ids), stepped(ids[3:])
    pair = VersionPair(oracle_of(full, digits), oracle_of(less, digits), PUBLIC, 40, 3, base=oracle_of(base, digits))
    _, estimate = gradient_estimate(pair)
    got = torch.cat([g.flatten() for g in estimate.values()])
    assert float(nn.functional.cosine_similarity(got, wanted, dim=0)) > 0.9999
    assert float((got - 0.1 * wanted).norm() / (0.1 * wanted).norm()) < 1e-3
    # Without weighting by n the kept records do not cancel.
    plain = torch.cat([(b - a).detach().flatten() for a, b in zip(full.parameters(), less.parameters(), strict=True)])
    assert float(nn.functional.cosine_similarity(plain, wanted, dim=0)) < 0.95
    up = VersionPair(oracle_of(base, digits), oracle_of(ascended(base, digits, gone, 0.2), digits), PUBLIC, 40, 3)
    got = torch.cat([g.flatten() for g in gradient_estimate(up)[1].values()])
    assert float(nn.functional.cosine_similarity(got, wanted, dim=0)) > 0.9999


def test_total_variation_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0], [3.0, 1.0]])[None, None]
    assert float(total_variation(x)) == (3 + 0) / 2 + (1 + 2) / 2
    assert float(total_variation(torch.randn(3, 5))) == 0.0


@pytest.mark.slow
def test_a_deleted_image_is_recovered_from_a_step_and_nothing_from_retraining(digits, models) -> None:
    attack = UnlearningInversion(steps=120, restarts=1)
    leaky, clean = step_cases(digits, models, rate=0.05, white_box=True)
    finding = run_reconstruction(attack, leaky, clean, rng=np.random.default_rng(0))
    assert finding.success.value > 0.7
    assert finding.success.low > finding.control.high
    assert finding.advantage.low > 0
    assert finding.control_advantage.low < 0
    assert finding.details["PSNR in dB"] > 10
    same = run_reconstruction(attack, leaky[:1], rng=np.random.default_rng(0))
    assert same.n_models == 1
    assert same.success.ci is None  # one trial on one model bears no interval
    again = run_reconstruction(attack, leaky[:1], rng=np.random.default_rng(0))
    assert again.success.value == same.success.value


def test_models_are_left_as_they_are_and_many_deletions_refused(digits, models) -> None:
    before = oracle_of(models[0], digits)
    weights = [p.clone() for p in models[0].parameters()]
    gone = np.arange(2)
    pair = VersionPair(before, oracle_of(ascended(models[0], digits, gone, 0.05), digits), PUBLIC, 300, 2)
    run_reconstruction(UnlearningInversion(steps=5, restarts=2), [Case.of(pair, gone)], rng=np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(weights, models[0].parameters(), strict=True))
    assert all(p.grad is None for p in models[0].parameters())
    assert before.gradients == 5 * 2 * 2
    many = Case.of(VersionPair(before, before, PUBLIC, 300, 5), np.arange(5))
    with pytest.raises(InvalidInput, match="at most 4 deleted records, this pair lacks 5"):
        run_reconstruction(UnlearningInversion(), [many], rng=np.random.default_rng(0))


# Label recovery.


@pytest.mark.slow
def test_the_drop_of_a_biased_class_is_named(digits) -> None:
    """Closed form: a bias lowered by one lowers that class's log odds by one at every input, and raises all others."""
    before = build_model("mlp:8", input_shape=(1, 8, 8), n_classes=10, seed=0)
    for label in range(10):
        after = copy.deepcopy(before)
        with torch.no_grad():
            after[-1].bias[label] -= 1.0
        pair = VersionPair(oracle_of(before, digits), oracle_of(after, digits), PUBLIC, 300, 1)
        assert LabelInversion(steps=1, tries=2).recover(pair, None, rng=np.random.default_rng(0)) == label


@pytest.mark.slow
def test_the_label_of_what_was_deleted_is_named_after_a_step_and_not_without_one(digits, models) -> None:
    attack = LabelInversion(steps=2, tries=4)
    leaky, clean = step_cases(digits, models, n_cases=10, first=20, rate=0.3, white_box=False)
    finding = run_reconstruction(attack, leaky, clean, rng=np.random.default_rng(0))
    assert finding.success.low > 0.4
    assert finding.success.ci.method == "Clopper-Pearson"
    assert finding.advantage.low > 0.3
    assert finding.control.low < 0.1
    assert abs(finding.chance.value - 0.1) < 0.03
    before, after, gone = leaky[-1].pair.before, leaky[-1].pair.after, leaky[-1].secret.ids
    hidden = VersionPair(DefendedOracle(before, LabelOnly()), DefendedOracle(after, LabelOnly()), PUBLIC, 300, 1)
    with pytest.raises(MissingNeed, match="labels only"):
        run_reconstruction(attack, [Case.of(hidden, gone)], rng=np.random.default_rng(0))
    rounded = VersionPair(*(DefendedOracle(o, parse_defence("round:1")) for o in (before, after)), PUBLIC, 300, 1)
    run_reconstruction(attack, [Case.of(rounded, gone)], rng=np.random.default_rng(0))


# Model inversion.


def test_the_inversion_of_a_linear_model_is_its_weight_row() -> None:
    """Closed form: orthonormal rows and a pull to zero have their optimum along w_c minus the mean of the others."""
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(12, 12)))[0][:4].astype(np.float32)
    half = rng.normal(size=(50, 12)).astype(np.float32) * 3
    values = np.concatenate([half, -half]) / 20  # mean zero, within [-1, 1]: used as it is
    data = DeviceData(toy_dataset(values, np.arange(100) % 4, 4))
    module = nn.Linear(12, 4)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(frame))
        module.bias.zero_()
    model = oracle_of(module, data)
    pair = VersionPair(model, model, np.arange(100), 300, 4)
    found = ModelInversion(steps=600, pull=2.0, lr=0.02).recover(pair, np.arange(4), rng=rng)
    assert np.abs(found).max() < np.abs(values).max()  # the clamp does not bind
    for c in range(4):
        wanted = frame[c] - np.delete(frame, c, axis=0).mean(axis=0)
        assert found[c] @ wanted / np.linalg.norm(found[c]) / np.linalg.norm(wanted) > 0.99


def test_classes_are_recovered_from_a_trained_model_and_not_from_an_untrained_one(digits) -> None:
    attack = ModelInversion(steps=60)
    leaky, clean = class_cases(digits)
    finding = run_reconstruction(attack, leaky, clean, rng=np.random.default_rng(0))
    assert finding.n == 10
    assert finding.chance.value == pytest.approx(0.1)
    assert finding.success.low > 0.6
    assert finding.control.low < 0.1
    assert finding.details["cosine to the class mean"] > 0.3
    assert finding.success.reason is not None  # one model
    pair = leaky[0].pair
    some = Case.of(VersionPair(pair.before, pair.after, PUBLIC[:3], 600, 100), leaky[0].secret.ids)
    with pytest.raises(InvalidInput, match="cannot be judged"):
        run_reconstruction(attack, [some], rng=np.random.default_rng(0))


# Attribute inference.


class Answering(nn.Module):
    """p(y = 1) is one number where column 0 is set and another where it is not."""

    def __init__(self, where_set: float, where_not: float) -> None:
        super().__init__()
        self.p = torch.tensor([where_not, where_set])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.p[x[:, 0].long()]
        return torch.stack([1 - p, p], dim=1).log()


@pytest.mark.parametrize(("where_not", "for_one"), [(0.2, 1.0), (0.45, 0.0)])
def test_the_guess_is_the_most_probable_value_by_bayes(where_not: float, for_one: float) -> None:
    """P(set) = .3 whatever the rest: label 1 weighs .3 x .9 = .27 against .7 x .2 = .14, or against .7 x .45 = .315."""
    rng = np.random.default_rng(0)
    x = (rng.random((4000, 4)) < 0.5).astype(np.float32)
    x[:, 0] = rng.random(4000) < 0.3
    data = DeviceData(toy_dataset(x, rng.integers(0, 2, 4000), 2))
    model = oracle_of(Answering(0.9, where_not), data, white_box=False)
    pair = VersionPair(model, model, np.arange(100, 4000), 100, 10)
    case = Case.of(pair, np.arange(100))
    attack = AttributeInference(columns=(0,))
    guesses = attack.recover(pair, attack.told(case.secret, pair), rng=rng)[0]
    np.testing.assert_array_equal(guesses, np.where(case.secret.labels == 1, for_one, 0.0))


def test_attributes_of_members_are_found_beyond_imputation_and_of_others_not() -> None:
    attack = AttributeInference(columns=(0, 5))
    finding = run_reconstruction(attack, *table_cases(), rng=np.random.default_rng(0))
    assert finding.n == 200
    # Of two labels, a model that is sure outweighs one that is not by 2 to 1, the population by 4 to 1 in column 0.
    assert finding.success.value > 0.85
    assert finding.chance.value < 0.8  # 80 % of column 0, half of column 5
    assert finding.advantage.low > 0.1
    assert finding.control_advantage.high < 0.1
    assert finding.excess.low > 0.1
    silent = run_reconstruction(attack, table_cases(held=False)[0], rng=np.random.default_rng(0))
    # What the population alone tells is no success of the attack.
    assert silent.success.value > 0.6
    assert silent.advantage.low <= 0


def test_columns_are_chosen_by_their_spread_and_refused_where_they_are_no_categories(digits) -> None:
    case = Case.of(table_cases()[0][0].pair, np.arange(9))
    assert run_reconstruction(AttributeInference(most=3), [case], rng=np.random.default_rng(0)).n == 27
    with pytest.raises(InvalidInput, match="column 99 of a table with 12"):
        run_reconstruction(AttributeInference(columns=(99,)), [case], rng=np.random.default_rng(0))
    image = oracle_of(build_model("mlp:8", input_shape=(1, 8, 8), n_classes=10, seed=5), digits)
    images = Case.of(VersionPair(image, image, PUBLIC, 300, 1), np.array([1]))
    with pytest.raises(InvalidInput, match="is for tables"):
        run_reconstruction(AttributeInference(), [images], rng=np.random.default_rng(0))
    constant = DeviceData(toy_dataset(np.full((50, 3), 0.5, np.float32), np.arange(50) % 2, 2))
    flat = oracle_of(build_model("mlp:4", input_shape=(3,), n_classes=2, seed=0), constant)
    case = Case.of(VersionPair(flat, flat, np.arange(20, 50), 20, 1), np.array([1]))
    with pytest.raises(InvalidInput, match="no column has 2 to 10"):
        run_reconstruction(AttributeInference(), [case], rng=np.random.default_rng(0))


# The protocol itself.


class Peeping(LabelInversion):
    """Asks for what it is to recover."""

    def recover(self, pair, told, *, rng):
        pair.before.inputs(np.array([3]))
        return 0


def test_no_attack_reads_the_secret_and_public_records_stay_apart(digits, models) -> None:
    model = oracle_of(models[0], digits)
    case = Case.of(VersionPair(model, model, PUBLIC, 300, 1), np.array([3]))
    with pytest.raises(AuditError, match="that it is to recover"):
        run_reconstruction(Peeping(), [case], rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="both secret and public"):
        Case.of(VersionPair(model, model, PUBLIC, 300, 1), PUBLIC[:2])
    with pytest.raises(InvalidInput, match="no pair of versions"):
        run_reconstruction(LabelInversion(), [], rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="n_deleted=300"):
        VersionPair(model, model, PUBLIC, 300, 300)


def test_every_registered_reconstruction_describes_itself() -> None:
    import dataclasses
    import json

    for name, make in RECONSTRUCTIONS.items():
        attack = make()
        settings = dataclasses.asdict(attack)
        assert attack.name == name
        assert attack.unit
        assert attack.note
        assert type(attack)(**json.loads(json.dumps(settings))) == attack
        assert hash(attack) == hash(make())
        assert type(attack).__doc__.splitlines()[0].endswith(".")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(attack, next(iter(settings)), 1)
