"""The command line. One file is one command: it exports ``COMMAND`` and is found by its name.

Exit codes: 0 done, 1 the model cannot be served, 2 the command or a setting is wrong.
"""

from __future__ import annotations

import sys

import typer

from fitserve.errors import FitserveError, SettingsError
from fitserve.plugins import discover

EXIT_REFUSED = 1
EXIT_USAGE = 2


def build_cli() -> typer.Typer:
    """Put the commands of this folder together."""
    cli = typer.Typer(
        name="fitserve",
        help="You call .fit(), it serves: a fitted model file becomes an HTTP service.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # the other mode cuts long option names off, and takes twice as long
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.callback(invoke_without_command=True)(_root)
    for command in discover(sys.modules[__name__], typer.Typer, "COMMAND"):
        cli.add_typer(command)
    return cli


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),  # noqa: FBT001
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("fitserve"))
        raise typer.Exit


def refuse(error: FitserveError) -> typer.Exit:
    """Say why the command cannot do its work, in one line and what could be done in others; to be raised."""
    from fitserve.observe.logs import printable

    typer.echo("\n".join(map(printable, f"fitserve: {error}".split("\n"))), err=True)
    return typer.Exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_REFUSED)
