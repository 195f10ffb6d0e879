"""A worker process: loads the model, tells the supervisor, serves until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from fitserve.errors import FitserveError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from pathlib import Path

    from fitserve.settings import Settings

Reports: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""What trying model files in a confined child has shown, by :func:`fitserve.store.verify.identity`."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told besides the settings.

    Attributes:
        passed: reports of the supervisor, so that not every worker tries the same file again.
        must_answer: a model that has not answered a test row counts as failed: the one before did.
        metrics_folder: where all workers leave their metrics, if there is a place for it.
    """

    passed: Reports
    must_answer: bool
    metrics_folder: Path | None


def run_worker(settings: Settings, listener: socket.socket, supervisor: Connection, orders: Orders) -> None:
    """Serve on a socket that the supervisor owns. Says ``["ready", facts]`` or ``["failed", why]`` once."""
    from fitserve.observe.logs import choose_format, configure_logging
    from fitserve.server.confined import confined

    # Ctrl-C reaches the whole process group: the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(settings.log_level, choose_format(settings.log_format, sys.stderr), is_debug=settings.debug)
    writable = [folder for folder in (orders.metrics_folder,) if folder is not None and folder.is_dir()]
    try:
        with confined(settings, writable=tuple(writable)):
            _serve(settings, listener, supervisor, orders)
    except FitserveError as exc:
        _say(supervisor, "failed", str(exc))


def _serve(settings: Settings, listener: socket.socket, supervisor: Connection, orders: Orders) -> None:
    from fitserve.app import FitserveApp
    from fitserve.server.listen import make_server, run_server
    from fitserve.store.describe import describe_model, example_request

    app = FitserveApp(
        settings,
        settings.local_path,
        is_standalone=True,
        passed=orders.passed,
        metrics_folder=orders.metrics_folder,
    )
    loaded = app.services.lifecycle.start()
    if orders.must_answer and not loaded.trial.has_answered:
        _say(supervisor, "failed", f"the new model is not served: {loaded.trial.failure}")
        return
    server = make_server(app, settings)
    threading.Thread(target=_stop_with_supervisor, args=(supervisor,), daemon=True).start()
    _say(supervisor, "ready", {**describe_model(loaded), "example": example_request(loaded)})
    run_server(server, listener)


def _say(supervisor: Connection, state: str, facts: object) -> None:
    supervisor.send_bytes(orjson.dumps([state, facts], option=orjson.OPT_SERIALIZE_NUMPY))


def _stop_with_supervisor(supervisor: Connection) -> None:
    """Stop when the supervisor has gone, however it went: nobody would replace or stop this process."""
    try:
        supervisor.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
