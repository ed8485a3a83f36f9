"""Mnemoscope: what does this model still remember about these records?

The functions of :mod:`mnemoscope.api` are here under the names of the commands; nothing heavy is imported before one
of them is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnemoscope.api import (
        adopt,
        compare,
        demo,
        export,
        init,
        list_plugins,
        plan_check,
        plan_new,
        report,
        run,
        schema,
        scores,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "adopt",
    "compare",
    "demo",
    "export",
    "init",
    "list_plugins",
    "plan_check",
    "plan_new",
    "report",
    "run",
    "schema",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mnemoscope import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
