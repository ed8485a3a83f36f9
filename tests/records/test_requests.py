"""Forgotten records are dealt to requests evenly per record, fold and model, and no step betrays a role."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.design import Role, fixed_request_design, random_design
from mnemoscope.audit.records.requests import Requests, deal_requests

LABELS = np.random.default_rng(0).integers(0, 10, 1797)
SIZES = {"audited": 240, "background": 100, "population": 50, "calibration": 20, "test": 40}


def dealt(total, *, n_models=48, seed=1, **rest):
    return deal_requests(random_design(LABELS, n_models=n_models, seed=seed, **{**SIZES, **rest}), total)


def audited(requests):
    return requests.numbers_of(requests.design.audited)


@pytest.mark.parametrize(
    ("total", "each"), [(1, [16]), (2, [8, 8]), (3, [6, 5, 5]), (4, [4] * 4), (5, [4, 3, 3, 3, 3])]
)
@pytest.mark.parametrize("folds", [1, 2, 3])
def test_every_record_is_in_each_request_equally_often(total, each, folds):
    requests = dealt(total, folds=folds)
    number = audited(requests)
    for r, count in enumerate(each, 1):
        assert set((number == r).sum(axis=0).tolist()) == {count}
    for fold in range(folds):
        share = [(number[requests.design.fold == fold] == r).sum(axis=0) for r in range(1, total + 1)]
        assert (np.ptp(share, axis=0) <= 1).all()


@pytest.mark.parametrize("total", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_every_model_has_an_even_share_of_each_request(total, seed):
    number = audited(dealt(total, seed=seed))
    of_model = np.array([(number == r).sum(axis=1) for r in range(1, total + 1)])
    for fold in (slice(0, 24), slice(24, 48)):
        assert np.ptp(of_model[:, fold], axis=1).max() <= 1


@pytest.mark.parametrize(("n_models", "audited", "counts", "folds"), [(7, 5, (2, 2, 3), 3), (9, 31, (3, 5, 1), 2)])
@pytest.mark.parametrize("seed", range(20))
def test_small_designs_are_even_per_record_whatever_divides(n_models, audited, counts, folds, seed):
    requests = dealt(2, n_models=n_models, audited=audited, counts=counts, folds=folds, seed=seed)
    number = requests.numbers_of(requests.design.audited)
    first, second = -(-counts[1] // 2), counts[1] // 2
    assert set((number == 1).sum(axis=0).tolist()) == {first}
    assert set((number == 2).sum(axis=0).tolist()) == {second}


def test_a_step_keeps_what_later_requests_name_and_trains_on_no_never_record():
    requests = dealt(3)
    whole = requests.design
    trained = (Role.BACKGROUND, Role.KEPT, Role.FORGOTTEN)
    for r in (1, 2, 3):
        step = requests.step(r)
        for k in range(0, whole.n_models, 7):
            assert np.array_equal(step.records(k, *trained), whole.records(k, *trained))
            so_far = np.concatenate([requests.named(k, one) for one in range(1, r + 1)])
            assert np.array_equal(step.records(k, Role.FORGOTTEN), np.sort(so_far))
            assert not np.isin(step.records(k, *trained), whole.records(k, Role.NEVER)).any()
            later = np.setdiff1d(whole.records(k, Role.FORGOTTEN), so_far)
            assert np.isin(later, step.records(k, Role.KEPT)).all()
        assert np.array_equal(step.role == Role.NEVER, whole.role == Role.NEVER)
        assert np.array_equal(step.audited, whole.audited)
        # The same counts for every record, after every request: nothing to be read off what is left out.
        roles = step.roles_of(step.audited)
        for role in (Role.KEPT, Role.FORGOTTEN, Role.NEVER):
            assert np.unique((roles == role).sum(axis=0)).size == 1
    assert requests.step(3).digest == whole.digest != requests.step(2).digest


def test_the_deal_belongs_to_the_design_and_its_seed():
    one, again, other = dealt(3), dealt(3), dealt(3, seed=2)
    assert np.array_equal(one.number, again.number)
    assert not np.array_equal(one.number, other.number)
    # Not the order in which models stand: request 1 holds no more of the first models than of the last.
    first = audited(one) == 1
    assert abs(int(first[:24].sum()) - int(first[24:].sum())) <= 24


def test_one_request_is_the_design_itself():
    requests = dealt(1)
    assert requests.step(1).digest == requests.design.digest


def test_a_request_repeated_over_seeds_is_dealt_too():
    ids = np.arange(40)
    design = fixed_request_design(ids, forget=ids[:12], retain=ids[12:30], holdout=ids[30:], n_models=6, seed=0)
    number = deal_requests(design, 3).number
    assert ((number[:, :12] > 0).all(), (number[:, 12:] == 0).all()) == (True, True)
    assert all(set((number[:, :12] == r).sum(axis=0).tolist()) == {2} for r in (1, 2, 3))
    assert all(set((number == r).sum(axis=1).tolist()) == {4} for r in (1, 2, 3))


@pytest.mark.parametrize("total", [0, -1, 17])
def test_more_requests_than_models_that_forget_a_record_are_refused(total):
    with pytest.raises(InvalidInput, match=rf"requests={total}: .* 16 of 48 models.*allowed: 1\.\.16"):
        dealt(total)


def test_numbers_that_do_not_fit_the_design_are_refused():
    requests = dealt(2)
    with pytest.raises(InvalidInput, match="every forgotten record, and no other"):
        Requests(requests.design, np.zeros_like(requests.number), 2)
    with pytest.raises(InvalidInput, match="every forgotten record, and no other"):
        dataclasses.replace(requests, total=1)
    with pytest.raises(InvalidInput, match="must have the design's shape"):
        Requests(requests.design, requests.number[1:], 2)
    for bad in (0, 3):
        with pytest.raises(InvalidInput, match=rf"request={bad} must lie in 1\.\.2"):
            requests.step(bad)
    with pytest.raises(InvalidInput, match="not in this design"):
        requests.numbers_of(np.array([99_999]))
