"""Who may change the server: callers on its own machine, and no web page that makes a browser there call."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fitserve.errors import ForbiddenError
from fitserve.protocols.json_body import is_cross_site

if TYPE_CHECKING:
    from fitserve.protocols.exchange import AsgiExchange


def require_local(exchange: AsgiExchange) -> None:
    """Refuse callers elsewhere, and web pages that make a browser on this machine call.

    Raises:
        ForbiddenError: the caller is not on this machine.
    """
    if is_cross_site(exchange, ()):
        msg = "a web page may not do this"
        raise ForbiddenError(msg)
    if not all(map(_is_local, (exchange.scope.get("client"), exchange.scope.get("server")))):
        msg = "only callers on the server's own machine, through its loopback address, may do this"
        raise ForbiddenError(msg)
    # A page whose name was made to resolve to 127.0.0.1 counts as same-origin; its Host gives it away.
    host = urlsplit(f"//{(exchange.header(b'host') or b'').decode('latin-1')}").hostname
    if _is_address(exchange.scope.get("client")) and host not in {None, "localhost"} and not _is_address((host, 0)):
        msg = "address the server as localhost or by its IP address to do this"
        raise ForbiddenError(msg)


def caller(exchange: AsgiExchange) -> str:
    """Who calls, for the history: the address, or ``local`` where there is no network between."""
    peer: Any = exchange.scope.get("client")
    return str(peer[0]) if _is_address(peer) else "local"


def _is_address(peer: Any) -> bool:
    try:
        ip_address(peer[0])
    except (TypeError, ValueError):
        return False
    return True


def _is_local(peer: Any) -> bool:
    """Whether an end of a connection is on this machine: loopback, a Unix socket or no network at all."""
    return not _is_address(peer) or ip_address(peer[0]).is_loopback
