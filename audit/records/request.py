"""Which records a request names, in the user's words, and the request handed to unlearning methods."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.datasets import Dataset
from mnemoscope.audit.records.folders import image_files, read_images
from mnemoscope.audit.records.index import nearest, some, value_digests
from mnemoscope.audit.rng import generator

__all__ = ["Kind", "Request", "refuse_overlaps", "select_records", "selection_beside"]

Ids = NDArray[np.int64]
Kind = Literal["records", "class", "features", "labels"]

FORMS = "keys or ids with commas, a folder, class:NAME, random:600, random:10%, or a CSV file of keys or ids"


@dataclass(frozen=True, eq=False)
class Request:
    """What one model is asked to forget.

    Attributes:
        kind: "records"; "class" when all records of one class are to go; "features" when values of the forget records
            are to go, and "labels" when their labels were wrong: those records stay, corrected, in what the model is to
            know (Warnecke et al. 2023, arXiv 2108.11577).
        forget: ids to be deleted, or of the records that are corrected.
        retain: ids the model was trained on and keeps.
        validation: ids a method may tune on; they may not serve as never-seen records.
        trained: ids the optimiser saw, where they were recorded.
        features: "features" only: which values of a record go, int64 places in its flattened values (columns of a
            table; of an image row by row, channels last).
        value: "features" only: what stands in their place, a raw value.
        labels: "labels" only: (forget.size,) int64, the right label of each forget record, in their order.
    """

    kind: Kind
    forget: Ids
    retain: Ids
    validation: Ids
    trained: Ids | None = None
    features: Ids | None = None
    value: float = 0.0
    labels: Ids | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidInput(f"Request: kind={self.kind!r} is unknown; allowed: {', '.join(get_args(Kind))}")
        sets = {"forget": self.forget, "retain": self.retain, "validation": self.validation}
        for name, ids in sets.items():
            _require_ids(name, ids, unique=True)
        for first, second, shared in _overlaps(sets):
            raise InvalidInput(
                f"Request: {first} and {second} share {shared.size} ids, the first {shared[:5].tolist()}"
            )
        if not self.forget.size:
            raise InvalidInput("Request: the forget set is empty; name at least one record to forget")
        if self.trained is not None:
            self._check_trained(self.trained)
        for name, values, kind in (("features", self.features, "features"), ("labels", self.labels, "labels")):
            if (values is not None) != (self.kind == kind):
                raise InvalidInput(
                    f"Request: {name} are given for kind={kind!r} and for no other; kind is {self.kind!r}"
                )
            if values is not None:
                _require_ids(name, values, unique=name == "features")
        if self.labels is not None and self.labels.size != self.forget.size:
            raise InvalidInput(
                f"Request: {self.labels.size} labels for {self.forget.size} forget records; give one each"
            )
        if self.features is not None and not self.features.size:
            raise InvalidInput("Request: no features named; name at least one value to take out")

    @property
    def corrects(self) -> bool:
        """Whether the forget records stay, corrected, in what the model is to know."""
        return self.kind in ("features", "labels")

    @property
    def known(self) -> Ids:
        """Ids that the model is to know: the retained ones, and the forget records where they are corrected."""
        return np.union1d(self.retain, self.forget) if self.corrects else self.retain

    def _check_trained(self, trained: Ids) -> None:
        _require_ids("trained", trained, unique=True)
        for name, ids in (("forget", self.forget), ("retain", self.retain)):
            strangers = np.setdiff1d(ids, trained)
            if strangers.size:
                raise InvalidInput(
                    f"Request: {strangers.size} of {ids.size} {name} records were never in this model's training, the "
                    f"first {strangers[:5].tolist()}; there is nothing to forget of them: leave them out"
                )
        if not self.corrects and np.isin(trained, self.forget).all():
            raise InvalidInput(
                f"Request: the forget set is the whole training set ({trained.size} records): nothing would be left to "
                "know. Put an untrained model in its place instead of unlearning"
            )


def _require_ids(name: str, ids: Ids, *, unique: bool) -> None:
    given = f"given {getattr(ids, 'dtype', type(ids).__name__)} {getattr(ids, 'shape', '')}"
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype != np.int64:
        raise InvalidInput(f"Request: {name} must be an int64 array (k,), {given}")
    if unique and np.unique(ids).size != ids.size:
        raise InvalidInput(f"Request: {name} must be int64 (k,) without repeats, {given}")


def refuse_overlaps(dataset: Dataset, sets: Mapping[str, Ids]) -> None:
    """Raise ``InvalidInput`` with the offending keys when two sets of records share some.

    Args:
        dataset: gives the keys.
        sets: ids by name, e.g. forget, holdout, retain.
    """
    lines = [
        f"{first} and {second} share {shared.size} records: {some(dataset.keys_of(shared))}"
        for first, second, shared in _overlaps(sets)
    ]
    if lines:
        raise InvalidInput("; ".join(lines) + "; a record plays one part: remove them from one of the two")


def selection_beside(folder: str | Path, spec: str) -> str:
    """Return a selection whose file or folder, where it names one, is looked for from a folder on.

    >>> selection_beside("plans", "random:10%")
    'random:10%'
    """
    path = Path(folder) / spec
    try:
        return str(path) if path.exists() else spec
    except OSError:  # a long list of ids is no path
        return spec


def select_records(dataset: Dataset, spec: str, *, seed: int, exclude: Ids | None = None) -> Ids:
    """Find the records that a text names.

    Forms, tried in this order:

    - ``random:600``, ``random:10%``: drawn from all records (less ``exclude``) with ``seed``; a share is rounded to
      the nearest whole number of records;
    - ``class:NAME`` (or the number of the class, where no class has that name);
    - ``keys:a,b`` and ``ids:3,17``, where keys and ids could be confused;
    - a ``.csv`` or ``.txt`` file with a column ``key`` or ``id``, or one of either without a header;
    - a folder: the start of keys (``cat`` for ``cat/1.png``, ...), or a folder of image files, each found by the end of
      its path and its pixels, or by its pixels alone (every record with these pixels is selected then);
    - keys or ids with commas; a name that is a key is taken as the key.

    Args:
        dataset: the whole data.
        spec: the text.
        seed: root seed of a random choice.
        exclude: ids that a random choice leaves out, e.g. the forget set when the holdout is drawn.

    Returns:
        (k,) int64, ascending, k >= 1.

    Raises:
        InvalidInput: unknown keys, ids or classes (the nearest known one is suggested); more than there are; nothing.

    >>> from mnemoscope.audit.records.datasets import load_dataset
    >>> select_records(load_dataset("digits"), "digits/0003, 5", seed=0)
    array([3, 5])
    """
    text = spec.strip()
    kind, colon, rest = text.partition(":")
    named = rest.strip()
    if colon and kind == "random":
        ids = _random(dataset, named, seed, exclude)
    elif colon and kind == "class":
        ids = _of_class(dataset, named)
    elif colon and kind == "keys":
        ids = dataset.ids_of_keys(_split(named))
    elif colon and kind == "ids":
        ids = _by_id(dataset, _split(named))
    elif not text:
        raise InvalidInput(f"an empty selection names no records; allowed: {FORMS}")
    else:
        ids = _by_place(dataset, text)
    if not ids.size:
        raise InvalidInput(f"{spec!r} selects no records of {dataset.name}; allowed: {FORMS}")
    return np.unique(ids)


def _overlaps(sets: Mapping[str, Ids]) -> list[tuple[str, str, Ids]]:
    names = list(sets)
    pairs = [(a, b) for position, a in enumerate(names) for b in names[position + 1 :]]
    shared = [(a, b, np.intersect1d(sets[a], sets[b])) for a, b in pairs]
    return [(a, b, ids) for a, b, ids in shared if ids.size]


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _random(dataset: Dataset, amount: str, seed: int, exclude: Ids | None) -> Ids:
    pool = dataset.ids if exclude is None else np.setdiff1d(dataset.ids, exclude)
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d*)?|\.\d+)\s*%", amount)
    if match is None:
        raise InvalidInput(f"random:{amount} must be a number of records or a share: random:600 or random:10%")
    count = int(match[1]) if match[1] else round(float(match[2]) / 100 * len(dataset.keys))
    if not 1 <= count <= pool.size:
        raise InvalidInput(f"random:{amount} asks for {count} records; allowed: 1..{pool.size}")
    chosen: Ids = generator(seed, "select", "random").choice(pool, size=count, replace=False)
    return chosen


def _of_class(dataset: Dataset, name: str) -> Ids:
    if name in dataset.classes:
        label = dataset.classes.index(name)
    elif name.isdecimal() and int(name) < len(dataset.classes):
        label = int(name)
    else:
        raise InvalidInput(
            f"class:{name} is unknown{nearest(name, dataset.classes)}; classes of {dataset.name}: "
            f"{some(dataset.classes, 12)}"
        )
    return np.flatnonzero(dataset.labels == label)


def _by_id(dataset: Dataset, words: Sequence[str]) -> Ids:
    wrong = [word for word in words if not re.fullmatch(r"\d{1,18}", word)]
    if wrong:
        raise InvalidInput(f"ids must be whole numbers 0..{len(dataset.keys) - 1}; given {some(wrong)}")
    ids = np.array([int(word) for word in words], np.int64)
    dataset.positions(ids)
    return ids


def _by_place(dataset: Dataset, text: str) -> Ids:
    path = Path(text)
    if not dataset.has_key(text):
        if path.suffix.lower() in (".csv", ".txt") and path.is_file():
            return _listed(dataset, path)
        inside = _below(dataset, text)
        if inside.size:
            return inside
        if _is_folder(path):
            return _image_folder(dataset, path)
    # A key may hold a comma: the whole text is tried first.
    return _mixed(dataset, [text] if dataset.has_key(text) else _split(text), text)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a long list of keys is no path
        return False


def _below(dataset: Dataset, prefix: str) -> Ids:
    start = prefix.rstrip("/") + "/"
    return np.array([row for row, key in enumerate(dataset.keys) if key.startswith(start)], np.int64)


def _mixed(dataset: Dataset, words: Sequence[str], source: str) -> Ids:
    """Read each word as a key or, where no record has that key, as an id."""
    found, unknown = [], []
    for word in words:
        if dataset.has_key(word):
            found.append(int(dataset.ids_of_keys([word])[0]))
        elif re.fullmatch(r"\d{1,18}", word) and int(word) < len(dataset.keys):
            found.append(int(word))
        else:
            unknown.append(word)
    if unknown:
        shown = source if len(source) < 60 else source[:57] + "..."
        known = [f"class:{unknown[0]}"] if unknown[0] in dataset.classes else dataset.keys
        if len(words) == 1 and Path(unknown[0]).suffix.lower() in {".csv", ".txt"}:
            raise InvalidInput(f"{shown}: there is no such file; allowed: {FORMS}")
        raise InvalidInput(
            f"{shown}: {len(unknown)} of {len(words)} are neither keys nor ids of {dataset.name}: "
            f"{some(unknown)}{nearest(unknown[0], known)}; allowed: {FORMS}"
        )
    return np.array(found, np.int64)


def _listed(dataset: Dataset, path: Path) -> Ids:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    if not rows:
        raise InvalidInput(f"{path}: is empty; list one key or id a line")
    header = [cell.lower() for cell in rows[0]]
    name = next((name for name in ("key", "id") if name in header), None)
    column = 0 if name is None else header.index(name)
    body = rows if name is None else rows[1:]
    short = [number for number, row in enumerate(body, start=1 if name is None else 2) if len(row) <= column]
    if short:
        raise InvalidInput(f"{path}: row {short[0]} has no cell in column {column + 1}")
    words = [row[column] for row in body]
    if name == "key":
        return dataset.ids_of_keys(words)
    return _by_id(dataset, words) if name == "id" else _mixed(dataset, words, str(path))


def _image_folder(dataset: Dataset, folder: Path) -> Ids:
    files = image_files(folder)
    if dataset.kind != "image" or dataset.values.dtype != np.uint8:
        raise InvalidInput(f"{folder}: a folder of images cannot name records of {dataset.name}; name keys or ids")
    if not files:
        raise InvalidInput(f"{folder}: no image files found")
    height, width, channels = dataset.values.shape[1:]
    if channels not in (1, 3):
        raise InvalidInput(
            f"{folder}: {dataset.name} has {channels} channels; image files have 1 or 3; name keys or ids"
        )
    names = [path.relative_to(folder).as_posix() for path in files]
    pixels = value_digests(read_images(files, names, resize=(height, width), channels=channels))
    by_pixels: dict[bytes, list[int]] = {}
    for row, digest in enumerate(dataset.value_digests):
        by_pixels.setdefault(digest.tobytes(), []).append(row)
    found: list[int] = []
    unknown = []
    outer = folder.resolve().parts
    for name, digest in zip(names, pixels, strict=True):
        rows = by_pixels.get(digest.tobytes(), [])
        # data/cat given as a folder holds 1.png, whose key is cat/1.png: the folder's own last parts may belong to it.
        ends = {"/".join((*outer[len(outer) - depth :], name)) for depth in range(min(4, len(outer)) + 1)}
        exact = [row for row in rows if dataset.keys[row] in ends]
        found += exact or rows
        if not rows:
            same_name = sorted(end for end in ends if dataset.has_key(end))
            unknown.append(f"{name} (a record {same_name[0]!r} has other pixels)" if same_name else name)
    if unknown:
        close = nearest(unknown[0], dataset.keys) if len(unknown[0]) < 200 else ""
        raise InvalidInput(
            f"{folder}: {len(unknown)} of {len(files)} images are no records of {dataset.name}: {some(unknown)}{close}"
        )
    return np.array(found, np.int64)
