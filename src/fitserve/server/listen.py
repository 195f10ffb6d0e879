"""The listening socket."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from fitserve.errors import SettingsError
from fitserve.server.serve import make_server as make_server  # noqa: PLC0414
from fitserve.server.serve import run_server as run_server  # noqa: PLC0414

if TYPE_CHECKING:
    from fitserve.settings import Settings

BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """Bind and listen. The port is taken from now on, but nobody accepts yet.

    Raises:
        SettingsError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it. Without it a small reply waits 40 ms for an
        # acknowledgement. Source: https://github.com/Kludex/uvicorn/issues/3149
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            msg = f"port {settings.port} of {settings.host} is in use: give another with --port, or --port 0 for any"
        else:
            msg = (
                f"cannot listen on {settings.host}, port {settings.port}: {exc.strerror or exc} "
                "(`fitserve config show --origin` tells where they come from)"
            )
        raise SettingsError(msg) from exc
    listener.set_inheritable(True)
    return listener


def base_url(listener: socket.socket) -> str:
    """The URL to call a server at, from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - any address, so also loopback
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
