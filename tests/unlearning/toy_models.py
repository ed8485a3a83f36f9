"""Small trained models that unlearning methods are tried on: an MLP on digits, and four networks on their images."""

import copy
import functools
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from mnemoscope.audit.models.architectures import seeded
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.training import train_model
from mnemoscope.audit.records.request import Request
from mnemoscope.audit.testing_methods import MethodSubject

N, HELD = 240, 600
"""Records 0 to 239 are trained on, 240 to 299 are validation, the others are held out."""

RUNTIME = Runtime(device="cpu", threads=1)


def request(forget, *, kind="records", validation=range(N, N + 60), **more):
    forget = np.sort(np.asarray(forget, np.int64))
    retain = np.setdiff1d(np.arange(N), forget)
    return Request(kind, forget, retain, np.asarray(validation, np.int64), **more)


@functools.cache
def digits(images=False):
    values, n = load_digits(), HELD
    table = (values.data[:n] / 16).astype(np.float32)
    held = table.reshape(n, 8, 8, 1) if images else table
    dataset = SimpleNamespace(
        name="digits",
        kind="image" if images else "table",
        ids=np.arange(n),
        labels=values.target[:n].astype(np.int64),
        classes=tuple("0123456789"),
        values=held,
        source_values=held,
    )
    return DeviceData(dataset)


@functools.cache
def mlp_subject():
    """An MLP that knows its 240 records by heart."""
    data = digits()
    recipe = Recipe(architecture="mlp:64", lr=0.2, epochs=20, batch_size=32)
    model = train_model(recipe, data, np.arange(N), seed=1, runtime=RUNTIME).module
    return MethodSubject(
        model, request(range(60)), request(range(60, 120)), recipe, data, RUNTIME, seed=1, others=other_requests(data)
    )


@functools.cache
def mislabelled_subject():
    """An MLP that learned by heart, against what it knows of all others, the wrong labels of records 0 to 19.

    They are what is to be forgotten: a model that never saw them says the true class of nearly all of them.
    """
    data = copy.copy(digits())
    data.y = digits().y.clone()
    data.y[:20] = (data.y[:20] + 1) % 10
    recipe = Recipe(architecture="mlp:64", lr=0.2, epochs=40, batch_size=32)
    model = train_model(recipe, data, np.arange(N), seed=3, runtime=RUNTIME).module
    return MethodSubject(model, request(range(20)), request(range(20, 40)), recipe, data, RUNTIME, seed=3)


def of_class(label=3):
    """A request that the MLP forget a class."""
    return request(np.flatnonzero(digits().y[:N].numpy() == label), kind="class")


def other_requests(data):
    labels = data.y[:N].numpy()
    some = np.arange(40)
    return {
        "class": tuple(request(np.flatnonzero(labels == label), kind="class") for label in (3, 7)),
        "features": tuple(
            request(some, kind="features", features=np.arange(start, start + 16), value=0.0) for start in (16, 32)
        ),
        "labels": tuple(
            request(some, kind="labels", labels=(labels[some] + step).astype(np.int64) % 10) for step in (1, 2)
        ),
    }


class TinyViT(nn.Module):
    """Patches of 2x2, two attention layers, layer normalisation."""

    def __init__(self, width=32, classes=10):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.Parameter(torch.zeros(1, 16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.encoder(tokens).mean(dim=1))


def _cnn(norm):
    layers = []
    for before, after in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1)]
        layers += {"batchnorm": [nn.BatchNorm2d(after)], "groupnorm": [nn.GroupNorm(4, after)], "plain": []}[norm]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


NETWORKS = ("batchnorm", "groupnorm", "plain", "vit")


@functools.cache
def network_subject(name, optimizer="adamw"):
    """A small network on the images of digits, 8 x 8 pixels, that a recipe can train anew."""

    def build(seed):
        with seeded(seed):
            return TinyViT() if name == "vit" else _cnn(name)

    data = copy.copy(digits(images=True))
    data.subject = SimpleNamespace(digest=f"toy {name}", build=build, has_transform=False)
    lr = {"adamw": 3e-3, "sgd": 0.05}[optimizer]
    recipe = Recipe("subject", subject=f"toy {name}", optimizer=optimizer, lr=lr, epochs=12, batch_size=32)
    model = train_model(recipe, data, np.arange(N), seed=2, runtime=RUNTIME).module
    return MethodSubject(
        model,
        request(range(60)),
        request(range(60, 120)),
        recipe,
        data,
        RUNTIME,
        seed=2,
        others=other_requests(data),
    )
