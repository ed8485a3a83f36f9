"""A request is named in the user's words, and what cannot be found is named back."""

import numpy as np
import pytest
from PIL import Image

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import Dataset, load_dataset
from mnemoscope.audit.records.raw import Raw
from mnemoscope.audit.records.request import Request, refuse_overlaps, select_records


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def pets(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)).save(path)
    return tmp_path / "pets"


def row_keys(*keys):
    n = len(keys)
    return Dataset.from_raw(Raw("t", np.arange(n, dtype=np.uint8)[:, None], keys, np.zeros(n, np.int64), ("a",)))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("digits/0007", [7]),
        ("digits/0007, digits/0003", [3, 7]),
        ("12,3,12", [3, 12]),
        ("digits/0003, 5", [3, 5]),
        ("ids: 5, 6", [5, 6]),
        ("keys:digits/0001,digits/0000", [0, 1]),
    ],
)
def test_keys_and_ids(digits, spec, expected):
    found = select_records(digits, spec, seed=0)
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_a_name_that_is_a_key_is_the_key():
    data = row_keys("2", "1", "0", "a,b")
    assert select_records(data, "2,0", seed=0).tolist() == [0, 2]
    assert select_records(data, "ids:2,0", seed=0).tolist() == [0, 2]
    assert select_records(data, "2", seed=0).tolist() == [0]
    assert select_records(data, "ids:2", seed=0).tolist() == [2]
    assert select_records(data, "a,b", seed=0).tolist() == [3]


def test_classes_by_name_and_number(digits):
    assert np.array_equal(select_records(digits, "class:3", seed=0), np.flatnonzero(digits.labels == 3))
    wine = load_dataset("wine")
    by_name, by_number = (select_records(wine, f"class:{c}", seed=0) for c in ("class_1", "1"))
    assert np.array_equal(by_name, by_number)
    assert by_name.size == 71


def test_random_counts_and_shares_are_obeyed(digits):
    six = select_records(digits, "random:600", seed=1)
    assert six.size == np.unique(six).size == 600
    assert (np.diff(six) > 0).all()
    assert select_records(digits, "random:10%", seed=1).size == 180
    assert select_records(digits, "random:0.5%", seed=1).size == 9
    assert np.array_equal(six, select_records(digits, "random:600", seed=1))
    assert not np.array_equal(six, select_records(digits, "random:600", seed=2))
    rest = select_records(digits, "random:1197", seed=1, exclude=six)
    assert np.array_equal(np.union1d(six, rest), digits.ids)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digts/0007", r"digts/0007 \(did you mean 'digits/0007'\?\)"),
        ("digits/0001,nobody", "1 of 2 are neither keys nor ids of digits: nobody"),
        ("1797", "neither keys nor ids"),
        ("ids:1797", "the first 1797; ids are 0..1796"),
        ("ids:one", "whole numbers 0..1796; given one"),
        ("keys:7", "1 keys are unknown: 7"),
        ("class:eleven", "class:eleven is unknown.*classes of digits: 0, 1"),
        ("class:10", "class:10 is unknown"),
        ("random:ten", "random:600 or random:10%"),
        ("random:0.1", "random:600 or random:10%"),
        ("random:-5", "random:600 or random:10%"),
        ("random:0", r"asks for 0 records; allowed: 1\.\.1797"),
        ("random:1798", r"asks for 1798 records; allowed: 1\.\.1797"),
        ("random:101%", "asks for 1815 records"),
        ("", "an empty selection"),
        (" , ", "selects no records"),
        ("missing.csv", "missing.csv: there is no such file"),
    ],
)
def test_what_is_unknown_is_named(digits, spec, message):
    with pytest.raises(InvalidInput, match=message):
        select_records(digits, spec, seed=0)


