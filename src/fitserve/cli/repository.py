"""What a repository of models looks like on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from fitserve.store.listing import Listing


def repository_at(path: Path) -> Listing | None:
    """The models at a path, if it is a repository; None for a single model, or if nothing can be served.

    Then whoever reads the path as one model tells why.
    """
    from fitserve.store.listing import list_repository

    if not path.is_dir():
        return None
    try:
        listing = list_repository(path)
    except ArtifactError:
        return None
    return None if listing.is_single else listing


def example_path(listing: Listing) -> Path:
    """The path of the version that the default model starts with."""
    return list(listing.models[listing.default("")].values())[-1].path


def listing_as_json(listing: Listing, path: Path) -> dict[str, Any]:
    """A listing as a JSON object; paths are below ``path``."""
    return {
        "models": {
            name: {
                version: {"path": entry.path.relative_to(path).as_posix(), "is_labelled": entry.is_labelled}
                for version, entry in versions.items()
            }
            for name, versions in listing.models.items()
        },
        "skipped": [{"path": place, "why": why} for place, why in listing.skipped],
    }


def print_listing(console: Console, listing: Listing, path: Path) -> None:
    """Print the models and their versions, the one that serves at first above the others, and what is skipped."""
    from rich.table import Table

    from fitserve.cli.card import safe

    table = Table("model", "version", "path")
    for name, versions in listing.models.items():
        shown = f"[bold]{safe(name)}[/bold]"
        for version, entry in list(versions.items())[::-1]:
            table.add_row(shown, safe(version), safe(entry.path.relative_to(path).as_posix()))
            shown = ""
    console.print(table)
    for skipped, why in listing.skipped:
        console.print(f"[yellow]skipped:[/yellow] {safe(skipped)} {safe(why)}", highlight=False, soft_wrap=True)
