"""Learned attackers in an audit of one model: labelled answers on other records are all that they need."""

import dataclasses

import numpy as np
import pytest

from mnemoscope.attacks import ATTACKS
from mnemoscope.audit.answers.views import Need, Reference
from mnemoscope.audit.verdict.onemodel_input import OneModelInput, runnable, score_models
from mnemoscope.audit.verdict.onemodel_rates import Group

NAMES = ["shokri", "shokri_log", "shokri_forest", "shokri_mlp", "ml_leaks_1", "ml_leaks_2", "svm_correctness",
         "svm_confidence", "svm_entropy", "svm_modified_entropy", "svm_probability"]  # fmt: skip
GROUPS = (Group.FORGET, Group.HOLDOUT)


def answers(member, labels, leak, draw):
    """Margins N(1, 1), higher by the leak for members."""
    z = draw.normal(0, 0.7, (member.size, 1, 4))
    z[np.arange(member.size), 0, labels] += draw.normal(1.0, 1.0, member.size) + leak * member
    return z.astype(np.float32)


def inputs(leak, *, one_class=False):
    draw = np.random.default_rng(0)
    group = np.repeat([0, 1], 400).astype(np.int8)
    labels = draw.integers(0, 4, 800)
    member = np.arange(300) % 2 == 0
    labels_known = np.full(300, 2) if one_class else draw.integers(0, 4, 300)
    known = Reference(
        np.arange(300), labels_known, answers(member, labels_known, leak, draw)[None], side=member[None].astype(np.int8)
    )
    return OneModelInput(np.arange(800), labels, group, answers(group == 0, labels, leak, draw), known=known)


def auc(given, attack):
    scores = score_models(given, attack, GROUPS, np.random.default_rng(1)).after
    inside, outside = scores[:400], scores[400:]
    return (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2


@pytest.mark.parametrize("name", NAMES)
def test_labelled_answers_serve_and_without_them_the_attack_says_what_it_lacks(name):
    attack = ATTACKS[name]()
    leaky = inputs(3.0)
    assert runnable(leaky, [attack], GROUPS) == ([attack], [])
    assert auc(leaky, attack) > 0.6
    assert abs(auc(inputs(0.0), attack) - 0.5) < 0.08  # 400 records a side: standard error 0.02
    bare = dataclasses.replace(leaky, known=None)
    assert runnable(bare, [attack], GROUPS) == ([], [(attack, Need.SHADOW_IN | Need.SHADOW_OUT)])


@pytest.mark.parametrize("name", NAMES)
def test_labelled_answers_of_a_single_class_still_rank_the_others(name):
    """What one class shows is used for all; a class's own columns (probability vectors) do not carry over."""
    found = auc(inputs(3.0, one_class=True), ATTACKS[name]())
    assert found > (0.4 if name == "svm_probability" else 0.6)
