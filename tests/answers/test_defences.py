"""Defences at the exit: the prediction stays, nothing beyond what is published gets out, ties are borne."""

import dataclasses
import math

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.lira import LiRA
from mnemoscope.attacks.rmia import RMIA
from mnemoscope.attacks.threshold import Threshold
from mnemoscope.audit.answers.defences import DefendedOracle, LabelOnly, Round, TopK, defend, parse_defence
from mnemoscope.audit.answers.protocols import offered_by, score_fleet, score_target
from mnemoscope.audit.answers.signals import SIGNALS, compute_signal
from mnemoscope.audit.answers.views import Answers, Known, Need, Side, View
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.roc import auc
from mnemoscope.audit.testing import toy_fleet

SPECS = (
    "label-only",
    "top:1",
    "top:2",
    "temperature:5",
    "temperature:0.3",
    "round:0",
    "round:1",
    "round:2",
    "round:7",
    "smooth:0.1",
    "smooth:0.999999",
    "temperature:5+round:2",
    "top:1+round:1",
    "label-only+round:2",
)


def hard_logits(rng: np.random.Generator) -> np.ndarray:
    """Ordinary rows, saturated ones, exact ties, near ties one float32 step apart, and a huge range."""
    rows = [
        rng.normal(0, 3, (200, 5)),
        rng.normal(0, 200, (50, 5)),
        rng.integers(0, 2, (50, 5)),
        np.full((1, 5), 7.0),
        [[0, 1e30, -1e30, 3e38, -3e38], [1e4, 0, 0, 0, 1e4]],
    ]
    near = np.full((20, 5), 1.0, np.float32)
    near[:, 3] = np.nextafter(np.float32(1), np.float32(2))
    return np.concatenate([*(np.asarray(r, np.float32) for r in rows), near])


@pytest.mark.parametrize("spec", SPECS)
def test_every_defence_keeps_the_prediction_and_gives_finite_log_probabilities(spec: str) -> None:
    logits = hard_logits(np.random.default_rng(0))
    logits.flags.writeable = False
    defence = parse_defence(spec)
    out = defence.apply(logits)
    assert out.shape == logits.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert (out.argmax(-1) == logits.argmax(-1)).all()
    assert defence.labels_only == ("label-only" in spec)
    assert parse_defence(defence.name) == defence
    assert hash(defence) == hash(parse_defence(spec))
    assert (defence.apply(logits.reshape(-1, 1, 5))[:, 0] == out).all()
    labels = np.zeros(logits.shape[0], np.int64)
    for signal in SIGNALS:
        assert np.isfinite(compute_signal(signal, out[:, None], labels)).all(), signal


@pytest.mark.parametrize("spec", SPECS)
def test_an_additive_constant_of_the_logits_does_not_get_out(spec: str) -> None:
    logits = np.random.default_rng(1).integers(-20, 20, (100, 4)).astype(np.float32)
    defence = parse_defence(spec)
    assert (defence.apply(logits) == defence.apply(logits + 512)).all()


def test_known_answers() -> None:
    p = np.array([[0.7, 0.2, 0.06, 0.04]])
    logits = np.log(p).astype(np.float32)
    expected = {
        "top:1": [0.7, 0.1, 0.1, 0.1],
        "top:2": [0.7, 0.2, 0.05, 0.05],
        "temperature:2": np.sqrt(p[0]) / np.sqrt(p[0]).sum(),
        "round:1": [0.7, 0.2, 0.1, 0.05],  # 0.04 rounds to zero: nothing is missing, so it holds half a unit
        "smooth:0.1": 0.9 * p[0] + 0.025,
        # sqrt(.7), sqrt(.2), sqrt(.06), sqrt(.04) = .836660, .447214, .244949, .2; their sum is 1.728823
        "temperature:2+top:1": [0.4839479, *[(1 - 0.4839479) / 3] * 3],
    }
    for spec, values in expected.items():
        np.testing.assert_allclose(np.exp(parse_defence(spec).apply(logits))[0], values, rtol=2e-6)
    np.testing.assert_array_equal(LabelOnly().apply(logits), np.float32([[0, -87, -87, -87]]))


