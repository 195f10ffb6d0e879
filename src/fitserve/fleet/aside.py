"""Blocking work of a switch, aside from the event loop and from the threads of predictions.

Each call has a thread of its own: a model that never returns while it is loaded must not keep the next one from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def aside(call: Callable[[], T], unwanted: Callable[[T], object] | None = None) -> T:
    """Run a call in a thread that ends with it, and return what it returned, or raise what it raised.

    Args:
        call: blocks.
        unwanted: takes the result, in that thread, where the caller has been cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001 - the caller gets it, SystemExit included
            error = exc
        if future.cancelled() and error is None and unwanted is not None:
            unwanted(result)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, future, result, error)

    threading.Thread(target=work, name="fitserve-switch", daemon=True).start()
    return await future


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:  # a future refuses the one, and the loop would end with the other
        future.set_exception(RuntimeError(type(error).__name__))
