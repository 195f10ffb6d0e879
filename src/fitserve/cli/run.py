"""``fitserve run PATH``: serve a model."""

from __future__ import annotations

import contextlib
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
    from collections.abc import Iterator

    from fitserve.store.fetcher import Fetcher

logger = logging.getLogger(__name__)

COMMAND = typer.Typer()


EXIT_CODES = """Exit codes: 0 stopped, with every request answered; 1 the model cannot be served; 2 the command or a
setting is wrong; 3 stopped, but a worker did not end in time and was killed; 130 Ctrl-C was pressed twice.

Signals: SIGTERM and SIGINT stop it once what is in flight is answered, a second SIGINT at once. SIGHUP reads the model
again; with several workers, it replaces them one by one before."""


@COMMAND.command(epilog=EXIT_CODES)
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
        The exit code, as :data:`EXIT_CODES` has them.

    Raises:
        ArtifactError: the model cannot be served.
        SettingsError: the address cannot be used.
    """
    from fitserve.server.listen import listen, release

    if settings.model_path is None:
        msg = "no model given: give its path, or set MODEL_PATH"
        raise ArtifactError(msg)
    listener = listen(settings)
    try:
        with _fetched(settings) as fetcher:
            if settings.workers > 1 and not is_watching:
                return _serve_with_workers(settings, listener, fetcher, shows_card=shows_card)
            return _serve_here(
                settings, listener, fetcher, shows_card=shows_card, is_watching=is_watching, removes=removes
            )
    finally:
        listener.close()
        release(settings)


@contextlib.contextmanager
def _fetched(settings: Settings) -> Iterator[Fetcher | None]:
    """Have a model that lies at a URL here, and the process at hand that fetches it again; None for a path."""
    from fitserve.urls import SourceUrl

    if not isinstance(settings.model_path, SourceUrl):
        yield None
        return
    from fitserve.cli.progress import shown
    from fitserve.store.fetcher import Fetcher
    from fitserve.store.origin import Origin

    _configure_logging(settings)
    fetcher = Fetcher.start(settings.model_path, settings)
    try:
        with shown(settings.model_path) as progress:
            Origin(settings.model_path, fetcher).here(or_kept=True, progress=progress)
        yield fetcher
    finally:
        fetcher.close()


def _serve_here(
    settings: Settings,
    listener: socket.socket,
    fetcher: Fetcher | None,
    *,
    shows_card: bool,
    is_watching: bool,
    removes: tuple[Path, ...],
) -> int:
    from fitserve.server.confined import confined
    from fitserve.store import PRELOAD
    from fitserve.supervisor import STOPPED, STOPPED_AT_ONCE
    from fitserve.supervisor.notify import Notifier

    _configure_logging(settings)
    notifier = Notifier(os.environ)
    made = () if settings.uds is None else (settings.uds,)  # which it may not remove itself
    with confined(settings, preload=PRELOAD, removes=(*removes, *made)):
        from fitserve.app import FitserveApp
        from fitserve.server.listen import make_server, run_server
        from fitserve.store.describe import describe_model, example_request

        app = FitserveApp(settings, settings.model_path, is_standalone=True, is_watching=is_watching, fetcher=fetcher)
        loaded = app.services.lifecycle.start()
        server = make_server(app, settings)
        _tell({**describe_model(loaded), "example": example_request(loaded)}, listener, shows_card=shows_card)
        notifier.follow(server, f"{loaded.name} {loaded.version} is served")
        run_server(server, listener)
        return STOPPED_AT_ONCE if server.force_exit else STOPPED


def _serve_with_workers(
    settings: Settings, listener: socket.socket, fetcher: Fetcher | None, *, shows_card: bool
) -> int:
    from fitserve.supervisor.notify import Notifier
    from fitserve.supervisor.supervisor import Supervisor

    _configure_logging(settings)
    notifier = Notifier(os.environ)
    supervisor = Supervisor(settings, listener, notifier, fetcher)
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
