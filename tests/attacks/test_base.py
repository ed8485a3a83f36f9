"""BASE: the reference's vector, its ties to RMIA and LiRA, and settings tuned on the attacker's models alone."""

import math

import numpy as np
import pytest

from mnemoscope.attacks.base import BASE, SCALES, LinearBASE
from mnemoscope.attacks.lira import LiRA
from mnemoscope.attacks.rmia import RMIA, SLOPES
from mnemoscope.attacks.tuning import tuned_setting
from mnemoscope.audit.answers.protocols import score_target
from mnemoscope.audit.answers.views import Answers, Reference, View
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.testing import toy_fleet

RNG = np.random.default_rng(0)


def logits_of(p):
    """Two-class logits that give class 0 the probability p."""
    p = np.asarray(p, np.float64)
    return np.stack([np.log(p), np.log1p(-p)], axis=-1)[..., None, :]


def two_class(phi):
    return np.stack([phi, np.zeros_like(phi)], axis=-1)[..., None, :]


def pooled_auc(scores, side):
    inside, outside = scores[side == 1], np.sort(scores[side == 0])
    twice = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(twice.mean() / (2 * outside.size))


@pytest.mark.parametrize(
    ("attack", "score"),
    [(BASE(), 0.810930), (BASE(online=False), 1.280934), (BASE(online=False, scale=0.33), 0.352117)],
)
def test_vector_of_the_reference(attack, score):
    shadows = logits_of([[0.5], [0.6], [0.2], [0.3]])
    side = np.array([1, 1, 0, 0], np.int8)[:, None]
    reference = Reference(np.zeros(1, np.int64), np.zeros(1, np.int64), shadows, side=side)
    view = View(np.zeros(1, np.int64), np.zeros(1, np.int64), logits_of([0.9]))
    np.testing.assert_allclose(attack.fit(reference, rng=RNG).score(view), score, atol=1e-6)


def test_orders_as_rmia_with_gamma_one_does_without_its_ties():
    fleet = toy_fleet(2.0, n_population=40)
    base = BASE(temperature=2.0).score_fleet(fleet, rng=RNG)
    rmia = RMIA(gamma=1.0).score_fleet(fleet, rng=RNG)
    counts = np.floor(rmia * 41)
    for k in range(fleet.n_models):
        order = np.argsort(base[k])
        assert (np.diff(counts[k][order]) >= 0).all()
        assert np.unique(counts[k]).size < np.unique(base[k]).size


def base4(phi, side, x):
    """BASE4 as released: per-record Gaussians with population variances."""
    scores = np.empty(x.size)
    for j in range(x.size):
        a, b = (phi[side[:, j] == s, j] for s in (1, 0))
        quadratic = (x[j] - b.mean()) ** 2 / (2 * b.var()) - (x[j] - a.mean()) ** 2 / (2 * a.var())
        scores[j] = quadratic + math.log(b.std() / a.std())
    return scores


