"""The listening socket: an address of the network, a Unix-domain socket, or one that a process manager hands over."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING
from urllib.parse import quote

from fitserve.errors import SettingsError
from fitserve.server.serve import make_server as make_server  # noqa: PLC0414
from fitserve.server.serve import run_server as run_server  # noqa: PLC0414

if TYPE_CHECKING:
    from pathlib import Path

    from fitserve.settings import Settings

logger = logging.getLogger(__name__)

BACKLOG = 2048

FIRST_HANDED_OVER = 3
"""The number of the first socket that systemd hands over.
Source: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html"""

_FOR_OWNER_AND_GROUP = 0o117  # what a umask takes away, so that 0660 is left


def listen(settings: Settings) -> socket.socket:
    """Listen. The address is taken from now on, but nobody accepts yet.

    In this order: the socket that ``fd`` names, the one that systemd hands over, ``uds``, ``host`` and ``port``.

    Raises:
        SettingsError: the address cannot be used.
    """
    handed_over = _handed_over() if settings.fd is None else settings.fd
    if handed_over is not None:
        listener = _adopt(handed_over)
    elif settings.uds is not None:
        listener = _listen_at(settings.uds)
    else:
        listener = _listen_on(settings.host, settings.port)
    listener.set_inheritable(True)
    return listener


def base_url(listener: socket.socket) -> str:
    """The URL to call a server at, from this machine; ``http+unix:`` and the quoted path for a Unix-domain socket."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"http+unix://{quote(os.fsdecode(name), safe='')}"
    host, port = name[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - any address, so also loopback
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def remove_socket(path: Path) -> None:
    """Remove a Unix-domain socket at which nobody listens any more, as whoever made it does at its end.

    Raises:
        SettingsError: something else is there, or somebody listens.
        OSError: it cannot be removed.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            msg = f"cannot listen at {path}: something else than a socket is there. Move it, or give another with --uds"
            raise SettingsError(msg)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except (TimeoutError, BlockingIOError):
        raise SettingsError(_taken(path)) from None
    else:
        raise SettingsError(_taken(path))


def release(settings: Settings) -> None:
    """Remove the socket that :func:`listen` has made, once all that listened there have closed it.

    A process that is confined by now may not: for that of `fitserve run` the template does.
    """
    if settings.uds is not None:
        with contextlib.suppress(OSError, SettingsError):
            remove_socket(settings.uds)


def _taken(path: Path) -> str:
    return f"{path} is in use: another server listens there. Stop it, or give another with --uds"


def _handed_over() -> int | None:
    """The socket that systemd hands over to this very process, if it does.

    Its words are taken out of the environment: they do not concern the processes that this one starts.
    """
    pid, count, _ = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return None
    for number in range(FIRST_HANDED_OVER, FIRST_HANDED_OVER + int(count)):
        with contextlib.suppress(OSError):
            os.set_inheritable(number, False)
    if int(count) > 1:
        logger.warning("%s sockets were handed over (LISTEN_FDS): the first is served, and no other", count)
    return FIRST_HANDED_OVER


def _adopt(number: int) -> socket.socket:
    """A listening socket of another's making.

    Raises:
        SettingsError: it is none.
    """
    try:
        listener = socket.socket(fileno=number)
    except OSError as exc:
        msg = f"fd = {number} is no open socket ({exc.strerror}): the process that starts this one has to open it"
        raise SettingsError(msg) from exc
    is_stream = listener.type == socket.SOCK_STREAM
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # it stays its owner's
        msg = f"fd = {number} is a socket that does not listen: hand over a stream socket after listen(2)"
        raise SettingsError(msg)
    if listener.family != socket.AF_UNIX:
        _send_at_once(listener)
    return listener


def _listen_at(path: Path) -> socket.socket:
    """Listen at a Unix-domain socket that the user and the group may connect to.

    Raises:
        SettingsError: it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(_FOR_OWNER_AND_GROUP)
    try:
        remove_socket(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        msg = f"cannot listen at {path}: {exc.strerror or exc}"
        raise SettingsError(msg) from exc
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _listen_on(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _send_at_once(listener)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            msg = f"port {port} of {host} is in use: give another with --port, or --port 0 for any"
        else:
            msg = (
                f"cannot listen on {host}, port {port}: {exc.strerror or exc} "
                "(`fitserve config show --origin` tells where they come from)"
            )
        raise SettingsError(msg) from exc
    return listener


def _send_at_once(listener: socket.socket) -> None:
    """Let accepted connections, which inherit it, send small replies at once.

    Without it one waits 40 ms for an acknowledgement. Source: https://github.com/Kludex/uvicorn/issues/3149
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
