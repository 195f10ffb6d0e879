"""What the OpenAPI document says of /models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.protocols import openapi
from fitserve.protocols.native_operations import INFO

if TYPE_CHECKING:
    from fitserve.store.catalog import LoadedModel

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_VERSION = openapi.object_of(
    {
        "version": _TEXT,
        "digest": {"type": ["string", "null"], "description": "null as long as its file has not been read."},
        "is_serving": {"type": "boolean", "description": "It answers where no version is asked for."},
        "is_loaded": {"type": "boolean", "description": "It is in the memory of the process that answers."},
        "is_kept": {"type": "boolean", "description": "It stays in memory, by the setting keep_loaded."},
        "aliases": {"type": "array", "items": _TEXT},
    }
)
_MODEL = openapi.object_of(
    {
        "name": _TEXT,
        "is_default": {"type": "boolean", "description": "It answers /predict."},
        "serving": _TEXT,
        "previous": {**_TEXT_OR_NULL, "description": "The version that a roll back goes to."},
        "aliases": {"type": "object", "additionalProperties": _TEXT, "description": "Versions by alias."},
        "versions": {"type": "array", "items": openapi.Component("ModelVersion", _VERSION)},
    }
)


def describe_models(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /models``."""
    models = {"type": "array", "items": openapi.Component("ModelEntry", _MODEL)}
    reply = openapi.Component("Models", openapi.object_of({"default_model": _TEXT_OR_NULL, "models": models}))
    return openapi.operation("list_models", "Model", "Which models there are", reply)


def describe_model(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /models/{name}``."""
    reply = openapi.Component("Model", _and_info(_MODEL, required=INFO["required"]))
    return openapi.operation("show_model", "Model", "What serves of one model", reply, errors=(404, 500, 503))


def describe_version(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /models/{name}/versions/{version}``."""
    reply = openapi.Component("Version", _and_info(_VERSION, required=["name", "version"]))
    return openapi.operation(
        "show_version",
        "Model",
        "What is known of one version",
        reply,
        description="Of one that is not in memory no more is told than its name, its version and its digest.",
        errors=(404, 500, 503),
    )


def _and_info(schema: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """An object with the members of a schema and of a version in memory."""
    properties = {**INFO["properties"], **schema["properties"]}
    return {"type": "object", "properties": properties, "required": sorted({*required, *schema["required"]})}
