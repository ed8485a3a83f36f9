"""Put a bundle where it belongs, whole or not at all: written beside its place, then renamed into it."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.reports.archive import blocks, write_zip
from mnemoscope.reports.manifest import MANIFEST

__all__ = ["Source", "opener", "place"]

Source = Path | bytes
"""Where a file's bytes come from."""


def opener(source: Source) -> Callable[[], BinaryIO]:
    """Return what opens a source for reading."""
    import io

    if isinstance(source, bytes):
        return lambda: io.BytesIO(source)
    return lambda: source.open("rb")


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"cannot write {target}: {error.strerror or error}. Give another --out, or free space there; nothing half "
            "written was left"
        ) from error


def _may_replace(target: Path, force: bool) -> None:
    """Refuse to take the place of what exists; with force, of everything but a bundle."""
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise InvalidInput(f"{target} exists; give another --out, or --force to replace it")
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise InvalidInput(f"{target} is a link or no plain file; it is not replaced, with --force neither")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise InvalidInput(f"{target} is a folder that holds no bundle; --force replaces bundles only")
    if target.is_file():
        with target.open("rb") as file:
            if file.read(4) != b"PK\3\4":
                raise InvalidInput(f"{target} is a file that is no zip; --force replaces bundles only")


def _write_folder(folder: Path, files: Mapping[str, Source], private: bool) -> None:
    folder.mkdir(mode=0o700 if private else 0o777)
    for path, source in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with opener(source)() as given, target.open("xb") as file:
            for block in blocks(given):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())


def _write_file(path: Path, files: Mapping[str, Source], private: bool) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    with os.fdopen(descriptor, "wb") as file:
        write_zip(file, [(name, opener(source)) for name, source in files.items()])
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def place(
    target: Path,
    files: Mapping[str, Source],
    *,
    force: bool = False,
    as_zip: bool | None = None,
    private: bool = False,
) -> Path:
    """Write a bundle.

    Args:
        target: its place: a name that ends in ``.zip`` becomes a zip, every other one a folder.
        files: path inside of the bundle -> its bytes or the file that holds them.
        force: replace a bundle that is there; anything else is never replaced.
        as_zip: the form, where the name does not say it.
        private: only its owner may read it (the zip, or the folder as a whole).

    Returns:
        The place.

    Raises:
        InvalidInput: something is there, or it cannot be written; nothing half written is left.
    """
    with _told(target):
        _may_replace(target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex[:12]
        fresh, old = target.with_name(f".{target.name}.{mark}.tmp"), target.with_name(f".{target.name}.{mark}.old")
        try:
            if target.suffix.lower() == ".zip" if as_zip is None else as_zip:
                _write_file(fresh, files, private)
            else:
                _write_folder(fresh, files, private)
            if target.is_dir():
                os.replace(target, old)  # a folder with files in it cannot be renamed over
                try:
                    os.replace(fresh, target)
                except OSError:
                    os.replace(old, target)
                    raise
            elif not force and target.exists():  # somebody else was faster
                raise InvalidInput(f"{target} exists; give another --out, or --force to replace it")
            elif target.is_file() and fresh.is_dir():
                target.unlink()
                os.replace(fresh, target)
            else:
                os.replace(fresh, target)
        finally:
            _remove(fresh)
            _remove(old)
    return target
