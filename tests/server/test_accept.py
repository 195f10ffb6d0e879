"""Taking connections: from a shared socket, by shares, and when nothing more can be opened."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import socket
import time

import pytest
import uvloop

from fitserve.server.accept import Acceptor, ServingState
from fitserve.shared_state.board import Board
from fitserve.shared_state.slot import Slot, State

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
TIMEOUT_S = 30.0


@pytest.fixture(params=LOOPS)
def runner(request):
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        yield listener


@pytest.fixture
def connect(listener):
    """Open a connection, which waits to be taken; it is closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(listener.getsockname(), TIMEOUT_S))


class Kept(asyncio.Protocol):
    """A connection that says nothing."""

    def __init__(self, state: ServingState) -> None:
        self.state = state

    def connection_made(self, transport):
        self.transport = transport
        self.state.connections.add(self)

    def connection_lost(self, exc):
        self.state.connections.discard(self)
        self.state.on_lost()


class Member:
    """A process of a fleet, as far as it takes connections. Make it on a running event loop."""

    def __init__(self, listener: socket.socket, board: Board | None = None) -> None:
        self.state = ServingState()
        self.slot = board and board.join()
        if self.slot:
            self.slot.state = State.READY
            self.slot.heartbeat_ns = time.monotonic_ns() + 10**12
        self.acceptor = Acceptor([listener.dup()], lambda: Kept(self.state), self.state, board, self.slot)

    @property
    def n_open(self) -> int:
        return len(self.state.connections)

    async def end(self, *, takes_waiting: bool = False) -> None:
        await self.acceptor.stop(takes_waiting=takes_waiting)
        for connection in list(self.state.connections):
            connection.transport.close()
        await until(lambda: not self.state.connections)


def join_and_beat_for_ever(board: Board) -> Slot:
    """A process that is ready, and takes no connection."""
    slot = board.join()
    slot.state = State.READY
    slot.heartbeat_ns = time.monotonic_ns() + 10**12
    return slot


async def until(condition) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        for turn in itertools.count():
            if condition():
                return
            await asyncio.sleep(0 if turn < 100 else 0.001)


def test_a_process_on_its_own_takes_all_that_come(runner, listener, connect):
    async def check() -> int:
        member = Member(listener)
        for _ in range(100):
            connect()
        await until(lambda: member.n_open == 100)
        await member.end()
        return member.acceptor.n_taken

    assert runner.run(check()) == 100


def test_connections_go_to_the_process_that_has_fewer(runner, listener, connect):
    async def check() -> tuple[int, int]:
        board = Board.in_memory()
        first = Member(listener, board)
        for _ in range(8):
            connect()
        await until(lambda: first.n_open == 8)
        second = Member(listener, board)
        for i in range(8):
            connect()
            await until(lambda i=i: first.n_open + second.n_open == 9 + i)
        counts = first.n_open, second.n_open
        await first.end()
        await second.end()
        return counts

    n_first, n_second = runner.run(check())
    assert n_first + n_second == 16
    assert n_second >= 6


def test_a_connection_that_a_process_with_fewer_does_not_take_is_taken(runner, listener, connect):
    async def check() -> int:
        board = Board.in_memory()
        join_and_beat_for_ever(board)
        member = Member(listener, board)
        for _ in range(50):
            connect()
        await until(lambda: member.n_open == 50)
        await member.end()
        return member.acceptor.n_taken

    assert runner.run(check()) == 50


def test_a_process_that_has_lost_a_connection_waits_no_longer(runner, listener, connect, monkeypatch):
    monkeypatch.setattr("fitserve.server.accept.PAUSE_S", 600.0)

    async def check() -> None:
        board = Board.in_memory()
        join_and_beat_for_ever(board)
        member = Member(listener, board)
        first = connect()
        await until(lambda: member.n_open == 1)
        connect()
        await until(lambda: member.acceptor._pauses)
        first.close()
        await until(lambda: member.acceptor.n_taken == 2)
        await member.end()

    runner.run(check())


def test_a_process_whose_loop_does_not_turn_has_no_part_in_the_mean(runner, listener, connect, monkeypatch):
    monkeypatch.setattr("fitserve.server.accept.PAUSE_S", 600.0)

    async def check() -> None:
        board = Board.in_memory()
        join_and_beat_for_ever(board).heartbeat_ns = 1
        member = Member(listener, board)
        for _ in range(10):
            connect()
        await until(lambda: member.n_open == 10)
        await member.end()

    runner.run(check())


def test_what_waits_is_taken_by_the_last_process_that_stops(runner, listener, connect):
    async def check() -> int:
        member = Member(listener)
        for _ in range(20):
            connect()
        await member.end(takes_waiting=True)
        return member.acceptor.n_taken

    assert runner.run(check()) == 20


def test_what_waits_is_left_to_others_by_a_process_that_leaves(runner, listener, connect):
    async def check() -> tuple[int, int]:
        leaving = Member(listener)
        for _ in range(20):
            connect()
        await leaving.end()
        other = Member(listener)
        await until(lambda: other.n_open == 20)
        await other.end()
        return leaving.acceptor.n_taken, other.acceptor.n_taken

    assert runner.run(check()) == (0, 20)


def test_a_process_without_room_asks_seldom_says_so_once_and_goes_on_later(runner, listener, connect, caplog):
    async def check() -> int:
        member = Member(listener)
        asked = Asked(member.acceptor)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for _ in range(5):
            connect()
        with socket.socket() as lowest:
            n_open = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_open, hard))
        try:
            await until(lambda: asked.n)
            for _ in range(1000):
                await asyncio.sleep(0)
            n_asked = asked.n
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: member.n_open == 5)
        await member.end()
        return n_asked

    class Asked:
        def __init__(self, acceptor: Acceptor) -> None:
            self.n = 0
            self._take = acceptor._take
            acceptor._take = self

        def __call__(self, listener: socket.socket) -> bool:
            self.n += 1
            return self._take(listener)

    assert runner.run(check()) < 10
    assert [record.message.split(":")[0] for record in caplog.records] == ["connections have to wait"]
