"""The commands that make an audit into evidence for others: every one calls one function of ``mnemoscope.api``."""

from pathlib import Path
from typing import Annotated

import typer

from mnemoscope import api

__all__ = ["register"]

declare_app = typer.Typer(no_args_is_help=True, help="State what only a human can: dates, people, scope of erasure.")


@declare_app.command("new")
def declare_new(path: Annotated[Path, typer.Argument(metavar="FILE.toml")] = Path("declarations.toml")) -> None:
    """Write a commented file of declarations to start from."""
    typer.echo(f"wrote {api.declare_new(path)}: edit it, then `mnemoscope report RESULT --declarations {path}`")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(declare_app, name="declare", rich_help_panel="Report")
