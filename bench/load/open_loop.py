"""An open loop: requests leave at a constant rate, whether or not the ones before have been answered.

wrk waits for an answer before it asks again, so a server that stalls is asked less while it stalls, and
most of the delay is never measured (coordinated omission). Here each latency counts from the moment at
which the request was due. Where no connection is free then, the request waits for one, and that counts.
"""

import contextlib
import gc
import re
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from bench.load.servers import BenchError

N_CONNECTIONS = 128
PATIENCE_S = 30.0
"""How long the last answers may take."""

CLOSE_S = 0.002
"""A request this near is waited for awake: epoll sleeps for whole milliseconds."""

CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass(frozen=True)
class Latencies:
    """What one run measured, in milliseconds from the moment a request was due: to its answer, to its leaving.

    Much of ``late_ms`` says that something else ran on the core of the load, or that all connections waited.
    """

    name: str
    per_s: float
    answered_ms: list[float]
    late_ms: list[float]

    def percentile(self, share: float) -> float:
        """The latency that ``share`` of the requests kept; 0.5 is the median."""
        return _percentile(self.answered_ms, share)

    def row(self) -> list[str]:
        shares = (f"{self.percentile(share):,.2f}" for share in (0.5, 0.99, 0.999))
        late = f"{_percentile(self.late_ms, 0.99):,.2f}"
        return [self.name, f"{self.per_s:,.0f}", *shares, f"{max(self.answered_ms):,.1f}", late]


HEADER = ["", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "sent late, p99 ms"]


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Reply:
    """The bytes of one reply so far."""

    received: bytearray = field(default_factory=bytearray)

    def is_complete(self, data: bytes) -> bool:
        """Take more bytes; tell whether they were the last ones, and forget them all if so.

        Raises:
            BenchError: the reply is not a 200, or does not say how long it is.
        """
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = CONTENT_LENGTH.search(self.received, 0, end + 2)
        if not self.received.startswith(b"HTTP/1.1 200 ") or length is None:
            raise BenchError(f"wanted a 200 of known length, came {bytes(self.received[:200])!r}")
        if len(self.received) < end + 4 + int(length[1]):
            return False
        self.received.clear()
        return True


@dataclass(slots=True)
class Connection:
    socket: socket.socket
    due_s: float = 0.0
    reply: Reply = field(default_factory=Reply)


def post(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def run(name: str, port: int, requests: list[bytes], per_s: float, seconds: float) -> Latencies:
    """Send ``requests`` in turn, ``per_s`` of them a second, and wait for all answers.

    Called from a thread that is pinned to a core of its own: it hardly sleeps.

    Raises:
        BenchError: a connection ended, a reply was not a 200, or the last answers did not come in time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with contextlib.ExitStack() as stack:
            loop = _Loop(name, requests, per_s, max(1, int(per_s * seconds)))
            stack.enter_context(loop.poll)
            for _ in range(N_CONNECTIONS):
                loop.add(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
            loop.run()
            return Latencies(name, per_s, loop.answered_ms, loop.late_ms)
    except OSError as exc:
        raise BenchError(f"{name}: a connection ended: {exc}") from exc
    finally:
        if was_collecting:
            gc.enable()


class _Loop:
    """One run over connections that are open; ``clock`` is monotonic, in seconds."""

    def __init__(self, name: str, requests: list[bytes], per_s: float, n_requests: int) -> None:
        self.name = name
        self.requests = requests
        self.per_s = per_s
        self.n_requests = n_requests
        self.n_sent = 0
        self.poll = select.epoll()
        self.free: deque[Connection] = deque()
        self.by_number: dict[int, Connection] = {}
        self.answered_ms: list[float] = []
        self.late_ms: list[float] = []
        self.clock = time.perf_counter

    def add(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self.poll.register(connected, select.EPOLLIN)
        connection = Connection(connected)
        self.by_number[connected.fileno()] = connection
        self.free.append(connection)

    def run(self) -> None:
        started_s = self.clock() + 0.01
        deadline_s = started_s + self.n_requests / self.per_s + PATIENCE_S
        while len(self.answered_ms) < self.n_requests:
            due_s = started_s + self.n_sent / self.per_s
            now_s = self.clock()
            may_send = self.n_sent < self.n_requests and bool(self.free)
            if may_send and due_s <= now_s:
                self._send(due_s)
            wait_s = due_s - now_s - CLOSE_S if may_send else PATIENCE_S
            for number, _ in self.poll.poll(max(0.0, wait_s)):
                self._receive(self.by_number[number])
            if now_s > deadline_s:
                raise BenchError(f"{self.name}: {self.n_requests - len(self.answered_ms)} requests were not answered")

    def _send(self, due_s: float) -> None:
        connection = self.free.popleft()
        connection.due_s = due_s
        request = self.requests[self.n_sent % len(self.requests)]
        if connection.socket.send(request) != len(request):
            raise BenchError(f"{self.name}: a request does not fit into the buffer of its socket")
        self.late_ms.append((self.clock() - due_s) * 1000)
        self.n_sent += 1

    def _receive(self, connection: Connection) -> None:
        data = connection.socket.recv(65536)
        if not data:
            raise BenchError(f"{self.name} closed a connection")
        if connection.reply.is_complete(data):
            self.answered_ms.append((self.clock() - connection.due_s) * 1000)
            self.free.append(connection)