def test_base4_is_lira_per_record_but_for_the_divisor_of_the_variance():
    rng = np.random.default_rng(1)
    side = np.repeat(np.array([1, 0], np.int8), 8)[:, None] * np.ones((1, 30), np.int8)
    phi, x = rng.normal(3, 2, 30) + side + rng.normal(size=(16, 30)), rng.normal(3, 2, 30)
    ids, labels = np.arange(30), np.zeros(30, np.int64)
    reference, view = Reference(ids, labels, two_class(phi), side=side), View(ids, labels, two_class(x))
    lira = LiRA(variance="per-record").fit(reference, rng=rng).score(view)
    a, b = phi[:8], phi[8:]
    log = np.log(b.std(axis=0) / a.std(axis=0))
    np.testing.assert_allclose(base4(phi, side, x), (lira - log) * 8 / 7 + log, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parameters", [2, 3])
def test_base2_and_base3_are_the_published_formulas(parameters):
    rng = np.random.default_rng(2)
    side = rng.permuted(np.repeat(np.array([1, 0], np.int8), 6)[:, None] * np.ones((1, 25), np.int8), axis=0)
    phi, x = rng.normal(3, 2, 25) + side + rng.normal(size=(12, 25)), rng.normal(3, 2, 25)
    expected = np.empty(25)
    for j in range(25):
        a, b = (phi[side[:, j] == s, j] for s in (1, 0))
        variance = (6 * a.var() + 6 * b.var()) / 12 if parameters == 3 else 1.0
        expected[j] = (a.mean() - b.mean()) / variance * (x[j] - (a.mean() + b.mean()) / 2)
    ids, labels = np.arange(25), np.zeros(25, np.int64)
    scorer = LinearBASE(parameters).fit(Reference(ids, labels, two_class(phi), side=side), rng=rng)
    np.testing.assert_allclose(scorer.score(View(ids, labels, two_class(x))), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parameters", [2, 3])
def test_few_models_betray_nothing_where_nothing_leaks(parameters):
    ours, published = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        column = np.repeat(np.array([1, 0, -1], np.int8), 3)
        side = rng.permuted(np.tile(column[:, None], (1, 600)), axis=0)
        phi = rng.normal(4, 3, 600) + np.exp(rng.normal(0, 0.35, 600)) * rng.normal(size=(9, 600))
        reference = Reference(np.arange(600), np.zeros(600, np.int64), two_class(phi), side=side)
        ours.append(pooled_auc(LinearBASE(parameters).score_fleet(reference, rng=rng), side))
        rest, own = np.arange(1, 9), side[0]
        means, squares = [], []
        for s in (1, 0):
            mask = side[rest] == s
            mean = np.where(mask, phi[rest], 0).sum(0) / mask.sum(0)
            means.append(mean)
            squares.append(np.where(mask, (phi[rest] - mean) ** 2, 0).sum(0))
        variance = sum(squares) / (side[rest] >= 0).sum(0) if parameters == 3 else 1.0
        score = (means[0] - means[1]) / variance * (phi[0] - (means[0] + means[1]) / 2)
        published.append(pooled_auc(score[None], own[None]))
    assert abs(np.mean(ours) - 0.5) < 0.012
    assert np.mean(published) < 0.48


def world(leak, rng, m=24, n=300):
    """Losses of a fleet whose records differ in difficulty; the margin of members is higher by ``leak``."""
    column = np.repeat(np.array([1, 0], np.int8), m // 2)
    side = rng.permuted(np.tile(column[:, None], (1, n)), axis=0)
    phi = rng.normal(1, 2, n) + leak * (side == 1) + rng.normal(size=(m, n))
    labels = np.zeros(n, np.int64)
    z = rng.normal(1, 2, 200) + rng.normal(size=(m, 200))
    population = Answers(np.arange(200), np.zeros(200, np.int64), two_class(z))
    fold = (np.arange(m) % 2).astype(np.int8)
    return Reference(np.arange(n) + 500, labels, two_class(phi), side=side, population=population, fold=fold)


def test_a_tuned_scale_beats_the_extremes_on_targets_it_has_not_seen():
    scores = {s: [] for s in (0.0, 1.0, "tuned")}
    for seed in range(3):
        fleet = world(1.5, np.random.default_rng(seed))
        for s in scores:
            attack = BASE(online=False, scale=s)
            scores[s].append(pooled_auc(attack.score_fleet(fleet, rng=RNG), fleet.side))
    mean = {s: np.mean(v) for s, v in scores.items()}
    assert mean["tuned"] > max(mean[0.0], mean[1.0]) + 0.005, mean


ATTACKS = [BASE(online=False, scale="tuned"), RMIA(online=False, offline_a="tuned")]


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_row_5_nothing_is_tuned_on_the_records_that_are_scored_then(attack):
    """Nothing leaks: the best of 13 settings on the target's own labels looks like a leak; ours stays at one half."""
    ours, faulty = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        fleet = world(0.0, rng, m=20, n=60)
        grid = SLOPES if isinstance(attack, RMIA) else tuple(k / 12 for k in range(13))
        field = "offline_a" if isinstance(attack, RMIA) else "scale"
        per_setting = [type(attack)(online=False, **{field: s}).score_fleet(fleet, rng=rng) for s in grid]
        # The fault: for each target, the setting with the highest AUC on its own audited labels.
        for k in range(fleet.n_models):
            faulty.append(max(pooled_auc(score[[k]], fleet.side[[k]]) for score in per_setting))
        ours.append(pooled_auc(attack.score_fleet(fleet, rng=rng), fleet.side))
    assert np.mean(faulty) > 0.515
    assert abs(np.mean(ours) - 0.5) < 0.012, np.mean(ours)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_row_14_tuning_never_reads_the_sides_of_the_target(attack):
    """The sides of a target, true, false or shifted by one record, leave its own scores as they were."""
    fleet = world(1.5, np.random.default_rng(4), m=12, n=120)
    plain = attack.score_fleet(fleet, rng=RNG)
    for lie in (1 - fleet.side[0], np.roll(fleet.side[0], 1)):
        side = fleet.side.copy()
        side[0] = lie
        again = attack.score_fleet(fleet.with_side(side), rng=RNG)
        np.testing.assert_allclose(again[0], plain[0], rtol=1e-12)
    single = score_target(attack, fleet.without([0]), fleet.target(0), rng=RNG)
    np.testing.assert_allclose(single, plain[0], rtol=1e-9, atol=1e-10)
    # The fault: labels of another model choose another setting, and a worse attack.
    log_p = fleet.signal("negative_loss", temperature=2.0)[..., 0]

    def tuned(labels):
        mean = np.exp(log_p[1:]).mean(axis=0)
        ratio = {a: log_p[0] - np.log(((1 + a) * mean + 1 - a) / 2) for a in SLOPES}
        return max(SLOPES, key=lambda a: pooled_auc(ratio[a][None], labels[None]))

    assert len({tuned(fleet.side[k]) for k in range(12)}) > 1


def test_tuning_reads_few_records_chosen_by_id_and_refuses_where_there_are_none():
    seen = []

    def simulated(cells):
        seen.append(cells)
        return lambda setting: np.full(cells.side.shape, setting)

    side = np.tile(np.array([[1], [1], [0], [0], [0]], np.int8), (1, 4000))
    ids = np.random.default_rng(5).permutation(4000)
    assert tuned_setting((0.3, 0.7), simulated, side, ids) == 0.3
    assert seen[0].records.size == 500
    np.testing.assert_array_equal(ids[seen[0].records], np.arange(0, 4000, 8))
    with pytest.raises(InvalidInput, match="at least 2 OUT models"):
        tuned_setting((0.3, 0.7), simulated, np.ones((5, 4), np.int8), np.arange(4))
    with pytest.raises(InvalidInput, match="members and non-members"):
        tuned_setting((0.3, 0.7), simulated, np.zeros((5, 4), np.int8), np.arange(4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: BASE(scale=1.5),
        lambda: BASE(scale="best"),
        lambda: BASE(temperature=0.0),
        lambda: LinearBASE(4),
        lambda: LinearBASE(signal="loss"),
        lambda: RMIA(offline_a="tuned"),
        lambda: RMIA(online=False, offline_a=-0.1),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidInput, match="must|unknown|no use"):
        make()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_tuning_equals_a_search_by_hand(attack):
    """Every model in turn as target, every value tried, scores and AUC written out; then the fixed attack with it."""
    fleet = world(1.5, np.random.default_rng(6), m=8, n=80)
    rest = fleet.without([0])
    temperature = 2.0 if isinstance(attack, RMIA) else 1.0
    log_p = rest.signal("negative_loss", temperature=temperature)[..., 0]

    def value(setting):
        scores = np.empty(log_p.shape)
        for k in range(rest.n_models):
            for j in range(rest.n_records):
                others = (np.arange(rest.n_models) != k) & (rest.side[:, j] == 0)
                mean = np.exp(log_p[others, j]).mean()
                if isinstance(attack, RMIA):
                    scores[k, j] = log_p[k, j] - math.log(((1 + setting) * mean + 1 - setting) / 2)
                else:
                    scores[k, j] = log_p[k, j] - setting * math.log(mean)
        return pooled_auc(scores, rest.side)

    grid, field = (SLOPES, "offline_a") if isinstance(attack, RMIA) else (SCALES, "scale")
    best = max(grid, key=value)
    assert min(grid) < best
    fixed = type(attack)(online=False, **{field: best}).fit(rest, rng=RNG).score(fleet.target(0))
    np.testing.assert_allclose(attack.fit(rest, rng=RNG).score(fleet.target(0)), fixed, rtol=1e-12)
