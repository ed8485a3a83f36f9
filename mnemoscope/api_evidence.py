"""What makes an audit into evidence for others; ``mnemoscope.api`` has these functions under the same names."""

from pathlib import Path

__all__ = ["declare_new"]


def declare_new(path: str | Path = "declarations.toml") -> Path:
    """Write a commented file of declarations to start from; a file that exists is left as it is and refused."""
    from mnemoscope.api import _write_new
    from mnemoscope.audit.verdict.declared_file import declarations_template

    return _write_new(Path(path), declarations_template())
