"""What Prometheus scrapes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fitserve.engine.executor import Executor
from fitserve.observe.metrics import CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE
from fitserve.protocols import openapi
from fitserve.protocols.base import Protocol, Route
from fitserve.protocols.exchange import Reply

if TYPE_CHECKING:
    from fitserve.protocols.base import Services
    from fitserve.protocols.exchange import AsgiExchange
    from fitserve.store.catalog import LoadedModel


def _routes(services: Services) -> list[Route]:
    # A thread of its own: a scrape must not wait behind slow predictions, nor many of them take their threads.
    return [Route("GET", "/metrics", partial(metrics, services, Executor(1)), _describe)]


PROTOCOL = Protocol(name="metrics", routes=_routes)


async def metrics(services: Services, executor: Executor, exchange: AsgiExchange) -> Reply:
    """The metrics of all processes of this server, in the format that the caller reads."""
    is_openmetrics = prefers_openmetrics(exchange.header(b"accept") or b"")
    note_models(services)  # a reload may have switched
    body = await executor.run(partial(services.metrics.exposition, is_openmetrics=is_openmetrics))
    media_type = OPENMETRICS_CONTENT_TYPE if is_openmetrics else CONTENT_TYPE
    return Reply(body, media_type=media_type, headers=((b"vary", b"accept"),))


def note_models(services: Services) -> None:
    """Tell the metrics which versions are in memory now. On the event loop."""
    services.metrics.models(
        {
            "model": loaded.name,
            "version": loaded.version,
            "format": loaded.format,
            "digest": f"sha256:{loaded.digest}",
            "model_type": loaded.model.facts.model_type,
        }
        for loaded in services.catalog.in_memory()
    )


def prefers_openmetrics(accept: bytes) -> bool:
    """Whether OpenMetrics 1.0 is named in an Accept header, and no other text is liked better.

    Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept
    """
    weights = {b"application/openmetrics-text": 0.0, b"text/plain": 0.0}
    for accepted in accept.lower().split(b","):
        media_type, *parameters = [part.strip() for part in accepted.split(b";")]
        options = dict(part.split(b"=", 1) for part in parameters if b"=" in part)
        is_old = media_type != b"text/plain" and not options.get(b"version", b"1").startswith(b"1")
        if media_type in weights and not is_old:
            weights[media_type] = max(weights[media_type], _weight(options.get(b"q", b"1")))
    openmetrics, plain = weights.values()
    return openmetrics > 0 and openmetrics >= plain


def _weight(text: bytes) -> float:
    """A quality value; 0 if it is none."""
    whole, _, digits = text.partition(b".")
    return float(text) if whole in {b"0", b"1"} and (not digits or digits.isdigit()) else 0.0


def _describe(_: LoadedModel | None) -> dict[str, Any]:
    found = openapi.operation("metrics", "Health", "What has it done, and what is it doing?", {})
    text = {"schema": {"type": "string"}}
    found["responses"]["200"]["content"] = {"text/plain": text, "application/openmetrics-text": text}
    return found
