"""``fitserve check PATH``: would it serve?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from fitserve.cli import EXIT_REFUSED, refuse
from fitserve.errors import ArtifactError

COMMAND = typer.Typer()


@COMMAND.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The model file.")],
    *,
    is_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Try a model file and print what it takes and gives.

    Loads it and lets it answer a test row. Leaves with 1 and the reason if it cannot be served.
    """
    import orjson
    from rich.console import Console

    from fitserve.cli.card import print_model
    from fitserve.store.describe import describe_model, example_request
    from fitserve.store.lifecycle import load_model

    try:
        loaded = load_model(path)
    except ArtifactError as exc:
        raise refuse(ArtifactError(f"{path} {exc}")) from None
    facts = {**describe_model(loaded), "example": example_request(loaded)}
    if is_json:
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    else:
        print_model(Console(), facts)
    if not loaded.trial.has_answered:
        typer.echo(f"fitserve: {path} loads, but has not answered a test row: {loaded.trial.failure}", err=True)
        raise typer.Exit(EXIT_REFUSED)
    if not is_json:
        typer.echo("It answered a test row.")
