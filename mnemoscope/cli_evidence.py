"""The commands that make an audit into evidence for others: every one calls one function of ``mnemoscope.api``."""

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
