"""Architectures by name: MLPs, a small CNN, torchvision's classifiers with a stem for small images."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel

__all__ = ["SmallCNN", "architecture_names", "build_model", "seeded"]

SMALL_IMAGE = 64
"""Images of at most this many pixels a side get the CIFAR stem (He et al. 2016, arXiv 1512.03385, section 4.2)."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators for a block and restore them after it, CUDA's included."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class SmallCNN(nn.Module):
    """Three strided 3x3 convolutions and a linear layer, without normalisation: 114 thousand weights for 3x32x32.

    Strides instead of pooling keep it at 2.6 million multiplications an image of 32x32, for two CPU cores. There are no
    buffers, so models can be trained stacked, and no record's output depends on its batch.
    """

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        widths = (32, 64, 128)
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(widths[-1] * -(-height // 8) * -(-width // 8), n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) images to (b, n_classes) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _mlp(widths: tuple[int, ...], n_inputs: int, n_classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((n_inputs, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((n_inputs, *widths)[-1], n_classes))


def architecture_names() -> tuple[str, ...]:
    """Return the names that ``build_model`` takes; "mlp:256" stands for any widths, as in "mlp:256-128"."""
    import torchvision

    models = torchvision.models.list_models(module=torchvision.models)
    return ("mlp:256", "small_cnn", *sorted(name for name in models if not name.startswith("inception")))


def build_model(
    architecture: str, *, input_shape: tuple[int, ...], n_classes: int, seed: int, check: bool = True
) -> nn.Module:
    """Build an untrained model on the CPU, in float32; its weights are a function of the seed alone.

    Args:
        architecture: "mlp:WIDTH[-WIDTH...]" (ReLU; inputs are flattened), "small_cnn", or a torchvision classifier by
            name. For images of at most 64 pixels a side a strided first convolution becomes 3x3 with stride 1 and
            the pooling right after it goes away (patch embeddings stay); other channel counts than 3 get a first
            convolution of their own.
        input_shape: (c, h, w) of an image, or (d,) of a table row.
        n_classes: number of outputs.
        seed: any non-negative integer below 2**63; the global generators are left as they were.
        check: try one forward pass of shapes for torchvision's models (no computation, done once for each shape).

    Raises:
        InvalidInput: an unknown name (the nearest is suggested) or impossible widths.
        UnsupportedModel: the architecture cannot take this input.

    >>> sum(p.numel() for p in build_model("mlp:256", input_shape=(64,), n_classes=10, seed=0).parameters())
    19210
    """
    if n_classes < 2:
        raise InvalidInput(f"n_classes={n_classes}: a classifier needs at least 2 classes")
    with seeded(seed):
        if architecture.startswith("mlp:"):
            return _mlp(_widths(architecture), int(torch.Size(input_shape).numel()), n_classes)
        if architecture == "small_cnn":
            if len(input_shape) != 3 or min(input_shape[1:]) < 8:
                raise UnsupportedModel(
                    f"small_cnn takes images of at least 8 x 8 pixels, the input is {input_shape}; use 'mlp:256'"
                )
            return SmallCNN(input_shape, n_classes)
        if architecture not in architecture_names():
            nearest = difflib.get_close_matches(architecture, architecture_names(), n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InvalidInput(
                f"architecture={architecture!r} is unknown{hint} Known: 'mlp:WIDTHS' such as 'mlp:256-128', "
                "'small_cnn', torchvision's classification models by name, or your own model in a subject.py"
            )
        if len(input_shape) != 3:
            raise UnsupportedModel(f"{architecture} takes images, the input is {input_shape}; use 'mlp:256'")
        if check:
            _try_shapes(architecture, input_shape, n_classes)
        return _torchvision(architecture, input_shape, n_classes)


def _widths(architecture: str) -> tuple[int, ...]:
    parts = architecture.removeprefix("mlp:").split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InvalidInput(
            f"architecture={architecture!r}: write the widths of the hidden layers, as in 'mlp:256' or 'mlp:256-128'"
        )
    return tuple(int(part) for part in parts)


def _torchvision(name: str, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    import torchvision

    channels, height, width = input_shape
    options: dict[str, object] = {"weights": None, "num_classes": n_classes}
    if name.startswith("vit_"):
        if height != width:
            raise UnsupportedModel(f"{name} takes square images, the input is {height} x {width}")
        options["image_size"] = height
    if name == "googlenet":
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(name, **options)
    _adapt_stem(model, channels, small=max(height, width) <= SMALL_IMAGE)
    return model


def _adapt_stem(model: nn.Module, channels: int, *, small: bool) -> None:
    """Exchange the first convolution where channels or stride ask for it, and drop the pooling that follows it."""
    places = [(parent, key, child) for parent in model.modules() for key, child in parent.named_children()]
    leaves = {id(child): (parent, key) for parent, key, child in places}
    order = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    first = next((m for m in order if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return
    patchify = first.stride == first.kernel_size and first.kernel_size[0] > 1
    strided = max(first.stride) > 1
    shrink = small and strided and not patchify
    if shrink:
        follower = order[order.index(first) + 1] if order.index(first) + 1 < len(order) else None
        if isinstance(follower, nn.MaxPool2d):
            parent, key = leaves[id(follower)]
            setattr(parent, key, nn.Identity())
    if shrink or channels != first.in_channels:
        stem = nn.Conv2d(
            channels,
            first.out_channels,
            kernel_size=3 if shrink else first.kernel_size,  # type: ignore[arg-type]
            stride=1 if shrink else first.stride,  # type: ignore[arg-type]
            padding=1 if shrink else first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        if stem.bias is not None:
            nn.init.zeros_(stem.bias)
        parent, key = leaves[id(first)]
        setattr(parent, key, stem)


@lru_cache(maxsize=64)
def _try_shapes(name: str, input_shape: tuple[int, ...], n_classes: int) -> None:
    with torch.device("meta"):
        model = _torchvision(name, input_shape, n_classes).eval()
        try:
            with torch.no_grad():
                shape = tuple(model(torch.empty(2, *input_shape)).shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UnsupportedModel(
                f"{name} cannot take inputs of shape {input_shape}: {str(error).splitlines()[0]}; "
                "choose another architecture, or write a subject.py that resizes in its transform"
            ) from error
    if shape != (2, n_classes):
        raise UnsupportedModel(f"{name} answers {shape} for 2 records, it must be (2, {n_classes})")
