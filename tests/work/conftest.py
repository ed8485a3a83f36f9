"""The small fleet of ``small_fleet.py`` as a fixture, and one store of it that tests only read."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    name = "mnemoscope_test_small_fleet"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("small_fleet.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def small() -> ModuleType:
    return _load()


@pytest.fixture(scope="session")
def trained(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the fleet "before", one by one, and its answers."""
    from mnemoscope.audit.work.store import Store

    folder = tmp_path_factory.mktemp("trained") / "store"
    work = small.workspace(Store(folder))
    work.answers(work.fleet("before"), work.design.audited)
    return folder
