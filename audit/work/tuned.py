"""Reading what `mnemoscope tune` wrote: settings chosen for subjects, with everything that was tried."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.audit.verdict.tuned import Tuned
from mnemoscope.audit.work.plan_parts import SubjectPlan

__all__ = ["resolved_settings", "tuned_digest", "tuned_of"]


def tuned_digest(folder: str | Path, name: str) -> str:
    """Return "sha256:..." of a tuning file, from a plan's folder on.

    Raises:
        InvalidInput: there is no such file.
    """
    return "sha256:" + hashlib.sha256(_content(folder, name)).hexdigest()


def tuned_of(subject: SubjectPlan, folder: str | Path) -> Tuned | None:
    """Return what tuning tried and chose for a subject, None where it was not tuned.

    Raises:
        InvalidInput: no such file, no tuning file, none for this subject, or of another method.
    """
    if subject.tuned is None:
        return None
    from pydantic import ValidationError

    where = f"subjects.{subject.name}.tuned={subject.tuned!r}"
    try:
        found = _adapter().validate_json(_content(folder, subject.tuned))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise InvalidInput(
            f"{where} is no file of `mnemoscope tune`: {place}{first['msg']}. Give the tuned.json "
            "that it wrote, or leave `tuned` out for the method's own settings"
        ) from error
    if subject.name not in found:
        raise InvalidInput(f"{where} holds nothing for this subject; it holds {', '.join(sorted(found)) or 'nothing'}")
    tuned: Tuned = found[subject.name]
    if tuned.method != subject.method:
        raise InvalidInput(f"{where} tuned {tuned.method!r}, and the subject's method is {subject.method!r}")
    return tuned


def resolved_settings(subject: SubjectPlan, folder: str | Path) -> dict[str, Any]:
    """Return a subject's settings: those that tuning chose, and over them those that the plan gives."""
    tuned = tuned_of(subject, folder)
    return {**({} if tuned is None else tuned.chosen), **subject.settings}


def _content(folder: str | Path, name: str) -> bytes:
    path = Path(folder) / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"tuned={name!r}: cannot read {path} ({error.strerror}); `mnemoscope tune` writes it"
        ) from error


@cache
def _adapter() -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(dict[str, Tuned], config=ConfigDict(strict=False))
