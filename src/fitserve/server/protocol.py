"""Our HTTP protocol class for uvicorn: uvicorn's own, and in front of it a short way for the requests that are many.

A request for an inference route that arrives whole, on a connection where nothing else is under way, is answered
without a task and without an ASGI cycle. All else, and whatever is odd about a request, goes to uvicorn's class,
as if this one were not there. Both ways give the same bytes: tests/server compares them.
"""

from __future__ import annotations

import select
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fitserve.errors import ModelNotReadyError, VersionNotLoadedError
from fitserve.protocols.base import caught
from fitserve.protocols.exchange import Exchange
from fitserve.protocols.paths import DEFAULT_MODEL
from fitserve.protocols.problems import STOPPING, problem
from fitserve.server.accept import ServingState

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from fitserve.engine.job import Job
    from fitserve.protocols.exchange import Reply
    from fitserve.server.heads import Head
    from fitserve.server.short_way import ShortWay

_END: Final = b"\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"

MOST_HELD_BYTES: Final = 65536
"""So much may wait behind a request that is being answered before the connection is read no further."""


TIMER_S: Final = 0.002
"""What a timer of an event loop may be early: they count milliseconds."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._short: ShortWay | None = None
        if config.limit_concurrency is None and not config.root_path:
            # Only uvicorn's own wrapper may be passed by: what it finds out, no hot route asks.
            app = config.loaded_app
            self._short = getattr(app.app if isinstance(app, ProxyHeadersMiddleware) else app, "short_way", None)
        self._is_within_message = False  # the parser has seen a part of one
        self._exchange: Exchange | None = None  # under way on the short way
        self._job: Job | None = None
        self._held = bytearray()  # what came behind it
        self._is_ending = False  # no more requests will come than have
        self._closes = False  # the next reply behind which nothing is held is the last
        self._last_cycle: RequestResponseCycle | None = None  # the one on the longer way that was made the last
        self._idle_since_s = 0.0
        self._common_of: Any = None
        self._common = b""  # the headers that uvicorn gives to every reply

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        if isinstance(self.server_state, ServingState) and self.server_state.is_ending:
            self.end_soon()

    # ── what comes ──────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Answer a whole request that may go the short way, and leave the rest to uvicorn."""
        if self._exchange is not None or self._held:
            self._hold(data)
            return
        short = self._short
        if short is not None and not self._is_within_message and self._is_free():
            end = data.find(_END) + 4
            if end > 3:  # noqa: PLR2004 - it was found
                name = data[:end]
                head = short.known_heads.get(name) or short.heads.find(name)
                if head is not None and len(data) - end >= head.n_body:
                    ends = end + head.n_body
                    if len(data) > ends:
                        self._hold(data[ends:])
                    if self._begin(short, head, data[end:ends]):
                        return
                    self._held.clear()
                    self.flow.resume_reading()
        super().data_received(data)

    def _is_free(self) -> bool:
        """Whether nothing else is under way on this connection."""
        cycle: RequestResponseCycle | None = self.cycle
        is_answered = cycle is None or cycle.response_complete
        return is_answered and not self.flow.write_paused and not self.transport.is_closing()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MOST_HELD_BYTES:
            self.flow.pause_reading()

    def on_message_begin(self) -> None:
        """Note that the parser is within a message."""
        self._is_within_message = True
        self._idle_since_s = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let this request on the longer way be the last, if its connection is to end soon."""
        before = self.cycle
        super().on_headers_complete()
        if self._closes and self.cycle is not before:
            last = self._last_cycle
            if last is not None and last is before and not last.response_started:
                last.keep_alive = True  # it has been followed
            self._end_after(self.cycle)

    def on_message_complete(self) -> None:
        """Note that the parser is between messages."""
        self._is_within_message = False
        super().on_message_complete()

    # ── the short way ───────────────────────────────────────────────────────────────

    def _begin(self, short: ShortWay, head: Head, body: bytes) -> bool:
        """Answer a request, now or later; False if it has to wait for its version to be loaded, the longer way."""
        ref = head.ref
        self._exchange = exchange = Exchange(head.method, head.path, head.headers, head.route, ref)
        current = short.catalog.current if ref is DEFAULT_MODEL else None
        if current is not None:
            exchange.model_name, exchange.model_version = current.name, current.version
        short.metrics.in_flight(1)
        try:
            if not head.is_admitted:
                head.inference.admit(exchange)
                head.is_admitted = True
            job = head.inference.begin(exchange, body, self._reply)
        except VersionNotLoadedError:
            short.metrics.in_flight(-1)
            self._exchange = None
            return False
        except BaseException as exc:
            if not caught(exc):
                raise
            self._reply(problem(exc, exchange, is_debug=short.is_debug))
            return True
        if self._exchange is exchange:  # it was not answered at once
            self._job = job
        return True

    def _reply(self, reply: Reply) -> None:
        """Write the reply, and go on with what came meanwhile."""
        exchange, self._exchange, self._job = self._exchange, None, None
        assert exchange is not None and self._short is not None  # noqa: PT018 - one is under way
        try:
            exchange.end(reply.status)
            self.transport.write(self._bytes_of(exchange, reply))
            self.server_state.total_requests += 1
            self._short.observe(exchange)
        except BaseException:  # a bug of ours: the client must not wait for ever
            self.transport.close()
            raise
        if self._held:
            self.loop.call_soon(self._go_on)
        elif self._closes:
            self.transport.close()
        else:
            self.flow.resume_reading()
            self._note_idle()

    def _bytes_of(self, exchange: Exchange, reply: Reply) -> bytes:
        """The whole reply as uvicorn writes it."""
        body, status, media_type, more = reply
        common = self.server_state.default_headers
        if common is not self._common_of:  # a new list each second
            self._common_of, self._common = common, b"".join(b"%b: %b\r\n" % pair for pair in common)
        return (
            b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b"
            b"x-process-time: %.3f\r\nx-model-version: %b\r\nx-request-id: %b\r\n%b\r\n%b"
        ) % (
            _OK if status == 200 else _status_line(status),  # noqa: PLR2004
            self._common,
            media_type,
            len(body),
            b"".join([b"%b: %b\r\n" % pair for pair in more]) if more else b"",
            exchange.took_ms,
            exchange.model_version.encode("latin-1"),
            exchange.request_id.encode("latin-1"),
            b"connection: close\r\n" if self._closes and not self._held else b"",
            body,
        )

    def _go_on(self) -> None:
        """Take up what was held. Not within :meth:`_reply`: a client may send a thousand requests at once."""
        if self.transport.is_closing():
            return
        data = bytes(self._held)
        self._held.clear()
        if len(data) <= MOST_HELD_BYTES:
            self.flow.resume_reading()
        self.data_received(data)
        if self._exchange is None and not self._held:
            if self._is_free():  # no more than begun
                self.flow.resume_reading()
            if self._is_ending:
                super().shutdown()

    # ── the ends of a connection ────────────────────────────────────────────────────

    def _note_idle(self) -> None:
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Note that the longer way has answered."""
        self._idle_since_s = self.loop.time()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing came for ``timeout_keep_alive``: one timer for many requests."""
        self.timeout_keep_alive_task = None
        if self._exchange is not None or self._held:
            return  # the reply will note the next idle time
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > TIMER_S:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's, of which uvicorn's uses the half
        """Answer a client that sends no more all that it has asked, then close."""
        if self._exchange is not None or self._held:
            self._is_ending = self._closes = True
        elif self._is_free() or self._is_within_message:
            return False  # closes the connection
        else:
            super().shutdown()
        return True

    def end_soon(self) -> None:
        """Let the next reply say that it is the last, and close the connection after it."""
        self._closes = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_started:
            self._end_after(cycle)

    def _end_after(self, cycle: RequestResponseCycle) -> None:
        if cycle.keep_alive:
            cycle.keep_alive = False
            self._last_cycle = cycle

    def close_if_idle_since(self, before_s: float) -> None:
        """Close the connection if no request has been under way since a time of the loop's clock.

        Not if a request has come that the event loop has not read yet: closing would reset the connection.
        """
        cycle: RequestResponseCycle | None = self.cycle
        is_answered = cycle is None or cycle.response_complete
        if self._exchange is not None or self._held or not is_answered or self._idle_since_s > before_s:
            return
        transport = self.transport
        if transport.is_closing() or transport.get_write_buffer_size() or has_unread(transport):
            return
        transport.close()

    def shutdown(self) -> None:
        """End the connection, after the replies to what has come."""
        if self._exchange is not None or self._held:
            self._is_ending = self._closes = True
            # To be cancelled, as uvicorn cancels its tasks when the server waits no longer.
            self.server_state.tasks.add(self)  # type: ignore[arg-type]
        elif self._is_free() and has_unread(self.transport):
            self.end_soon()
        else:
            super().shutdown()

    def cancel(self, **_: object) -> None:
        """Answer that the server waits no longer."""
        self.loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        if self._exchange is None or self._short is None:
            return
        if self._job is not None:
            self._job.cancel()
        self._held.clear()
        stopping = ModelNotReadyError(STOPPING)
        self._reply(problem(stopping, self._exchange, is_debug=self._short.is_debug))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what nobody waits for any more."""
        if self._job is not None:
            self._job.cancel()
        if self._exchange is not None and self._short is not None:
            self._short.observe(self._exchange)
            self._exchange = self._job = None
        self._held.clear()
        self.server_state.tasks.discard(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if isinstance(self.server_state, ServingState):
            self.server_state.on_lost()


def has_unread(transport: asyncio.Transport) -> bool:
    """Whether bytes have come, or an end, that the event loop has not read yet."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
