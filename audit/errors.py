"""Errors by remedy: each says what was given, what is allowed, and what to do."""

__all__ = ["AuditError", "InvalidInput", "MissingNeed", "StaleArtifact", "StoreError", "UnsupportedModel"]


class AuditError(Exception):
    """Base of every error that the user can act on; the command line ends with exit code 2 on it."""


class InvalidInput(AuditError, ValueError):
    """A value, file or option that cannot be used: change the input."""


class MissingNeed(AuditError):
    """An attack or a method needs something that was not offered: provide it or leave the attack out."""


class UnsupportedModel(AuditError):
    """A model, checkpoint or factory that cannot be audited as it is."""


class StaleArtifact(AuditError):
    """A stored file that is damaged, or that belongs to other inputs: recompute it."""


class StoreError(AuditError):
    """A store that cannot be read or written (read-only, full, no permission)."""
