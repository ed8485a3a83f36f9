"""Stacking: out-of-model scores alone, the right weights in a world where they are known, and clear refusals."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.ensemble import Ensemble, stacked_scores
from mnemoscope.attacks.lira import LiRA
from mnemoscope.attacks.shokri import Shokri
from mnemoscope.attacks.threshold import Threshold
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.answers.views import Need, Reference, Side
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet


def rng(seed=0):
    return np.random.default_rng(seed)


def auc(score, side):
    inside, outside = score[side == 1], np.sort(score[side == 0])
    return (np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")).mean() / (
        2 * outside.size
    )


SEEDS = np.arange(4)


def test_closed_form_attacks_enter_with_each_model_left_out_exactly():
    fleet = toy_fleet(2.0)
    scores = stacked_scores((LiRA(), Threshold("loss")), fleet, folds=2, seeds=SEEDS[:2])
    for k in (0, 7, 17):
        fitted = LiRA().fit(fleet.without([k]), rng=rng()).score(fleet.target(k))
        np.testing.assert_allclose(scores[k, :, 0], fitted, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scores[k, :, 1], fleet.signal("negative_loss")[k, :, 0], atol=1e-10)


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_learned_attacks_enter_with_scores_of_models_they_were_not_fitted_on(folds, monkeypatch):
    fleet = toy_fleet(2.0)
    fitted_on, scored = [], []
    real_fit = Shokri.fit

    def key(logits):
        return logits.tobytes()

    def fit(self, reference, *, rng):
        scorer, own = real_fit(self, reference, rng=rng), {key(z) for z in reference.logits}
        fitted_on.append(len(own))

        class Watching:
            def score(self, view):
                assert key(view.logits) not in own
                scored.append(key(view.logits))
                return scorer.score(view)

        return Watching()

    monkeypatch.setattr(Shokri, "fit", fit)
    # The reference's own folds are not read: without any, the attack is cross-fitted all the same.
    bare = dataclasses.replace(fleet, fold=None)
    stacked_scores((Shokri(),), bare, folds=folds, seeds=SEEDS[:1])
    assert len(fitted_on) == folds
    assert sorted(scored) == sorted(key(z) for z in fleet.logits)
    assert max(fitted_on) - min(fitted_on) <= 1


def test_within_a_fleet_no_score_comes_from_a_fit_that_saw_the_model(monkeypatch):
    """The target's own fold never reaches ``fit``, of the stacker or of a base."""
    fleet = toy_fleet(2.0)
    names = {z.tobytes(): k for k, z in enumerate(fleet.logits)}
    seen = []
    real = LiRA.fit

    def fit(self, reference, *, rng):
        seen.append({names[z.tobytes()] for z in reference.logits})
        return real(self, reference, rng=rng)

    monkeypatch.setattr(LiRA, "fit", fit)
    score_fleet(Ensemble(), fleet, rng=rng())
    assert sorted(map(sorted, seen)) == [list(range(9)), list(range(9, 18))]


@dataclasses.dataclass(frozen=True)
class Memory:
    """An attack that remembers each pair it was fitted on and knows nothing else: the worst overfitter there is."""

    name: str = "memory"
    needs: Need = Need.SHADOW_IN | Need.SHADOW_OUT

    def fit(self, reference, *, rng):
        known = {z.tobytes(): s for z, s in zip(reference.logits, reference.side, strict=True)}
        noise = int(rng.integers(2**31))

        class Scorer:
            def score(self, view):
                side = known.get(view.logits.tobytes())
                fresh = np.random.default_rng([noise, int(abs(view.logits).sum())]).normal(size=view.n_records)
                return fresh if side is None else fresh + 10.0 * (side == Side.IN)

        return Scorer()


def test_an_overfitting_attack_gets_no_weight_and_in_sample_scores_would_give_it_all(monkeypatch):
    monkeypatch.setitem(ATTACKS, "memory", Memory)
    fleet = toy_fleet(2.0)
    attack = Ensemble("memory, loss")
    apart = fleet.without([0])
    ours = attack.fit(apart, rng=rng())
    weight = ours.fitted.raw(np.array([[1.0, 0.0], [0.0, 1.0]])) - ours.fitted.raw(np.zeros((1, 2)))
    assert abs(weight[0]) < 0.15 < weight[1]

    # The faulty way: every attack scores the models it was fitted on.
    def in_sample(attacks, reference, *, folds, seeds):
        scorers = [a.fit(reference, rng=np.random.default_rng(s)) for a, s in zip(attacks, seeds, strict=True)]
        return np.stack(
            [[s.score(reference.target(k)) for k in range(reference.n_models)] for s in scorers], axis=-1
        )  # fmt: skip

    monkeypatch.setattr("mnemoscope.attacks.ensemble.stacked_scores", in_sample)
    faulty = attack.fit(apart, rng=rng())
    weight = faulty.fitted.raw(np.array([[1.0, 0.0], [0.0, 1.0]])) - faulty.fitted.raw(np.zeros((1, 2)))
    assert weight[0] > 3 * abs(weight[1])

    def on_targets(attack):
        scores = [score_target(attack, fleet.without([k]), fleet.target(k), rng=rng()) for k in range(6)]
        return np.mean([auc(score, fleet.side[k]) for k, score in enumerate(scores)])

    good, bad = on_targets(Threshold("loss")), on_targets(attack)
    assert bad < good - 0.1


