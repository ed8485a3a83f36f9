"""What answers cannot give is refused by name: other numbers of classes, labels beyond them, scores behind labels."""

from dataclasses import replace

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.attacks.before_after import logits_before
from mnemoscope.attacks.posteriors import posteriors
from mnemoscope.attacks.svm import modified_entropy_as_published
from mnemoscope.audit.answers.protocols import queries_of, score_fleet, score_target
from mnemoscope.audit.answers.signals import SIGNALS, compute_signal
from mnemoscope.audit.answers.views import Answers, Need, Reference
from mnemoscope.audit.errors import InvalidInput, MissingNeed
from mnemoscope.audit.testing import toy_fleet

LIVE = Need.ORACLE | Need.GRADIENT
BEFORE = [name for name in ATTACKS if Need.BEFORE in ATTACKS[name]().needs and not ATTACKS[name]().needs & LIVE]
COMPARED = ["lira", "rmia", "base", "bavaria_n", "attack_r", "ruli", "u_lira", "samia", "loss_by_class", "ensemble"]


def narrower(answers):
    """The same answers of a model that knows one class less; labels stay."""
    logits = answers.logits[..., :-1]
    changes = {"logits": logits, "_signals": {}}
    if getattr(answers, "before", None) is not None:
        changes["before"] = narrower(answers.before)
    if getattr(answers, "population", None) is not None:
        part = answers.population
        changes["population"] = Answers(part.ids, part.labels % 3, part.logits[..., :-1], queries=part.queries)
    return replace(answers, **changes)


def relabelled(answers):
    before = None if answers.before is None else relabelled(answers.before)
    return replace(answers, labels=answers.labels % 3, before=before, _signals={})


class Untouched(Reference):
    """A reference whose answers nobody may read."""

    def signal(self, name, *, temperature=1.0):
        raise AssertionError("work began")


def untouched(reference):
    fields = ("ids", "labels", "logits", "side", "population", "before", "fold", "queries")
    return Untouched(**{name: getattr(reference, name) for name in fields})


@pytest.mark.parametrize("name", COMPARED)
def test_a_target_of_fewer_classes_than_its_shadow_models_is_refused_before_any_work(name):
    attack = ATTACKS[name]()
    fleet = toy_fleet(1.0, n_models=12, n_records=30, queries=queries_of(attack) or ())
    reference, view = relabelled(fleet.without([0])), narrower(relabelled(fleet.target(0)))
    with pytest.raises(InvalidInput, match=r"shadow models have 4 classes and the target 3"):
        score_target(attack, untouched(reference), view, rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", BEFORE)
def test_versions_of_other_numbers_of_classes_are_refused_before_any_work(name):
    attack = ATTACKS[name]()
    fleet = relabelled(toy_fleet(1.0, n_models=12, n_records=30))
    reference, view = fleet.without([0]), fleet.target(0)
    lost = replace(narrower(view), before=view.before)
    fleet_that_lost = replace(narrower(reference), before=reference.before)
    with pytest.raises(InvalidInput, match=r"before deletion have|has 4 classes and"):
        score_target(attack, untouched(fleet_that_lost), lost, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match=r"before deletion has 4 classes and the model after it 3"):
        score_fleet(attack, untouched(fleet_that_lost), rng=np.random.default_rng(0))


def test_attacks_of_other_data_sets_may_have_other_classes():
    fleet = toy_fleet(1.0, n_models=12, n_records=60)
    view = narrower(relabelled(fleet.target(0)))
    scores = score_target(ATTACKS["ml_leaks_2"](), fleet.without([0]), view, rng=np.random.default_rng(0))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("label", [3, -1])
def test_labels_beyond_the_classes_of_a_model_are_counted_and_named(name, label):
    labels = np.array([0, label, 2, label])
    with pytest.raises(InvalidInput, match=rf"2 of 4 records have labels outside of the 3 classes.*labels {label}\)"):
        compute_signal(name, np.zeros((5, 4, 1, 3), np.float32), labels)


def test_a_model_that_answers_with_labels_only_has_no_output_vector():
    view = toy_fleet(1.0, n_models=6, n_records=20).target(0)
    silent = replace(view, labels_only=True)
    for read in (posteriors, modified_entropy_as_published, lambda answers: answers.signal("margin")):
        assert np.isfinite(read(view)).all()
        with pytest.raises(MissingNeed, match="labels only"):
            read(silent)
    assert logits_before(silent) is not None
    with pytest.raises(MissingNeed, match="before deletion answers with labels only"):
        logits_before(replace(view, before=replace(view.before, labels_only=True)))


@pytest.mark.parametrize("name", ["samia", "shokri", "lira", "difference", "svm_probability"])
def test_shadow_models_that_answer_with_labels_only_teach_no_attack_that_reads_scores(name):
    attack = ATTACKS[name]()
    fleet = toy_fleet(1.0, n_models=12, n_records=20, queries=queries_of(attack) or ())
    reference = replace(fleet.without([0]), labels_only=True)
    with pytest.raises(MissingNeed, match="labels only"):
        score_target(attack, reference, fleet.target(0), rng=np.random.default_rng(0))
