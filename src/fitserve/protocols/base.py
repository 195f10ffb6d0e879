"""What every protocol is made of: routes, who answers them, and what they answer with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from fitserve.errors import VersionNotLoadedError
from fitserve.protocols.exchange import AsgiExchange, Exchange, Reply
from fitserve.types import ModelRef

if TYPE_CHECKING:
    from fitserve.engine.core import Engine
    from fitserve.engine.executor import Executor
    from fitserve.engine.job import Job
    from fitserve.fleet.lifecycle import Lifecycle
    from fitserve.fleet.switch import Switch
    from fitserve.observe.metrics import Metrics
    from fitserve.settings import Settings
    from fitserve.store.catalog import Catalog, LoadedModel

Handler: TypeAlias = Callable[[AsgiExchange], Awaitable[Reply]]
Operation: TypeAlias = "Callable[[LoadedModel | None], Mapping[str, Any]]"
"""Describes a route for the OpenAPI document, given the model that serves."""


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference route, in two steps that wait for nothing: both doors take them.

    Attributes:
        admit: decides by the head of a request alone, before its body is read, whether to go on: by the same
            head always the same. Raises.
        begin: takes the whole body and submits the rows to the engine. Raises, or calls its last
            argument once with the reply: before it returns, or later on the event loop. Cancelling the
            job that it returns keeps it from calling. Raises :class:`~fitserve.errors.VersionNotLoadedError`
            where the version has to be loaded first, and may then be called again.
    """

    admit: Callable[[Exchange], None]
    begin: Callable[[Exchange, bytes, Callable[[Reply], None]], Job]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path: who answers, and what the OpenAPI document says of it.

    ``inference`` is there where ``handler`` does the same through :func:`waits_for`.
    """

    method: str
    path: str
    handler: Handler
    operation: Operation
    inference: Inference | None = None


MOST_LOADS = 3
"""So often a version is loaded for a request before it is told to come again: others may have it dropped meanwhile."""


def waits_for(inference: Inference, limit_bytes: int, load: Callable[[ModelRef], Awaitable[None]]) -> Handler:
    """The handler of an inference route.

    Reads a body of at most ``limit_bytes``, begins, and waits; a version that is not in memory it has loaded by
    ``load`` first.
    """

    async def handle(exchange: AsgiExchange) -> Reply:
        inference.admit(exchange)
        body = await exchange.read_body(limit_bytes)
        for _ in range(MOST_LOADS):
            try:
                return await reply_to(exchange, body)
            except VersionNotLoadedError as exc:
                await load(ModelRef(name=exc.name, version=exc.version))
        return await reply_to(exchange, body)

    async def reply_to(exchange: AsgiExchange, body: bytes) -> Reply:
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if not replied.done():  # it is cancelled before its task is, and so before the job
                replied.set_result(reply)

        job = inference.begin(exchange, body, done)
        try:
            return await replied
        except asyncio.CancelledError:
            job.cancel()
            raise

    return handle


@dataclass(frozen=True, slots=True)
class Services:
    """What the parts above the engine need of those below; made by the composition root.

    ``stopping`` is set when the server is about to stop: it is not ready for more traffic.
    """

    settings: Settings
    catalog: Catalog
    lifecycle: Lifecycle
    engine: Engine
    executor: Executor
    metrics: Metrics
    started_monotonic_s: float
    switch: Switch
    stopping: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol: a name, and the routes that it answers with the given services."""

    name: str
    routes: Callable[[Services], list[Route]]


def caught(exc: BaseException) -> bool:
    """Whether an exception is to be answered, and not the event loop's own way to end a task."""
    return not isinstance(exc, asyncio.CancelledError | GeneratorExit)
