"""``fitserve dev PATH``: serve a model that is being worked on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fitserve.cli import refuse
from fitserve.cli.options import with_settings
from fitserve.cli.run import serve_forever
from fitserve.errors import FitserveError
from fitserve.settings import read_settings

COMMAND = typer.Typer()


@COMMAND.command()
@with_settings(without=("workers",))
def dev(
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="The model file; MODEL_PATH by default.")] = None,
    *,
    flags: dict[str, Any],
) -> None:
    """Serve a model file that changes, showing errors in full.

    The file is reloaded when it changes; if it cannot be served, the version before goes on.
    """
    if flags["debug"] is None:
        flags["debug"] = True
    try:
        settings, _ = read_settings({"model_path": path, **flags})
        serve_forever(settings, shows_card=True, is_watching=True)
    except FitserveError as exc:
        raise refuse(exc) from None
