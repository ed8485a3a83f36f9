"""What every registered measure must keep: a floor beside it, silence without a leak, a leak above its floor."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from mnemoscope.attacks import MEASURES
from mnemoscope.audit.answers.views import Need
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.statistics.measures import Worlds
from mnemoscope.audit.testing import global_states, seed_globals
from mnemoscope.audit.testing_worlds import toy_worlds, trained_worlds

SETTINGS = {
    "forgetting_quality": {"steps": 20},
    "relearn_time": {"train_on": "forget", "lr": 0.1, "tolerance": 0.1, "cap": 20, "models": 6},
}
LOWER_IS_RESIDUE = {"relearn_time"}
NAMES = sorted(MEASURES)
PAIRED = ["forgetting_quality", "gaussian_poisoning", "klom", "klom_gaussian", "relearn_time", "ruli_efficacy", "swap"]


def made(name):
    return MEASURES[name](**SETTINGS.get(name, {}))


def worlds_for(name, leak):
    live = MEASURES[name]().needs & (Need.ORACLE | Need.GRADIENT)
    return trained_worlds(leak) if live else toy_worlds(1.5 if leak else 0.0, n_models=36, n_records=40)


def measured(name, leak, seed=0):
    return made(name).measure(worlds_for(name, leak), rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_and_survive_json(name):
    measure = MEASURES[name]()
    assert measure.name == name
    assert isinstance(measure.needs, Need)
    settings = dataclasses.asdict(measure)
    assert json.loads(json.dumps(settings)) == settings
    twin = type(measure)(**settings)
    assert twin == measure
    assert hash(twin) == hash(measure)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(measure, next(iter(settings)), 1)
    summary = type(measure).__doc__.splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_exact_retraining_is_inside_the_noise_of_its_floor(name):
    found = measured(name, False)
    assert found.name == name
    assert found.unit
    assert found.direction
    assert found.excess.low <= 0 <= found.excess.high
    assert found.floor.low <= found.value.high
    assert found.value.low <= found.floor.high
    if found.per_record is not None:
        assert found.per_record.shape == found.ids.shape
        assert np.isfinite(found.per_record).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
def test_a_planted_leak_is_beyond_the_floor(name):
    found = measured(name, True)
    if name in LOWER_IS_RESIDUE:
        assert found.excess.high < 0
        # Where every model needs the same time there is no interval, only the two figures.
        assert (found.value.high or found.value.value) < (found.floor.low or found.floor.value)
    else:
        assert found.excess.low > 0
        assert found.value.low > found.floor.high
        assert found.no_op.value > found.value.value  # doing nothing is worse still


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits_and_global_states_stay(name):
    def bits():
        found = measured(name, True, seed=3)
        return repr((found.value, found.floor, found.excess, found.no_op, found.note))

    measured(name, True)  # loads what is loaded on demand
    seed_globals(1)
    states = global_states()
    first = bits()
    assert states == global_states()
    seed_globals(2)
    assert bits() == first


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_records_and_models_may_come_in_any_order_where_the_measure_draws_nothing(name):
    worlds = worlds_for(name, True)
    records = np.random.default_rng(1).permutation(worlds.after.n_records)

    def moved(fleet, deep=True):
        return dataclasses.replace(
            fleet,
            ids=fleet.ids[records],
            labels=fleet.labels[records],
            logits=fleet.logits[:, records],
            side=fleet.side[:, records],
            before=None if fleet.before is None or not deep else moved(fleet.before, False),
            _signals={},
        )

    fleets = {place: moved(getattr(worlds, place)) for place in ("after", "retrained", "control", "before")}
    turned = dataclasses.replace(worlds, **fleets, role=worlds.role[:, records])
    one, two = (made(name).measure(w, rng=np.random.default_rng(0)) for w in (worlds, turned))
    assert two.value.value == pytest.approx(one.value.value, rel=1e-6)
    assert two.value.low == (None if one.value.low is None else pytest.approx(one.value.low, rel=1e-6))


@pytest.mark.parametrize("name", [n for n in NAMES if MEASURES[n]().needs & Need.GRADIENT])
def test_live_measures_refuse_recorded_answers_before_any_work(name):
    with pytest.raises(MissingNeed):
        made(name).measure(toy_worlds(0.0), rng=np.random.default_rng(0))


def test_fleets_of_different_shape_are_refused():
    worlds = toy_worlds(0.0)
    with pytest.raises(InvalidInput, match="'control'"):
        dataclasses.replace(worlds, control=worlds.control.select([0, 1, 2]))
    with pytest.raises(InvalidInput, match="role"):
        Worlds(worlds.after, worlds.retrained, worlds.control, worlds.before, worlds.role[:2])


@pytest.mark.slow
def test_listing_the_measures_loads_no_torch():
    code = (
        "import sys, mnemoscope.attacks as a; "
        "[a.MEASURES[n]() for n in ('klom', 'swap', 'ruli_efficacy', 'forgetting_quality')]; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
