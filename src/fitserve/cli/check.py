"""``fitserve check PATH``: would it serve?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import EXIT_REFUSED, refuse
from fitserve.cli.options import COMPILING, LOADING, with_settings
from fitserve.errors import ArtifactError, FitserveError
from fitserve.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from fitserve.store.listing import Listing
    from fitserve.urls import SourceUrl

COMMAND = typer.Typer()


@COMMAND.command()
@with_settings(only=(*LOADING, *COMPILING))
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The model file or folder, or its URL.")],
    *,
    is_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    flags: dict[str, Any],
) -> None:
    """Try a model in a confined process and print what it takes and gives.

    Loads it, replays its golden samples or lets it answer rows of its own making, compiles it and proves its engines,
    and reports.
    Leaves with 1 and the reason if it cannot be served. Of a folder of several models says which there are.
    """
    from fitserve.cli.progress import local

    try:
        with local(path, flags) as (here, place):
            _check(here, place, flags, is_json=is_json)
    except FitserveError as exc:
        raise refuse(exc) from None


def _check(path: Path, place: Path | SourceUrl, flags: dict[str, Any], *, is_json: bool) -> None:
    import orjson
    from rich.console import Console

    from fitserve.cli.card import print_model, print_optimization, print_verification
    from fitserve.cli.repository import repository_at

    if (listing := repository_at(path)) is not None:
        raise _show_models(listing, path, is_json=is_json)
    report = verify_path(path, flags, place)
    if is_json:
        facts = {**report.pop("model"), **report}  # also over the model's own word on engines, which serve in no child
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
        is_ready = facts["is_ready"]
    else:
        console = Console()
        print_model(console, report["model"])
        print_verification(console, report)
        print_optimization(console, report["optimization"])
        is_ready = report["model"]["is_ready"]
    if not is_ready:
        typer.echo(f"fitserve: {place} loads, but has not answered a test row: {report['failure']}", err=True)
        raise typer.Exit(EXIT_REFUSED)


def _show_models(listing: Listing, path: Path, *, is_json: bool) -> typer.Exit:
    """Say which models there are and how to check one. Nothing has been tried, so it is no success."""
    import orjson
    from rich.console import Console

    from fitserve.cli.repository import example_path, listing_as_json, print_listing
    from fitserve.observe.logs import printable

    if is_json:
        typer.echo(orjson.dumps(listing_as_json(listing, path), option=orjson.OPT_INDENT_2).decode())
    else:
        print_listing(Console(), listing, path)
    example = printable(shlex.quote(str(example_path(listing))))
    typer.echo(f"fitserve: nothing was tried: check one version, as `fitserve check {example}`", err=True)
    return typer.Exit(EXIT_REFUSED)


def verify_path(path: Path, flags: dict[str, Any], place: Path | SourceUrl) -> dict[str, Any]:
    """Read a model, try it and compile it in a confined process; nothing of it is loaded in this one.

    Args:
        path: of the model.
        flags: of the command.
        place: as the operator named it, for errors.

    Raises:
        SettingsError: a flag is wrong.
        ArtifactError: it cannot be served; the text names the path and what could be done.
    """
    from fitserve.store.engines_tried import try_engines
    from fitserve.store.repository import read_artifact
    from fitserve.store.verify import verifier_of, with_path

    settings = read_settings(flags)[0]
    verifier = verifier_of(settings)
    try:
        artifact = read_artifact(path)
        report = dict(verifier.verify(artifact))
        return {**report, "optimization": try_engines(artifact, verifier, settings, path)}
    except ArtifactError as exc:
        raise with_path(exc, place, verifier.policy) from exc
