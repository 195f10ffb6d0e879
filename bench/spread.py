"""How connections are spread over the processes that share a listening socket, and how long they wait to be taken.

``python -m bench.spread [--loop asyncio]``: four processes, each with an acceptor of fitserve's, with and without the
board by which it spreads. Nothing is computed: a process greets each connection with its number.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from fitserve.server.accept import Acceptor, ServingState
from fitserve.shared_state.board import Board
from fitserve.shared_state.slot import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_PROCESSES = 4
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
BEAT_S = 0.2


class Greeting(asyncio.Protocol):
    """Says which process has taken the connection."""

    def __init__(self, state: ServingState, name: bytes) -> None:
        self._state = state
        self._name = name

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._state.connections.add(self)  # type: ignore[arg-type]
        transport.write(self._name)

    def connection_lost(self, _: Exception | None) -> None:
        self._state.connections.discard(self)  # type: ignore[arg-type]
        self._state.on_lost()


async def _serve(listener: socket.socket, number: int, folder: Path | None) -> None:
    board = None if folder is None else Board.open(folder)
    slot = None if board is None else board.join()
    state = ServingState()
    Acceptor([listener], lambda: Greeting(state, b"%d" % number), state, board, slot)
    if slot is not None:
        slot.state = State.READY
    while True:
        if slot is not None:
            slot.beat()
        await asyncio.sleep(BEAT_S)


@contextmanager
def processes(loop: str, *, is_spread: bool) -> Iterator[tuple[tuple[str, int], list[int]]]:
    """Serving processes: the address, and their ids."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        pids = []
        for number in range(N_PROCESSES):
            pid = os.fork()
            if pid == 0:
                try:
                    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                        runner.run(_serve(listener, number, Path(folder) if is_spread else None))
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(0.4)
        try:
            yield listener.getsockname(), pids
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


Taken = list[tuple[str, float, socket.socket]]
"""Of each connection: who took it, after how many seconds, and its socket."""


def _greeted(connection: socket.socket, began_s: float) -> tuple[str, float, socket.socket]:
    who = connection.recv(1).decode()
    return who, time.perf_counter() - began_s, connection


def at_once(address: tuple[str, int], n: int) -> Taken:
    """Open so many before any is looked at."""

    async def one(loop: asyncio.AbstractEventLoop) -> tuple[str, float, socket.socket]:
        connection = socket.socket()
        connection.setblocking(False)
        began_s = time.perf_counter()
        await loop.sock_connect(connection, address)
        who = (await loop.sock_recv(connection, 1)).decode()
        return who, time.perf_counter() - began_s, connection

    async def all_of_them() -> Taken:
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*(one(loop) for _ in range(n))))

    return asyncio.run(all_of_them())


def one_by_one(address: tuple[str, int], n: int) -> Taken:
    """Open one, and the next a moment after it has been taken; all are kept."""
    taken = []
    for _ in range(n):
        began_s = time.perf_counter()
        taken.append(_greeted(socket.create_connection(address), began_s))
        time.sleep(0.005)
    return taken


def fresh(address: tuple[str, int], n: int) -> Taken:
    """Open one and close it, again and again; never two at a time."""
    taken = []
    for _ in range(n):
        began_s = time.perf_counter()
        with socket.create_connection(address) as connection:
            taken.append(_greeted(connection, began_s))
    return taken


def fresh_by_many(address: tuple[str, int], n: int) -> Taken:
    """The same from eight clients at the same time."""

    async def client(n_each: int) -> Taken:
        loop = asyncio.get_running_loop()
        taken = []
        for _ in range(n_each):
            with socket.socket() as connection:
                connection.setblocking(False)
                began_s = time.perf_counter()
                await loop.sock_connect(connection, address)
                who = (await loop.sock_recv(connection, 1)).decode()
                taken.append((who, time.perf_counter() - began_s, connection))
        return taken

    async def clients() -> Taken:
        return [one for some in await asyncio.gather(*(client(n // 8) for _ in range(8))) for one in some]

    return asyncio.run(clients())


WAYS: dict[str, tuple[Callable[[tuple[str, int], int], Taken], int]] = {
    "8 one by one": (one_by_one, 8),
    "32 one by one": (one_by_one, 32),
    "32 at once": (at_once, 32),
    "128 at once": (at_once, 128),
    "1000 fresh, one at a time": (fresh, 1000),
    "8000 fresh, by 8 clients": (fresh_by_many, 8000),
}


def _tell(name: str, taken: Taken, n_serving: int, took_s: float) -> None:
    most = max(Counter(who for who, _, _ in taken).values())
    waits_ms = sorted(1000 * wait_s for _, wait_s, _ in taken)
    fair = len(taken) / n_serving
    print(
        f"  {name:28} busiest {most / fair:4.2f} of a fair share; taken after {waits_ms[len(waits_ms) // 2]:6.2f} ms,"
        f" p99 {waits_ms[int(len(waits_ms) * 0.99)]:6.2f}, at most {waits_ms[-1]:6.2f}; {len(taken) / took_s:6.0f} /s"
    )
    for *_, connection in taken:
        connection.close()
    time.sleep(0.2)


def main() -> None:
    """Print one line for each way of opening connections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=list(LOOPS), default="uvloop")
    loop = parser.parse_args().loop
    for is_spread in (False, True):
        for is_one_stopped in (False, True):
            print(f"{'spread' if is_spread else 'not spread'}{', one process stopped' if is_one_stopped else ''}")
            for name, (way, n) in WAYS.items():
                with processes(loop, is_spread=is_spread) as (address, pids):
                    if is_one_stopped:
                        os.kill(pids[0], signal.SIGSTOP)
                    began_s = time.perf_counter()
                    taken = way(address, n)
                    _tell(name, taken, N_PROCESSES - is_one_stopped, time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
