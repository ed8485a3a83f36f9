"""Weights on disk: safetensors out; safetensors and weights-only torch files in; nothing is ever unpickled."""

import hashlib
import io
import json
import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.subject import SubjectModule

__all__ = ["file_digest", "load_into", "load_state", "model_bytes", "module_digest", "save_model"]

NESTS = ("state_dict", "model_state_dict", "model", "ema")
"""Keys under which training scripts put the weights, in the order in which they are looked for."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""Prefixes that wrappers (data parallel, Lightning, torch.compile) put before every name."""


def _plain(module: nn.Module) -> nn.Module:
    return module.inner if isinstance(module, SubjectModule) else module


def model_bytes(module: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a module's weights and buffers as one safetensors file; equal weights and metadata give equal bytes.

    Args:
        module: on any device; the user's own model is written without our wrapper.
        metadata: text to keep with it, stored as canonical JSON under the single key "mnemoscope" (safetensors does not
            fix the order of several keys).
    """
    state = {
        # Tied weights share memory, which safetensors refuses: each name gets its own copy.
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in _plain(module).state_dict().items()
    }
    header = None
    if metadata:
        header = {"mnemoscope": json.dumps(dict(metadata), sort_keys=True, separators=(",", ":"))}
    return save_safetensors(state, header)


def save_model(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a module as safetensors (see ``model_bytes``), whole or not at all, and return the file's digest."""
    target = Path(path)
    content = model_bytes(module, metadata)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InvalidInput(f"cannot write {target}: {error.strerror or error}") from error
    return "sha256:" + hashlib.sha256(content).hexdigest()


def file_digest(path: str | Path) -> str:
    """Return "sha256:..." of a file's bytes."""
    with Path(path).open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def module_digest(module: nn.Module) -> str:
    """Return "sha256:..." of a module's weights and buffers: names, types, shapes and bits, wherever they came from."""
    return "sha256:" + hashlib.sha256(model_bytes(module)).hexdigest()


def load_state(path: str | Path, *, expected: Collection[str] | None = None) -> tuple[dict[str, Tensor], str]:
    """Read the weights of a checkpoint onto the CPU, in the types they were stored in.

    Args:
        path: a safetensors file, or a torch file readable with ``weights_only=True``; told apart by content,
            not by name.
        expected: the model's own names; where the file's names fit them better as they are, no prefix is stripped.

    Returns:
        name -> tensor, and a note on where they lay and which prefix was stripped; "" when nothing had to be done.

    Raises:
        InvalidInput: no such file.
        UnsupportedModel: not a checkpoint, a pickle that ``weights_only`` refuses (its types are named), no tensors
            in it, or values that are not finite.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise InvalidInput(f"cannot read checkpoint {file}: {error.strerror or error}") from error
    loaded = _read_safetensors(file) if head[8:9] == b"{" else _read_torch(file)
    state, notes = _find_state(loaded, file)
    state, stripped = _strip(state, expected)
    notes += stripped
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise UnsupportedModel(f"{file.name}: {_few(bad)} hold values that are not finite; the training diverged")
    return state, "; ".join(notes)


def load_into(module: nn.Module, path: str | Path) -> str:
    """Load a checkpoint into a module, whole or not at all; stored types are converted to the module's own.

    Returns:
        The note of ``load_state``.

    Raises:
        InvalidInput, UnsupportedModel: as ``load_state``; also a checkpoint that does not fit, naming missing,
            unexpected and differently shaped entries.
    """
    target = _plain(module)
    own = target.state_dict()
    state, note = load_state(path, expected=own.keys())
    # Files older than batch counters lack them; they do not touch any answer in eval mode.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"missing: {_few(missing)}" if missing else "",
            f"unexpected: {_few(unexpected)}" if unexpected else "",
            f"other shapes: {_few(shapes)}" if shapes else "",
        ]
        raise UnsupportedModel(
            f"{Path(path).name} does not fit the model {type(target).__name__}: {'; '.join(p for p in parts if p)}. "
            "Check that model() builds the architecture that was trained, with as many classes"
            + (f" ({note})" if note else "")
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state:
                tensor.copy_(state[name])
    return note


def _few(names: list[str], limit: int = 4) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _read_safetensors(file: Path) -> Mapping[str, object]:
    try:
        return dict(load_safetensors(file.read_bytes()))
    except SafetensorError as error:
        raise UnsupportedModel(f"{file.name} is a damaged safetensors file ({error}); write it again") from error


def _read_torch(file: Path) -> object:
    try:
        # An open file, because for a path torch goes by the extension.
        with file.open("rb") as stream, warnings.catch_warnings():
            # The pickle protocol of a file that is refused is no news to the user.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedModel(_refusal(file)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        told = str(error).splitlines()[0] if str(error) else "empty file"
        # Bytes that are no pickle make its reader fail on a number that means nothing to the user.
        reason = "it is no file of torch" if isinstance(error, (KeyError, IndexError)) else told
        raise UnsupportedModel(
            f"{file.name} is no checkpoint that can be read ({reason}); "
            "give a safetensors file or one written by torch.save(model.state_dict(), path)"
        ) from error


def _refusal(file: Path) -> str:
    types = _pickled_types(file)
    named = f"objects of {_few(types, 6)}" if types else "objects that are not tensors"
    source, target = str(file), str(file.with_name(file.stem + ".weights.pt"))
    return (
        f"{file.name} is refused: it is a pickle with {named}, and reading it would run code of whoever wrote it. "
        "Where you trust the file, convert it once with these three lines, and give the new file:\n"
        f"import torch; loaded = torch.load({source!r}, map_location='cpu', weights_only=False)\n"
        "state = loaded.state_dict() if hasattr(loaded, 'state_dict') else "
        "{k: getattr(v, 'state_dict', lambda v=v: v)() for k, v in loaded.items() "
        "if isinstance(v, (dict, torch.Tensor, torch.nn.Module)) and k not in ('optimizer', 'scheduler')}\n"
        f"torch.save(state, {target!r})"
    )


_TENSOR_TYPES = ("torch._utils", "torch.storage", "torch.FloatStorage", "collections.OrderedDict")


def _pickled_types(file: Path) -> list[str]:
    """Name what a pickle would import, by reading its opcodes without running them."""
    content = file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            inner = [name for name in archive.namelist() if name.endswith("data.pkl")]
            content = archive.read(inner[0]) if inner else b""
    found: list[str] = []
    recent: list[str] = []
    stream = io.BytesIO(content)
    try:
        # A legacy torch file is a row of pickles, the first of which are its magic number and version.
        while stream.tell() < len(content):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(recent) >= 2:
                    found.append(".".join(recent[-2:]))
                elif isinstance(argument, str) and "UNICODE" in opcode.name:
                    recent.append(argument)
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        pass  # what follows the last pickle of a legacy file is raw storage
    return [name for name in dict.fromkeys(found) if not name.startswith(_TENSOR_TYPES)]


def _find_state(loaded: object, file: Path) -> tuple[dict[str, Tensor], list[str]]:
    notes: list[str] = []
    for _ in range(2):
        if not isinstance(loaded, Mapping):
            break
        nests = [key for key in NESTS if isinstance(loaded.get(key), Mapping)]
        if not nests:
            break
        others = f" (there is also {', '.join(nests[1:])})" if len(nests) > 1 else ""
        notes.append(f"weights taken from {nests[0]!r}{others}")
        loaded = loaded[nests[0]]
    if not isinstance(loaded, Mapping):
        raise UnsupportedModel(
            f"{file.name} holds a {type(loaded).__name__}, not the weights of a model by name; "
            "write it with torch.save(model.state_dict(), path)"
        )
    state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        raise UnsupportedModel(
            f"{file.name} holds no tensors by name (its keys: {_few([str(k) for k in loaded]) or 'none'}); weights are "
            f"looked for at the top and under {', '.join(NESTS)}"
        )
    left_out = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if left_out:
        notes.append(f"entries that are no tensors left out: {_few(left_out)}")
    return state, notes


def _strip(state: dict[str, Tensor], expected: Collection[str] | None) -> tuple[dict[str, Tensor], list[str]]:
    counter = {"n_averaged"} if all(k == "n_averaged" or k.startswith("module.") for k in state) else set()
    names = [name for name in state if name not in counter]
    prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
    if not names or prefix is None:
        return state, []
    bare = {name.removeprefix(prefix): state[name] for name in names}
    if expected is not None and len(set(state) & set(expected)) >= len(set(bare) & set(expected)) > 0:
        return state, []
    if expected is not None and not set(bare) & set(expected) and set(state) & set(expected):
        return state, []
    notes = [f"the common prefix {prefix!r} was stripped"]
    if counter & set(state):
        notes.append("the averaging counter 'n_averaged' was left out")
    return bare, notes
