"""Records keep their keys, classes and fingerprints, whatever they are read from."""

import dataclasses
import hashlib
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput, StaleArtifact
from mnemoscope.audit.records.datasets import DATASETS, Dataset, load_dataset
from mnemoscope.audit.records.index import RecordIndex, value_digests
from mnemoscope.audit.records.raw import Raw, class_list

ROOT = os.environ.get("MNEMOSCOPE_DATA")
needs_data = pytest.mark.skipif(ROOT is None, reason="MNEMOSCOPE_DATA does not name a folder of data sets")


def toy(values=None, labels=(0, 1, 0), keys=("a", "b", "c"), classes=("x", "y")):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4) if values is None else values
    return Dataset.from_raw(Raw("toy", array, tuple(keys), np.array(labels), tuple(classes)))


def test_digits_is_the_embedded_default():
    from sklearn.datasets import load_digits

    digits, source = load_dataset("digits"), load_digits()
    assert digits.kind == "image"
    assert digits.values.dtype == np.uint8
    assert np.array_equal(digits.values[..., 0], source.images)
    assert np.array_equal(digits.labels, source.target)
    assert digits.classes == tuple("0123456789")
    assert digits.keys[0] == "digits/0000"
    assert digits.keys[-1] == "digits/1796"
    assert next(iter(DATASETS)) == "digits"
    assert all(reader.__doc__ for reader in DATASETS.values())


@pytest.mark.parametrize(("name", "shape", "classes"), [("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2)])
def test_bundled_tables(name, shape, classes):
    table = load_dataset(name)
    assert (table.kind, table.values.shape, table.values.dtype) == ("table", shape, np.float32)
    assert len(table.classes) == classes


def test_digests_are_those_of_bytes_and_class_name():
    data = toy()
    for row in range(3):
        head = hashlib.sha256(b"|u1 (4,)\n" + data.values[row].tobytes() + b"\0" + (b"x", b"y")[data.labels[row]])
        assert data.digests[row].tobytes() == head.digest()
    assert not np.array_equal(value_digests(data.values)[0], data.digests[0])


def test_digest_does_not_depend_on_layout_and_sees_every_part():
    values = np.arange(24, dtype=np.float32).reshape(3, 8)
    assert toy(values).digest == toy(np.asfortranarray(values)).digest == toy(values.astype(">f4")).digest
    other = values.copy()
    other[2, 7] += 1
    different = [
        toy(values),
        toy(other),
        toy(values, labels=(1, 1, 0)),
        toy(values, keys=("a", "b", "d")),
        toy(values, classes=("x", "z")),
        toy(values, classes=("x", "y", "z")),
        toy(values.reshape(3, 2, 4, 1)),
    ]
    assert len({data.digest for data in different}) == len(different)


def test_a_data_set_is_shown_in_one_line_and_survives_a_copy_to_another_process():
    data = toy()
    assert repr(data) == "Dataset('toy', table, uint8 (3, 4), 2 classes)"
    assert pickle.loads(pickle.dumps(data)).digest == data.digest


def test_values_and_index_are_read_only():
    data = toy()
    for array in (data.values, data.labels, data.ids, data.digests):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_ids_and_keys_translate_both_ways_and_unknown_ones_are_named():
    digits = load_dataset("digits")
    ids = np.array([5, 0, 1796])
    assert digits.keys_of(ids) == ("digits/0005", "digits/0000", "digits/1796")
    assert np.array_equal(digits.ids_of_keys(digits.keys_of(ids)), ids)
    assert np.array_equal(digits.get(ids), digits.values[ids])
    with pytest.raises(InvalidInput, match=r"digit/0005 \(did you mean 'digits/0005'\?\)"):
        digits.ids_of_keys(["digits/0001", "digit/0005"])
    for unknown in (1797, -1):
        with pytest.raises(InvalidInput, match=f"the first {unknown}"):
            digits.get(np.array([3, unknown]))


def test_a_changed_data_set_says_which_keys_changed():
    before = toy()
    stored = RecordIndex.from_bytes(before.index.to_bytes())
    assert stored.digest == before.digest
    assert not before.changed_since(stored)
    assert before.changed_since(stored).sentence == "nothing changed"

    values = np.array(before.values)
    values[1, 0] += 1
    after = toy(values, keys=("a", "b", "d"))
    changes = after.changed_since(stored)
    assert (changes.added, changes.removed, changes.altered) == (("d",), ("c",), ("b",))
    assert changes.sentence == "1 added (d); 1 removed (c); 1 altered (b)"

    relabelled = toy(labels=(1, 1, 0)).changed_since(stored)
    assert relabelled.altered == ("a",)
    moved = toy(np.array(before.values)[[1, 0, 2]], labels=(1, 0, 0), keys=("b", "a", "c")).changed_since(stored)
    assert (moved.altered, moved.moved) == ((), ("a", "b"))
    assert "classes were x, y, are x, y, z" in toy(classes=("x", "y", "z")).changed_since(stored).sentence


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_index_is_refused(damage):
    data = toy().index.to_bytes()[:-30] if damage is None else damage
    with pytest.raises(StaleArtifact, match="read the data again"):
        RecordIndex.from_bytes(data)


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        ([0, 2, 2], [0, 2, 2], ("0", "1", "2")),  # a number without a record keeps its place
        ([5.0, 0.0], [5, 0], ("0", "1", "2", "3", "4", "5")),
        ([-1, 1], [0, 1], ("-1", "1")),
        ([10_000, 20_000, 10_000], [0, 1, 0], ("10000", "20000")),
        (["dog", "cat"], [1, 0], ("cat", "dog")),
        ([[1], [0]], [1, 0], ("0", "1")),
        ([True, False], [1, 0], ("False", "True")),
    ],
)
def test_class_lists(labels, numbers, classes):
    found, names = class_list(np.array(labels), "toy")
    assert found.tolist() == numbers
    assert found.dtype == np.int64
    assert names == classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(3), "argmax"),
        (np.array([0.5, 1]), "not whole numbers"),
        (np.array([np.nan]), "not whole numbers"),
        (np.array([None, 1]), "type object"),
    ],
)
def test_labels_that_are_no_classes(labels, message):
    with pytest.raises(InvalidInput, match=message):
        class_list(labels, "toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ("a", "a", "b")}, "1 keys stand twice: a"),
        ({"labels": (0, 1)}, "3 records, but 2 labels"),
        ({"keys": ("a", "b")}, "2 keys, but"),
        ({"values": np.empty((0, 2), np.uint8), "labels": (), "keys": ()}, "no records"),
    ],
)
def test_inconsistent_parts_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        toy(**change)


