import numpy as np
import pytest
from scipy.stats import norm

from mnemoscope.attacks.kernels import kernel_log_density
from mnemoscope.attacks.ruli import Ruli, ruli_scores
from mnemoscope.attacks.ruli_efficacy import RuliEfficacy
from mnemoscope.attacks.ruli_records import disjoint_halves, select_records
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Reference, Side, View
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role
from mnemoscope.audit.testing_worlds import toy_worlds

RNG = np.random.default_rng(0)


def balanced(k: int, n: int, rng: np.random.Generator) -> np.ndarray:
    side = np.repeat(np.array([Side.IN, Side.OUT], np.int8), k)
    return rng.permuted(np.tile(side[:, None], (1, n)), axis=0)


def reference_of(phi: np.ndarray, side: np.ndarray, fold: np.ndarray | None = None) -> Reference:
    logits = np.stack([phi, np.zeros_like(phi)], axis=-1)[:, :, None].astype(np.float32)
    return Reference(np.arange(phi.shape[1]) + 7, np.zeros(phi.shape[1], np.int64), logits, side=side, fold=fold)


def view_of(x: np.ndarray) -> View:
    logits = np.stack([x, np.zeros_like(x)], axis=-1)[:, None].astype(np.float32)
    return View(np.arange(x.size) + 7, np.zeros(x.size, np.int64), logits)


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    outside = np.sort(outside)
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * outside.size))


def width_of(sample: np.ndarray, bandwidth: float) -> float:
    return bandwidth or max(1.06 * sample.std(ddof=1) * sample.size**-0.2, 0.1)


@pytest.mark.parametrize("bandwidth", [0.0, 1.0])
def test_naive_twin_of_one_target_and_of_the_fleet(bandwidth):
    rng = np.random.default_rng(1)
    side = balanced(5, 8, rng)
    side[0, ::2] = Side.LEAVE_OUT
    phi = rng.normal(2, 3, 8) + rng.normal(size=side.shape) * np.array([0.02, 1.0] * 4)

    def naive(x, sample):
        return np.log(np.mean(norm.pdf(x, sample, width_of(sample, bandwidth))))

    found = ruli_scores(phi, side, bandwidth=bandwidth)
    for k in range(10):
        for j in range(8):
            others = np.arange(10) != k
            one, two = (naive(phi[k, j], phi[others & (side[:, j] == s), j]) for s in (1, 0))
            assert found[k, j] == pytest.approx(one - two, abs=1e-9)


@pytest.mark.parametrize(
    ("k", "sd", "published"), [(12, 0.3, 0.593), (12, 2.0, 0.578), (30, 0.3, 0.62), (30, 2.0, 0.62)]
)
def test_the_fixed_bandwidth_has_its_simulated_power(k, sd, published):
    """4,000 records, k models a world, means half a standard deviation apart, the release's bandwidth of 1."""
    rng = np.random.default_rng(k)
    n = 4000
    member = rng.random(n) < 0.5
    side = np.repeat(np.array([Side.IN, Side.OUT], np.int8), k)[:, None] * np.ones((1, n), np.int8)
    hard = rng.normal(0, 3, n)
    phi = hard + sd * (rng.normal(size=side.shape) + 0.5 * (side == Side.IN))
    x = hard + sd * (rng.normal(size=n) + 0.5 * member)
    score = Ruli(bandwidth=1.0).fit(reference_of(phi, side), rng=rng).score(view_of(x))
    assert auc(score[member], score[~member]) == pytest.approx(published, abs=0.022)


def test_two_modes_are_seen_where_two_gaussians_see_none():
    rng = np.random.default_rng(5)
    side = balanced(30, 300, rng)
    modes = 2.0 * rng.choice([-1.0, 1.0], side.shape) + 0.3 * rng.normal(size=side.shape)
    plain = np.sqrt(4.09) * rng.normal(size=side.shape)
    score = ruli_scores(np.where(side == 1, modes, plain), side)
    assert auc(score[side == 1], score[side == 0]) > 0.7


def test_row_31_ratios_of_densities_with_a_fixed_bandwidth_are_zero_over_zero():
    """The release divides exponentiated densities at bandwidth 1: far from every model that is 0 / 0."""
    rng = np.random.default_rng(2)
    side = balanced(8, 40, rng)
    phi = rng.normal(size=side.shape) + 3.0 * (side == Side.IN)
    far = np.linspace(-60.0, 60.0, 40)

    def faulty(phi, side, x):
        with np.errstate(all="ignore"):
            density = [
                np.array([norm.pdf(x[j], phi[side[:, j] == s, j], 1.0).mean() for j in range(x.size)]) for s in (1, 0)
            ]
            return density[0] / (density[0] + density[1])

    def ours(phi, side, x):
        return Ruli().fit(reference_of(phi, side), rng=rng).score(view_of(x))

    def check(figure):
        score = figure(phi, side, far)
        assert np.isfinite(score).all()
        assert np.unique(score).size == score.size  # the tail is not tied

    check(ours)
    with pytest.raises(AssertionError):
        check(faulty)


