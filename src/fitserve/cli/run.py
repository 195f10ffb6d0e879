"""``fitserve run PATH``: serve a model."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import refuse
from fitserve.cli.options import with_settings
from fitserve.errors import ArtifactError, FitserveError
from fitserve.settings import Settings, read_settings

if TYPE_CHECKING:
    import socket

logger = logging.getLogger(__name__)

COMMAND = typer.Typer()


@COMMAND.command()
@with_settings()
def run(
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The model file or its URL; MODEL_PATH by default.")
    ] = None,
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no summary to the terminal, only log lines.")
    ] = False,
    flags: dict[str, Any],
) -> None:
    """Serve a model file over HTTP."""
    try:
        settings, _ = read_settings({"model_path": path, **flags})
        code = serve_forever(settings, shows_card=sys.stdout.isatty() and not quiet)
    except FitserveError as exc:
        raise refuse(exc) from None
    if code:
        raise typer.Exit(code)


def serve_forever(
    settings: Settings, *, shows_card: bool, is_watching: bool = False, removes: tuple[Path, ...] = ()
) -> int:
    """Serve ``settings.model_path`` until a signal stops it.

    Args:
        settings: of the server.
        shows_card: print what the model takes and gives, and where it answers, to standard output.
        is_watching: reload when the file changes; then one process serves, whatever ``workers`` says.
        removes: folders that go with the server; its own process may not remove them once it is confined.

    Returns:
        The exit code.

    Raises:
        ArtifactError: the model cannot be served.
        SettingsError: the address cannot be used.
    """
    from fitserve.server.listen import listen

    if settings.local_path is None:
        msg = "no model given: give its path, or set MODEL_PATH"
        raise ArtifactError(msg)
    listener = listen(settings)
    if settings.workers > 1 and not is_watching:
        return _serve_with_workers(settings, listener, shows_card=shows_card)
    _serve_here(settings, listener, shows_card=shows_card, is_watching=is_watching, removes=removes)
    return 0


def _serve_here(
    settings: Settings, listener: socket.socket, *, shows_card: bool, is_watching: bool, removes: tuple[Path, ...]
) -> None:
    from fitserve.server.confined import confined
    from fitserve.store import PRELOAD

    _configure_logging(settings)
    with confined(settings, preload=PRELOAD, removes=removes):
        from fitserve.app import FitserveApp
        from fitserve.server.listen import make_server, run_server
        from fitserve.store.describe import describe_model, example_request

        app = FitserveApp(settings, settings.local_path, is_standalone=True, is_watching=is_watching)
        loaded = app.services.lifecycle.start()
        server = make_server(app, settings)
        _tell({**describe_model(loaded), "example": example_request(loaded)}, listener, shows_card=shows_card)
        run_server(server, listener)


def _serve_with_workers(settings: Settings, listener: socket.socket, *, shows_card: bool) -> int:
    from fitserve.supervisor.notify import Notifier
    from fitserve.supervisor.supervisor import Supervisor

    _configure_logging(settings)
    notifier = Notifier(os.environ)
    supervisor = Supervisor(settings, listener, notifier)
    return supervisor.run(lambda facts: _tell(facts, listener, shows_card=shows_card))


def _configure_logging(settings: Settings) -> None:
    from fitserve.observe.logs import choose_format, configure_logging

    configure_logging(settings.log_level, choose_format(settings.log_format, sys.stderr), is_debug=settings.debug)


def _tell(facts: dict[str, Any], listener: socket.socket, *, shows_card: bool) -> None:
    from fitserve.server.listen import base_url

    logger.info("%s %s is served at %s", facts["name"], facts["version"], base_url(listener))
    if not shows_card:
        return
    from rich.console import Console

    from fitserve.cli.card import print_model, print_urls

    console = Console()
    print_model(console, facts)
    print_urls(console, base_url(listener), facts["example"])
