"""A worker process: loads the model, tells the supervisor, serves until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from fitserve.errors import FitserveError

if TYPE_CHECKING:
    import socket
    from multiprocessing.connection import Connection

    from fitserve.settings import Settings


def run_worker(settings: Settings, listener: socket.socket, supervisor: Connection, must_answer: bool) -> None:  # noqa: FBT001 - spawn passes by position
    """Serve on a socket that the supervisor owns. Sends ``("ready", facts)`` or ``("failed", why)`` once.

    With ``must_answer``, a model that has not answered a test row counts as failed: the one before did.
    """
    from fitserve.app import FitserveApp
    from fitserve.observe.logs import choose_format, configure_logging
    from fitserve.server.listen import make_server, run_server
    from fitserve.store.describe import describe_model, example_request

    # Ctrl-C reaches the whole process group: the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(settings.log_level, choose_format(settings.log_format, sys.stderr), is_debug=settings.debug)
    app = FitserveApp(settings, settings.model_path, is_standalone=True)
    try:
        loaded = app.services.lifecycle.start()
    except FitserveError as exc:
        supervisor.send(("failed", str(exc)))
        return
    if must_answer and not loaded.trial.has_answered:
        supervisor.send(("failed", f"the new model is not served: {loaded.trial.failure}"))
        return
    server = make_server(app, settings)
    threading.Thread(target=_stop_with_supervisor, args=(supervisor,), daemon=True).start()
    supervisor.send(("ready", {**describe_model(loaded), "example": example_request(loaded)}))
    run_server(server, listener)


def _stop_with_supervisor(supervisor: Connection) -> None:
    """Stop when the supervisor has gone, however it went: nobody would replace or stop this process."""
    try:
        supervisor.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
