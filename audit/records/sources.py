"""Data sets by name: scikit-learn's bundled ones, and torchvision's image classification sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.records.raw import Raw, image_values, numbered_keys, table_values

__all__ = ["SOURCES"]

Reader = Callable[[Path | None, bool], Raw]


def _digits(data_root: Path | None, download: bool) -> Raw:
    """Handwritten digits, 1,797 images 8x8, grey levels 0..16; bundled, no download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    values = bunch.images.astype(np.uint8)[..., None]
    return _bundled("digits", values, bunch.target, tuple(str(k) for k in range(10)))


def _breast_cancer(data_root: Path | None, download: bool) -> Raw:
    """Wisconsin breast cancer, 569 rows x 30 numbers, 2 classes; bundled, no download."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _bundled("breast_cancer", bunch.data, bunch.target, tuple(map(str, bunch.target_names)))


def _wine(data_root: Path | None, download: bool) -> Raw:
    """Wine recognition, 178 rows x 13 numbers, 3 classes; bundled, no download."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return _bundled("wine", bunch.data, bunch.target, tuple(map(str, bunch.target_names)))


def _bundled(name: str, values: NDArray[np.generic], labels: NDArray[np.generic], classes: tuple[str, ...]) -> Raw:
    keys = numbered_keys([(name, len(values))])
    return Raw(name, table_values(values, name), keys, labels.astype(np.int64), classes)


# name -> (torchvision class, what it is, the argument that chooses the part)
TORCHVISION = {
    "cifar10": ("CIFAR10", "CIFAR-10, 60,000 images 32x32x3, 10 classes", "train"),
    "cifar100": ("CIFAR100", "CIFAR-100, 60,000 images 32x32x3, 100 classes", "train"),
    "mnist": ("MNIST", "MNIST, 70,000 images 28x28, 10 classes", "train"),
    "fashion_mnist": ("FashionMNIST", "Fashion-MNIST, 70,000 images 28x28, 10 classes", "train"),
    "kmnist": ("KMNIST", "Kuzushiji-MNIST, 70,000 images 28x28, 10 classes", "train"),
    "svhn": ("SVHN", "Street View House Numbers, 99,289 images 32x32x3, 10 classes", "split"),
}


def _torchvision(name: str) -> Reader:
    class_name, about, argument = TORCHVISION[name]

    def read(data_root: Path | None, download: bool) -> Raw:
        if data_root is None:
            raise InvalidInput(
                f"{name} is read from files: give data_root, the folder with (or for) torchvision's {class_name} files"
            )
        # Imported here: it brings torch along, which arrays alone do not need.
        from torchvision import datasets

        parts = []
        for split in ("train", "test"):
            part = {argument: split if argument == "split" else split == "train"}
            try:
                parts.append(getattr(datasets, class_name)(str(data_root), download=download, **part))
            except (RuntimeError, OSError) as error:
                remedy = "check the connection" if download else "give download=True, or put the files there"
                raise InvalidInput(
                    f"{name}: no complete {class_name} files in {data_root} ({error}); {remedy}"
                ) from error
        images = [_channels_last(np.asarray(part.data), class_name) for part in parts]
        labels = [np.asarray(part.labels if argument == "split" else part.targets, np.int64) for part in parts]
        classes = tuple(map(str, getattr(parts[0], "classes", range(int(labels[0].max()) + 1))))
        keys = numbered_keys([("train", len(images[0])), ("test", len(images[1]))])
        return Raw(name, image_values(np.concatenate(images), name), keys, np.concatenate(labels), classes)

    read.__doc__ = f"{about}; through torchvision, needs data_root."
    return read


def _channels_last(data: NDArray[np.generic], class_name: str) -> NDArray[np.generic]:
    return data.transpose(0, 2, 3, 1) if class_name == "SVHN" else data


SOURCES: dict[str, Reader] = {
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "wine": _wine,
    **{name: _torchvision(name) for name in TORCHVISION},
}
"""``reader(data_root, download) -> Raw``, by name."""
