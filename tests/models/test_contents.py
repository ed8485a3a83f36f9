"""P6: rows of records that a model stores are found exactly, and weights are not mistaken for them."""

import numpy as np
import pytest
import torch
from torch import nn

from mnemoscope.audit.models.contents import record_forms, rows_inside
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.records.datasets import load_dataset
from mnemoscope.audit.verdict.endpoints import structure_endpoint


class Neighbours(nn.Module):
    """A 1-nearest-neighbour model: its training records are a buffer."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)


@pytest.fixture(scope="module")
def digits() -> DeviceData:
    return DeviceData(load_dataset("digits"))


def test_rows_of_a_neighbour_model_are_found_and_only_they(digits: DeviceData) -> None:
    inside, outside = np.arange(0, 40), np.arange(100, 140)
    model = Neighbours(digits.inputs(digits.positions(inside)).reshape(40, -1).clone())
    assert rows_inside(model.state_dict(), record_forms(digits, inside)).all()
    assert not rows_inside(model.state_dict(), record_forms(digits, outside)).any()


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 1, 8, 8), (20, 2, 64)])
def test_raw_rows_are_found_in_any_shape(digits: DeviceData, shape: tuple[int, ...]) -> None:
    ids = np.arange(40)
    raw = digits.x[digits.positions(ids)].reshape(shape).clone()
    assert rows_inside({"buffer": raw}, record_forms(digits, ids)).all()


def test_weights_are_no_records(digits: DeviceData) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    assert not rows_inside(model.state_dict(), record_forms(digits, np.arange(500))).any()


def test_constant_and_tiny_records_are_never_reported() -> None:
    zeros = np.zeros((3, 64), np.float32)
    assert not rows_inside({"bias": torch.zeros(5, 64)}, [zeros]).any()
    assert not rows_inside({"w": torch.ones(5, 2)}, [np.array([[1.0, 2.0]], np.float32)]).any()


def test_the_endpoint_is_exact() -> None:
    assert structure_endpoint(0, 10).outcome == "within"
    assert structure_endpoint(1, 10).outcome == "beyond"
    assert structure_endpoint(0, 0).outcome == "not computed"
    assert structure_endpoint(0, 0).estimate.reason
