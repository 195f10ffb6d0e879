"""Load at a constant rate from kept and fresh connections, in a thread of its own, with a record of each request.

An open loop: a request is due at its time whether or not those before have been answered, and its latency
counts from then. Nothing is sent again: whatever goes wrong with a connection that has not been told to close
is a lost request. Source of the rule: RFC 9112, section 9.3.1 - a client that repeats a POST by itself is wrong.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_S = 60.0
"""How long the last answers may take."""

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
VERSION = re.compile(rb"\r\nx-model-version: *([^\r]*)")


@dataclass(slots=True)
class Record:
    """One request. Times are monotonic seconds.

    Attributes:
        due_s: when it should have left.
        sent_s: before its first byte left; 0 if none did.
        ended_s: after its last byte came, or when it failed.
        port: of the client's end: tells which process had the other end.
        is_fresh: it had a connection of its own.
        status: of the reply; 0 if there was none.
        failure: what became of it instead of a reply; empty if it was answered.
        value: what the model said, if that was a number.
        version: which version the body names.
        labelled: which version the header names.
    """

    due_s: float
    is_fresh: bool = False
    sent_s: float = 0.0
    ended_s: float = 0.0
    port: int = 0
    status: int = 0
    failure: str = ""
    value: float | None = None
    version: str = ""
    labelled: str = ""

    @property
    def has_failed(self) -> bool:
        return self.status != 200

    @property
    def why(self) -> str:
        return self.failure or f"status {self.status}"

    @property
    def latency_ms(self) -> float:
        return (self.ended_s - self.due_s) * 1000


@dataclass(frozen=True)
class Shape:
    """What is asked, how often and over which connections.

    Attributes:
        per_s: requests a second; 0 asks as fast as the kept connections answer.
        bodies: sent in turn.
        path: where to.
        n_kept: connections that are kept; a request that finds all busy waits.
        fresh: the share of requests that have a connection of their own; half of them ask for it to be closed.
    """

    per_s: float
    bodies: Sequence[bytes] = (b'{"features": [0, 0, 0, 0]}',)
    path: str = "/predict"
    n_kept: int = 16
    fresh: float = 0.25


class Load:
    """Asks for as long as the context lasts; then waits for what is in flight.

    The records may be read from any thread, those that have ended only.
    """

    def __init__(self, port: int, shape: Shape) -> None:
        self.port = port
        self.shape = shape
        self.records: list[Record] = []
        self._asking = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)  # a test that fails does not hang

    def __enter__(self):
        self._asking.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[Record]:
        self._asking.clear()
        self._thread.join()
        return self.records

    def wait_for(self, n: int, within_s: float = 60.0) -> None:
        """Wait until ``n`` more requests have ended."""
        wanted = len(self.records) + n
        deadline_s = time.monotonic() + within_s
        while len(self.records) < wanted:
            if time.monotonic() > deadline_s or not self._thread.is_alive():
                raise TimeoutError(f"wanted {n} more replies within {within_s} s, {wanted - len(self.records)} lack")
            time.sleep(0.005)

    def _ask(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        loop = _Loop(self.port, self.shape, self.records)
        if self.shape.per_s:
            await loop.ask(self._asking.is_set)
        else:
            await loop.ask_at_once(self._asking.is_set)
        await loop.end()


class _Loop:
    """The connections of one load, on its event loop."""

    def __init__(self, port: int, shape: Shape, records: list[Record]) -> None:
        self.port = port
        self.shape = shape
        self.records = records
        self.requests = [_post(shape.path, body, b"") for body in shape.bodies]
        self.last_requests = [_post(shape.path, body, b"Connection: close\r\n") for body in shape.bodies]
        self.n_begun = 0
        self.n_fresh = 0
        self.n_kept = 0
        self.free: deque[_Connection] = deque()
        self.waiting: deque[Record] = deque()
        self.flying: dict[int, tuple[Record, _Connection | None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def ask(self, is_asking) -> None:
        started_s = time.monotonic()
        while is_asking():
            due_s = started_s + self.n_begun / self.shape.per_s
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, 0.05))
            else:
                self._begin(Record(due_s))
                if self.n_begun % 8 == 0:
                    await asyncio.sleep(0)  # late: answers that have come are read all the same

    async def ask_at_once(self, is_asking) -> None:
        while is_asking():
            while not self.waiting and len(self.flying) < self.shape.n_kept:
                self._begin(Record(time.monotonic()))
            await asyncio.sleep(0.0005)

    def _begin(self, record: Record) -> None:
        self.n_begun += 1
        self.flying[id(record)] = (record, None)
        if self.n_fresh < self.n_begun * self.shape.fresh:
            self.n_fresh += 1
            record.is_fresh = True
            self._connect(record)
        elif self.n_kept < self.shape.n_kept:
            self.n_kept += 1
            self._connect(record)
        elif self.free:
            self.send(self.free.popleft(), record)
        else:
            self.waiting.append(record)

    def _connect(self, record: Record) -> None:
        task = asyncio.get_running_loop().create_task(self._connected(record))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connected(self, record: Record) -> None:
        connection = _Connection(self, is_kept=not record.is_fresh)
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.port)
        except OSError as exc:
            is_refused = isinstance(exc, ConnectionRefusedError)
            self.finish(record, "refused" if is_refused else f"not connected: {type(exc).__name__}")
            if not record.is_fresh:
                self.forget(connection)
            return
        self.send(connection, record)

    def send(self, connection: _Connection, record: Record) -> None:
        self.flying[id(record)] = (record, connection)
        is_last = record.is_fresh and self.n_fresh % 2 == 0
        requests = self.last_requests if is_last else self.requests
        connection.record = record
        record.port = connection.port
        record.sent_s = time.monotonic()
        connection.transport.write(requests[self.n_begun % len(requests)])

    def finish(self, record: Record, failure: str = "") -> None:
        record.ended_s = time.monotonic()
        record.failure = failure or record.failure
        if self.flying.pop(id(record), None) is not None:
            self.records.append(record)

    def release(self, connection: _Connection) -> None:
        """A kept connection is free again."""
        if self.waiting:
            self.send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)

    def forget(self, connection: _Connection) -> None:
        """A kept connection has gone; who waits for one makes another."""
        self.n_kept -= 1
        if connection in self.free:
            self.free.remove(connection)
        if self.waiting:
            self.n_kept += 1
            self._connect(self.waiting.popleft())

    async def end(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.flying and time.monotonic() < deadline_s:  # noqa: ASYNC110 - anything may empty it
            await asyncio.sleep(0.01)
        for record, connection in list(self.flying.values()):
            self.finish(record, "unanswered")
            if connection is not None:
                connection.transport.abort()
        for connection in list(self.free):
            connection.close()
        await asyncio.sleep(0.05)


class _Connection(asyncio.Protocol):
    def __init__(self, loop: _Loop, *, is_kept: bool) -> None:
        self.loop = loop
        self.is_kept = is_kept
        self.is_closing = False
        self.record: Record | None = None
        self.reply = Reply()
        self.port = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        record = self.record
        if record is None or not self.reply.is_complete(data, record):
            return
        self.record = None
        self.loop.finish(record)
        if not self.is_kept or self.reply.says_close:
            self.close()
        else:
            self.loop.release(self)
        self.reply.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        record, self.record = self.record, None
        if record is not None:
            how = "closed" if exc is None else type(exc).__name__
            when = "within its reply" if self.reply.received else "before its reply"
            self.loop.finish(record, f"{how} {when}")
        if self.is_kept and not self.is_closing:
            self.loop.forget(self)

    def close(self) -> None:
        self.is_closing = True
        if self.is_kept:
            self.loop.forget(self)
        self.transport.close()


@dataclass
class Reply:
    """The bytes of one reply so far."""

    received: bytearray = field(default_factory=bytearray)
    says_close: bool = False

    def is_complete(self, data: bytes, record: Record) -> bool:
        """Take more bytes; if they were the last ones, write down in the record what the reply says."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.received[: end + 2]).lower()
        length = CONTENT_LENGTH.search(head)
        n_bytes = int(length[1]) if length else 0
        if len(self.received) < end + 4 + n_bytes:
            return False
        record.status = int(head[9:12])
        self.says_close = b"\r\nconnection: close\r\n" in head
        label = VERSION.search(head)
        record.labelled = label[1].decode() if label else ""
        _read(bytes(self.received[end + 4 : end + 4 + n_bytes]), record)
        return True

    def clear(self) -> None:
        self.received.clear()
        self.says_close = False


def _read(body: bytes, record: Record) -> None:
    try:
        said = json.loads(body)
        record.version = str(said.get("model_version", ""))
        value = said.get("prediction")
        record.value = float(value) if isinstance(value, int | float) else None
    except (ValueError, AttributeError):
        record.status, record.failure = 0, "no JSON"


def _post(path: str, body: bytes, more: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + more + b"\r\n" + body


def capacity_per_s(port: int, shape: Shape, seconds: float) -> float:
    """How many requests a second this load and the server manage on this machine, over kept connections alone."""
    asked = Shape(0, shape.bodies, shape.path, shape.n_kept, fresh=0.0)
    with Load(port, asked) as load:
        load.wait_for(100)
        before, began_s = len(load.records), time.monotonic()
        time.sleep(seconds)
        return (len(load.records) - before) / (time.monotonic() - began_s)
