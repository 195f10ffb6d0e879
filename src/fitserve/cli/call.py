"""How a command asks a running server: JSON over HTTP, by TCP or a Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from fitserve.errors import FitserveError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.settings import Settings

TIMEOUT_S = 30.0
"""How long a server may take to answer what it need not wait for."""

UNIX = "unix:"


class UnreachableError(FitserveError):
    """No server answers at the place that was given."""


class RefusedError(FitserveError):
    """The server answered that it will not do it; the text is its own."""

    def __init__(self, status: int, document: Any) -> None:
        self.status = status
        text = document.get("detail") if isinstance(document, dict) else None
        super().__init__(str(text or f"the server answered {status}"))


class Server:
    """A running server.

    Args:
        url: ``http://HOST:PORT``, with the prefix of its paths if it has one, or ``unix:`` and a socket's path.

    Raises:
        SettingsError: it is neither.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._socket_path = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        parts = urlsplit("http://localhost" if self._socket_path else url)
        try:
            self._address = parts.hostname or "", parts.port
        except ValueError:
            self._address = "", None
        if parts.scheme not in {"http", "https"} or not self._address[0] or self._socket_path == "":
            msg = f"{url!r} is no place of a server: wanted http://HOST:PORT or unix:PATH"
            raise SettingsError(msg)
        self._is_https = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask, and return the JSON object that the server answers.

        Raises:
            UnreachableError: nobody answers there, or something that is no fitserve.
            RefusedError: the answer is an error.
        """
        connection = self._connection()
        try:
            data = None if body is None else json.dumps(body)
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, f"{self._prefix}{path}", data, headers)
            reply = connection.getresponse()
            document = json.loads(reply.read())
        except (OSError, http.client.HTTPException) as exc:
            msg = f"no server answers at {self.url} ({exc}): is `fitserve run` running? --url says where to ask"
            raise UnreachableError(msg) from exc
        except ValueError as exc:
            msg = f"what answers at {self.url} is no fitserve: --url says where to ask"
            raise UnreachableError(msg) from exc
        finally:
            connection.close()
        if reply.status >= http.client.BAD_REQUEST or not isinstance(document, dict):
            raise RefusedError(reply.status, document)
        return document

    def _connection(self) -> http.client.HTTPConnection:
        if self._socket_path is not None:
            return _UnixConnection(self._socket_path)
        kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        return kind(*self._address, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    """Over a Unix-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def segment(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="@+")


def url_of(settings: Settings) -> str:
    """Where a server with these settings answers on this machine."""
    if settings.uds is not None:
        return f"{UNIX}{settings.uds}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - asked, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
