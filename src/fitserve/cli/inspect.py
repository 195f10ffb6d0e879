"""``fitserve inspect PATH``: all that is known of a model."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import EXIT_REFUSED, refuse
from fitserve.cli.options import LOADING, with_settings
from fitserve.errors import ArtifactError, FitserveError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from fitserve.store.listing import Listing
    from fitserve.urls import SourceUrl

COMMAND = typer.Typer()

MOST_FILES = 20


@COMMAND.command()
@with_settings(only=LOADING)
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The model file or folder, or its URL.")],
    *,
    is_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    flags: dict[str, Any],
) -> None:
    """Show what a model takes and gives and who told so, what it is made of, and whether it is trusted.

    Leaves with 1 if it would not be served. Of a model that is not trusted, shows what can be told without loading it.
    Of a folder of several models says which there are.
    """
    from fitserve.cli.progress import local

    try:
        with local(path, flags) as (here, place):
            _inspect(here, place, flags, is_json=is_json)
    except FitserveError as exc:
        raise refuse(exc) from None


def _inspect(path: Path, place: Path | SourceUrl, flags: dict[str, Any], *, is_json: bool) -> None:
    from fitserve.cli.repository import repository_at
    from fitserve.settings import read_settings
    from fitserve.store.inspection import inspect_model
    from fitserve.store.verify import verifier_of

    if (listing := repository_at(path)) is not None:
        _show_models(listing, path, is_json=is_json)
        return
    try:
        settings, _ = read_settings(flags)
        facts = inspect_model(path, verifier_of(settings))
    except ArtifactError as exc:
        raise exc.reworded(f"{place} {exc}") from exc
    if is_json:
        import orjson

        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    else:
        from rich.console import Console

        print_facts(Console(), facts)
    model = facts["model"]
    if model is None or model["trial"]["failure"] is not None:
        raise typer.Exit(EXIT_REFUSED)


def _show_models(listing: Listing, path: Path, *, is_json: bool) -> None:
    """Say which models there are and how to inspect one."""
    from fitserve.cli.repository import example_path, listing_as_json, print_listing
    from fitserve.observe.logs import printable

    if is_json:
        import orjson

        typer.echo(orjson.dumps(listing_as_json(listing, path), option=orjson.OPT_INDENT_2).decode())
    else:
        from rich.console import Console

        print_listing(Console(), listing, path)
        typer.echo(f"Of one version: fitserve inspect {printable(shlex.quote(str(example_path(listing))))}")


def print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    """Print what :func:`~fitserve.store.inspection.inspect_model` tells."""
    from fitserve.cli.card import safe

    model = facts["model"]
    kind = "" if model is None else f"  {safe(model['model_type'])}"
    console.print(f"[bold]{safe(facts['name'])} {safe(facts['version'])}[/bold]{kind}  {facts['format']}")
    console.print(facts["digest"], highlight=False, soft_wrap=True)
    if model is not None:
        _print_model(console, model)
    for name, value in facts["metadata"].items():
        console.print(f"{safe(name)}: {safe(str(value))}", highlight=False)
    _print_files(console, facts)
    _print_trust(console, facts["trust"])
    if model is not None:
        trial = model["trial"]
        told = "[green]answered[/green]" if trial["failure"] is None else f"[red]{safe(trial['failure'])}[/red]"
        console.print(f"trial: {trial['rows']} {trial['rows_are']} rows: {told}")


def _print_model(console: Console, model: Mapping[str, Any]) -> None:
    from fitserve.cli.card import features_table, safe

    for warning in model["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {safe(warning)}")
    if model["features"]:
        console.print(features_table(model["features"]))
    else:
        console.print("features: the model does not tell; rows of numbers are passed on as they come")
    console.print(f"outputs: {', '.join(model['outputs'])}", highlight=False)
    for labels in model["classes"] or ():
        console.print(f"classes: {safe(_shorten(json.dumps(labels, ensure_ascii=False)))}", highlight=False)
    libraries = (
        f"{name} {at['now']}" + (f" (fitted with {at['at_fit']})" if at["at_fit"] not in {None, at["now"]} else "")
        for name, at in model["libraries"].items()
    )
    console.print(f"libraries: {', '.join(libraries)}", highlight=False)


def _print_files(console: Console, facts: Mapping[str, Any]) -> None:
    from rich.table import Table

    from fitserve.cli.card import safe

    table = Table("file", "bytes", "sha256")
    for path, about in list(facts["files"].items())[:MOST_FILES]:
        table.add_row(safe(path), f"{about['bytes']:,}", f"{about['sha256'][:16]}…")
    console.print(table)
    if len(facts["files"]) > MOST_FILES:
        console.print(f"… and {len(facts['files']) - MOST_FILES} more: see --json")
    if facts["golden_rows"]:
        console.print(f"golden samples: {facts['golden_rows']} rows")


def _print_trust(console: Console, trust: Mapping[str, Any]) -> None:
    from fitserve.cli.card import safe

    can = {True: "can run code when it is loaded", False: "holds no code", None: "is judged by the flavour inside"}
    pinned = ", pinned" if trust["is_pinned"] else ""
    console.print(f"trust: the format {can[trust['holds_code']]}; level {trust['level']}{pinned}", highlight=False)
    if trust["refusal"] is not None:
        console.print(f"[red]not trusted:[/red] {safe(trust['refusal'])}", highlight=False)
        for line in trust["remedies"]:
            console.print(f"  {safe(line)}", highlight=False, soft_wrap=True)


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
