"""HTTP in bytes: requests, replies taken apart, a connection that is a socket, and one that is none."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import Sequence
from typing import NamedTuple, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fitserve.server.protocol import HttpProtocol

WAYS = {"uvicorn": HttpToolsProtocol, "fitserve": HttpProtocol}
"""The classes that must give the same bytes: uvicorn's own, where all goes through ASGI, and ours."""

ROW = b'{"features":[5.1,3.5,1.4,0.2]}'
ROWS = b'{"instances":[[5.1,3.5,1.4,0.2],[6.7,3.0,5.2,2.3]]}'

TIMEOUT_S = 10.0
QUIET_TURNS = 12
"""Turns of an event loop without a byte after which no more will come: an inline answer by ASGI takes six."""


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """A request of exactly these lines."""
    return b"\r\n".join([line, b"Host: localhost", *headers]) + b"\r\n\r\n" + body


def post(body: bytes = ROW, *headers: bytes, path: bytes = b"/predict", version: bytes = b"HTTP/1.1") -> bytes:
    """A POST of JSON with its length."""
    length = b"Content-Length: %d" % len(body)
    return request(b"POST %b %b" % (path, version), b"Content-Type: application/json", length, *headers, body=body)


def batch(body: bytes = ROWS, *headers: bytes) -> bytes:
    return post(body, *headers, path=b"/predict/batch")


def chunked(*parts: bytes, headers: Sequence[bytes] = (), coding: bytes = b"chunked", end: bytes = b"") -> bytes:
    """A POST of JSON in chunks as they are given, each with its size line, and trailers in ``end``."""
    body = b"".join(parts) + b"0\r\n" + end + b"\r\n"
    json = b"Content-Type: application/json"
    return request(b"POST /predict HTTP/1.1", json, b"Transfer-Encoding: " + coding, *headers, body=body)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def get(path: bytes = b"/started", *headers: bytes, method: bytes = b"GET") -> bytes:
    return request(b"%b %b HTTP/1.1" % (method, path), *headers)


# ── replies ─────────────────────────────────────────────────────────────────────────


class Reply(NamedTuple):
    """One reply in the bytes that came, but for what differs between any two."""

    status: int
    head: bytes
    body: bytes


def take_reply(data: bytes, *, has_body: bool = True) -> tuple[Reply, bytes] | None:
    """The first reply and what is behind it; None while it is not whole."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*(?:\r\n[!-9;-~]+: [^\r\n]*)*", head)
    assert match, head
    status, length = int(match[1]), 0
    if status != 100 and has_body:
        found = re.search(rb"\r\ncontent-length: (\d+)", head)
        assert found, head
        length = int(found[1])
    if len(rest) < length:
        return None
    return Reply(status, _masked_head(head), masked(rest[:length])), rest[length:]


def take_replies(data: bytes, bodyless: Sequence[int] = ()) -> tuple[list[Reply], bytes]:
    """All whole replies, and what is left. ``bodyless`` are the places of replies to HEAD."""
    replies: list[Reply] = []
    while taken := take_reply(data, has_body=len(replies) not in bodyless):
        replies.append(taken[0])
        data = taken[1]
    return replies, data


def _masked_head(head: bytes) -> bytes:
    head = re.sub(rb"(?m)^(date|x-process-time|content-length): [^\r]+", rb"\1: *", head)
    return _GENERATED_ID.sub(b"<id>", head)


_GENERATED_ID = re.compile(rb"\b[0-9a-f]{12}-[0-9a-f]+\b")
_TIMES = re.compile(rb'"(latency_ms|timestamp|uptime_seconds|duration_ms|time)":("[^"]*"|[0-9.e+-]+)')


def masked(body: bytes) -> bytes:
    """A body or a log line without its times and without an id that the server made."""
    return _TIMES.sub(rb'"\1":*', _GENERATED_ID.sub(b"<id>", body))


class Answered(NamedTuple):
    """What a connection gave: its replies, bytes that are none, and whether it was closed."""

    replies: list[Reply]
    rest: bytes
    is_closed: bool

    @property
    def statuses(self) -> tuple[int, ...]:
        return tuple(reply.status for reply in self.replies)


# ── a connection without a socket ───────────────────────────────────────────────────


class FakeTransport(asyncio.Transport):
    """Records what is written. Its peer reads all at once, until ``is_stalled``."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.written = bytearray()
        self.n_unread = 0
        self.high_water_bytes = 65536
        self.is_reading_paused = False
        self.is_stalled = False
        self._is_closing = False
        self.protocol: asyncio.Protocol

    def set_protocol(self, protocol):
        self.protocol = protocol

    def write(self, data):
        if self._is_closing:
            return  # as real ones do
        self.written += data
        if self.is_stalled:
            self.n_unread += len(data)
            if self.n_unread > self.high_water_bytes:
                self.protocol.pause_writing()

    def read_all(self) -> None:
        """Let the peer read what it has not."""
        self.is_stalled, self.n_unread = False, 0
        self.protocol.resume_writing()

    def is_closing(self):
        return self._is_closing

    def close(self):
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self):
        self.is_reading_paused = True

    def resume_reading(self):
        self.is_reading_paused = False


