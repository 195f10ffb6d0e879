"""What models there are: /models, and what each of their versions takes and gives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import VersionNotLoadedError
from fitserve.protocols import models_operations as described
from fitserve.protocols.base import Protocol, Route
from fitserve.protocols.exchange import Reply
from fitserve.store.describe import describe_model

if TYPE_CHECKING:
    from fitserve.protocols.base import Services
    from fitserve.protocols.exchange import AsgiExchange
    from fitserve.store.assignment import ServedModel


def _routes(services: Services) -> list[Route]:
    version = "/models/{name}/versions/{version}"
    return [
        Route("GET", "/models", partial(list_models, services), described.describe_models),
        Route("GET", "/models/{name}", partial(show_model, services), described.describe_model),
        Route("GET", version, partial(show_version, services), described.describe_version),
    ]


PROTOCOL = Protocol(name="models", routes=_routes)


async def list_models(services: Services, _: AsgiExchange) -> Reply:
    """Tell which models there are, which versions of them, and which of those serve."""
    assignment = services.catalog.assignment
    models = [_of_model(services, model) for model in assignment.models.values()]
    return Reply(orjson.dumps({"default_model": assignment.default or None, "models": models}))


async def show_model(services: Services, exchange: AsgiExchange) -> Reply:
    """Tell of one model, and of the version that serves or that an alias stands for what it takes and gives."""
    loaded = services.engine.lease(exchange.ref)
    exchange.model_name, exchange.model_version = loaded.name, loaded.version
    model = services.catalog.assignment.models[loaded.name]
    return Reply(orjson.dumps({**describe_model(loaded), **_of_model(services, model)}))


async def show_version(services: Services, exchange: AsgiExchange) -> Reply:
    """Tell of one version; no more than that it is there if it is not in memory."""
    try:
        loaded = services.engine.lease(exchange.ref)
    except VersionNotLoadedError as exc:
        name, version, facts = exc.name, exc.version, {"name": exc.name}
    else:
        name, version, facts = loaded.name, loaded.version, describe_model(loaded)
    exchange.model_name, exchange.model_version = name, version
    return Reply(orjson.dumps({**facts, **_of_version(services, services.catalog.assignment.models[name], version)}))


def _of_model(services: Services, model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "is_default": model.name == services.catalog.assignment.default,
        "serving": model.serving,
        "previous": model.previous,
        "aliases": dict(model.aliases),
        "versions": [_of_version(services, model, version) for version in model.versions],
    }


def _of_version(services: Services, model: ServedModel, version: str) -> dict[str, Any]:
    known, loaded = model.versions[version], services.catalog.loaded(model.name, version)
    digest = known.digest or (loaded.digest if loaded else "")
    return {
        "version": version,
        "digest": f"sha256:{digest}" if digest else None,
        "is_serving": version == model.serving,
        "is_loaded": loaded is not None,
        "is_kept": known.is_kept,
        "aliases": [alias for alias, target in model.aliases.items() if target == version],
    }