def test_row_31_a_fixed_bandwidth_is_blind_on_a_narrow_scale():
    rng = np.random.default_rng(4)
    side = balanced(16, 600, rng)
    # An over-forgotten side that is merely narrower, on records whose margins spread by a third of a logit.
    phi = 0.35 * rng.normal(size=side.shape) * np.where(side == 1, 0.3, 1.0)
    fixed, ours = (ruli_scores(phi, side, bandwidth=h) for h in (1.0, 0.0))
    assert auc(ours[side == 1], ours[side == 0]) > 0.65
    assert auc(ours[side == 1], ours[side == 0]) > auc(fixed[side == 1], fixed[side == 0]) + 0.01


def test_row_22_the_score_is_one_number_per_record_not_a_mean_over_the_forget_set():
    """A peer's "LiRA" is the mean of kernel density ratios over the forget set: one record decides it."""
    rng = np.random.default_rng(9)
    side = balanced(16, 200, rng)
    phi, target = rng.normal(size=side.shape), rng.normal(size=200)  # nothing leaks
    forgotten = np.arange(200) < 100

    def ours(x):
        score = Ruli().fit(reference_of(phi, side), rng=rng).score(view_of(x))
        assert score.shape == x.shape
        return auc(score[forgotten], score[~forgotten])

    def faulty(x):
        density = [
            np.exp(kernel_log_density(x[None], phi, side == wanted, None)[0][forgotten])
            for wanted in (Side.IN, Side.OUT)
        ]
        with np.errstate(all="ignore"):
            return float(np.mean(density[0] / density[1]))

    def check(figure):
        moved = target.copy()
        moved[0] = 5.0
        assert 0 <= figure(moved) <= 1
        assert abs(figure(moved) - figure(target)) <= 1 / forgotten.sum()

    check(ours)
    with pytest.raises(AssertionError):
        check(faulty)


def test_records_picked_on_the_audited_models_leak_by_choice_and_on_others_they_do_not():
    """Nothing leaks; the most "vulnerable" records of a fleet still look leaky in that very fleet."""
    rng = np.random.default_rng(6)
    side = np.concatenate([balanced(8, 2000, rng), balanced(8, 2000, rng)])
    fold = np.repeat(np.array([0, 1], np.int8), 16)
    fleet = reference_of(rng.normal(size=side.shape), side, fold)
    first, second = disjoint_halves(fleet)
    picked = select_records(first, most=100, fpr=0.3, rng=rng).vulnerable
    assert 20 <= picked.size <= 100

    def found(models):
        at = models.positions(picked)
        score = ruli_scores(models.signal("margin"), models.side)[:, at]
        return auc(score[models.side[:, at] == 1], score[models.side[:, at] == 0])

    assert found(first) > 0.6
    assert abs(found(second) - 0.5) < 0.06


def test_planted_vulnerable_records_are_picked_first_and_protected_ones_do_not_overlap():
    rng = np.random.default_rng(8)
    side = balanced(12, 300, rng)
    leaky = np.arange(300) < 40
    fleet = reference_of(rng.normal(size=side.shape) + 6.0 * leaky * (side == Side.IN), side)
    chosen = select_records(fleet, most=60, fpr=0.001, rng=rng)
    assert set(chosen.vulnerable - 7) <= set(range(40))
    assert chosen.vulnerable.size > 30
    assert not np.intersect1d(chosen.vulnerable, chosen.protected).size
    assert (chosen.protected - 7 >= 40).all()
    with pytest.raises(InvalidInput, match="fpr=0"):
        select_records(fleet, fpr=0, rng=rng)
    with pytest.raises(InvalidInput, match="at least 2 folds"):
        disjoint_halves(fleet)


def test_naive_twin_of_efficacy_leaves_both_twins_out():
    worlds = toy_worlds(0.7, n_models=18, n_records=7, seed=2)
    one, two = (fleet.signal("margin").mean(axis=-1) for fleet in (worlds.after, worlds.retrained))
    scores, wins = {0: [], 1: []}, []
    for j in range(7):
        cells = np.flatnonzero(worlds.role[:, j] == Role.FORGOTTEN)
        own = {0: [], 1: []}
        for k in cells:
            rest = cells[cells != k]
            for place, x in enumerate((one[k, j], two[k, j])):
                density = [np.log(norm.pdf(x, v[rest, j], width_of(v[rest, j], 0.0)).mean()) for v in (one, two)]
                own[place].append(density[0] - density[1])
        wins.append(auc(np.array(own[0]), np.array(own[1])))
        scores = {place: scores[place] + own[place] for place in (0, 1)}
    found = RuliEfficacy().measure(worlds, rng=RNG)
    assert found.value.value == pytest.approx(auc(np.array(scores[0]), np.array(scores[1])))
    np.testing.assert_allclose(found.per_record, wins)


