"""A web server that gives files in pieces, as a test says: with ranges and tags, and with every fault a server can have."""

from __future__ import annotations

import hashlib
import http.server
import threading
from dataclasses import dataclass, field


@dataclass
class File:
    """What a path answers. The numbers of answers count from 0, over all requests for its body."""

    body: bytes
    tag: str | None = "by content"
    """The ETag; None gives none."""
    status: int = 200
    cuts: dict[int, int] = field(default_factory=dict)
    """After how many bytes of its body the connection ends, by the number of the answer."""
    becomes: dict[int, bytes] = field(default_factory=dict)
    """What the body is from that answer on."""
    has_ranges: bool = True
    is_chunked: bool = False
    needs: dict[str, str] = field(default_factory=dict)
    """Headers that a request must have."""
    forbids_head: bool = False
    to: str = ""
    """Where a reader is sent instead."""


class Web:
    """The server. ``asked`` lists what came: method, path with query, and the range."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.hold = threading.Event()  # answers of paths that contain "slow" wait for it
        self._counts: dict[str, int] = {}
        web = self

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                web._answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a reader that has gone
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self, path: str) -> list[str | None]:
        """The ranges of the bodies of a path that were asked for."""
        return [where for method, asked, where in self.asked if method == "GET" and asked.partition("?")[0] == path]

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        where = request.headers.get("Range")
        self.asked.append((request.command, request.path, where))
        file = self.files.get(path, File(b"", status=404))
        is_get = request.command == "GET"
        n = self._counts.get(path, 0)
        if is_get:
            self._counts[path] = n + 1
        status = self._status(file, request)
        body = next((file.becomes[i] for i in sorted(file.becomes, reverse=True) if n >= i), file.body)
        if status != 200:
            where, body = None, b"no"
        start = int(where.removeprefix("bytes=").partition("-")[0]) if where and file.has_ranges else 0
        self._head(request, file, status, body, start, is_part=bool(where) and file.has_ranges)
        if is_get:
            self._body(request, path, body[start:], file.cuts.get(n, len(body)))
        request.close_connection = request.close_connection or file.is_chunked or n in file.cuts

    def _status(self, file: File, request: http.server.BaseHTTPRequestHandler) -> int:
        if file.to:
            return 302
        if file.forbids_head and request.command == "HEAD":
            return 405
        return 401 if any(request.headers.get(name) != value for name, value in file.needs.items()) else file.status

    def _head(self, request, file: File, status: int, body: bytes, start: int, *, is_part: bool) -> None:
        request.send_response(206 if is_part else status)
        if is_part:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if file.to:
            request.send_header("Location", file.to)
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"' if file.tag == "by content" else file.tag
        if tag:
            request.send_header("ETag", tag)
        if file.is_chunked:
            request.send_header("Connection", "close")
        else:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()

    def _body(self, request, path: str, body: bytes, n_bytes: int) -> None:
        if "slow" in path:
            request.wfile.write(body[:1000])
            request.wfile.flush()
            self.hold.wait(60)
            body, n_bytes = body[1000:], n_bytes - 1000
        request.wfile.write(body[:n_bytes])
        request.wfile.flush()
