"""A toy on which forget and unseen records are alike: the digits come writer by writer, and are shuffled here first."""

import functools
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from toy_models import HELD, RUNTIME, N, request

from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.statistics.counts import auc
from mnemoscope.audit.testing_methods import MethodSubject

FORGET, RETAIN, UNSEEN = np.arange(60), np.arange(60, N), np.arange(N + 60, HELD)
"""Records 240 to 299 are validation; unseen records took part in nothing."""


@functools.cache
def shuffled_subject():
    """An MLP that knows its 240 records by heart, a part of them by labels that are wrong, so that it must."""
    values, order = load_digits(), np.random.default_rng(5).permutation(1797)[:HELD]
    table = (values.data[order] / 16).astype(np.float32)
    labels = values.target[order].astype(np.int64)
    wrong = np.random.default_rng(6).random(HELD) < 0.2
    labels[wrong] = (labels[wrong] + np.random.default_rng(7).integers(1, 10, wrong.sum())) % 10
    dataset = SimpleNamespace(
        name="digits",
        kind="table",
        ids=np.arange(HELD),
        labels=labels,
        classes=tuple("0123456789"),
        values=table,
        source_values=table,
    )
    data = DeviceData(dataset)
    recipe = Recipe(architecture="mlp:64", lr=0.2, epochs=40, batch_size=32)
    model = train_model(recipe, data, np.arange(N), seed=1, runtime=RUNTIME).module
    return MethodSubject(model, request(FORGET), request(np.arange(60, 120)), recipe, data, RUNTIME, seed=1)


def losses(model, ids):
    s = shuffled_subject()
    logits = torch.from_numpy(infer_logits(model, s.data, ids, runtime=RUNTIME)[:, 0])
    return nn.functional.cross_entropy(logits, s.data.y[s.data.positions(ids)], reduction="none").numpy()


def unseen_auc(model):
    """AUC of the plain loss attack on the forget records, against records that took part in nothing."""
    return auc(-losses(model, FORGET), -losses(model, UNSEEN))


def accuracy(model, ids):
    s = shuffled_subject()
    answers = infer_logits(model, s.data, ids, runtime=RUNTIME)[:, 0].argmax(axis=1)
    return float((answers == s.data.y[s.data.positions(ids)].numpy()).mean())


def unlearn(method, *, seed=0):
    s = shuffled_subject()
    rng = np.random.default_rng(seed)
    return method.unlearn(s.model, s.request, recipe=s.recipe, data=s.data, runtime=RUNTIME, rng=rng)
