import numpy as np
import pytest
import torch

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.models.data import DeviceData


def test_bytes_stay_bytes_and_inputs_are_normalised(dataset_of):
    values = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
    data = DeviceData(dataset_of(values, np.arange(12) % 2, name="cifar10"))
    assert data.x.dtype == torch.uint8
    assert data.input_shape == (3, 4, 5)
    got = data.inputs(data.positions(np.array([7, 2]))).numpy()
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    expected = ((values[[7, 2]] / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)
    other = DeviceData(dataset_of(values, np.arange(12) % 2))
    np.testing.assert_allclose(
        other.inputs(other.positions(np.array([3])))[0].numpy(), ((values[3] / 255 - 0.5) / 0.25).transpose(2, 0, 1),
        atol=1e-5,
    )  # fmt: skip


def test_constants_do_not_depend_on_the_records_held(dataset_of):
    table = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    table[:, 2] = 7.0
    dataset = dataset_of(table, np.arange(50) % 2)
    whole, part = DeviceData(dataset), DeviceData(dataset, ids=np.array([9, 3, 20]))
    picked = np.array([20, 3])
    assert torch.equal(whole.inputs(whole.positions(picked)), part.inputs(part.positions(picked)))
    assert np.array_equal(part.ids, [3, 9, 20])
    expected = (table[picked] - table.mean(0)) / np.where(table.std(0) > 0, table.std(0), 1)
    np.testing.assert_allclose(whole.inputs(whole.positions(picked)).numpy(), expected, atol=1e-4)
    binary = DeviceData(dataset_of((table > 5).astype(np.float32), np.arange(50) % 2))
    assert set(binary.inputs(torch.arange(50)).unique().tolist()) == {0.0, 1.0}


def moved_slowly(image, flip, dx, dy):
    """One image at a time, pixel by pixel."""
    h, w, _ = image.shape
    out = np.zeros_like(image)
    source = image[:, ::-1] if flip else image
    for row in range(h):
        for column in range(w):
            if 0 <= row - dy < h and 0 <= column - dx < w:
                out[row, column] = source[row - dy, column - dx]
    return out


def test_moves_equal_the_slow_ones(dataset_of):
    rng = np.random.default_rng(1)
    values = rng.integers(1, 256, (30, 6, 5, 3), dtype=np.uint8)
    data = DeviceData(dataset_of(values, np.arange(30) % 2))
    flip, shift = rng.random((2, 15)) < 0.5, rng.integers(-6, 7, (2, 15, 2))
    positions = torch.arange(30).view(2, 15)
    got = data.inputs(positions, flip=torch.from_numpy(flip), shift=torch.from_numpy(shift))
    assert got.shape == (2, 15, 3, 6, 5)
    slow = np.stack(
        [moved_slowly(v, f, *s) for v, f, s in zip(values, flip.ravel(), shift.reshape(-1, 2), strict=True)]
    )
    expected = ((slow / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got.flatten(0, 1).numpy(), expected, atol=1e-5)


def test_unknown_ids_and_strange_values_are_named(dataset_of, digits):
    data = DeviceData(digits)
    with pytest.raises(InvalidInput, match=r"2 of 3 record ids .*-1, 9000"):
        data.positions(np.array([-1, 5, 9000]))
    with pytest.raises(InvalidInput, match=r"shape \(4, 3, 2\)"):
        DeviceData(dataset_of(np.zeros((4, 3, 2), np.float32), np.arange(4) % 2))
    with pytest.raises(InvalidInput, match="not finite"):
        DeviceData(dataset_of(np.full((4, 3), np.nan, np.float32), np.arange(4) % 2))
