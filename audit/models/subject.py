"""The user's own model: a ``subject.py`` loaded by path, isolated from every other one."""

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import seeded

__all__ = ["Subject", "SubjectModule", "load_subject", "subject_template"]

PROTECTED = frozenset({"torch", "torchvision", "numpy", "mnemoscope"})
"""Never replaced by a file of the same name in the user's folder: the user's model is made of them."""

_LOCK = threading.RLock()


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the source that is there now (no cached bytecode) and notes its digest."""

    def __init__(self, fullname: str, path: str, seen: dict[str, str] | None = None) -> None:
        super().__init__(fullname, path)
        self.seen = seen

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        source = self.get_data(self.path)
        if self.seen is not None:
            self.seen[self.path] = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, self.path)


class _Finder:
    """Finds modules in one folder, before all other finders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is None:
            if name in PROTECTED or name in sys.stdlib_module_names:
                return None
            places = [str(self.folder)]
        else:
            places = [place for place in path if Path(place).is_relative_to(self.folder)]
        for place in places:
            base = Path(place) / name.rpartition(".")[2]
            init = base / "__init__.py"
            if init.is_file():
                return importlib.util.spec_from_file_location(
                    name,
                    init,
                    loader=_Loader(name, str(init), self.seen),
                    submodule_search_locations=[str(base)],
                )
            file = base.with_suffix(".py")
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file), self.seen))
            if base.is_dir() and (path is not None or not _elsewhere(name)):
                spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [str(base)]
                return spec
        return None

    def owns(self, module: ModuleType) -> bool:
        """Whether a module came from the folder."""
        file = getattr(module, "__file__", None)
        places = [file] if file else list(getattr(module, "__path__", []))
        return any(Path(str(place)).is_relative_to(self.folder) for place in places)


def _elsewhere(name: str) -> bool:
    return importlib.machinery.PathFinder.find_spec(name) is not None


class _World:
    """The modules of one subject: in ``sys.modules`` while its code runs, and at no other time."""

    def __init__(self, folder: Path) -> None:
        self.finder = _Finder(folder)
        self.modules: dict[str, ModuleType] = {}
        self.inside = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        with _LOCK:
            if self.inside:
                yield
                return
            beside = {Path(entry).stem for entry in os.listdir(self.finder.folder)}
            local = {name for name in beside if name in sys.modules and self.finder.find_spec(name) is not None}
            outside = dict(sys.modules)
            hidden = {name: m for name, m in outside.items() if name.partition(".")[0] in local} if local else {}
            for name in hidden:
                del sys.modules[name], outside[name]
            sys.modules.update(self.modules)
            sys.meta_path.insert(0, self.finder)
            self.inside = True
            try:
                yield
            finally:
                self.inside = False
                sys.meta_path.remove(self.finder)
                # This runs for every batch: only what came in meanwhile is asked where it is from.
                for name in sys.modules.keys() - outside.keys():
                    module = sys.modules[name]
                    if name in self.modules or (isinstance(module, ModuleType) and self.finder.owns(module)):
                        self.modules[name] = sys.modules.pop(name)
                sys.modules.update(hidden)


class SubjectModule(nn.Module):
    """The user's module with its ``logits`` function: maps a batch to (b, c) logits.

    Attributes:
        inner: the user's own module; checkpoints hold its names.
    """

    def __init__(self, inner: nn.Module, subject: "Subject") -> None:
        super().__init__()
        self.inner = inner
        self._subject = subject

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (b, c) for inputs (b, ...), by ``logits(model, batch)``, the output, or its ``.logits``."""
        return self._subject.answer(self.inner, batch)


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded ``subject.py``.

    Attributes:
        path: the file.
        digest: "sha256:..." over the file and the local modules that loading it and calling model() imported, by their
            paths relative to its folder. Other files that it reads (weights, tables) are not part of it.
        classes: names of the model's outputs in their order, or None.
        files: the files behind the digest, relative.
    """

    path: Path
    digest: str
    classes: tuple[str, ...] | None
    files: tuple[str, ...]
    _module: ModuleType = field(repr=False)
    _world: _World = field(repr=False)

    def __deepcopy__(self, memo: dict[int, object]) -> "Subject":
        """Return itself: copies of a model share their definition."""
        return self

    @property
    def has_transform(self) -> bool:
        """Whether the file defines ``transform``."""
        return hasattr(self._module, "transform")

    def build(self, *, seed: int) -> SubjectModule:
        """Call model() under the seed; torch's global generators are left as they were.

        Raises:
            UnsupportedModel: model() raises (the user's line is named) or returns no ``nn.Module``.
        """
        with seeded(seed):
            made = self._call("model")
        if not isinstance(made, nn.Module):
            raise UnsupportedModel(
                f"{self.path.name}: model() returned {type(made).__name__}; it must return a torch.nn.Module"
            )
        return SubjectModule(made, self)

    def answer(self, inner: nn.Module, batch: Tensor) -> Tensor:
        """Return the logits (b, c) of the user's module for a batch."""
        own = hasattr(self._module, "logits")
        output = self._call("logits", inner, batch) if own else self._run(inner, batch)
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor):
            where = "logits(model, batch)" if own else "the model"
            raise UnsupportedModel(
                f"{self.path.name}: {where} returned {type(output).__name__}; it must be a tensor (batch, classes), "
                "or have one as .logits; define logits(model, batch) to take it out"
            )
        return output

    def transform_values(self, values: NDArray[np.generic]) -> Tensor:
        """Apply ``transform`` to each record.

        Args:
            values: (n, h, w, c) uint8, each given as a PIL image (mode L for one channel, RGB for three), as
                torchvision's transforms expect; (n, h, w, c) of any other type or channels as a (c, h, w) float32
                tensor; (n, d) as a (d,) float32 tensor.

        Returns:
            (n, ...) float32 on the CPU.

        Raises:
            UnsupportedModel: it raises, gives no tensor or array, or shapes that differ between records.
        """
        out: Tensor | None = None
        with self._world.entered():
            for index, value in enumerate(values):
                made = self._call("transform", _as_record(value))
                item = torch.as_tensor(made) if isinstance(made, Tensor | np.ndarray) else None
                if item is None or (out is not None and item.shape != out.shape[1:]):
                    got = type(made).__name__ if item is None else f"shape {tuple(item.shape)}"
                    wanted = "a tensor" if out is None else f"a tensor of shape {tuple(out.shape[1:])} as for others"
                    raise UnsupportedModel(
                        f"{self.path.name}: transform() gave {got} for record {index}; it must give {wanted}"
                    )
                if out is None:
                    out = torch.empty((len(values), *item.shape), dtype=torch.float32)
                out[index] = item
        if out is None:
            raise InvalidInput("there are no records to transform")
        return out

    def _call(self, name: str, *arguments: object) -> object:
        return self._run(getattr(self._module, name), *arguments)

    def _run(self, function: Callable[..., object], *arguments: object) -> object:
        try:
            with self._world.entered():
                return function(*arguments)
        except AuditError:
            raise
        except Exception as error:
            raise UnsupportedModel(_blame(self.path, error)) from error


