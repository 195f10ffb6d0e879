"""``fitserve config show``: the settings in force."""

from __future__ import annotations

from typing import Annotated

import typer

from fitserve.cli import refuse
from fitserve.errors import SettingsError

COMMAND = typer.Typer(name="config", help="Show the settings.", no_args_is_help=True)


@COMMAND.callback()
def config() -> None:
    """Show the settings."""


@COMMAND.command()
def show(
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Also tell where each value comes from.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting as a server started here would have it."""
    import orjson
    from rich.console import Console
    from rich.table import Table

    from fitserve.settings import read_settings

    try:
        settings, origins = read_settings()
    except SettingsError as exc:
        raise refuse(exc) from None
    values = settings.model_dump(mode="json")
    if is_json:
        shown = (
            {name: {"value": value, "origin": origins[name]} for name, value in values.items()} if origin else values
        )
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("setting", "value", *(["from"] if origin else []))
    for name, value in values.items():
        text = orjson.dumps(value).decode()
        table.add_row(name, text, *([origins[name]] if origin else []))
    Console().print(table)
