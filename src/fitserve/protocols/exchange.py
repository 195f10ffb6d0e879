"""One HTTP request and its reply, whichever door it came through."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fitserve.errors import BodyTooLargeError
from fitserve.protocols.paths import DEFAULT_MODEL, NO_PARAMETERS, ref_of

if TYPE_CHECKING:
    from fitserve.types import ModelRef

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

EXCHANGE_KEY = "fitserve.exchange"
"""Where the scope of a request carries its exchange through the router."""

NO_VERSION = "none"
"""What ``X-Model-Version`` says while no model is loaded."""

OTHER_ROUTE = "other"
"""What the metrics say of paths that are none of ours: there is no end of them."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_ids = itertools.count(1)
_id_prefix = os.urandom(6).hex()


def _renew_id_prefix() -> None:
    global _id_prefix  # noqa: PLW0603 - one a process
    _id_prefix = os.urandom(6).hex()


os.register_at_fork(after_in_child=_renew_id_prefix)


class ClientGoneError(Exception):
    """The client closed the connection before it had sent its request: there is nobody to answer."""


class Reply(NamedTuple):
    """A whole HTTP reply, but for the headers that every reply has."""

    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Exchange:
    """What is known of one request while it is answered, however its bytes come and go.

    Attributes:
        method: of the request.
        path: of the request, decoded.
        headers: of the request, names in lower case; the last of those that came twice.
        route: the path of the route of ours that it asks, with the names of its parameters, or :data:`OTHER_ROUTE`.
        ref: the model and version that its path names.
        model_version: the version that answers: the one that served when the request came, until a
            lease says which it is. It is written into the header and the access line.
        model_name: the same of its name.
        problem: the last part of the type of the problem that the reply is; None if it is none.
        status: of the reply, 0 until it is sent.
        took_ms: milliseconds from the request to its reply.
    """

    __slots__ = (
        "headers", "method", "model_name", "model_version", "path", "problem", "ref", "request_id", "route",
        "started_s", "status", "took_ms",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, headers: Mapping[bytes, bytes], route: str, ref: ModelRef = DEFAULT_MODEL
    ) -> None:
        self.started_s = time.perf_counter()
        self.method = method
        self.path = path
        self.headers = headers
        self.route = route
        self.ref = ref
        self.model_name = ""
        self.model_version = NO_VERSION
        self.problem: str | None = None
        self.status = 0
        self.took_ms = 0.0
        given = headers.get(b"x-request-id")
        self.request_id = given.decode() if given and _REQUEST_ID.fullmatch(given) else f"{_id_prefix}-{next(_ids):x}"

    @property
    def is_started(self) -> bool:
        """Whether the reply's status has been sent."""
        return self.status != 0

    def end(self, status: int) -> None:
        """Note that the reply is sent now, with its status; 0 if the client has gone."""
        self.status = status
        self.took_ms = (time.perf_counter() - self.started_s) * 1000

    def header(self, name: bytes) -> bytes | None:
        """The value of a request header, its name in lower case; the last if it came twice."""
        return self.headers.get(name)


class AsgiExchange(Exchange):
    """One that came through ASGI.

    Attributes:
        parameters: of its path, by name; ``ref`` is made of them.
    """

    __slots__ = ("_send", "parameters", "receive", "scope")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, route: str, parameters: Mapping[str, str] = NO_PARAMETERS
    ) -> None:
        super().__init__(scope["method"], scope["path"], dict(scope["headers"]), route)
        self.take(parameters)
        self.scope = scope
        self.receive = receive
        self._send = send

    def take(self, parameters: Mapping[str, str]) -> None:
        """Note the parameters of the path."""
        self.parameters = parameters
        self.ref = ref_of(parameters)

    async def read_body(self, limit_bytes: int) -> bytes:
        """Read the whole body.

        Raises:
            BodyTooLargeError: it announced or had more than ``limit_bytes``; the rest is not read.
            ClientGoneError: the client left before its end.
        """
        announced = self.headers.get(b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def send(self, message: Message) -> None:
        """Pass an ASGI message on, giving the reply the headers that all have."""
        if message["type"] == "http.response.start":
            self.end(message["status"])
            message["headers"] = [*message.get("headers", ()), *self._common_headers()]
        await self._send(message)

    async def reply(self, reply: Reply, send: Send | None = None) -> None:
        """Send a whole reply, through ``send`` where the application has wrapped :meth:`send`."""
        body, status, media_type, more = reply
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *more]
        if send is None:  # the headers are put to them here rather than in two more calls
            self.end(status)
            headers += self._common_headers()
            send = self._send
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _common_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b"x-process-time", b"%.3f" % self.took_ms),
            (b"x-model-version", self.model_version.encode("latin-1")),
            (b"x-request-id", self.request_id.encode("latin-1")),
        )
