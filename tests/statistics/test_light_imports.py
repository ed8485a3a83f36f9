"""The statistics room stays light: scipy.stats alone costs half a second, torch many."""

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import mnemoscope.audit.statistics as room
for module in pkgutil.iter_modules(room.__path__):
    importlib.import_module(f"{room.__name__}.{module.name}")
heavy = {"scipy.stats", "torch", "matplotlib", "sklearn"} & set(sys.modules)
assert len([name for name in sys.modules if name.startswith(room.__name__ + ".")]) >= 10
raise SystemExit(f"imported {sorted(heavy)}" if heavy else 0)
"""


def test_no_module_of_the_room_imports_scipy_stats_or_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
