"""Taking connections from listening sockets, of which other processes may take them too.

A socket that several processes share gives each connection to the first that asks, and so the most to whoever wakes
first. Here a process with more connections than the mean of its fleet waits a moment before it asks, in which the
others may. It waits for some milliseconds at most while one is to be had: if nobody else takes it, they are stuck.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

from uvicorn.server import ServerState

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from fitserve.shared_state.board import Board
    from fitserve.shared_state.slot import Slot

logger = logging.getLogger(__name__)

PAUSE_S = 0.001
"""How long a process with more connections than the mean waits before it looks again: a timer's shortest time."""

N_PAUSES = 3
"""So often it looks before it takes a connection that nobody else has taken."""

FRESH_S = 0.5
"""A process whose event loop has not turned for so long takes no connections: it has no part in the mean."""

SLACK = 8
"""By the eighth part may a process be above the mean: where there are many, a few more weigh less than waiting."""

MOST_AT_ONCE = 64
"""Taken in one turn of the loop: the requests on those that are open go on between."""

RETRY_S = 0.2
"""How long to wait when the process, or the machine, can open nothing more: asking at once would only burn time."""

WARNED_EACH_S = 10.0

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ServingState(ServerState):
    """What the connections of one server share with it.

    Attributes:
        is_ending: the next reply on each connection is its last.
        on_lost: called when a connection has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_ending = False
        self.on_lost: Callable[[], None] = lambda: None


class Acceptor:
    """Takes connections, in the thread of the running event loop.

    Attributes:
        n_taken: since it began.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make_protocol: Callable[[], asyncio.Protocol],
        state: ServingState,
        board: Board | None = None,
        slot: Slot | None = None,
    ) -> None:
        """Begin to take connections.

        Args:
            listeners: are made non-blocking, which they are then in all processes, and are closed at the end.
            make_protocol: one for each connection, which adds itself to ``state.connections``.
            state: of the server; its ``on_lost`` becomes this one's.
            board: of the fleet among which connections are spread, and
            slot: the place on it, whose number of connections is kept here; None for a process on its own.
        """
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._make_protocol = make_protocol
        self._state = state
        self._board = board
        self._slot = slot
        self._opening: set[asyncio.Task[None]] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._n_pauses = 0  # in a row, and
        self._n_neglected = 0  # how often at their end a connection was still there
        self._warned_s = -WARNED_EACH_S
        self._is_stopped = False
        self.n_taken = 0
        state.on_lost = self._on_lost
        for listener in listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._on_waiting, listener)

    async def stop(self, *, takes_waiting: bool) -> None:
        """Take no more, and close the listeners: other processes may go on with theirs.

        Args:
            takes_waiting: take those that wait by now first, because nobody else will.
        """
        self._is_stopped = True
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            while takes_waiting and self._take(listener):
                pass
            listener.close()
        while self._opening:
            await asyncio.wait(self._opening)

    # ── which, and when ─────────────────────────────────────────────────────────────

    def _on_waiting(self, listener: socket.socket) -> None:
        """Somebody waits, or waited: others have been told as well."""
        if self._board is None:
            for _ in range(MOST_AT_ONCE):
                if not self._take(listener):
                    return
        elif self._is_above_mean():
            self._pause(listener, PAUSE_S)
        else:
            self._n_pauses = self._n_neglected = 0
            self._take(listener)

    def _is_above_mean(self) -> bool:
        assert self._board is not None and self._slot is not None  # noqa: PT018 - only a fleet has a mean
        n_ready, n_connections = self._board.sums(fresh_s=FRESH_S)
        return self._slot.n_connections * n_ready * SLACK > n_connections * (SLACK + 1)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(seconds, self._go_on, listener)

    def _on_lost(self) -> None:
        """A connection has ended: pauses may be over."""
        self._count()
        if self._pauses and self._board is not None and not self._is_above_mean():
            for listener, pause in list(self._pauses.items()):
                pause.cancel()
                self._go_on(listener)

    def _go_on(self, listener: socket.socket) -> None:
        """After a pause: look again, and in the end take what nobody took, twice as many every other time in a row."""
        del self._pauses[listener]
        if self._board is not None and self._is_above_mean():
            self._n_pauses += 1
            if self._n_pauses % N_PAUSES:
                self._pauses[listener] = self._loop.call_later(PAUSE_S, self._go_on, listener)
                return
        else:
            self._n_neglected = 0
        self._loop.add_reader(listener, self._on_waiting, listener)
        n_taken = 0
        while n_taken < min(1 << self._n_neglected // 2, MOST_AT_ONCE) and self._take(listener):
            n_taken += 1
        self._n_neglected = self._n_neglected + 1 if n_taken else 0

    # ── one connection ──────────────────────────────────────────────────────────────

    def _take(self, listener: socket.socket) -> bool:
        """Take a connection; False if none is to be had now."""
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _EXHAUSTED:
                return True  # the one that waited has gone, of which accept(2) tells by many errors
            self._wait_for_room(listener, exc)
            return False
        connection.setblocking(False)
        self.n_taken += 1
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        self._count()
        task.add_done_callback(self._opened)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has gone, or there is no room to watch it
            connection.close()

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._count()

    def _count(self) -> None:
        """Tell the fleet how many connections are open, or about to be."""
        if self._slot is not None:
            self._slot.n_connections = len(self._state.connections) + len(self._opening)

    def _wait_for_room(self, listener: socket.socket, exc: OSError) -> None:
        now_s = self._loop.time()
        if now_s - self._warned_s >= WARNED_EACH_S:
            self._warned_s = now_s
            n_open = len(self._state.connections)
            logger.warning(
                "connections have to wait: %s, with %d open. Raise the limit of open files, or run more workers",
                exc.strerror,
                n_open,
            )
        if not self._is_stopped:
            self._loop.remove_reader(listener)
            if listener in self._pauses:
                self._pauses.pop(listener).cancel()
            self._pause(listener, RETRY_S)
