"""A data set on the device: bytes until a batch is used, then normalised floats by constants known beforehand."""

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnemoscope.audit.errors import InvalidInput

if TYPE_CHECKING:
    from mnemoscope.audit.models.subject import Subject
    from mnemoscope.audit.records.datasets import Dataset
    from mnemoscope.audit.records.request import Request

__all__ = ["CHANNEL_CONSTANTS", "DeviceData"]

CHANNEL_CONSTANTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "digits": ((0.0192,), (0.0236,)),  # 16 grey levels stored as the bytes 0 to 16
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "kmnist": ((0.1918,), (0.3483,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
"""Mean and standard deviation of each channel, of pixels in [0, 1], by data set name."""

OTHER_IMAGES = (0.5, 0.25)
"""Mean and standard deviation for images of any other name."""


class DeviceData:
    """The records on the device.

    Inputs of a batch are float32, by rules that no choice of audited records can change:

    - uint8 images: divided by 255, then the channel constants of the data set's name, or 0.5 / 0.25;
    - float images: as they are (the user's own scaling);
    - tables: as they are where every value lies in [-1, 1]; else standardised by the mean and standard deviation of
      each column over all records of the source, whichever are held here; canaries count for neither;
    - with a subject that has ``transform``: its output as it is, computed once for each record.

    Attributes:
        x: stored records, (n, h, w, c) uint8 or float32 for images, (n, d) float32 for tables, on the device.
        y: (n,) int64 labels on the device, numbered as in the data set.
        ids: (n,) int64 ids held, ascending.
        n_classes: number of classes of the whole data.
        input_shape: shape of one input: (c, h, w) for images, (d,) for tables.
        subject: the user's own model definition, where there is one.
        name: the data set's name.
    """

    def __init__(
        self,
        dataset: "Dataset",
        device: torch.device | str = "cpu",
        *,
        subject: "Subject | None" = None,
        ids: NDArray[np.int64] | None = None,
    ) -> None:
        """Move the records to the device.

        Args:
            dataset: the index with its raw arrays.
            device: where to.
            subject: the user's own model definition; its transform is applied here.
            ids: hold only these records (a transform may make them large); all by default.
        """
        self.name = dataset.name
        self.subject = subject
        self.device = torch.device(device)
        self.n_classes = len(dataset.classes)
        everything = np.asarray(dataset.ids, dtype=np.int64)
        self.ids = everything if ids is None else np.unique(np.asarray(ids, dtype=np.int64))
        rows = _rows(everything, self.ids)
        _check_labels(np.asarray(dataset.labels), dataset.name)
        self.y = torch.from_numpy(np.array(dataset.labels[rows], dtype=np.int64)).to(self.device)
        values = np.asarray(dataset.values) if ids is None else np.asarray(dataset.values[rows])
        mean: NDArray[np.float32] | None = None
        std: NDArray[np.float32] | None = None
        if subject is not None and subject.has_transform:
            transformed = subject.transform_values(values)
            stored = transformed.movedim(1, -1).contiguous() if transformed.ndim == 4 else transformed
        else:
            _check_values(values, dataset.name)
            keep = np.uint8 if values.dtype == np.uint8 and values.ndim == 4 else np.float32
            stored = torch.from_numpy(np.array(values, dtype=keep))
            if stored.ndim == 2:
                mean, std = _table_constants(np.asarray(dataset.source_values))
            elif stored.dtype == torch.uint8:
                mean, std = _image_constants(dataset.name, int(stored.shape[-1]))
        self.x = stored.to(self.device)
        self._mean = None if mean is None else torch.from_numpy(mean).to(self.device)
        self._scale = None if std is None else torch.from_numpy(1 / std).to(self.device)

    @property
    def constants(self) -> tuple[list[float], list[float]] | None:
        """What is subtracted from raw values and what they are then divided by, a number a channel or column.

        None where values are used as they are, or where the user's own ``transform`` takes their place.
        """
        if self._mean is None or self._scale is None:
            return None
        return self._mean.flatten().tolist(), (1 / self._scale).flatten().tolist()

    @property
    def is_image(self) -> bool:
        """Whether inputs are images, so that flips and shifts mean something."""
        return self.x.ndim == 4

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (c, h, w) for images, as stored otherwise."""
        if self.is_image:
            _, h, w, c = self.x.shape
            return (c, h, w)
        return tuple(self.x.shape[1:])

    def positions(self, ids: NDArray[np.int64]) -> Tensor:
        """Return where the ids are, (k,) int64 on the device, in the order given; unknown ids are named."""
        return torch.from_numpy(_rows(self.ids, np.asarray(ids, dtype=np.int64))).to(self.device)

    def inputs(
        self,
        positions: Tensor,
        *,
        flip: Tensor | None = None,
        shift: Tensor | None = None,
        degrees: float = 0.0,
    ) -> Tensor:
        """Return the inputs of a batch, moved, mirrored and turned on the way.

        Args:
            positions: (...,) int64 on the device, any number of axes.
            flip: (...,) bool, mirrored left to right where true; images only.
            shift: (..., 2) int64, pixels to the right and down; what comes in from outside is zero in raw values.
            degrees: turn counter-clockwise about the image's centre, bilinear in raw values, zeros come in.

        Returns:
            (..., c, h, w) float32 for images (channels-last in memory), (..., d) for tables.
        """
        plain = flip is None and shift is None
        batch = self.x[positions] if plain else self._moved(positions, flip, shift)
        batch = batch.to(torch.float32)
        if degrees:
            batch = self._turned(batch, degrees)
        if self._mean is not None and self._scale is not None:
            batch = (batch - self._mean) * self._scale
        return batch.movedim(-1, -3) if self.is_image else batch

    def corrected(self, request: "Request") -> "DeviceData":
        """Return the records with what the request takes out or puts right in its ``forget`` records.

        "features": the named values become ``request.value``, as raw values. "labels": the labels become the request's.
        For requests of records and classes these are the records as they are.

        Raises:
            InvalidInput: a feature or a label that the data does not have.
        """
        if not request.corrects:
            return self
        changed, rows = copy.copy(self), self.positions(request.forget)
        if request.kind == "labels":
            labels = np.asarray(request.labels)
            if labels.min() < 0 or labels.max() >= self.n_classes:
                raise InvalidInput(
                    f"Request: labels {labels.min()} to {labels.max()}; {self.name!r} has the labels 0 to "
                    f"{self.n_classes - 1}"
                )
            changed.y = self.y.clone()
            changed.y[rows] = torch.from_numpy(labels.astype(np.int64)).to(self.device)
            return changed
        columns = np.asarray(request.features)
        width = self.x[0].numel()
        if columns.min() < 0 or columns.max() >= width:
            raise InvalidInput(
                f"Request: features {columns.min()} to {columns.max()}; records of {self.name!r} have the values 0 to "
                f"{width - 1}, images row by row with their channels last"
            )
        changed.x = self.x.clone()
        flat = changed.x.view(len(self.ids), width)
        flat[rows[:, None], torch.from_numpy(columns).to(self.device)] = request.value
        return changed

    def _turned(self, batch: Tensor, degrees: float) -> Tensor:
        if not self.is_image:
            raise InvalidInput(f"data set {self.name!r} has no images: turns are not defined for it")
        *lead, h, w, c = batch.shape
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        # From output to input places, in coordinates of -1 to 1 with y down; the ratio keeps pixels square.
        turn = [[cosine, -sine * h / w, 0.0], [sine * w / h, cosine, 0.0]]
        images = batch.reshape(-1, h, w, c).movedim(-1, 1)
        theta = torch.tensor(turn, dtype=batch.dtype, device=batch.device).expand(images.shape[0], 2, 3)
        grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
        turned = torch.nn.functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        return turned.movedim(1, -1).reshape(*lead, h, w, c)

    def _moved(self, positions: Tensor, flip: Tensor | None, shift: Tensor | None) -> Tensor:
        if not self.is_image:
            raise InvalidInput(f"data set {self.name!r} has no images: flips and shifts are not defined for it")
        _, h, w, _ = self.x.shape
        rows = torch.arange(h, device=self.device)
        columns = torch.arange(w, device=self.device)
        if shift is not None:
            rows = rows - shift[..., 1:2]
            columns = columns - shift[..., 0:1]
        inside = None
        if shift is not None:
            inside = ((rows >= 0) & (rows < h))[..., :, None] & ((columns >= 0) & (columns < w))[..., None, :]
            rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
        if flip is not None:
            columns = torch.where(flip[..., None], w - 1 - columns, columns)
        batch = self.x[positions[..., None, None], rows[..., :, None], columns[..., None, :]]
        return batch if inside is None else batch * inside[..., None]


def _rows(known: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = np.searchsorted(known, ids)
    clipped = np.minimum(rows, max(known.size - 1, 0))
    unknown = ids if known.size == 0 else ids[known[clipped] != ids]
    if unknown.size:
        shown = ", ".join(str(i) for i in unknown[:5])
        span = f"{known[0]} to {known[-1]}" if known.size else "none"
        raise InvalidInput(
            f"{unknown.size} of {ids.size} record ids are not held on the device: {shown}"
            f"{', ...' if unknown.size > 5 else ''}; held are {known.size} ids ({span})"
        )
    return rows


def _check_labels(labels: NDArray[np.generic], name: str) -> None:
    if labels.dtype.kind not in "iub":
        raise InvalidInput(
            f"data set {name!r}: labels are {labels.dtype}, such as {labels[:3].tolist()}; a label is the number of a "
            "class: give whole numbers from 0, as int64"
        )


def _check_values(values: NDArray[np.generic], name: str) -> None:
    if values.ndim not in (2, 4):
        raise InvalidInput(
            f"data set {name!r}: values of shape {values.shape} are neither images (n, h, w, c) nor a table (n, d); "
            "reshape them, or give a subject.py whose transform makes inputs of them"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInput(f"data set {name!r} holds values that are not finite; clean them before auditing")


def _image_constants(name: str, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    fallback = ((OTHER_IMAGES[0],) * channels, (OTHER_IMAGES[1],) * channels)
    mean, std = CHANNEL_CONSTANTS.get(name, fallback)
    if len(mean) != channels:
        mean, std = fallback
    return np.array(mean, np.float32) * np.float32(255), np.array(std, np.float32) * np.float32(255)


def _table_constants(
    values: NDArray[np.generic],
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    table = np.asarray(values, dtype=np.float64)
    if table.size == 0 or np.abs(table).max() <= 1:
        return None, None
    std = table.std(axis=0)
    return table.mean(axis=0).astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)
