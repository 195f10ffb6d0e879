"""What the OpenAPI document says of orders to change the server, of operations and of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.protocols import openapi
from fitserve.protocols.orders import LONGEST

if TYPE_CHECKING:
    from fitserve.store.catalog import LoadedModel

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
_WORKER = openapi.Component(
    "WorkerState",
    openapi.object_of(
        {
            "pid": {"type": "integer"},
            "state": {"type": "string", "enum": ["waiting", "loading", "prepared", "committed", "failed"]},
            "progress": _TEXT,
            "error": _TEXT_OR_NULL,
        }
    ),
)
_MEMBERS: dict[str, dict[str, Any]] = {
    "id": _TEXT,
    "kind": {"type": "string", "enum": ["reload", "promote", "rollback", "alias"]},
    "model": _TEXT,
    "alias": _TEXT,
    "from": {**_TEXT_OR_NULL, "description": "The version that answered before."},
    "to": {**_TEXT_OR_NULL, "description": "The version that answers, or would."},
    "reason": _TEXT,
    "who": _TEXT,
    "state": {"type": "string", "enum": ["queued", "verifying", "preparing", "committing", "done", "failed"]},
    "status": {**_TEXT_OR_NULL, "description": "What it did: reloaded, switched or unchanged."},
    "error": _TEXT_OR_NULL,
    "started_at": openapi.TIMESTAMP,
    "ended_at": _TIME_OR_NULL,
    "workers": {"type": "array", "items": _WORKER},
    "model_version": {**_TEXT_OR_NULL, "description": "Of a reload that is done: the version that serves now,"},
    "previous_version": {**_TEXT_OR_NULL, "description": "and the one that served before."},
}
_OPERATION = openapi.Component(
    "Operation", openapi.object_of(_MEMBERS, optional=("alias", "model_version", "previous_version"))
)
_ORDER_ERRORS = (400, 403, 404, 409, 413, 415, 422, 500, 503, 504)
_WAIT = openapi.in_query("wait", "Answer when it is over.", {"type": "boolean"})
_REASON = {"type": ["string", "null"], "maxLength": LONGEST["reason"], "description": "For the history."}
_VERSION = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST["version"],
    "description": "Its label, or @ and an alias that stands for it.",
}

_ORDERS = {
    "reload": ("Read the path again", "Switches to the highest version, or to what the file of the same holds now."),
    "promote": ("Let another version serve", "Promoting the version that serves changes nothing."),
    "rollback": ("Let the version before serve again", "A switch to the version that served before this one."),
}


def describe_order(name: str, is_default: bool, _: LoadedModel | None) -> dict[str, Any]:  # noqa: FBT001 - partial
    """``POST /model/…`` and ``POST /models/{name}/…``."""
    summary, text = _ORDERS[name]
    return _order(name if is_default else f"{name}_model", summary, text, has_version=name == "promote")


def describe_set_alias(_: LoadedModel | None) -> dict[str, Any]:
    """``PUT /models/{name}/aliases/{alias}``."""
    return _order("set_alias", "Let an alias stand for a version", "It is made if it is new.", has_version=True)


def describe_remove_alias(_: LoadedModel | None) -> dict[str, Any]:
    """``DELETE /models/{name}/aliases/{alias}``."""
    return _order("remove_alias", "Remove an alias", "The version that it stood for stays.", has_version=False)


def _order(operation_id: str, summary: str, text: str, *, has_version: bool) -> dict[str, Any]:
    members = {"version": _VERSION, "reason": _REASON} if has_version else {"reason": _REASON}
    name = "VersionOrder" if has_version else "Order"
    found = openapi.operation(
        operation_id,
        "Model",
        summary,
        _OPERATION,
        description=f"{text} All processes of the server switch at once, or none does. "
        "For callers on the server's own machine.",
        body=openapi.Component(name, openapi.object_of(members, optional=("reason",))),
        errors=_ORDER_ERRORS,
    )
    reply = found["responses"]["200"]
    place = {"Location": {"description": "Where to ask how far it has come.", "schema": _TEXT}}
    found["responses"]["200"] = {**reply, "description": "It is over."}
    found["responses"]["202"] = {
        **reply, "description": "It has begun.", "headers": {**reply["headers"], **place},
    }  # fmt: skip
    return openapi.with_parameters(found, [_WAIT])


def describe_operations(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /operations``."""
    reply = openapi.object_of({"operations": {"type": "array", "items": _OPERATION}})
    component = openapi.Component("Operations", reply)
    return openapi.operation("list_operations", "Model", "What is being changed", component, errors=(403, 500))


def describe_operation(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /operations/{id}``."""
    return openapi.operation("show_operation", "Model", "How far a change has come", _OPERATION, errors=(403, 404, 500))


def describe_history(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /models/{name}/history``."""
    change = openapi.object_of(
        {
            "at": openapi.TIMESTAMP,
            "who": _TEXT,
            "action": _TEXT,
            "alias": _TEXT,
            "from": _TEXT_OR_NULL,
            "to": _TEXT_OR_NULL,
            "reason": _TEXT,
            "operation": _TEXT_OR_NULL,
        },
        optional=("alias",),
    )
    changes = {"type": "array", "items": openapi.Component("Change", change)}
    reply = openapi.Component("History", openapi.object_of({"model": _TEXT, "changes": changes}))
    limit = openapi.in_query(
        "limit", "The most changes, latest first.", {"type": "integer", "minimum": 1, "maximum": 1000}
    )
    text = "What was changed, when, by whom and why"
    found = openapi.operation("history", "Model", text, reply, errors=(403, 404, 422, 500))
    return openapi.with_parameters(found, [limit])
