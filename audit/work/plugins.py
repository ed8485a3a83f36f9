"""The user's own code, named as ``"path/to/file.py:Name"``: loaded by path, known by a digest of its source.

The file is run as Python, as any script of the user's would be; nothing is ever unpickled or evaluated from text.
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.work.keys import Json

__all__ = ["Plugin", "is_plugin", "load_plugin", "make_plugin", "plugin_of", "source_digest"]

PREFIX = "mnemoscope_plugin_"


@dataclass(frozen=True)
class Plugin:
    """What a plug-in's name led to.

    Attributes:
        value: the object of that name in the file.
        path: the file, absolute.
        name: the name in it.
        digest: "sha256:..." of the file and of the modules beside it that it imports.
    """

    value: object
    path: Path
    name: str
    digest: str


_loaded: dict[str, Plugin] = {}


def is_plugin(spec: str) -> bool:
    """Whether a name in a plan points into a file.

    >>> is_plugin("mine/method.py:Mine"), is_plugin("noop")
    (True, False)
    """
    return spec.rpartition(":")[0].endswith(".py")


def _located(spec: str, folder: Path) -> tuple[Path, str]:
    place, _, name = spec.rpartition(":")
    if not place.endswith(".py") or not name.isidentifier():
        raise InvalidInput(f"{spec!r} is no plug-in; write it as 'path/to/file.py:Name'")
    path = (folder / place).absolute()
    if not path.is_file():
        raise InvalidInput(f"{spec!r}: there is no file {path}; paths are relative to the plan's folder")
    return path, name


def _sources(path: Path) -> dict[str, Path]:
    """The file and every module of its own folder that it imports, directly or through one another."""
    folder = path.parent
    found: dict[str, Path] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(folder).as_posix()
        if name in found:
            continue
        found[name] = file
        try:
            tree = ast.parse(file.read_bytes(), filename=str(file))
        except (SyntaxError, ValueError) as error:
            raise InvalidInput(f"{file} is not valid Python: {error}") from error
        except OSError as error:
            raise InvalidInput(f"cannot read {file}: {error.strerror}") from error
        for module in _imports(tree, file.parent.relative_to(folder).parts):
            parts = module.split(".")
            for depth in range(1, len(parts) + 1):
                base = folder.joinpath(*parts[:depth])
                waiting.extend(p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file())
    return found


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *(node.module.split(".") if node.module else [])]
            yield ".".join(base) or "."
            yield from (".".join([*base, alias.name]) for alias in node.names)


def source_digest(path: Path) -> str:
    """Return "sha256:..." of a Python file and of the modules of its own folder that it imports.

    Read from the source without running it: modules imported by computed names are not seen.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_sources(path.absolute()).items()):
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return "sha256:" + digest.hexdigest()


@contextmanager
def _own_folder(path: Path) -> Iterator[None]:
    """Let the file's imports resolve from its own folder, apart from equally named modules of other plug-ins."""
    own = {Path(name).parts[0].removesuffix(".py") for name in _sources(path)}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own}
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(path.parent))
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(hidden)


def load_plugin(spec: str, folder: Path | None = None) -> Plugin:
    """Load ``"path/to/file.py:Name"``; a file that did not change is run once in a process.

    Args:
        spec: path and name.
        folder: what a relative path starts from; the working folder by default.

    Raises:
        InvalidInput: no such file or name, or the file fails when it is run (the error and its line are named).
    """
    path, name = _located(spec, folder or Path())
    digest = source_digest(path)
    module_name = PREFIX + hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()[:16]
    if module_name not in sys.modules:
        found = importlib.util.spec_from_file_location(module_name, path)
        if found is None or found.loader is None:
            raise InvalidInput(f"{path} cannot be loaded as Python; give a .py file")
        module = importlib.util.module_from_spec(found)
        with _own_folder(path):
            sys.modules[module_name] = module
            try:
                found.loader.exec_module(module)
            except Exception as error:
                del sys.modules[module_name]
                line = _line_in(error, path)
                raise InvalidInput(
                    f"{spec!r} failed when it was loaded: {type(error).__name__}: {error}{line}; correct the file"
                ) from error
            except BaseException:
                del sys.modules[module_name]
                raise
    module = sys.modules[module_name]
    if not hasattr(module, name):
        public = sorted(n for n, v in vars(module).items() if not n.startswith("_") and callable(v))
        raise InvalidInput(f"{path} has no {name!r}; it has {', '.join(public) or 'nothing callable'}")
    plugin = Plugin(getattr(module, name), path, name, digest)
    _loaded[module_name] = plugin
    return plugin


def _line_in(error: BaseException, path: Path) -> str:
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def make_plugin(spec: str, settings: Mapping[str, Json], folder: Path | None = None) -> object:
    """Load a plug-in class (or function that makes one) and call it with its settings.

    Raises:
        InvalidInput: as ``load_plugin``, or the settings do not fit.
    """
    plugin = load_plugin(spec, folder)
    if not callable(plugin.value):
        raise InvalidInput(f"{spec!r} is a {type(plugin.value).__name__}; name a class or a function that makes one")
    try:
        made: object = plugin.value(**settings)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{spec!r} does not take settings {dict(settings)}: {error}") from error
    return made


def plugin_of(value: object) -> Plugin | None:
    """Return the plug-in file that an object's class came from, or None for one of this package or of a library."""
    return _loaded.get(type(value).__module__)
