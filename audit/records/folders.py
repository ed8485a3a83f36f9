"""Records from a folder of images with one sub-folder a class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.index import some
from mnemoscope.audit.records.raw import Raw

__all__ = ["IMAGE_ENDINGS", "image_files", "read_folder", "read_images"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {"train", "test", "val", "valid", "validation"}
GREY_MODES = {"L", "1"}
COLOUR_MODES = GREY_MODES | {"P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"}


def image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by relative path; hidden ones are left out."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_folder(root: Path, *, resize: int | tuple[int, int] | None = None) -> Raw:
    """Read ``root/class/.../image.png``, or ``root/train/class/...`` and ``root/test/class/...``.

    The classes are the names of all class folders, sorted, whether or not they hold an image. Keys are paths relative
    to ``root``. Images are grey when all are, else RGB.

    Args:
        root: the folder of the whole data.
        resize: side, or (height, width), that every image is scaled to; None demands equal sizes.

    Raises:
        InvalidInput: no class folders, images outside them, damaged files, unequal sizes, 16-bit images.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    split = bool(folders) and set(folders) <= SPLITS
    parents = [root / name for name in folders] if split else [root]
    classes = sorted({p.name for base in parents for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")})
    files = image_files(root)
    keys = tuple(path.relative_to(root).as_posix() for path in files)
    depth = 1 if split else 0
    loose = [key for key in keys if key.count("/") <= depth]
    if loose:
        raise InvalidInput(
            f"{root}: {len(loose)} images lie outside the class folders: {some(loose)}; "
            "the data needs one sub-folder for each class"
        )
    if not files:
        raise InvalidInput(
            f"{root}: no images found ({', '.join(IMAGE_ENDINGS)}); the data needs one sub-folder for each class"
        )
    number = {name: position for position, name in enumerate(classes)}
    labels = np.array([number[key.split("/")[depth]] for key in keys], np.int64)
    return Raw(root.resolve().name, read_images(files, keys, resize=_sides(resize)), keys, labels, tuple(classes))


def read_images(
    files: Sequence[Path],
    names: Sequence[str],
    *,
    resize: tuple[int, int] | None = None,
    channels: int | None = None,
) -> NDArray[np.uint8]:
    """Decode images to (n, h, w, c) uint8.

    Args:
        files: paths.
        names: what to call them in messages.
        resize: (height, width) to scale to, bilinear; None demands equal sizes.
        channels: 1 or 3; None takes 1 when all images are grey.
    """
    from PIL import Image, UnidentifiedImageError

    heads = []
    for path, name in zip(files, names, strict=True):
        try:
            with Image.open(path) as image:
                heads.append((image.mode, image.size))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InvalidInput(f"{name}: cannot be read as an image ({error}); repair or remove it") from error
    deep = [name for name, (mode, _) in zip(names, heads, strict=True) if mode not in COLOUR_MODES]
    if deep:
        raise InvalidInput(f"{len(deep)} images have more than 8 bits a channel: {some(deep)}; convert them to 8 bits")
    sizes = Counter(size for _, size in heads)
    if len(sizes) > 1 and resize is None:
        (common, many), (other, _) = sizes.most_common()[0], sizes.most_common()[-1]
        odd = [name for name, (_, size) in zip(names, heads, strict=True) if size == other]
        raise InvalidInput(
            f"images differ in size: {many} are {common[0]}x{common[1]}, but {odd[0]} is {other[0]}x{other[1]} "
            f"({len(sizes)} sizes in all); give resize=SIDE, or scale them beforehand"
        )
    if channels is None:
        channels = 1 if all(mode in GREY_MODES for mode, _ in heads) else 3
    height, width = resize if resize is not None else next(iter(sizes))[::-1]
    values = np.empty((len(files), height, width, channels), np.uint8)
    for row, path in enumerate(files):
        try:
            with Image.open(path) as image:
                pixels = image.convert("L" if channels == 1 else "RGB")
                if pixels.size != (width, height):
                    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
                values[row] = np.asarray(pixels).reshape(height, width, channels)
        except (OSError, SyntaxError) as error:
            raise InvalidInput(f"{names[row]}: cannot be decoded ({error}); repair or remove it") from error
    return values


def _sides(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    sides = (resize, resize) if isinstance(resize, int) else tuple(resize)
    if len(sides) != 2 or min(sides) < 1:
        raise InvalidInput(f"resize={resize!r} must be a side of at least 1 pixel, or (height, width)")
    return sides