async def until(condition) -> None:
    """Wait for a condition, a turn of the loop at a time, and then more slowly: threads want to run."""
    async with asyncio.timeout(TIMEOUT_S):
        for turn in itertools.count():
            if condition():
                return
            await asyncio.sleep(0 if turn < 100 else 0.001)


class Connection:
    """A protocol object of one of the two classes, fed by hand. Make it on a running event loop."""

    def __init__(
        self, way: str, app: object, loop: asyncio.AbstractEventLoop | None = None, root_path: str = ""
    ) -> None:
        config = uvicorn.Config(app, http=WAYS[way], ws="none", log_config=None, access_log=False, root_path=root_path)
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self.transport = FakeTransport()
        self.protocol = WAYS[way](config, self.state, {}, loop or asyncio.get_running_loop())
        self.transport.set_protocol(self.protocol)
        self.protocol.connection_made(self.transport)

    async def feed(self, *segments: bytes, turns: int = 1) -> None:
        """Deliver segments, some turns of the loop apart, each when the protocol reads."""
        for segment in segments:
            await until(lambda: not self.transport.is_reading_paused or self.transport.is_closing())
            if self.transport.is_closing():
                return
            self.protocol.data_received(segment)
            for _ in range(turns):
                await asyncio.sleep(0)

    async def quiet(self, n_replies: int = 0, bodyless: Sequence[int] = ()) -> Answered:
        """Wait for so many replies, and on until nothing more comes."""
        await until(lambda: self.transport.is_closing() or self.transport.written.count(b"HTTP/1.1 ") >= n_replies)
        n_written, n_quiet = -1, 0
        while n_quiet < QUIET_TURNS:
            n_quiet = n_quiet + 1 if n_written == len(self.transport.written) else 0
            n_written = len(self.transport.written)
            await asyncio.sleep(0)
        replies, rest = take_replies(bytes(self.transport.written), bodyless)
        return Answered(replies, rest, self.transport.is_closing())

    def lose(self) -> None:
        """Break the connection, now."""
        self.transport._is_closing = True
        self.protocol.connection_lost(ConnectionResetError())

    async def drop(self) -> None:
        """Let the peer be gone, and wait for the tasks that notice it."""
        if not self.transport.is_closing():
            self.transport.close()
        await until(lambda: self.protocol.parser is None and not self.state.tasks)


# ── a connection with one ───────────────────────────────────────────────────────────


class Client:
    """A socket, and what came of it that has not been taken."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_S)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, *, has_body: bool = True) -> Reply | None:
        """The next reply, None if the server closes before."""
        while not (taken := take_reply(self.data, has_body=has_body)):
            if not self._receive():
                return None
        self.data = taken[1]
        return taken[0]

    def is_closed(self) -> bool:
        """Read on to the end, and say whether the server closes before the timeout."""
        try:
            while self._receive():
                pass
        except TimeoutError:
            return False
        return True

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self.data += data
        return bool(data)
