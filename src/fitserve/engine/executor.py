"""The only place where work leaves the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Executor:
    """A few daemon threads that run blocking calls.

    The threads are daemons, unlike those of :mod:`concurrent.futures`: a model that never
    returns must not keep the process from ending. They start with the first call, so an
    application may be built before a fork.

    Attributes:
        n_threads: how many there are.
        on_start: called by each thread when it begins.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.on_start: Callable[[], None] = lambda: None
        self._calls: SimpleQueue[tuple[asyncio.AbstractEventLoop, Callable[[], Any], Callable[[Any, Any], None]]] = (
            SimpleQueue()
        )
        self._pid: int | None = None

    def submit(self, call: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Run ``call`` in a thread; ``done`` takes on the event loop what it returned, or else what it raised.

        ``done`` is not called if the loop is closed by then.

        Raises:
            RuntimeError: no thread can be started.
        """
        if self._pid != os.getpid():
            for i in range(self.n_threads):
                threading.Thread(target=self._work, name=f"fitserve-inference-{i}", daemon=True).start()
            self._pid = os.getpid()
        self._calls.put((asyncio.get_running_loop(), call, done))

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread and return its result, or raise what it raised.

        A caller that is cancelled while its call waits takes it out of the queue; a call that
        has begun goes on, and its result is dropped.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(lambda: None if future.cancelled() else call(), partial(_settle, future))
        return await future

    def _work(self) -> None:
        self.on_start()
        while True:
            loop, call, done = self._calls.get()
            result, error = None, None
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - the caller gets it, SystemExit included
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, result, error)
            # Or this frame would hold the last result, and through the error its frames, until the next call.
            del loop, call, done, result, error


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # a future refuses it
        future.set_exception(RuntimeError("StopIteration"))
    else:
        future.set_exception(error)
