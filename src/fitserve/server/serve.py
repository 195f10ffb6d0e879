"""The server of one process: takes connections, keeps its place on the board, and ends without losing a request."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import logger

from fitserve.server.accept import Acceptor, ServingState
from fitserve.server.protocol import HttpProtocol
from fitserve.shared_state.slot import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from fitserve.settings import Settings
    from fitserve.shared_state.board import Board
    from fitserve.shared_state.slot import Slot

KEEP_ALIVE_S = 75
"""How long an idle connection is kept: longer than the 60 s of common load balancers, which
would else send a request into a connection that is being closed."""

QUIET_S = 1.0
"""A server that stops for good waits no longer for the next request on an idle connection: its client may keep it."""

STEP_S = 0.02
"""How often a server that ends looks whether it may."""

CANCELLED_S = 1.0
"""How long replies to requests that are given up may take on their way out."""

_STEPS_A_TICK = 5
_BEAT_EACH = 2
"""Ticks, of a tenth of a second as uvicorn has them, from one heartbeat to the next."""


def make_server(app: Any, settings: Settings, board: Board | None = None, slot: Slot | None = None) -> FitserveServer:
    """A server for the application, with httptools: uvicorn's other parser lets ambiguous requests pass.

    Args:
        app: a :class:`~fitserve.app.FitserveApp`.
        settings: of the server.
        board: of the fleet, if another process replaces and stops this one,
        slot: and its place there.
    """
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,  # type: ignore[arg-type]
    )
    return FitserveServer(config, settings, app.services.stopping.set, board, slot)


def run_server(server: FitserveServer, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, finish what is in flight, and return. Runs in the main thread.

    A process of a fleet is stopped by SIGTERM alone, because the keys of a terminal are for its parent; SIGUSR1 tells
    it that the whole fleet is about to stop.
    """

    def stop(*_: object) -> None:
        # uvicorn takes the signals over while it serves, and raises them again when it has stopped.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN if server.is_one_of_several else stop)
    if server.is_one_of_several:
        signal.signal(signal.SIGUSR1, lambda *_: server.announce_stop())
    server.run(sockets=[listener])


class FitserveServer(uvicorn.Server):
    """Serves with connections that it takes itself, and drains them at its end.

    The end of a process that is *replaced* begins when it takes no more connections; those that wait are for its
    neighbours. The end of a server that is *stopped* begins with ``/ready`` at 503; it serves on for
    ``shutdown_delay_s``, takes what waits, and closes its socket. From there both go alike: each reply says
    ``Connection: close``; idle connections stay a while, because a client may be sending already; requests in flight
    have ``shutdown_timeout_s``.
    """

    server_state: ServingState

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        not_ready: Callable[[], None],
        board: Board | None,
        slot: Slot | None,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            config: of uvicorn.
            settings: of the server.
            not_ready: lets ``/ready`` answer 503 from now on.
            board: of the fleet, or None,
            slot: and its place there.
        """
        super().__init__(config)
        self.server_state = ServingState()
        self._settings = settings
        self._not_ready = not_ready
        self._board = board
        self._slot = slot
        self._stops_for_good = slot is None

    @property
    def is_one_of_several(self) -> bool:
        """Whether another process replaces and stops this one."""
        return self._slot is not None

    def announce_stop(self) -> None:
        """Answer ``/ready`` with 503 from now on, because the whole fleet stops; serve until told to end."""
        self._stops_for_good = True
        self._not_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; the keys of a terminal are for the parent of a fleet."""
        if sig != signal.SIGINT or not self.is_one_of_several:
            super().handle_exit(sig, frame)

    # ── serve ───────────────────────────────────────────────────────────────────────

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Run the application's start, then take connections from ``sockets``."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        assert sockets  # this server makes none of its own
        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )

        self.servers = []  # uvicorn's
        self._acceptor = Acceptor(sockets, make_protocol, self.server_state, self._board, self._slot)
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Renew the date of replies and the place on the board; whether it is time to end."""
        if self._slot is not None and counter % _BEAT_EACH == 0:
            self._slot.beat(time.monotonic_ns())
            self._slot.n_requests = self.server_state.total_requests
        return await super().on_tick(counter)

    # ── end ─────────────────────────────────────────────────────────────────────────

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - the acceptor's
        """End as the class says."""
        logger.info("Shutting down")
        if not self.is_one_of_several:
            self._not_ready()
            await self._wait(lambda: False, self._settings.shutdown_delay_s)
        if self._slot is not None:
            self._slot.state = State.LEAVING
        self._end_connections()
        await self._acceptor.stop(takes_waiting=self._stops_for_good)
        await self._drain()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def _end_connections(self) -> None:
        self.server_state.is_ending = True
        for connection in self._connections():
            connection.end_soon()

    def _connections(self) -> list[HttpProtocol]:
        return cast("list[HttpProtocol]", list(self.server_state.connections))

    async def _drain(self) -> None:
        """Wait for the requests in flight, close what is idle, and give up what takes too long."""
        loop = asyncio.get_running_loop()
        over_s = loop.time() + self._settings.lame_duck_s
        quiet_s = min(QUIET_S, self._settings.lame_duck_s) if self._stops_for_good else math.inf

        def is_done() -> bool:
            now_s = loop.time()
            for connection in self._connections():
                connection.close_if_idle_since(now_s if now_s >= over_s else now_s - quiet_s)
            return not self.server_state.connections and not self.server_state.tasks

        limit_s = self.config.timeout_graceful_shutdown
        if not await self._wait(is_done, math.inf if limit_s is None else limit_s) and not self.force_exit:
            await self._give_up()

    async def _give_up(self) -> None:
        """Answer that the server waits no longer, wherever there is somebody to answer to."""
        state = self.server_state
        logger.error("%d connection(s) and %d task(s) took too long to end", len(state.connections), len(state.tasks))
        for task in list(state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.cancel()
        await self._wait(lambda: not state.connections and not state.tasks, CANCELLED_S)

    async def _wait(self, is_done: Callable[[], bool], limit_s: float) -> bool:
        """Serve on until something is done; False if the time is over before, or somebody presses Ctrl-C twice."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        for n_steps in itertools.count():
            if is_done():
                return True
            if self.force_exit or loop.time() >= until_s:
                break
            if n_steps % _STEPS_A_TICK == 0:
                await self.on_tick(n_steps // _STEPS_A_TICK)
            await asyncio.sleep(STEP_S)
        return False
