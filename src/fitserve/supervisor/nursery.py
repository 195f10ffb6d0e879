"""A nursery: a process with one thread that loads the models, and is copied into workers, which share its memory.

It is confined like a worker, except that it may fork. It never predicts with threads, so that no copy waits for a
thread that it does not have. A model that needs more than memory, such as threads or connections, cannot be copied:
then this process becomes a worker itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fitserve.errors import FitserveError
from fitserve.supervisor.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.app import FitserveApp
    from fitserve.settings import Settings
    from fitserve.store.fetcher import Fetcher


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a nursery hands on to its workers.

    Attributes:
        app: the application, with the models that it has loaded.
        settings: of the server.
        runtime: the folder that all processes of the server share.
        scratch: the folder in which this nursery and its workers write, if there is a place for one.
        pools: the numbers of threads that the operator has set.
    """

    app: FitserveApp
    settings: Settings
    runtime: Path
    scratch: Path | None
    pools: Mapping[str, str]


def main() -> NoReturn:
    """``DESCRIPTOR PATH``: take the first order from the socket, load the models, then make workers."""
    name_process("fitserve-nurser")
    # The keys of a terminal, and who stops a whole group, speak to the supervisor, whose end is ours too.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    code = 1
    with contextlib.suppress(EOFError, BrokenPipeError):  # the supervisor is gone
        code = _serve(Channel(socket.socket(fileno=int(sys.argv[1]))))
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End without taking the modules apart: that would touch, and so copy, the memory of all models."""
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to run them without the rest
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _serve(channel: Channel) -> int:
    orders = _Orders(channel)
    _, told = orders.next()
    try:
        loaded = _load(told)
    except FitserveError as exc:
        from fitserve.confine.wire import describe

        channel.say("failed", describe(exc))
        return 1
    channel.say("ready", _facts(loaded))
    while True:
        _, order = orders.next()
        listener, end = (socket.socket(fileno=descriptor) for descriptor in channel.descriptors())
        worker = Channel(end)
        pid = os.getpid() if why_single(loaded.app) else _fork()
        if pid in {0, os.getpid()}:
            if pid:
                channel.say("started", {"worker": order["worker"], "pid": pid})
            channel.close()
            from fitserve.supervisor.worker import run_worker

            return run_worker(loaded, order["worker"], worker, listener)
        if pid > 0:  # else its channel tells, which has no other end any more
            channel.say("started", {"worker": order["worker"], "pid": pid})
        worker.close()
        listener.close()


class _Orders:
    """The orders of the supervisor, one after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: list[tuple[str, Any]] = []

    def next(self) -> tuple[str, Any]:
        """Wait for the next.

        Raises:
            EOFError: the supervisor needs this process no more, or has ended.
        """
        while not self._waiting:
            self._waiting = self._channel.hear()
        return self._waiting.pop(0)


def _load(told: Mapping[str, Any]) -> Loaded:
    """Confine this process and load the models.

    Raises:
        FitserveError: they cannot be served.
    """
    from fitserve.estimators.threads import one_thread_before_forks

    pools = one_thread_before_forks(os.environ)  # before anything that might read it is imported
    from fitserve.observe.logs import choose_format, configure_logging
    from fitserve.server.confined import confine_nursery
    from fitserve.settings import Settings

    settings = Settings(**told["settings"])
    runtime, scratch = Path(told["runtime"]), told["scratch"] and Path(told["scratch"])
    configure_logging(settings.log_level, choose_format(settings.log_format, sys.stderr), is_debug=settings.debug)
    gc.disable()  # what is imported and loaded stays: looking for cycles meanwhile takes time
    confine_nursery(settings, scratch, writable=(runtime,))
    from fitserve.app import FitserveApp

    app = FitserveApp(
        settings, settings.model_path, is_standalone=True, runtime_folder=runtime, fetcher=_fetcher(settings, told)
    )
    app.services.lifecycle.start(is_before_fork=sys.platform == "linux")
    gc.collect()
    gc.freeze()  # the copies do not touch, and thereby copy, what lives here
    return Loaded(app, settings, runtime, scratch, pools)


def _fetcher(settings: Settings, told: Mapping[str, Any]) -> Fetcher | None:
    """Who fetches the models, if they lie at a URL; a worker that is a copy of this process has it too."""
    from fitserve.store.fetcher import Fetcher
    from fitserve.urls import SourceUrl

    url = settings.model_path
    return Fetcher.of_descriptor(told["fetcher"], url) if isinstance(url, SourceUrl) else None


def _facts(loaded: Loaded) -> dict[str, Any]:
    from fitserve.store.describe import describe_model, example_request

    current = loaded.app.services.catalog.current
    assert current is not None  # it has just been loaded
    return {
        "facts": {**describe_model(current), "example": example_request(current)},
        "generation": loaded.app.services.catalog.generation,
        "is_single": why_single(loaded.app),
    }


def why_single(app: FitserveApp) -> str:
    """Why this process cannot be copied into workers, in words; empty if it can."""
    from fitserve.estimators.user_class import UserModel
    from fitserve.formats.base import hooks_of

    models = [loaded.model for loaded in app.services.catalog.in_memory()]
    if sys.platform != "linux":
        return "on this system processes that have loaded libraries are not copied"
    if any(isinstance(model, UserModel) or hooks_of(model) is not None for model in models):
        return "a class of your own may hold what cannot be copied, so each worker loads it for itself"
    if "torch" in sys.modules:
        return "PyTorch cannot be copied, so each worker loads it for itself"
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - their number is enough
        return "loading it has started threads, which cannot be copied, so each worker loads it for itself"
    return ""


def _fork() -> int:
    """Make a copy of this process that is a child of the supervisor's: 0 in the copy; here its process id, -1 if none.

    The process between ends at once, so that the kernel gives its child to the supervisor, which asked for that.
    """
    receiver, sender = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid:
            os.write(sender, str(pid).encode())
            os._exit(0)
        os.close(receiver)
        os.close(sender)
        return 0
    os.close(sender)
    os.waitpid(between, 0)
    with os.fdopen(receiver, "rb") as told:
        return int(told.read() or -1)


def name_process(name: str) -> None:
    """Let lists of processes show what this one is."""
    from fitserve.confine.kernel import machine, set_name

    if machine() is not None:
        set_name(name)
