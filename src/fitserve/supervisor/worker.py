"""A worker: what a nursery has loaded, confined, and serving until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from fitserve.errors import FitserveError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fitserve.supervisor.channel import Channel
    from fitserve.supervisor.nursery import Loaded

logger = logging.getLogger(__name__)


def run_worker(loaded: Loaded, number: int, supervisor: Channel, listener: socket.socket) -> int:
    """Serve on a socket that the supervisor owns, and say ``ready`` once connections are taken.

    Called in a copy of the nursery, or in the nursery itself.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until it serves
    try:
        _become_oneself(loaded, number)
        _serve(loaded, supervisor, listener)
    except FitserveError as exc:
        logger.error("%s", exc)  # noqa: TRY400 - an operator's mistake has no trace
        return 1
    return 0


def _become_oneself(loaded: Loaded, number: int) -> None:
    """Renew what copies must not share, be confined for good, and begin to use threads. In this order."""
    from fitserve.estimators.threads import begin_threads, openmp_threads_here, usable_cpus
    from fitserve.server.confined import confine_worker
    from fitserve.supervisor.nursery import name_process

    name_process("fitserve-worker")
    if loaded.scratch is not None:
        folder = loaded.scratch / f"worker-{number}"
        folder.mkdir(mode=0o700, exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    if "numpy.random" in sys.modules:
        import numpy as np

        np.random.seed()  # noqa: NPY002 - the one generator that models of scikit-learn may share
    confine_worker(loaded.settings)
    begin_threads(max(1, usable_cpus() // loaded.settings.workers), loaded.pools)
    loaded.app.services.executor.on_start = openmp_threads_here


def _serve(loaded: Loaded, supervisor: Channel, listener: socket.socket) -> None:
    from fitserve.server.serve import make_server, run_server

    app = loaded.app
    threading.Thread(target=_stop_with_supervisor, args=(supervisor,), daemon=True, name="fitserve-supervisor").start()
    fleet = app.services.lifecycle.fleet
    fleet.join()
    server = make_server(app, loaded.settings, fleet.board, fleet.slot)
    _tell_when_started(server, lambda: supervisor.say("ready"))
    gc.enable()
    run_server(server, listener)


def _tell_when_started(server: Any, tell: Callable[[], None]) -> None:
    """Call once the server takes connections, on its event loop."""
    startup = server.startup

    async def startup_and_tell(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        if server.started:
            tell()

    server.startup = startup_and_tell


def _stop_with_supervisor(supervisor: Channel) -> None:
    """Stop when the supervisor has gone, however it went: nobody would replace or stop this process."""
    try:
        while True:
            supervisor.hear()
    except (EOFError, ValueError):
        os.kill(os.getpid(), signal.SIGTERM)
