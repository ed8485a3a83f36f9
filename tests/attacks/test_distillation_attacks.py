"""Attacks by students of the model: what the students are, and that the scores are made of them."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.attacks.distillation import AttackD
from mnemoscope.attacks.trajectory import LossTrajectory, teacher
from mnemoscope.audit.answers.protocols import score_fleet, score_target
from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.distillation import Distillation, distil, student_logits
from mnemoscope.audit.testing import trained_fleet

RNG = np.random.default_rng


def test_a_linear_student_of_a_linear_teacher_becomes_its_teacher():
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model, student = nn.Linear(5, 3), nn.Linear(5, 3)
    answers, losses = model(x).detach(), []
    state = torch.get_rng_state()

    def watch(learner):
        assert not learner.training
        p, q = torch.softmax(answers, dim=1), torch.softmax(student_logits(learner, x), dim=1)
        losses.append(float((p * (p.log() - q.log())).sum(dim=1).mean()))

    settings = Distillation(epochs=60, lr=0.3, weight_decay=0.0, batch_size=50)
    distil(student, x, answers + 7.0, settings, seed=0, on_epoch=watch)  # a constant on all logits says nothing
    assert len(losses) == 60
    assert losses[-1] < 1e-6
    assert torch.allclose(torch.softmax(student(x), 1), torch.softmax(answers, 1), atol=1e-3)
    assert torch.equal(state, torch.get_rng_state())


def test_one_step_is_gradient_descent_on_the_divergence():
    x, answers = torch.randn(8, 4), torch.randn(8, 3)
    student = nn.Linear(4, 3)
    weight = student.weight.detach().clone().requires_grad_()
    q = torch.softmax(x @ weight.T + student.bias.detach(), dim=1)
    # The gradient of KL(p | q) by the logits is q - p; momentum of Nesterov's kind adds 0.9 of the first step.
    step = 0.1 * 1.9 * ((q - torch.softmax(answers, dim=1)).T @ x / 8).detach()
    expected = weight.detach() - step
    distil(student, x, answers, Distillation(epochs=1, weight_decay=0.0), seed=0)
    assert torch.allclose(student.weight, expected, atol=1e-6)


@pytest.mark.parametrize("attack", [LossTrajectory(epochs=2, classifier="logistic"), AttackD(students=2, epochs=2)])
def test_other_recorded_answers_are_another_lesson(attack):
    """What is recalled for a model belongs to what its students were taught, not to the records' ids alone."""
    fleet = trained_fleet(True)
    view, rest = fleet.target(0), fleet.without([0])
    scorer = attack.fit(rest, rng=RNG(0))
    read = scorer.trajectory if isinstance(attack, LossTrajectory) else scorer.margins
    first = read(view)
    population = view.population
    taught_otherwise = dataclasses.replace(population, logits=population.logits[..., ::-1].copy(), _signals={})
    assert not np.allclose(read(dataclasses.replace(view, population=taught_otherwise)), first)
    order = RNG(1).permutation(population.n_records)
    moved = dataclasses.replace(
        population,
        ids=population.ids[order],
        labels=population.labels[order],
        logits=population.logits[order],
        _signals={},
    )
    assert np.array_equal(read(dataclasses.replace(view, population=moved)), first)


def test_several_queries_are_taught_by_their_mean_probability():
    fleet = trained_fleet(True, queries=("identity", "noise:0.3:0"))
    population = fleet.target(0).population
    shuffled = dataclasses.replace(population, ids=population.ids[::-1], logits=population.logits[::-1], _signals={})
    inputs, answers = teacher(fleet.oracles[0], shuffled)
    order = np.argsort(population.ids)
    p = torch.softmax(torch.from_numpy(population.logits[order]).double(), dim=2).mean(dim=1)
    assert torch.allclose(torch.softmax(answers, dim=1), p)
    assert torch.equal(inputs, fleet.oracles[0].inputs(np.sort(population.ids)))


def test_trajectories_are_the_losses_of_a_student_epoch_by_epoch():
    fleet = trained_fleet(True)
    attack = LossTrajectory(epochs=5)
    view = fleet.target(0)
    scorer = attack.fit(fleet.without([0]), rng=RNG(0))
    features = scorer.features(view)
    assert features.shape == (fleet.n_records, 6)
    assert np.allclose(features[:, -1], np.log(-view.signal("negative_loss")[:, 0]))
    from mnemoscope.audit.rng import child_seed

    oracle = view.oracle
    student, labels = oracle.fresh_module(child_seed(0, "student")), oracle.labels(view.ids)
    inputs, answers = teacher(oracle, view.population)
    seen = []

    def watch(learner):
        seen.append(nn.functional.cross_entropy(learner(oracle.inputs(view.ids)), labels, reduction="none"))

    distil(student, inputs, answers, Distillation(epochs=5), seed=0, on_epoch=watch)
    assert np.allclose(features[:, :-1], torch.stack(seen, dim=1).detach().log().numpy(), atol=1e-4)


