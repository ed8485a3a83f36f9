"""Too few models for an attack: refused from the design alone, where and only where fitting would fail."""

import re

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.ensemble import Ensemble
from mnemoscope.audit.answers.games import GAMES
from mnemoscope.audit.answers.model_counts import check_model_counts, least_models
from mnemoscope.audit.answers.protocols import score_fleet
from mnemoscope.audit.answers.views import Answers, Reference
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role, random_design

LABELS = np.arange(400) % 4


def fleet(n_models, folds=2):
    roles = {"audited": 60, "background": 60, "population": 60, "calibration": 40, "test": 60}
    design = random_design(LABELS, n_models=n_models, folds=folds, seed=1, **roles)
    side = GAMES["forgetting"].side(design.roles_of(design.audited))
    labels = LABELS[design.audited]
    logits = np.random.default_rng(0).normal(size=(n_models, labels.size, 1, 4)).astype(np.float32)
    z = design.records(0, Role.POPULATION)
    population = Answers(z, LABELS[z], logits[:, : z.size])
    return Reference(design.audited, labels, logits, side=side, fold=design.fold, population=population)


@pytest.mark.parametrize(("n_models", "folds"), [(3, 2), (6, 2), (6, 3), (9, 2), (9, 3), (12, 2)])
@pytest.mark.parametrize("name", ["ensemble", "lira", "u_lira", "rmia", "bavaria_n", "loss"])
def test_refused_beforehand_is_what_would_fail(name, n_models, folds):
    attack, reference = ATTACKS[name](), fleet(n_models, folds)
    try:
        check_model_counts([attack], reference.side, reference.fold)
    except InvalidInput:
        with pytest.raises(InvalidInput, match="fewer"):
            score_fleet(attack, reference, rng=np.random.default_rng(0))
    else:
        assert np.isfinite(score_fleet(attack, reference, rng=np.random.default_rng(0))).all()


def test_the_message_says_what_is_there_and_what_would_do():
    small = fleet(6)
    with pytest.raises(InvalidInput) as caught:
        check_model_counts([ATTACKS["ensemble"](), ATTACKS["lira"]()], small.side, small.fold)
    message = str(caught.value)
    assert "attack 'ensemble' needs 2 or more models IN for every record without the fold (2) that is scored" in message
    assert "a record has 1 of 6: design.models of about 12 would do" in message
    assert "'lira'" not in message
    enough = fleet(12)
    check_model_counts([ATTACKS["ensemble"]()], enough.side, enough.fold)
    tiny = fleet(3)
    with pytest.raises(InvalidInput, match=re.escape("'lira' needs 1 or more models IN for every record without the")):
        check_model_counts([ATTACKS["lira"]()], tiny.side, tiny.fold)


def test_what_attacks_need_follows_from_what_they_do():
    assert least_models(ATTACKS["lira"]()) == 1
    assert least_models(ATTACKS["shokri"]()) == 0
    assert least_models(ATTACKS["loss"]()) == 0
    assert least_models(ATTACKS["bavaria_n"]()) == 0  # the prior stands in
    assert least_models(Ensemble()) == 2
    assert least_models(Ensemble(bases="loss, entropy")) == 0


def test_an_ensemble_says_itself_that_models_are_too_few():
    with pytest.raises(InvalidInput, match=r"ensemble leaves each of its 3 shadow models out in turn: .* \(ids \d+, "):
        score_fleet(ATTACKS["ensemble"](), fleet(6), rng=np.random.default_rng(0))
