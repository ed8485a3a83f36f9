"""What the evidence bundle needs from outside of a result: the machine it is made on, and recomputation."""

import os
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.provenance import environment

if TYPE_CHECKING:
    from mnemoscope.reports.bundle_documents import Machine
    from mnemoscope.reports.verification import Recomputed

__all__ = ["machine", "recomputed"]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def _git(folder: Path, *words: str) -> str | None:
    """Ask git about the tool's own checkout; None where there is no git, no checkout, or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _source() -> tuple[str | None, bool | None]:
    """The commit of the tool where it runs from its checkout, and whether tracked files differ from it."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def machine() -> "Machine":
    """Describe where a bundle is made: versions and hardware, no name of a person, a host or a path."""
    from mnemoscope.reports.bundle_documents import Machine

    found = {
        name.lower().replace("_", "-"): package.version
        for package in distributions()
        if (name := package.metadata["Name"]) is not None
    }
    commit, dirty = _source()
    threads = {name: os.environ[name] for name in THREADS if name in os.environ}
    return Machine(environment(), dict(sorted(found.items())), commit, dirty, threads)


def recomputed(folder: Path) -> "Recomputed":
    """Recompute a bundle's result from its stored scores, as :func:`mnemoscope.reports.verification.verify` asks it."""
    from mnemoscope.recomputation import recompute_from_scores
    from mnemoscope.reports.verification import Recomputed

    try:
        found = recompute_from_scores(folder)
    except InvalidInput:
        raise
    except (ValueError, KeyError, TypeError, ArithmeticError, OSError, MemoryError) as error:
        # What was stored is not what an audit stores: of no use to the reader as a traceback, and no fault of the tool.
        raise InvalidInput(f"the stored scores cannot be used ({type(error).__name__}: {error})") from error
    differences = tuple(
        f"{row.what}: {row.recorded} is recorded, {row.recomputed} follows" for row in found.disagreements
    )
    return Recomputed(found.agrees, len(found.rows), differences, found.taken_over)
