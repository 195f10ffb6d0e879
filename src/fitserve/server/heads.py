"""The heads of requests that may be answered at once, each parsed once.

A client that keeps a connection sends the same head with every request. What the parser makes of the same bytes is
the same, so it is kept by them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

import httptools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fitserve.protocols.base import Inference
    from fitserve.types import ModelRef

Hot: TypeAlias = "tuple[str, Inference, ModelRef]"
"""The path of a route, who answers it, and the model that the request's own path names."""

MAX_HEADS = 1024
MAX_HEAD_BYTES = 2048
"""A longer head goes the longer way, and so do bodies of more than one read."""

MAX_HEADERS = 40
"""A head with more goes the longer way: of 2 KiB of the shortest ones, a dictionary takes 30 KiB."""

_DIGITS = re.compile(rb"[0-9]{1,10}")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/_.~+@-]*")
"""What a path may be, once decoded: names of models, versions and aliases have no other characters."""

_COLD = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"origin", b"trailer"})
"""Headers that ask for more than a reply to a whole body: such a request goes the longer way."""


class Head:
    """The head of a request for a hot route.

    Attributes:
        method: of the request.
        path: of the request.
        headers: names in lower case.
        n_body: how many bytes of body follow.
        route: its path as the application has it.
        inference: who answers.
        ref: the model that it names.
        is_admitted: it has let a request with this head pass; it lets every other one, for it knows no more of them.
    """

    __slots__ = ("headers", "inference", "is_admitted", "method", "n_body", "path", "ref", "route")

    def __init__(self, method: str, path: str, headers: Mapping[bytes, bytes], n_body: int, hot: Hot) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.n_body = n_body
        self.route, self.inference, self.ref = hot
        self.is_admitted = False


class Heads:
    """Knows heads by their bytes. Used from one event loop.

    Attributes:
        known: by their bytes, with the empty line that ends them; None where one goes the longer way.

    Args:
        find_hot: tells of a method and a path whose route they are, if it is one of those answered at once.
        max_body_bytes: a request that announces more goes the longer way, to be refused.
    """

    def __init__(self, find_hot: Callable[[tuple[str, str]], Hot | None], max_body_bytes: int) -> None:
        self._find_hot = find_hot
        self._max_body_bytes = max_body_bytes
        self.known: dict[bytes, Head | None] = {}

    def find(self, head: bytes) -> Head | None:
        """Return what is known of a head, with the empty line that ends it; None if it goes the longer way."""
        try:
            return self.known[head]
        except KeyError:
            if len(head) > MAX_HEAD_BYTES:
                return None
        if len(self.known) >= MAX_HEADS:
            self.known.clear()
        found = self.known[head] = self._parse(head)
        return found

    def _parse(self, head: bytes) -> Head | None:
        listener = _Listener()
        parser = httptools.HttpRequestParser(listener)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        if not listener.is_whole or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        headers, url = listener.headers, listener.url
        length = headers.get(b"content-length")
        path = unquote(url.decode("latin-1"))  # as uvicorn does, which tells the longer way of it
        if length is None or not _DIGITS.fullmatch(length) or not _PLAIN_PATH.fullmatch(path) or _COLD & headers.keys():
            return None
        method = parser.get_method().decode()
        hot = self._find_hot((method, path))
        if hot is None or int(length) > self._max_body_bytes or len(headers) > MAX_HEADERS:
            return None
        return Head(method, path, headers, int(length), hot)


class _Listener:
    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.is_whole = True
