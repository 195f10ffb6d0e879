"""The listening socket, and the uvicorn server that takes connections from it."""

from __future__ import annotations

import errno
import signal
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from fitserve.errors import SettingsError
from fitserve.server.protocol import HttpProtocol

if TYPE_CHECKING:
    from fitserve.settings import Settings

BACKLOG = 2048

KEEP_ALIVE_S = 75
"""How long an idle connection is kept: longer than the 60 s of common load balancers, which
would else send a request into a connection that is being closed."""


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


def make_server(app: Any, settings: Settings) -> uvicorn.Server:
    """A uvicorn server for the application, with httptools: its other parser lets ambiguous requests pass."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,  # type: ignore[arg-type]
    )
    return uvicorn.Server(config)


def run_server(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, finish what is in flight, and return."""

    def stop(*_: object) -> None:
        # uvicorn takes the signals over while it serves, and raises them again when it has stopped.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets=[listener])