def test_npz_with_x_and_y_is_memory_mapped_where_stored_plainly(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), np.uint8)
    y = np.arange(20) % 3
    np.savez(tmp_path / "plain.npz", y=y, x=x)
    np.savez_compressed(tmp_path / "packed.npz", x=x, y=y)
    np.savez(tmp_path / "fortran.npz", x=np.asfortranarray(x), y=y)
    plain, packed, fortran = (load_dataset(tmp_path / f"{n}.npz") for n in ("plain", "packed", "fortran"))
    for data in (plain, packed, fortran):
        assert np.array_equal(data.values, x)
        assert data.values.dtype == np.uint8
        assert np.array_equal(data.labels, y)
    assert isinstance(plain.values, np.memmap)
    assert not isinstance(packed.values, np.memmap)
    assert np.array_equal(plain.digests, packed.digests)
    assert np.array_equal(plain.digests, fortran.digests)
    assert plain.keys[3] == "x/03"
    assert plain.name == "plain"


def test_npz_with_parts_keys_and_class_names(tmp_path):
    rng = np.random.default_rng(0)
    parts = {
        "x_train": rng.normal(size=(12, 4)),
        "y_train": np.zeros(12, int),
        "x_test": rng.normal(size=(3, 4)),
        "y_test": np.full(3, 1),
    }
    np.savez(tmp_path / "parts.npz", **parts, classes=np.array(["no", "yes", "maybe"]))
    data = load_dataset("parts", data_root=tmp_path)
    assert data.keys[0] == "train/00"
    assert data.keys[12:] == ("test/00", "test/01", "test/02")
    assert data.classes == ("no", "yes", "maybe")
    assert data.values.dtype == np.float32
    np.savez(tmp_path / "named.npz", x=parts["x_test"], y=parts["y_test"], keys=np.array(["u", "v", "w"]))
    assert load_dataset(tmp_path / "named.npz").keys == ("u", "v", "w")


