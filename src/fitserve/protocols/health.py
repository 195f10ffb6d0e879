"""The probes: is the process alive, has it started, may it have traffic?"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import ModelNotReadyError
from fitserve.protocols import openapi
from fitserve.protocols.base import Protocol, Route
from fitserve.protocols.exchange import Reply

if TYPE_CHECKING:
    from fitserve.protocols.base import Services
    from fitserve.protocols.exchange import AsgiExchange
    from fitserve.store.catalog import LoadedModel


def _routes(services: Services) -> list[Route]:
    return [
        Route("GET", "/health", partial(health, services), _describe_health),
        Route("GET", "/ready", partial(ready, services), partial(_describe_probe, "ready", "May it have traffic?")),
        Route("GET", "/started", partial(started, services), partial(_describe_probe, "started", "Has it started?")),
    ]


PROTOCOL = Protocol(name="health", routes=_routes)


async def health(services: Services, _: AsgiExchange) -> Reply:
    """Liveness: answers as long as the process can, whatever the state of its models."""
    current = services.catalog.current
    body = {
        "status": "healthy" if _wanting(services) is None else "degraded",
        "model_loaded": current is not None,
        "model_version": current.version if current else None,
        "uptime_seconds": round(time.monotonic() - services.started_monotonic_s, 3),
        "timestamp": datetime.now(UTC),
    }
    return Reply(orjson.dumps(body))


async def ready(services: Services, _: AsgiExchange) -> Reply:
    """Readiness: of every model a version serves that has answered a row, and the server is not about to stop."""
    if services.stopping.is_set():
        msg = "the server is about to stop"
        raise ModelNotReadyError(msg)
    wanting = _wanting(services)
    if wanting is not None:
        raise ModelNotReadyError(wanting)
    return _status("ready")


def _wanting(services: Services) -> str | None:
    """What is wanting before all that should answer does, or None."""
    catalog = services.catalog
    if catalog.current is None:
        return "no model is loaded yet"
    models = catalog.assignment.models
    for model in models.values():
        loaded = catalog.loaded(model.name, model.serving)
        which = "the model" if len(models) == 1 else f"the model {model.name}"
        if loaded is None:
            return f"{which} has a version {model.serving} that is not loaded yet"
        if not loaded.trial.has_answered:
            return f"{which} has not answered a row yet: {loaded.trial.failure}"
    return None


async def started(services: Services, _: AsgiExchange) -> Reply:
    """Start-up: a model is loaded, so the other probes may begin."""
    if services.catalog.current is None:
        msg = "no model is loaded yet"
        raise ModelNotReadyError(msg)
    return _status("started")


def _status(status: str) -> Reply:
    return Reply(orjson.dumps({"status": status, "timestamp": datetime.now(UTC)}))


def _describe_health(_: LoadedModel | None) -> dict[str, Any]:
    reply = openapi.object_of(
        {
            "status": {"enum": ["healthy", "degraded"]},
            "model_loaded": {"type": "boolean"},
            "model_version": {"type": ["string", "null"]},
            "uptime_seconds": {"type": "number", "minimum": 0},
            "timestamp": openapi.TIMESTAMP,
        }
    )
    return openapi.operation("health", "Health", "Is it alive?", openapi.Component("Health", reply))


def _describe_probe(name: str, summary: str, _: LoadedModel | None) -> dict[str, Any]:
    reply = openapi.object_of({"status": {"const": name}, "timestamp": openapi.TIMESTAMP})
    component = openapi.Component(name.capitalize(), reply)
    return openapi.operation(name, "Health", summary, component, errors=(500, 503))