def test_top_1_is_exact_where_the_softmax_saturates() -> None:
    logits = np.float32([[60.0, 0.0, -1.0, -2.0]])
    rest = math.log1p(math.exp(-1) + math.exp(-2))
    margin = compute_signal("margin", TopK(1).apply(logits)[:, None], np.array([0]))[0, 0]
    assert margin == pytest.approx(60 - rest, rel=1e-6)


def test_top_k_shows_nothing_of_what_it_hides() -> None:
    """Two answers with the same k largest probabilities and other small ones are published as the same bits."""
    a = np.float32(np.log([[0.5, 0.3, 0.15, 0.05]]))
    b = np.float32(np.log([[0.5, 0.3, 0.05, 0.15]]))
    assert (TopK(2).apply(a) != TopK(2).apply(b)).sum() == 0
    assert (TopK(3).apply(a) != TopK(3).apply(b)).any()


def test_equal_rounded_vectors_give_equal_scores_and_more_digits_are_not_seen() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(6) * 0.3, 4000)
    units = np.round(p * 100)
    p = p[np.abs(p * 100 - units).max(axis=1) < 0.49]  # away from the edge between two roundings
    nudged = p.copy()
    nudged[:, 0] += 2e-5
    nudged /= nudged.sum(axis=1, keepdims=True)
    same = (np.round(p * 100) == np.round(nudged * 100)).all(axis=1) & (p.argmax(1) == nudged.argmax(1))
    assert same.sum() > 500
    first, second = (Round(2).apply(np.log(np.maximum(x[same], 1e-30)).astype(np.float32)) for x in (p, nudged))
    assert (first == second).all()
    labels = np.zeros(int(same.sum()), np.int64)
    for signal in SIGNALS:
        scores = compute_signal(signal, first[:, None], labels)
        assert (scores == compute_signal(signal, second[:, None], labels)).all()
    # The published vector is all there is: as many different answers as different (vector, label) pairs.
    answers = np.unique(Round(2).apply(np.log(np.maximum(p, 1e-30)).astype(np.float32)), axis=0).shape[0]
    shown = np.unique(np.column_stack([np.round(p * 100), p.argmax(1)]), axis=0).shape[0]
    assert answers <= shown