def load_subject(path: str | Path) -> Subject:
    """Load a ``subject.py`` and call its model() once, to know that it works and what it imports.

    Its own imports resolve from its own folder first, and are in ``sys.modules`` only while its code runs: two
    subjects whose helper modules have equal names do not mix. Names of the standard library, of torch, torchvision,
    numpy and mnemoscope always mean the real ones. It runs as any Python program does: load only files that you trust.

    Args:
        path: the file.

    Raises:
        InvalidInput: no such file.
        UnsupportedModel: it does not load, defines no model(), model() raises, or ``classes`` are not distinct names.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InvalidInput(f"subject={str(path)!r} is no file; write one with `mnemoscope init`")
    world = _World(file.parent)
    name = "mnemoscope_subject_" + hashlib.sha256(str(file).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file), world.finder.seen))
    if spec is None or spec.loader is None:
        raise InvalidInput(f"subject={str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        with world.entered():
            sys.modules[name] = module
            spec.loader.exec_module(module)
    except Exception as error:
        raise UnsupportedModel(_blame(file, error)) from error
    for function in ("model", "transform", "logits"):
        given = getattr(module, function, None)
        if (given is None and function == "model") or (given is not None and not callable(given)):
            raise UnsupportedModel(
                f"{file.name} must define the function {function}(); `mnemoscope init` writes a commented example"
            )
    classes = _classes(file, getattr(module, "classes", None))
    trial = Subject(file, "", classes, (), module, world)
    trial.build(seed=0)
    seen = {Path(p).relative_to(file.parent).as_posix(): digest for p, digest in world.finder.seen.items()}
    # The main file counts by its content alone, so that renaming it changes nothing.
    rows = sorted((name if name != file.name else "", digest) for name, digest in seen.items())
    digest = hashlib.sha256("\n".join(f"{name}\x1f{value}" for name, value in rows).encode()).hexdigest()
    return Subject(file, "sha256:" + digest, classes, tuple(sorted(seen)), module, world)


def _classes(file: Path, given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(str(name) for name in given) if isinstance(given, list | tuple) else ()
    if len(names) < 2 or len(set(names)) != len(names):
        raise UnsupportedModel(
            f"{file.name}: classes={given!r} must be a list of at least 2 distinct names, in the order of the outputs"
        )
    return names


def _as_record(value: NDArray[np.generic]) -> object:
    if value.ndim == 3 and value.dtype == np.uint8 and value.shape[-1] in (1, 3):
        from PIL import Image

        return Image.fromarray(np.ascontiguousarray(value[..., 0] if value.shape[-1] == 1 else value))
    tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    return tensor.movedim(-1, 0) if tensor.ndim == 3 else tensor


def _blame(file: Path, error: BaseException) -> str:
    """Name the innermost line of the user's own folder."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}: {message}"
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(file.parent)
    ]
    if not own:
        return f"{file.name}: {message}"
    last = own[-1]
    place = Path(last.filename).relative_to(file.parent).as_posix()
    return f"{place}, line {last.lineno}, in {last.name}: `{last.line}` raised {message}"


def subject_template() -> str:
    """Return the commented ``subject.py`` that ``mnemoscope init`` writes; it loads as it is."""
    return _TEMPLATE


_TEMPLATE = '''"""The model under audit. Modules beside this file can be imported as usual."""

import torch
from torch import nn


def model() -> nn.Module:
    """Build the architecture that was trained; weights come from the checkpoint. Required."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 32 * 32, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


# Optional: how one record becomes one input, as at inference time: no random augmentation. Images arrive as PIL images,
# rows of a table as 1-D float tensors. Without it, images become float tensors (channels, height, width), divided
# by 255 and normalised by the data set's usual constants. With torchvision:
#
# from torchvision import transforms
#
# transform = transforms.Compose([
#     transforms.Resize(32),
#     transforms.ToTensor(),
#     transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
# ])


# Optional: how a batch of inputs becomes raw scores before any softmax, (batch, classes). Without it,
# model(batch) is taken, or its `.logits`.
#
# def logits(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
#     return model(batch)


# Optional: names of the outputs, in their order; without it, the classes of the data set in sorted order.
#
# classes = ["airplane", "automobile", "bird"]
'''
