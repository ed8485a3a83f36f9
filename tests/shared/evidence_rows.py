"""What the tests of both evidence files share: running a script, reading rows, and telling what a test states."""

import ast
import importlib.util
import json
from importlib.resources import files
from pathlib import Path

from mnemoscope import listing

ROOT = Path(__file__).parents[2]
LACKS = "[not available: lacks "


def load_script(name):
    """Run ``benchmarks/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_rows(package):
    """The rows of a package's evidence.json as (name, row), so that a name written twice is seen."""
    text = (files(package) / "evidence.json").read_text(encoding="utf-8")
    pairs = []
    json.loads(text, object_pairs_hook=lambda found: pairs.append(found) or dict(found))
    return pairs[-1]  # the outermost is finished last


def states_something(test, root=ROOT):
    """Whether "FILE::NAME" is a test with an assert, a library's comparison, or a helper of its file that has one."""
    path, _, name = test.partition("::")
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    tested = path.startswith("tests/") and name.startswith("test_") and name in functions
    return tested and _asserts(functions[name], functions)


def _asserts(function, helpers):
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called.startswith("assert_") or (called in helpers and _asserts(helpers[called], {})):
                return True
    return False


def marked_in_list(*kinds):
    """What the list says that names lack, by name: those that it marks as not available."""
    return {
        name: line.removeprefix(LACKS).partition("] ")[0].split(", ")
        for kind in kinds
        for name, line in listing.LISTINGS[kind]()
        if line.startswith(LACKS)
    }
