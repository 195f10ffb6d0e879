"""Clients that ask without end and retry nothing, and count what they lose."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Self

from server.raw import get, post, take_reply

N_CLIENTS = 4
TIMEOUT_S = 60.0


class Load:
    """Clients in a thread: some keep their connections, some open one for each request; enter it to start them.

    A client that is told ``Connection: close`` goes on with another connection. Whatever else ends a connection, or
    comes instead of a reply with status 200, is lost.

    Attributes:
        lost: what became of each request that was not answered.
        n_answered: requests that were.
        n_told: replies on kept connections that said they were the last.
        ends_with_refusal: the server is about to stop: a client whose connection is refused has come to its end.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.lost: list[str] = []
        self.n_answered = 0
        self.n_told = 0
        self.ends_with_refusal = False
        self._address = address
        self._is_stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let each client end with its next reply."""
        self._is_stopping = True
        self.await_end()

    def await_end(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def await_more(self, n: int) -> None:
        """Wait until so many more requests have been answered."""
        goal, until_s = self.n_answered + n, time.monotonic() + TIMEOUT_S
        while self.n_answered < goal:
            assert time.monotonic() < until_s, self.lost
            assert self._thread.is_alive(), self.lost
            time.sleep(0.005)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(keeps=i % 2 == 0) for i in range(N_CLIENTS)))

    async def _client(self, *, keeps: bool) -> None:
        requests = itertools.cycle([post(), get(), post()])
        while not self._is_stopping:
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except ConnectionRefusedError:
                if not self.ends_with_refusal:
                    self.lost.append("refused")
                return
            try:
                while await self._is_answered(reader, writer, next(requests)) and keeps and not self._is_stopping:
                    await asyncio.sleep(0.001)
            finally:
                writer.close()

    async def _is_answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
        """Ask once; whether another request may follow."""
        data = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(request)
                while not (taken := take_reply(data)):
                    more = await reader.read(1 << 16)
                    if not more:
                        self.lost.append(f"closed after {data!r}")
                        return False
                    data += more
        except (OSError, TimeoutError) as exc:
            self.lost.append(repr(exc))
            return False
        reply, _ = taken
        if reply.status != 200:
            self.lost.append(repr(reply))
        self.n_answered += 1
        is_last = b"\r\nconnection: close" in reply.head
        self.n_told += is_last
        return not is_last
