from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_dataset(values, labels, *, name="unnamed", classes=None):
    """The part of a Dataset that the torch room reads."""
    labels = np.asarray(labels, dtype=np.int64)
    return SimpleNamespace(
        name=name,
        kind="image" if values.ndim == 4 else "table",
        ids=np.arange(len(values), dtype=np.int64),
        labels=labels,
        classes=classes or tuple(str(k) for k in range(int(labels.max()) + 1)),
        values=values,
        source_values=values,
    )


@pytest.fixture(scope="session")
def dataset_of():
    return make_dataset


@pytest.fixture(scope="session")
def digits():
    bunch = load_digits()
    return make_dataset(bunch.images.astype(np.uint8)[..., None], bunch.target, name="digits")


@pytest.fixture(scope="session")
def colour():
    """200 random 8x8 colour images in 4 classes that a model can only learn by heart."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    return make_dataset(values, rng.integers(0, 4, 200), classes=("a", "b", "c", "d"))
