"""What a service manager is told: systemd's ``sd_notify``, without its library.

Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import uvicorn


class Notifier:
    """Tells the manager that the environment names; without one, everything here does nothing.

    Make it before the process is confined: then no socket may be made, but one that is there may be written to.
    Never blocks and never raises: a manager that does not listen must not harm the service.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the address out of the environment, so that no process that is started tells the manager anything.

        Args:
            environ: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked for, and removed.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        timeout_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        self.watchdog_s: float | None = None
        """How often the manager is to be told that this process works: half of what it waits; None if not at all."""
        if address:
            self._connect("\0" + address[1:] if address.startswith("@") else address)
        if self._socket is not None and timeout_us.isdigit() and pid in {"", str(os.getpid())}:
            self.watchdog_s = int(timeout_us) / 2e6
        self._beat_s = float("-inf")

    def _connect(self, address: str) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            end.setblocking(False)
            end.connect(address)
        except OSError:
            end.close()
            return
        self._socket = end

    def ready(self, status: str) -> None:
        """It serves; also at the end of :meth:`reloading`."""
        self._say("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """It goes on serving while it changes; :meth:`ready` tells the end."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """It has begun to stop."""
        self._say("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for people."""
        self._say(f"STATUS={status}")

    def watchdog(self, now_s: float) -> None:
        """It works. May be called often: the manager is told as often as it wants to be."""
        if self.watchdog_s is not None and now_s - self._beat_s >= self.watchdog_s:
            self._beat_s = now_s
            self._say("WATCHDOG=1")

    def follow(self, server: uvicorn.Server, status: str) -> None:
        """Tell the manager of a server of this process: when it takes connections, that it works, and that it stops."""
        startup, on_tick, shutdown = server.startup, server.on_tick, server.shutdown

        async def startup_and_tell(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets=sockets)
            self.ready(status)

        async def on_tick_and_tell(counter: int) -> bool:
            self.watchdog(time.monotonic())
            return await on_tick(counter)

        async def shutdown_and_tell(sockets: list[socket.socket] | None = None) -> None:
            self.stopping("stopping")
            await shutdown(sockets=sockets)

        for name, method in (
            ("startup", startup_and_tell), ("on_tick", on_tick_and_tell), ("shutdown", shutdown_and_tell)
        ):  # fmt: skip
            setattr(server, name, method)

    def _say(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send("\n".join(lines).encode())

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