def test_each_model_is_distilled_once_for_all_folds_and_games(monkeypatch):
    import mnemoscope.attacks.trajectory as module

    count = []
    monkeypatch.setattr(module, "distil", lambda *args, **kwargs: count.append(1) or distil(*args, **kwargs))
    fleet = trained_fleet(True)
    attack = LossTrajectory(epochs=2)
    score_fleet(attack, fleet, rng=RNG(0))
    other = np.roll(fleet.side, 1, axis=0)
    score_fleet(attack, fleet.with_side(other), rng=RNG(5))
    assert len(count) == fleet.n_models


@pytest.mark.slow
def test_row_33_nothing_is_chosen_on_the_target():
    """Row 33: the release reports the best epoch on the records it evaluates, and so finds a leak without one."""
    fleet = trained_fleet(False, n_records=120)
    attack = LossTrajectory(epochs=8, classifier="logistic")
    scorer = attack.fit(fleet, rng=RNG(0))
    ours, faulty = [], []
    for k, scores in enumerate(score_fleet(attack, fleet, rng=RNG(0))):
        inside, outside = fleet.side[k] == 1, fleet.side[k] == 0
        each = [_auc(column, inside, outside) for column in scorer.features(fleet.target(k)).T]
        faulty.append(max(max(each), 1 - min(each)))
        ours.append(_auc(scores, inside, outside))
    assert abs(np.mean(ours) - 0.5) < 0.04 < np.mean(faulty) - 0.5
    view = fleet.target(0)
    parts = np.concatenate([scorer.score(_only(view, at)) for at in np.array_split(np.arange(120), 5)])
    assert np.allclose(parts, scorer.score(view), atol=1e-9)  # no record's score depends on the others'


def _auc(scores, inside, outside):
    return (scores[inside][:, None] > scores[outside]).mean()


def _only(view, at):
    return dataclasses.replace(view, ids=view.ids[at], labels=view.labels[at], logits=view.logits[at], _signals={})


def test_attack_d_is_the_distance_from_the_students_mean_in_their_spread():
    fleet = trained_fleet(True)
    view, attack = fleet.target(3), AttackD(students=3, epochs=6)
    scorer = attack.fit(fleet.select([]), rng=RNG(0))
    margins = scorer.margins(view)
    assert margins.shape == (fleet.n_records, 3)
    assert np.abs(margins[:, 0] - margins[:, 1]).min() > 0  # students differ
    spread = margins.var(axis=1, ddof=1).mean() * (1 + 1 / 3)
    expected = (view.signal("margin")[:, 0] - margins.mean(axis=1)) / np.sqrt(spread)
    assert np.allclose(score_target(attack, fleet.without([3]), view, rng=RNG(1)), expected)
    assert view.oracle.predictions == 0  # what was recorded is taught


def test_hard_labels_teach_the_predicted_class_alone(monkeypatch):
    import mnemoscope.attacks.distillation as module

    taught = []
    monkeypatch.setattr(module, "distil", lambda student, inputs, answers, *a, **k: taught.append(answers))
    view = trained_fleet(True).target(0)
    for labels in ("soft", "hard"):
        AttackD(students=2, share=1.0, labels=labels).fit(trained_fleet(True), rng=RNG(0)).margins(view)
    soft, hard = torch.softmax(taught[0], dim=1), torch.softmax(taught[2], dim=1)
    assert 0.3 < float(soft.max(dim=1).values.min()) < 0.9
    assert torch.allclose(hard, nn.functional.one_hot(soft.argmax(dim=1), 4).double())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Distillation, {"epochs": 0}, "epochs=0"),
        (Distillation, {"lr": 0.0}, "lr=0.0"),
        (LossTrajectory, {"epochs": 0}, "epochs=0"),
        (LossTrajectory, {"classifier": "svm"}, "classifier='svm'"),
        (LossTrajectory, {"rows": 1}, "rows=1"),
        (AttackD, {"students": 1}, "students=1"),
        (AttackD, {"labels": "none"}, "labels='none'"),
        (AttackD, {"share": 0.0}, "share=0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, message):
    with pytest.raises(InvalidInput, match=message):
        kind(**settings)
