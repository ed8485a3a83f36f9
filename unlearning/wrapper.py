"""What methods share that unlearn by another method, and do something before it or after it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mnemoscope.audit.errors import InvalidInput
from mnemoscope.unlearning.base import Method

__all__ = ["Wrapper"]


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around an inner one; it trains against whatever attacks that one trains against.

    Attributes:
        method: name of the inner method.
        settings: its settings, a JSON object as text, or a mapping, which becomes text.
        excluded: names of methods, beside its own, that cannot be the inner one.
        unfit: why a method that brings its own way of unlearning cannot.
    """

    method: str
    settings: str = "{}"
    excluded: ClassVar[frozenset[str]] = frozenset()
    unfit: ClassVar[str]

    def __post_init__(self) -> None:
        given: Any = self.settings
        if isinstance(given, Mapping):
            object.__setattr__(self, "settings", json.dumps(dict(given), sort_keys=True))
        object.__setattr__(self, "trains_against", self._inner().trains_against)

    def _inner(self) -> Method:
        from mnemoscope.unlearning import METHODS

        allowed = sorted(set(METHODS) - {self.name} - self.excluded)
        if self.method not in allowed:
            raise InvalidInput(f"{self.name}: method={self.method!r} is unknown; allowed: {', '.join(allowed)}")
        try:
            inner = METHODS[self.method](**json.loads(self.settings))
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"{self.name}: settings={self.settings!r} must be a JSON object of settings of {self.method!r}: {error}"
            ) from error
        if not isinstance(inner, Method):
            raise InvalidInput(f"{self.name}: {self.method!r} brings its own way of unlearning; {self.unfit}")
        return inner
