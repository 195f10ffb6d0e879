"""What changes the server: reload. Only for callers on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from fitserve.errors import ForbiddenError
from fitserve.protocols import openapi
from fitserve.protocols.base import Protocol, Route
from fitserve.protocols.exchange import Reply
from fitserve.protocols.json_body import is_cross_site

if TYPE_CHECKING:
    from fitserve.protocols.base import Services
    from fitserve.protocols.exchange import AsgiExchange
    from fitserve.store.catalog import LoadedModel


def _routes(services: Services) -> list[Route]:
    return [Route("POST", "/model/reload", partial(reload, services), _describe_reload)]


PROTOCOL = Protocol(name="admin", routes=_routes)


async def reload(services: Services, exchange: AsgiExchange) -> Reply:
    """Read the model file again; the version that serves goes on until the new one has answered a row."""
    _require_local(exchange)
    loaded, previous = await services.lifecycle.reload(services.executor.run)
    exchange.model_version = loaded.version
    body = {
        "status": "unchanged" if loaded is previous else "reloaded",
        "model_version": loaded.version,
        "previous_version": previous.version if previous else None,
        "digest": f"sha256:{loaded.digest}",
        "timestamp": datetime.now(UTC),
    }
    return Reply(orjson.dumps(body))


def _require_local(exchange: AsgiExchange) -> None:
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


def _is_address(peer: Any) -> bool:
    try:
        ip_address(peer[0])
    except (TypeError, ValueError):
        return False
    return True


def _is_local(peer: Any) -> bool:
    """Whether an end of a connection is on this machine: loopback, a Unix socket or no network at all."""
    return not _is_address(peer) or ip_address(peer[0]).is_loopback


def _describe_reload(_: LoadedModel | None) -> dict[str, Any]:
    text = {"type": "string"}
    reply = openapi.object_of(
        {
            "status": {"enum": ["reloaded", "unchanged"]},
            "model_version": text,
            "previous_version": {"type": ["string", "null"]},
            "digest": text,
            "timestamp": openapi.TIMESTAMP,
        }
    )
    return openapi.operation(
        "reload",
        "Model",
        "Read the model file again",
        openapi.Component("Reload", reply),
        description="Answers when the new version serves. If it cannot, the old one goes on and the reply says why.",
        errors=(403, 409, 422, 500, 503),
    )