def test_two_attacks_with_one_half_of_the_leak_each_are_better_together():
    """Two independent signals, each d' = 1: alone an AUC of Phi(1 / sqrt 2) = 0.760, summed Phi(1) = 0.841.

    The first is the loss of a record under its own class; the second is a mean shift that only a comparison with the
    other models of the same record sees, because the record's own level hides it.
    """
    draw = rng(11)
    m, n = 24, 400
    side = draw.permuted(np.tile(np.repeat([0, 1], m // 2)[:, None], (1, n)), axis=0).astype(np.int8)
    first = draw.normal(0, 1, (m, n)) + side
    second = draw.normal(0, 1, (m, n)) + side
    fleet = Reference(
        np.arange(n), np.zeros(n, np.int64), np.stack([first, second], axis=-1)[:, :, None],
        side=side, fold=np.repeat([0, 1], m // 2).astype(np.int8),
    )  # fmt: skip

    @dataclasses.dataclass(frozen=True)
    class Column:
        column: int
        needs: Need = Need.SCORES

        @property
        def name(self):
            return f"column_{self.column}"

        def fit(self, reference, *, rng):
            column = self.column

            class Scorer:
                def score(self, view):
                    return view.logits[:, 0, column].astype(np.float64)

            return Scorer()

    with pytest.MonkeyPatch.context() as patch:
        for column in (0, 1):
            patch.setitem(ATTACKS, f"column_{column}", lambda column=column: Column(column))
        together = score_fleet(Ensemble("column_0, column_1"), fleet, rng=rng())
    assert auc(first, side) == pytest.approx(0.760, abs=0.015)
    assert auc(second, side) == pytest.approx(0.760, abs=0.015)
    assert auc(together, side) == pytest.approx(0.841, abs=0.015)
    # Even odds: the log ratio of two Gaussians of unit variance is first + second - 1.
    np.testing.assert_allclose(together, first + second - 1.0, atol=0.35)


@pytest.mark.slow
def test_it_is_at_least_as_good_as_its_parts_and_silent_where_they_are():
    fleet = toy_fleet(1.5, n_models=36, n_records=300)
    whole = auc(score_fleet(Ensemble(), fleet, rng=rng()), fleet.side)
    parts = [auc(score_fleet(ATTACKS[name](), fleet, rng=rng()), fleet.side) for name in Ensemble().base_names]
    assert whole > max(parts) - 0.01
    clean = toy_fleet(0.0, n_models=48, n_records=200, seed=3)
    for kind in ("logistic", "tree", "forest"):
        score = score_fleet(Ensemble(classifier=kind), clean, rng=rng())
        assert abs(auc(score, clean.side) - 0.5) < 0.025  # 3200 scores a side: standard error 0.007


def test_it_needs_what_its_parts_need():
    assert Ensemble().needs == Need.SCORES | Need.SHADOW_IN | Need.SHADOW_OUT | Need.POPULATION
    assert Need.POPULATION not in Ensemble("lira, loss").needs
    fleet = dataclasses.replace(toy_fleet(2.0), population=None)
    with pytest.raises(MissingNeed, match="ensemble needs population records"):
        score_fleet(Ensemble(), fleet, rng=rng())
    assert np.isfinite(score_fleet(Ensemble("lira, loss"), fleet, rng=rng())).all()
    assert Ensemble("loss,lira").name == "ensemble_of_loss+lira"
    assert Ensemble(classifier="tree").name == "ensemble_tree"
    assert Ensemble("lira,rmia,loss,modified_entropy").name == "ensemble"


def test_too_few_models_are_named_by_record():
    fleet = toy_fleet(2.0).select([0, 1, 3, 4])
    with pytest.raises(InvalidInput, match=r"needs 2 or more IN models, and 71 records have fewer \(ids 1\d\d\d"):
        Ensemble("lira, loss").fit(fleet, rng=rng())


def test_constant_bases_score_even_odds():
    fleet = toy_fleet(2.0)
    flat = dataclasses.replace(fleet, logits=np.zeros_like(fleet.logits), before=None, population=None)
    score = score_target(Ensemble("loss, modified_entropy"), flat.without([0]), flat.target(0), rng=rng())
    np.testing.assert_allclose(score, 0.0, atol=1e-6)
    assert np.unique(score).size == 1


def test_an_attack_with_queries_of_its_own_is_refused(monkeypatch):
    class Asking(Threshold):
        queries = ("identity", "flip")

    monkeypatch.setitem(ATTACKS, "asking", lambda: Asking("loss"))
    with pytest.raises(InvalidInput, match="bases: loss ask queries of their own"):
        Ensemble("asking, lira").attacks()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bases": "lira, rmai"}, "'rmai' is no attack; the nearest: rmia"),
        ({"bases": "lira"}, "must name two attacks at least"),
        ({"bases": "lira, lira"}, "each once"),
        ({"classifier": "svm"}, "classifier='svm' is unknown"),
        ({"folds": 5}, "folds=5 must be 2 to 4"),
        ({"rows": 0}, "rows=0"),
    ],
)
def test_settings_are_checked_at_birth(settings, words):
    with pytest.raises(InvalidInput, match=words):
        Ensemble(**settings)


def test_an_ensemble_of_ensembles_is_refused(monkeypatch):
    monkeypatch.setitem(ATTACKS, "ensemble", Ensemble)
    with pytest.raises(InvalidInput, match="not of ensembles"):
        Ensemble("ensemble, lira")
