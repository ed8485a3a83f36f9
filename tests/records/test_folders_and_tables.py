"""Image folders and tables: classes and categories of the whole data, and errors that say where."""

import os

import numpy as np
import pytest
from PIL import Image

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import load_dataset


def picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("dog/2.png", "cat/b/1.png", "cat/0.png"):
        picture(tmp_path / "pets" / name, rng.integers(0, 256, (4, 6, 3)))
    (tmp_path / "pets" / "fox").mkdir()
    (tmp_path / "pets" / ".cache").mkdir()
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path / "pets"


def test_folder_keys_are_paths_and_classes_are_those_of_the_whole(folder):
    data = load_dataset(folder)
    assert data.name == "pets"
    assert data.keys == ("cat/0.png", "cat/b/1.png", "dog/2.png")
    assert data.classes == ("cat", "dog", "fox")  # a class without an image keeps its number
    assert data.labels.tolist() == [0, 0, 1]
    assert data.values.shape == (3, 4, 6, 3)
    assert np.array_equal(data.values[0], np.asarray(Image.open(folder / "cat/0.png")))


def test_folder_with_train_and_test_parts(tmp_path):
    for name in ("train/b/1.png", "test/a/1.png", "test/b/2.png"):
        picture(tmp_path / name, np.zeros((3, 3)))
    data = load_dataset(tmp_path)
    assert data.keys == ("test/a/1.png", "test/b/2.png", "train/b/1.png")
    assert data.classes == ("a", "b")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.values.shape == (3, 3, 3, 1)  # all grey


def test_unequal_sizes_are_refused_by_name_or_scaled(folder):
    picture(folder / "dog/big.png", np.full((8, 12, 3), 7))
    with pytest.raises(InvalidInput, match=r"3 are 6x4, but dog/big\.png is 12x8.*resize"):
        load_dataset(folder)
    assert load_dataset(folder, resize=5).values.shape == (4, 5, 5, 3)
    scaled = load_dataset(folder, resize=(4, 6))
    assert (scaled.get(scaled.ids_of_keys(["dog/big.png"])) == 7).all()
    with pytest.raises(InvalidInput, match="resize=0"):
        load_dataset(folder, resize=0)


def test_folders_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(InvalidInput, match="resize=4 does not apply"):
        load_dataset("digits", resize=4)
    (folder / "cat/broken.png").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match=r"cat/broken\.png: cannot be read"):
        load_dataset(folder)
    (folder / "cat/broken.png").write_bytes((folder / "cat/0.png").read_bytes()[:90])
    with pytest.raises(InvalidInput, match=r"cat/broken\.png: cannot be decoded"):
        load_dataset(folder)
    os.remove(folder / "cat/broken.png")
    picture(folder / "loose.png", np.zeros((4, 6, 3)))
    with pytest.raises(InvalidInput, match=r"1 images lie outside the class folders: loose\.png"):
        load_dataset(folder)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="no images found"):
        load_dataset(tmp_path / "empty")
    (tmp_path / "deep" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep" / "a" / "x.png")
    with pytest.raises(InvalidInput, match=r"more than 8 bits a channel: a/x\.png"):
        load_dataset(tmp_path / "deep")


def table(tmp_path, text, name="t.csv", **options):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return load_dataset(tmp_path / name, **options)


def test_csv_numbers_and_categories(tmp_path):
    text = "\ufeffname,age,colour,label\nann,30,red,yes\nbob,4.5,blue,no\ncy,-1e2,red,yes\n"
    data = table(tmp_path, text, key_column="name")
    assert data.kind == "table"
    assert data.keys == ("ann", "bob", "cy")
    assert data.classes == ("no", "yes")
    assert data.labels.tolist() == [1, 0, 1]
    # age, colour=blue, colour=red
    assert data.values.tolist() == [[30, 0, 1], [4.5, 1, 0], [-100, 0, 1]]
    assert data.values.dtype == np.float32
    rows = table(tmp_path, "x;y\n1;2\n3;0\n", name="t.csv", label_column="y")
    assert rows.keys == ("row/0", "row/1")
    assert rows.classes == ("0", "1", "2")
    assert rows.labels.tolist() == [2, 0]
    assert table(tmp_path, 'a\tlabel\n"1"\tu\n', name="t.tsv").values.tolist() == [[1]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "no column 'label'; give label_column= one of: a, b"),
        ("a,lable\n1,2\n", {}, "did you mean 'lable'"),
        ("a,label\n1,2\n", {"key_column": "k"}, "give key_column="),
        ("a,label\n1,x\n,y\n", {}, "column 'a' has 1 missing values, the first in row 3"),
        ("a,label\n1,x\n2,\n", {}, "column 'label' has 1 missing values, the first in row 3"),
        ("a,label\n1,x\nNaN,y\n", {}, "row 3"),
        ("a,label\n1,x\ninf,y\n", {}, "infinite.*row 3"),
        ("a,label\n" + "1,x\n" * 30 + "?,y\n", {}, r"holds numbers, but 1 cells are not, the first '\?' in row 32"),
        ("a,label\n1,x,3\n", {}, "row 2 has 3 cells, the header has 2"),
        ("a,a,label\n1,2,3\n", {}, "named twice: a"),
        ("", {}, "the file is empty"),
        ("a,label\n", {}, "no rows"),
        ("label\n1\n", {}, "no columns besides 'label'"),
        ("k,a,label\nu,1,2\nu,1,2\n", {"key_column": "k"}, "stand twice: u"),
        ("k,label\n" + "".join(f"text{i},0\n" for i in range(1001)), {}, "1001 different texts.*key_column='k'"),
    ],
)
def test_csv_errors_say_where(tmp_path, text, options, message):
    with pytest.raises(InvalidInput, match=message):
        table(tmp_path, text, **options)


def test_csv_in_another_encoding(tmp_path):
    (tmp_path / "t.csv").write_bytes("a,label\n1,é\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        load_dataset(tmp_path / "t.csv")


def test_parquet_reads_as_csv_does(tmp_path):
    import pyarrow as arrow
    from pyarrow import parquet

    columns = {
        "name": ["ann", "bob", "cy"],
        "age": [30.0, 4.5, -100.0],
        "colour": ["red", "blue", "red"],
        "label": ["yes", "no", "yes"],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    text = "name,age,colour,label\nann,30,red,yes\nbob,4.5,blue,no\ncy,-100,red,yes\n"
    from_csv = table(tmp_path, text, key_column="name")
    from_parquet = load_dataset(tmp_path / "t.parquet", key_column="name")
    assert from_parquet.digest == from_csv.digest
    parquet.write_table(arrow.table({"a": [1.0, None], "label": [0, 1]}), tmp_path / "gap.parquet")
    with pytest.raises(InvalidInput, match="column 'a' has 1 missing values, the first in row 1"):
        load_dataset(tmp_path / "gap.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(InvalidInput, match="cannot be read as Parquet"):
        load_dataset(tmp_path / "bad.parquet")