def test_a_class_name_alone_suggests_the_class_form():
    with pytest.raises(InvalidInput, match="did you mean 'class:class_1'"):
        select_records(load_dataset("wine"), "class_1", seed=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key\ndigits/0004\ndigits/0001\n", [1, 4]),
        ("name,ID\nann,4\nbob,1\n", [1, 4]),
        ("\ufeff4\n\ndigits/0001\n", [1, 4]),
        ('"digits/0004",note\n', [4]),
    ],
)
def test_lists_in_files(digits, tmp_path, text, expected):
    (tmp_path / "forget.csv").write_text(text, encoding="utf-8")
    assert select_records(digits, str(tmp_path / "forget.csv"), seed=0).tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("key\n", "selects no records"),
        ("key\ndigits/0001\ndigits/9999\n", r"1 keys are unknown: digits/9999 \(did you mean"),
        ("id\n5\nfive\n", "given five"),
        ("name,key\nann\n", "row 2 has no cell in column 2"),
        ("digits/0001\nnobody\n", "1 of 2 are neither"),
    ],
)
def test_lists_that_cannot_be_used(digits, tmp_path, text, message):
    (tmp_path / "forget.csv").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        select_records(digits, str(tmp_path / "forget.csv"), seed=0)


def test_folders_by_prefix_by_place_and_by_pixels(pets, tmp_path, monkeypatch):
    data = load_dataset(pets)
    assert select_records(data, "dog", seed=0).tolist() == [2, 3]
    assert select_records(data, "dog/", seed=0).tolist() == [2, 3]
    assert select_records(data, str(pets / "cat"), seed=0).tolist() == [0, 1]

    copies = tmp_path / "to forget"
    copies.mkdir()
    for source, name in ((pets / "dog/1.png", "renamed.png"), (pets / "cat/0.png", "0.png")):
        Image.open(source).save(copies / name)
    assert select_records(data, str(copies), seed=0).tolist() == [0, 3]


def test_an_image_found_twice_selects_the_named_one_or_all(pets, tmp_path):
    Image.open(pets / "cat/0.png").save(pets / "dog/0.png")
    data = load_dataset(pets)
    assert select_records(data, str(pets / "cat"), seed=0).tolist() == [0, 1]
    (tmp_path / "f").mkdir()
    Image.open(pets / "cat/0.png").save(tmp_path / "f" / "x.png")
    assert select_records(data, str(tmp_path / "f"), seed=0).tolist() == [0, 2]


def test_images_that_are_no_records_are_named(pets, tmp_path):
    data = load_dataset(pets)
    other = tmp_path / "cat"
    other.mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(other / "1.png")
    with pytest.raises(InvalidInput, match=r"1 of 1 images are no records.*'cat/1\.png' has other pixels"):
        select_records(data, str(other), seed=0)
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInput, match="no image files"):
        select_records(data, str(tmp_path / "none"), seed=0)
    with pytest.raises(InvalidInput, match="cannot name records of wine"):
        select_records(load_dataset("wine"), str(other), seed=0)


def test_overlaps_are_named_by_key(digits):
    sets = {"forget": np.array([1, 2, 3]), "holdout": np.array([3, 4]), "retain": np.array([9])}
    with pytest.raises(InvalidInput, match="forget and holdout share 1 records: digits/0003; a record plays one part"):
        refuse_overlaps(digits, sets)
    refuse_overlaps(digits, {**sets, "holdout": np.array([4])})


def test_corrected_records_are_among_those_that_the_model_is_to_know():
    forget, retain, none = (np.array(part, np.int64) for part in ([2, 7], [5, 3], []))
    for kind in ("records", "class"):
        request = Request(kind, forget, retain, none)
        assert not request.corrects
        assert request.known.tolist() == [5, 3]
    features = Request("features", forget, retain, none, features=np.array([0]))
    labels = Request("labels", forget, retain, none, labels=np.array([1, 1]))
    for request in (features, labels):
        assert request.corrects
        assert request.known.tolist() == [2, 3, 5, 7]


def test_request_checks_itself():
    ids = [np.array(part, np.int64) for part in ([1, 2], [3], [])]
    assert Request("records", *ids).forget.tolist() == [1, 2]
    with pytest.raises(InvalidInput, match=r"forget and retain share 1 ids, the first \[2\]"):
        Request("records", ids[0], np.array([2, 5], np.int64), ids[2])
    with pytest.raises(InvalidInput, match="kind='all'"):
        Request("all", *ids)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="without repeats"):
        Request("class", np.array([1, 1], np.int64), ids[1], ids[2])