class Hostile:
    def __reduce__(self):
        return (os.mkdir, ("hostile",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "has the entries a; needed: x and y"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "x has 3 records, but y 2"),
        ({"x": np.array([Hostile()]), "y": np.zeros(1)}, "Python objects"),
        ({"x": np.zeros((3, 2)), "y": np.array([Hostile()] * 3)}, "Python objects"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.zeros(2)}, "1 records hold missing.*row 1"),
        ({"x": np.array([[1e300], [1.0]]), "y": np.zeros(2)}, "too large"),
        ({"x": np.zeros((2, 3, 32, 32), np.uint8), "y": np.zeros(2)}, r"channels first.*transpose\(0, 2, 3, 1\)"),
        ({"x": np.full((2, 8, 8), 300), "y": np.zeros(2)}, "300..300; allowed: 0..255"),
        ({"x": np.zeros(4), "y": np.zeros(4)}, r"shape \(4,\); allowed"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 3]), "classes": np.array(["a", "b"])}, "names 2 classes"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(2), "keys": np.array(["a"])}, "2 records, but 1 keys"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, monkeypatch, arrays, message):
    monkeypatch.chdir(tmp_path)
    np.savez("bad.npz", **arrays)
    with pytest.raises(InvalidInput, match=message):
        load_dataset("bad.npz")
    assert not Path("hostile").exists()


def test_files_that_are_no_npz(tmp_path):
    for content in (b"", b"\x80\x04N.", b"PK\x03\x04 broken"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InvalidInput, match="bad.npz"):
            load_dataset(tmp_path / "bad.npz")
    with (tmp_path / "bare.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InvalidInput, match="one bare array"):
        load_dataset(tmp_path / "bare.npz")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"'\.pt' cannot be read; allowed: \.npz"):
        load_dataset(tmp_path / "model.pt")


def test_names_and_options_that_do_not_apply():
    with pytest.raises(InvalidInput, match=r"did you mean 'cifar10'.*by name: digits"):
        load_dataset("cifar-10")
    with pytest.raises(InvalidInput, match="label_column='y' does not apply"):
        load_dataset("digits", label_column="y")
    with pytest.raises(InvalidInput, match="give data_root"):
        load_dataset("mnist")


def test_missing_files_of_a_named_set_tell_the_remedy(tmp_path):
    with pytest.raises(InvalidInput, match="mnist: no complete MNIST files.*download=True"):
        load_dataset("mnist", data_root=tmp_path)


def test_torchvision_reader_puts_train_and_test_together(tmp_path, monkeypatch):
    from torchvision import datasets

    class Fake:
        classes = ["a", "b"]

        def __init__(self, root, download=False, **part):
            assert root == str(tmp_path)
            self.data = np.full((12, 4, 6, 3) if part["train"] else (3, 4, 6, 3), int(part["train"]), np.uint8)
            self.targets = [1] * len(self.data)

    class FakeSplit(Fake):
        def __init__(self, root, download=False, split="train"):
            super().__init__(root, train=split == "train")
            self.data, self.labels = self.data.transpose(0, 3, 1, 2), np.array(self.targets)

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    monkeypatch.setattr(datasets, "SVHN", FakeSplit)
    for name in ("cifar10", "svhn"):
        data = load_dataset(name, data_root=tmp_path)
        assert data.values.shape == (15, 4, 6, 3)
        assert data.keys[0] == "train/00"
        assert data.keys[-1] == "test/02"
        assert data.values[0].max() == 1
        assert data.values[-1].max() == 0
        assert data.classes == ("a", "b")
        assert set(data.labels.tolist()) == {1}


@pytest.mark.slow
def test_fingerprints_of_sixty_thousand_images_take_seconds():
    values = np.random.default_rng(0).integers(0, 256, (60_000, 32, 32, 3), np.uint8)
    start = time.process_time()
    digests = value_digests(values, ["cat"] * 60_000)
    assert time.process_time() - start < 5
    assert len(np.unique(digests, axis=0)) == 60_000


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "first", "label"),
    [
        ("cifar10", (60_000, 32, 32, 3), "train/00000", "frog"),
        ("mnist", (70_000, 28, 28, 1), "train/00000", "5 - five"),
    ],
)
def test_real_torchvision_sets(name, shape, first, label):
    data = load_dataset(name, data_root=Path(ROOT or ""))
    assert data.values.shape == shape
    assert data.values.dtype == np.uint8
    assert data.keys[0] == first
    assert data.keys[-1] == "test/09999"
    assert data.classes[data.labels[0]] == label


@needs_data
def test_real_location30_table():
    data = load_dataset("location30", data_root=Path(ROOT or ""))
    assert (data.kind, data.values.shape, len(data.classes)) == ("table", (5010, 446), 30)