def test_one_point_zero_zero_outranks_what_is_rounded_below_it() -> None:
    p = np.array([[0.9999, 0.0001, 0, 0], [0.99, 0.0034, 0.0033, 0.0033], [0.98, 0.01, 0.005, 0.005]])
    margin = compute_signal("margin", Round(2).apply(np.log(p + 1e-12).astype(np.float32))[:, None], np.zeros(3, int))
    assert margin[0, 0] > margin[1, 0] > margin[2, 0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("labels-only", "did you mean 'label-only'"),
        ("label-only:1", "write 'label-only'"),
        ("top", "write 'top:NUMBER'"),
        ("top:one", "no number"),
        ("top:0", "publishes nothing"),
        ("top:1.5", "no number"),
        ("temperature:0", "positive"),
        ("temperature:inf", "positive"),
        ("temperature:nan", "positive"),
        ("round:8", "0 to 7"),
        ("round:-1", "0 to 7"),
        ("smooth:1", "no prediction is left"),
        ("", "unknown"),
        ("round:2+", "unknown"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(spec: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_defence(spec)


def test_top_k_of_too_few_classes_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"top:3 of 3 classes hides nothing"):
        TopK(3).apply(np.zeros((1, 3), np.float32))


def test_the_whole_reference_is_defended_and_the_original_left_alone() -> None:
    fleet = toy_fleet(2.0, n_queries=2)
    fleet.signal("margin")
    bits = fleet.logits.tobytes()
    defence = parse_defence("round:1")
    hidden = defend(fleet, defence)
    assert type(hidden) is type(fleet)
    assert fleet.logits.tobytes() == bits
    assert fleet.population is not None
    assert fleet.before is not None
    assert hidden.population is not None
    assert hidden.before is not None
    assert hidden.before.population is not None
    for plain, other in (
        (fleet, hidden),
        (fleet.population, hidden.population),
        (fleet.before, hidden.before),
    ):
        assert (other.logits == defence.apply(plain.logits)).all()
        assert not other.labels_only
    assert (hidden.signal("margin") != fleet.signal("margin")).any()  # nothing of the cache came along
    assert (hidden.side == fleet.side).all()
    view = fleet.target(0)
    known = Answers(np.array([5]), np.array([0]), view.logits[:1])
    view = dataclasses.replace(view, known=Known(known, dataclasses.replace(known, ids=np.array([6]))))
    other = defend(view, LabelOnly())
    assert isinstance(other, View)
    assert other.known is not None
    assert other.before is not None
    parts = (other, other.population, other.before, other.known.members, other.known.nonmembers)
    assert all(part is not None and part.labels_only for part in parts)


def test_label_only_leaves_correctness_and_nothing_else() -> None:
    fleet = toy_fleet(2.0)
    hidden = defend(fleet, LabelOnly())
    assert Need.SCORES not in offered_by(hidden)
    for signal in SIGNALS:
        if signal == "correctness":
            assert (hidden.signal(signal) == fleet.signal(signal)).all()
        else:
            with pytest.raises(MissingNeed, match="labels only"):
                hidden.signal(signal)
    for name in ("loss", "lira", "rmia", "population", "modified_entropy_by_class"):
        with pytest.raises(MissingNeed, match="labels only"):
            score_fleet(ATTACKS[name](), hidden, rng=np.random.default_rng(0))
    plain = score_fleet(Threshold("correctness"), fleet, rng=np.random.default_rng(0))
    assert (score_fleet(Threshold("correctness"), hidden, rng=np.random.default_rng(0)) == plain).all()
    # A further defence does not give scores back.
    assert defend(hidden, Round(2)).labels_only


class FakeOracle:
    """A model with logits inputs @ W, counted; keeps what it was asked to remember."""

    def __init__(self) -> None:
        import torch

        self.white_box, self.n_classes, self.predictions, self.gradients = True, 4, 0, 0
        self.device = torch.device("cpu")
        self.weight = torch.arange(12.0).reshape(3, 4) / 7
        self.memory: dict[str, np.ndarray] = {}

    def inputs(self, ids):
        import torch

        return torch.from_numpy(np.stack([np.sin(ids), np.cos(ids), ids % 3], 1).astype(np.float32))

    def labels(self, ids):
        import torch

        return torch.from_numpy(ids % 4)

    def logits(self, inputs):
        self.predictions += len(inputs)
        return inputs @ self.weight

    def predict(self, inputs):
        self.predictions += len(inputs)
        return (inputs @ self.weight).argmax(1)

    def module(self):
        raise AssertionError("the model behind a defence was handed out")

    def count_gradients(self, number):
        self.gradients += number

    def recall(self, key, compute):
        return self.memory.setdefault(key, compute())


def test_live_queries_are_defended_counted_and_white_box_access_is_refused() -> None:
    fleet = toy_fleet(2.0)
    inner = tuple(FakeOracle() for _ in range(fleet.n_models))
    fleet = dataclasses.replace(fleet, oracles=inner)
    assert Need.GRADIENT in offered_by(fleet)
    hidden = defend(fleet, Round(1))
    assert hidden.oracles is not None
    assert Need.ORACLE in offered_by(hidden)
    assert Need.GRADIENT not in offered_by(hidden)
    oracle = hidden.oracles[0]
    x = oracle.inputs(np.arange(9))
    plain = inner[0].logits(x).numpy()
    assert (oracle.logits(x).numpy() == Round(1).apply(plain)).all()
    assert (oracle.predict(x).numpy() == plain.argmax(1)).all()
    assert oracle.predictions == inner[0].predictions == 27
    for refused in (oracle.module, lambda: oracle.count_gradients(1)):
        with pytest.raises(MissingNeed, match="white-box"):
            refused()
    silent = DefendedOracle(inner[0], LabelOnly())
    with pytest.raises(MissingNeed, match="labels only"):
        silent.logits(x)
    assert (silent.predict(x).numpy() == plain.argmax(1)).all()
    # What was remembered of the open model is not handed to an adversary who sees the defended one.
    inner[0].recall("distance", lambda: np.ones(1))
    assert oracle.recall("distance", lambda: np.zeros(1)) == 0
    assert silent.recall("distance", lambda: np.full(1, 2.0)) == 2
    view = hidden.target(0)
    assert view.oracle is oracle


# Ties: rounded answers repeat themselves. Closed forms and rank statistics must bear it.


def pooled(scores: np.ndarray, side: np.ndarray) -> float:
    return auc(scores[side == Side.IN], scores[side == Side.OUT])


def naive_auc(inside: np.ndarray, outside: np.ndarray) -> float:
    return float(np.mean((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)))


@pytest.mark.parametrize("spec", ["round:0", "round:1", "top:1+round:1"])
def test_attacks_and_roc_stay_right_on_tied_answers(spec: str) -> None:
    fleet = defend(toy_fleet(2.0, n_models=12, n_records=30), parse_defence(spec))
    ties = 1 - np.unique(fleet.signal("margin")).size / fleet.side.size
    assert ties > 0.5
    for attack in (LiRA(), LiRA(variance="per-record"), RMIA(), RMIA(online=False), Threshold("loss")):
        scores = score_fleet(attack, fleet, rng=np.random.default_rng(0))
        for model in range(fleet.n_models):
            alone = score_target(attack, fleet.without([model]), fleet.target(model), rng=np.random.default_rng(0))
            np.testing.assert_allclose(scores[model], alone, rtol=1e-9, atol=1e-9)
        inside, outside = scores[fleet.side == Side.IN], scores[fleet.side == Side.OUT]
        assert pooled(scores, fleet.side) == pytest.approx(naive_auc(inside, outside), abs=1e-12)


def test_rmia_counts_strictly_on_ties() -> None:
    """A population record whose ratio equals the audited one is not beaten at gamma 1: the n x z comparison agrees."""
    fleet = defend(toy_fleet(1.0, n_models=6, n_records=40, n_population=30), Round(1))
    assert fleet.population is not None
    attack = RMIA(gamma=1.0, temperature=1.0)
    scores = score_fleet(attack, fleet, rng=np.random.default_rng(0))
    p, z = np.exp(fleet.signal("negative_loss"))[..., 0], np.exp(fleet.population.signal("negative_loss"))[..., 0]
    for k in range(fleet.n_models):
        others = np.arange(fleet.n_models) != k
        side = fleet.side[others]
        means = [(p[others] * (side == s)).sum(0) / (side == s).sum(0) for s in (Side.IN, Side.OUT)]
        x, zz = np.log(p[k]) - np.log(sum(means) / 2), np.log(z[k]) - np.log(z[others].mean(0))
        beaten = (x[:, None] > zz).sum(1)
        np.testing.assert_array_equal(np.floor(scores[k] * (zz.size + 1) + 1e-9), beaten)


@pytest.mark.parametrize("spec", ["round:0", "round:1", "top:1", "temperature:5+round:2", "smooth:0.5"])
def test_a_defended_fleet_that_remembers_nothing_scores_one_half(spec: str) -> None:
    fleet = defend(toy_fleet(0.0, n_models=48, n_records=200), parse_defence(spec))
    for attack in (LiRA(), RMIA(), Threshold("modified_entropy", by_class=True)):
        value = pooled(score_fleet(attack, fleet, rng=np.random.default_rng(0)), fleet.side)
        assert abs(value - 0.5) < 0.03, attack.name


def test_what_a_defence_costs_the_attacker() -> None:
    """On a leaky fleet: rounding to whole numbers hurts LiRA, two decimals hardly; undone defences cost nothing."""
    fleet = toy_fleet(3.0)

    def lira(spec: str) -> float:
        return pooled(score_fleet(LiRA(), defend(fleet, parse_defence(spec)), rng=np.random.default_rng(0)), fleet.side)

    open_model = pooled(score_fleet(LiRA(), fleet, rng=np.random.default_rng(0)), fleet.side)
    assert lira("round:0") < open_model - 0.02
    assert lira("round:2") > open_model - 0.02
    assert abs(lira("top:2") - open_model) < 0.02  # margins need no more than the true class where it is on top