def test_efficacy_of_retrained_models_is_one_half_and_says_which_world_is_likeliest():
    values = [RuliEfficacy().measure(toy_worlds(0.0, seed=seed), rng=RNG) for seed in range(6)]
    assert np.mean([v.value.value for v in values]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([v.floor.value for v in values]) == pytest.approx(0.5, abs=0.02)
    assert "kept" in values[0].note
    assert values[0].no_op.value > 0.95
    assert values[0].per_record.shape == values[0].ids.shape == (60,)


def test_leaving_out_only_the_target_would_betray_its_side():
    """With its twin left in, two retrained fleets fall far below one half."""
    rng = np.random.default_rng(0)
    below, ours = [], []
    for seed in range(4):
        worlds = toy_worlds(0.0, seed=seed, n_models=18)
        cells = worlds.role == Role.FORGOTTEN
        one, two = (fleet.signal("margin").mean(axis=-1) for fleet in (worlds.after, worlds.retrained))
        models = np.arange(18)
        scores = []
        for x, skip in ((one, (models, None)), (two, (None, models))):
            density = [
                kernel_log_density(x, sample, cells, None, left_out=left)
                for sample, left in zip((one, two), skip, strict=True)
            ]
            scores.append(density[0] - density[1])
        below.append(auc(scores[0][cells], scores[1][cells]))
        ours.append(RuliEfficacy().measure(worlds, rng=rng).value.value)
    assert np.mean(below) < np.mean(ours) - 0.01


def test_a_shift_of_all_records_shows_on_never_seen_ones():
    moved = RuliEfficacy().measure(toy_worlds(0.0, shift=2.0), rng=RNG)
    assert moved.value.value > 0.8
    figure = float(moved.note.rsplit(" ", 1)[1])
    assert figure > 0.8  # the deletion moved what it should not have touched
    assert abs(float(RuliEfficacy().measure(toy_worlds(2.0), rng=RNG).note.rsplit(" ", 1)[1]) - 0.5) < 0.06


@pytest.mark.parametrize("kind", [Ruli, RuliEfficacy])
def test_settings_out_of_range_are_refused(kind):
    with pytest.raises(InvalidInput, match="bandwidth=-1"):
        kind(bandwidth=-1)
    with pytest.raises(InvalidInput, match="known signals"):
        kind(signal="loss")


@pytest.mark.parametrize("k", [2, 3])
def test_a_side_of_one_model_takes_the_shared_bandwidth_with_a_flag(k):
    """A single kernel has no width of its own: by the floor alone it named the target's side (AUC 0.08, no leak)."""
    alone, ours, found = [], [], []
    for seed in range(3):
        rng = np.random.default_rng([k, seed])
        side = rng.permuted(np.repeat(np.array([1, 0], np.int8), k)[:, None] * np.ones((1, 1500), np.int8), axis=0)
        plain = rng.normal(2, 2, 1500) + rng.normal(size=side.shape)
        reference = reference_of(plain, side)
        flags = Ruli().flags(reference, left_out=True)
        assert bool(flags) == (k == 2)
        assert Ruli(bandwidth=1.0).flags(reference, left_out=True) == ()
        scores = score_fleet(Ruli(), reference, rng=rng)
        ours.append(auc(scores[side == 1], scores[side == 0]))
        models = np.arange(2 * k)
        own = [kernel_log_density(plain, plain, side == s, None, left_out=models) for s in (1, 0)]
        alone.append(auc((own[0] - own[1])[side == 1], (own[0] - own[1])[side == 0]))
        leaky = score_fleet(Ruli(), reference_of(plain + 2.5 * side, side), rng=rng)
        found.append(auc(leaky[side == 1], leaky[side == 0]))
        if k == 2:  # one target: what its own fit says is what the fleet's closed form says
            fitted = Ruli().fit(reference.without([0]), rng=rng)
            assert fitted.flags[0].startswith("shared variance: ")
            np.testing.assert_allclose(fitted.score(reference.target(0)), scores[0], rtol=1e-9, atol=1e-9)
    if k == 2:
        assert np.mean(alone) < 0.15
        assert 0.44 < np.mean(ours) < 0.51
        assert np.mean(found) > 0.75
    else:
        assert np.mean(alone) == pytest.approx(np.mean(ours), abs=1e-4)
