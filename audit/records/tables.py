"""Records from a table with a label column: CSV, TSV, and Parquet where pyarrow is installed."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.index import nearest, some
from mnemoscope.audit.records.raw import Raw, class_list, numbered_keys

__all__ = ["TABLE_ENDINGS", "read_table"]

TABLE_ENDINGS = (".csv", ".tsv", ".parquet")
MISSING = {"", "na", "n/a", "nan", "null", "none"}
MOSTLY_NUMBERS = 0.9
"""A column with at least this share of numbers is one of numbers with errors in it, not one of categories."""
MOST_CATEGORIES = 1000

Column = list[str] | NDArray[np.float64]


def read_table(path: Path, *, label_column: str | None = None, key_column: str | None = None) -> Raw:
    """Read a table with one row a record.

    Columns of numbers become one value each, all other columns one value for each category of the whole data, sorted
    (one-hot); the order of the columns is kept.

    Args:
        path: ``.csv`` or ``.tsv`` in UTF-8 with a header line (comma, semicolon or tab), or ``.parquet``.
        label_column: column with the classes, "label" by default.
        key_column: column with unique keys; by default rows are ``row/00017``, counted from 0.

    Raises:
        InvalidInput: unknown columns, missing values (named by column and line), uneven lines, keys that stand twice,
            Parquet without pyarrow.
    """
    columns = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    label_name = _known(path, columns, label_column or "label", "label_column")
    n = len(columns[label_name])
    if not n:
        raise InvalidInput(f"{path}: has a header but no rows")
    keys = numbered_keys([("row", n)])
    if key_column is not None:
        key_name = _known(path, columns, key_column, "key_column")
        keys = tuple(_texts(path, key_name, columns.pop(key_name)))
    labels, classes = _labels(path, label_name, columns.pop(label_name))
    if not columns:
        raise InvalidInput(f"{path}: has no columns besides {label_name!r}; nothing is left to learn from")
    blocks = [_encoded(path, name, column) for name, column in columns.items()]
    return Raw(path.stem, np.concatenate(blocks, axis=1), keys, labels, classes)


def _read_text(path: Path) -> dict[str, Column]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            return _columns(path, csv.reader(file, delimiter=delimiter, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path}: cannot be read as a table in UTF-8 ({error})") from error


def _columns(path: Path, lines: Iterator[list[str]]) -> dict[str, Column]:
    header = [name.strip() for name in next(lines, [])]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if not header or twice:
        raise InvalidInput(f"{path}: " + (f"columns named twice: {some(twice)}" if twice else "the file is empty"))
    rows = []
    for number, cells in enumerate(lines, start=2):
        if cells and len(cells) != len(header):
            raise InvalidInput(f"{path}: row {number} has {len(cells)} cells, the header has {len(header)}")
        if cells:
            rows.append([cell.strip() for cell in cells])
    return {name: [row[position] for row in rows] for position, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, Column]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidInput(f"{path}: Parquet needs pyarrow; install mnemoscope[tables], or save as CSV") from error
    try:
        table = parquet.read_table(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise InvalidInput(f"{path}: cannot be read as Parquet ({error})") from error
    columns: dict[str, Column] = {}
    for name in table.column_names:
        column = table.column(name)
        if column.null_count:
            row = next(row for row, value in enumerate(column.to_pylist()) if value is None)
            raise InvalidInput(
                f"{path}: column {name!r} has {column.null_count} missing values, the first in row {row}; "
                "fill them in or leave these rows out"
            )
        numeric = arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type)
        cells = column.to_pylist()
        columns[name] = np.array(cells, np.float64) if numeric else [str(cell) for cell in cells]
    return columns


def _known(path: Path, columns: dict[str, Column], name: str, option: str) -> str:
    if name not in columns:
        raise InvalidInput(
            f"{path}: no column {name!r}{nearest(name, columns)}; give {option}= one of: {some(list(columns), 12)}"
        )
    return name


def _texts(path: Path, name: str, column: Column) -> list[str]:
    """Return a column as text, whole numbers without a decimal point; missing values are refused."""
    if isinstance(column, list):
        _refuse_missing(path, name, column)
        return column
    return [str(int(v)) if float(v).is_integer() else repr(float(v)) for v in column]


def _labels(path: Path, name: str, column: Column) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    source = f"{path}, column {name!r}"
    if not isinstance(column, list):
        return class_list(column, source)
    _refuse_missing(path, name, column)
    try:
        return class_list(np.array([int(cell) for cell in column], np.int64), source)
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidInput):
            raise
        return class_list(np.array(column), source)


def _encoded(path: Path, name: str, column: Column) -> NDArray[np.float32]:
    """Return (n, 1) for numbers, (n, categories) for anything else."""
    if not isinstance(column, list):
        numbers = column
    else:
        _refuse_missing(path, name, column)
        numbers = np.array([_number(cell) for cell in column])
        wrong = np.flatnonzero(np.isnan(numbers))
        if wrong.size and wrong.size > (1 - MOSTLY_NUMBERS) * len(column):
            return _one_hot(path, name, column)
        if wrong.size:
            raise InvalidInput(
                f"{path}: column {name!r} holds numbers, but {wrong.size} cells are not, the first "
                f"{column[wrong[0]]!r} in row {wrong[0] + 2}; fill them in or leave these rows out"
            )
    bad = np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max))
    if bad.size:
        raise InvalidInput(
            f"{path}: column {name!r} has {bad.size} missing, infinite or too large numbers, the first in row "
            f"{bad[0] + 2}; fill them in or leave these rows out"
        )
    return numbers.astype(np.float32)[:, None]


def _one_hot(path: Path, name: str, column: list[str]) -> NDArray[np.float32]:
    categories, position = np.unique(np.array(column), return_inverse=True)
    if categories.size > MOST_CATEGORIES:
        raise InvalidInput(
            f"{path}: column {name!r} has {categories.size} different texts (allowed: {MOST_CATEGORIES}); "
            f"remove it, or give key_column={name!r} when it names the rows"
        )
    block = np.zeros((len(column), categories.size), np.float32)
    block[np.arange(len(column)), position] = 1
    return block


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _refuse_missing(path: Path, name: str, column: list[str]) -> None:
    missing = [row for row, cell in enumerate(column) if cell.lower() in MISSING]
    if missing:
        raise InvalidInput(
            f"{path}: column {name!r} has {len(missing)} missing values, the first in row {missing[0] + 2}; "
            "fill them in or leave these rows out"
        )
