"""Numbers of published tables: right on worlds that are known, beside retrained models, in every one-model document."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import api
from mnemoscope.attacks.svm import mia_efficacy
from mnemoscope.audit.answers.views import Answers, Known
from mnemoscope.audit.rng import generator
from mnemoscope.audit.verdict.onemodel_rates import Group
from mnemoscope.published_numbers import published_numbers

file = Path(__file__).parents[1] / "verdict" / "test_onemodel.py"
spec = importlib.util.spec_from_file_location("worlds", file)
worlds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worlds)


def rows(inputs):
    return {row.measure: row for row in published_numbers(inputs, level=0.95, seed=1)}


@pytest.mark.slow
def test_a_retrained_model_lies_where_retrained_models_do_and_an_unchanged_one_does_not():
    clean, kept = (rows(worlds.world(3, 500, retain=500, leak=leak, kept=2.5)) for leak in (0.0, 2.5))
    for found in (clean, kept):
        row = found["mia_efficacy"]
        assert row.excess.value == pytest.approx(row.value.value - row.floor.value)
        assert row.floor.value > 0.7  # forget records are as never-seen ones to models that never saw them
        assert row.no_op.value < 0.4
        assert (row.n_models, row.n_records) == (1, 500)
    assert clean["mia_efficacy"].excess.low < 0 < clean["mia_efficacy"].excess.high
    assert kept["mia_efficacy"].excess.high < -0.2
    for found in (clean, kept):  # retained records are members of every model, whatever was forgotten
        assert found["training_privacy"].value.value > 0.7
        assert found["training_privacy"].excess.low < 0 < found["training_privacy"].excess.high


def test_it_is_the_function_of_the_attack():
    inputs = worlds.world(4, 200, retain=300, r=1)
    member, never, forget = (
        Answers(inputs.ids[at], inputs.labels[at], inputs.after[at])
        for at in (inputs.rows(g) for g in (Group.RETAIN, Group.HOLDOUT, Group.FORGET))
    )
    row = rows(inputs)["mia_efficacy"]
    assert row.value == mia_efficacy(Known(member, never), forget, rng=generator(1, "mia_efficacy"))
    assert row.excess is None  # one retrained model has no spread
    assert row.floor.n == 200


def test_what_is_missing_is_said():
    assert published_numbers(worlds.world(5, 200), level=0.95, seed=0) == ()  # no known members
    bare = rows(worlds.world(5, 200, retain=100, r=0, before=None))["mia_efficacy"]
    assert bare.floor.reason == "no retrained models"
    assert bare.excess is None
    assert bare.no_op is None


@pytest.mark.slow
def test_they_are_printed_beside_the_verdict_and_change_nothing(tmp_path):
    inputs = worlds.world(6, 400, retain=400, leak=2.5)
    names = {Group.FORGET: "forget", Group.HOLDOUT: "holdout", Group.RETAIN: "retain"}
    arrays = {
        "logits": inputs.after[:, 0],
        "before_logits": inputs.before[:, 0],
        "retrained_logits": inputs.retrained[:, :, 0],
        "labels": inputs.labels,
        "role": np.array([names[Group(g)] for g in inputs.group]),
    }
    np.savez(tmp_path / "p.npz", **arrays)
    result = api.scores(tmp_path / "p.npz", out=tmp_path / "out")
    (subject,) = result.subjects
    assert [row.measure for row in subject.measured] == ["mia_efficacy", "training_privacy"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("mia_efficacy", "training_privacy", "difference_margin_uncalibrated"):
        assert name in page
    assert not any("efficacy" in line for line in (*subject.verdict.reasons, subject.verdict.meaning))
    assert dataclasses.replace(subject, measured=()).verdict == subject.verdict
