"""Arrays beside a result: the same bytes twice, and nothing that somebody else's file could do to its reader."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.side_arrays import ArrayWriter, SideArrays

ARRAYS = {
    "scores": np.array([[0.1, -2.5], [1e300, 5e-324]]),
    "roles": np.array([[1, 2, 3]], np.int8),
    "right": np.array([True, False]),
    "text": np.array('{"π": 1}'),
    "none": np.zeros((0, 3), np.float32),
}
KINDS = {"scores": "f", "roles": "i", "right": "b", "text": "U", "none": "f"}


def write(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    with ArrayWriter(path) as file:
        for name, array in arrays.items():
            file.add(name, array)
    return path.read_bytes()


def test_arrays_come_back_bit_by_bit_and_numpy_reads_them_without_pickle(tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", ARRAYS)
    read = SideArrays(data)
    assert list(read) == list(ARRAYS)
    with np.load(io.BytesIO(data), allow_pickle=False) as plain:
        for name, array in ARRAYS.items():
            for found in (read.get(name, kind=KINDS[name], ndim=array.ndim), plain[name]):
                assert (found.dtype, found.shape) == (array.dtype, array.shape)
                assert found.tobytes() == array.tobytes()


def test_the_same_arrays_give_the_same_bytes_whenever_they_are_written(tmp_path: Path) -> None:
    assert write(tmp_path / "a.npz", ARRAYS) == write(tmp_path / "elsewhere" / "b.npz", ARRAYS)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (tmp_path / "a.npz").stat().st_mode & 0o777 == 0o600


def test_memory_order_does_not_matter(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    flipped = write(tmp_path / "f.npz", {"x": np.asfortranarray(values)})
    assert flipped == write(tmp_path / "c.npz", {"x": values})
    assert (SideArrays(flipped).get("x", kind="f", ndim=2) == values).all()


def failing(path: Path) -> None:
    with ArrayWriter(path) as file:
        file.add("x", np.zeros(3))
        raise RuntimeError


def test_a_failed_run_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        failing(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("x", np.array([None])),
        ("../x", np.zeros(1)),
        ("X", np.zeros(1)),
        ("", np.zeros(1)),
        ("x", np.zeros(1, "M8[s]")),
    ],
)
def test_what_is_no_plain_number_under_a_plain_name_is_not_written(
    tmp_path: Path, name: str, array: np.ndarray
) -> None:
    with ArrayWriter(tmp_path / "a.npz") as file, pytest.raises(InvalidInput):
        file.add(name, array)


def hostile(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return buffer.getvalue()


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        npy("'|O'", "(1,)", b"\x80\x04K\x01."),
        npy("'<f8'", "(1000000000000,)", bytes(8)),
        npy("'<f8'", "(-1,)"),
        npy("'<f8'", "(2,)", bytes(8)),
        npy("'<f8'", "(1,)", bytes(16)),
        npy("[('a', '<f8')]", "(1,)", bytes(8)),
        npy("'<M8[s]'", "(1,)", bytes(8)),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"no array",
        b"",
    ],
)
def test_an_array_that_lies_about_itself_is_refused(content: bytes) -> None:
    read = SideArrays(hostile("x.npy", content))
    with pytest.raises(InvalidInput):
        read.get("x", kind="biufU")


@pytest.mark.parametrize("name", ["../x.npy", "/x.npy", "x.txt", "x/y.npy", "X.npy", "a" * 200 + ".npy"])
def test_a_file_with_other_names_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="entries"):
        SideArrays(hostile(name, npy("'<f8'", "(1,)", bytes(8))))


def test_a_file_of_more_bytes_than_allowed_is_refused_before_it_is_read() -> None:
    bomb = hostile("x.npy", npy("'<f8'", "(1000000,)", bytes(8_000_000)))
    assert len(bomb) < 20_000
    with pytest.raises(InvalidInput, match="allowed are at most"):
        SideArrays(bomb, most_bytes=1_000_000)
    with pytest.raises(InvalidInput, match="allowed are at most"):
        SideArrays(bomb, most_array=1_000_000)


def test_every_flipped_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    values = {"x": np.arange(4.0)}
    data = write(tmp_path / "a.npz", values)
    for place in range(len(data)):
        other = bytearray(data)
        other[place] ^= 1
        try:
            found = SideArrays(bytes(other)).get("x", kind="f", ndim=1)
        except InvalidInput:
            continue
        assert (found == values["x"]).all(), place


def test_an_array_of_another_kind_or_shape_is_refused(tmp_path: Path) -> None:
    read = SideArrays(write(tmp_path / "a.npz", ARRAYS))
    with pytest.raises(InvalidInput, match="expected kind"):
        read.get("scores", kind="i")
    with pytest.raises(InvalidInput, match="axes"):
        read.get("scores", kind="f", ndim=1)
    with pytest.raises(InvalidInput, match="lacks"):
        read.get("other", kind="f")
