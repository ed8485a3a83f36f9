"""What tests of single methods share: run one, look at the outcome, spoil records, write an algorithm out plainly."""

import copy
import dataclasses

import numpy as np
import torch
from toy_models import mlp_subject

from mnemoscope.audit.answers.signals import compute_signal
from mnemoscope.audit.models.inference import infer_logits


def unlearn(method, request=None, *, subject=None, model=None, seed=0, data=None, **changed):
    s = mlp_subject() if subject is None else subject
    return method.unlearn(
        s.model if model is None else model,
        s.request if request is None else request,
        recipe=dataclasses.replace(s.recipe, **changed),
        data=s.data if data is None else data,
        runtime=s.runtime,
        rng=np.random.default_rng(seed),
    )


def logits(model, ids, subject=None):
    s = mlp_subject() if subject is None else subject
    return infer_logits(model, s.data, np.asarray(ids), runtime=s.runtime)


def labels(ids, subject=None):
    s = mlp_subject() if subject is None else subject
    return s.data.y[s.data.positions(np.asarray(ids))].numpy()


def accuracy(model, ids, subject=None):
    return (logits(model, ids, subject)[:, 0].argmax(axis=1) == labels(ids, subject)).mean()


def mean_loss(model, ids, subject=None):
    return -compute_signal("negative_loss", logits(model, ids, subject), labels(ids, subject)).mean()


def state(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def weights(model):
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def spoil(ids, subject=None):
    """Return the subject's data with other values in some records."""
    s = mlp_subject() if subject is None else subject
    data, rows = copy.copy(s.data), s.data.positions(np.asarray(ids))
    data.x = s.data.x.clone()
    data.x[rows] = 1 - data.x[rows]
    return data


def tensors(ids, subject=None):
    s = mlp_subject() if subject is None else subject
    rows = s.data.positions(np.asarray(ids))
    return s.data.inputs(rows), s.data.y[rows]
