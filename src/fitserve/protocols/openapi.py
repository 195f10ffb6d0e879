"""The OpenAPI document of the model that serves: its own fields, classes and an example.

A schema says what the checks accept, so that a client made from it is never refused. Whatever has a
name is a component of the document, so that it stands there once and a generated client has a class of it.
Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.errors import MAX_ISSUES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from fitserve.protocols.base import Route
    from fitserve.store.catalog import LoadedModel

Schema = dict[str, Any]


class Component(dict[str, Any]):
    """A schema that stands once in the document, under its name; elsewhere there is a reference to it."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        super().__init__(schema)
        self.name = name


_HEADERS: Schema = {
    "X-Process-Time": {
        "description": "Milliseconds from the request's arrival to the reply's first byte.",
        "schema": {"type": "string", "pattern": r"^\d+\.\d+$"},
    },
    "X-Model-Version": {"description": "The model version that answered.", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "The caller's own if it was valid, else made here.", "schema": {"type": "string"}},
    "X-Cache": {
        "description": "Whether every row was in the response cache; only where there is one (`cache`).",
        "schema": {"enum": ["hit", "miss"]},
    },
}

_HEADER_REFS: Schema = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}

TAGS = ("Predictions", "Model", "Health")
"""The groups of operations, in the order in which a reader wants them."""

_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
TIMESTAMP: Schema = {"type": "string", "format": "date-time"}

_ISSUE: Schema = Component(
    "Issue",
    {
        "type": "object",
        "properties": {
            "row": {"type": ["integer", "null"]},
            "column": _NULLABLE_TEXT,
            "wanted": {"type": "string"},
            "came": {"type": "string"},
            "hint": _NULLABLE_TEXT,
        },
        "required": ["row", "column", "wanted", "came", "hint"],
    },
)

_PROBLEM: Schema = Component("Problem", {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "error": {"type": "string", "description": "The same as detail."},
        "status_code": {"type": "integer", "description": "The same as status."},
        "timestamp": TIMESTAMP,
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "maxItems": MAX_ISSUES,
            "items": _ISSUE,
        },
    },
    "required": [
        "type", "title", "status", "detail", "instance", "error", "status_code", "timestamp", "request_id",
    ],
})  # fmt: skip

_ERRORS = {
    400: "The body is not JSON, or names a key twice.",
    403: "This caller may not.",
    404: "No such model version is loaded.",
    409: "Another operation is under way.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    422: "The input does not fit the model.",
    500: "The model or the server failed.",
    503: "No model is ready.",
}


def document(routes: Iterable[Route], loaded: LoadedModel | None, taken: Collection[str] = ()) -> Schema:
    """The ``paths`` and ``components`` of the document.

    Args:
        routes: of the protocols.
        loaded: the model that serves.
        taken: names of components that somebody else has defined.
    """
    found = _Components(taken)
    paths: Schema = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = found.lifted(dict(route.operation(loaded)))
    return {"paths": paths, "components": {"schemas": found.schemas, "headers": _HEADERS}}


class _Components:
    """The components met so far, by name."""

    def __init__(self, taken: Collection[str]) -> None:
        self.schemas: Schema = {}
        self._taken = {name.lower() for name in taken}

    def lifted(self, value: Any) -> Any:
        """The same with a reference in place of each component."""
        if isinstance(value, list | tuple):
            return [self.lifted(item) for item in value]
        if not isinstance(value, dict):
            return value
        plain = {key: self.lifted(item) for key, item in value.items()}
        if not isinstance(value, Component):
            return plain
        name, number = value.name, 1
        # Without case: some generators make a file of each.
        while name.lower() in self._taken and self.schemas.get(name) != plain:
            number += 1
            name = f"{value.name}{number}"
        self._taken.add(name.lower())
        self.schemas[name] = plain
        return {"$ref": f"#/components/schemas/{name}"}


def operation(
    operation_id: str,
    tag: str,
    summary: str,
    reply: Schema,
    *,
    description: str = "",
    body: Schema | None = None,
    errors: tuple[int, ...] = (500,),
    examples: Mapping[str, Any] | None = None,
) -> Schema:
    """One operation: what it takes, what it answers, how it fails."""
    found: Schema = {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": _HEADER_REFS,
                "content": {"application/json": {"schema": reply}},
            },
            **{str(status): _error(status) for status in errors},
        },
    }
    if description:
        found["description"] = description
    if body is not None:
        media = {"schema": body}
        if examples:
            media["examples"] = {name: {"value": value} for name, value in examples.items()}
        found["requestBody"] = {"required": True, "content": {"application/json": media}}
    return found


def _error(status: int) -> Schema:
    content = {"application/problem+json": {"schema": _PROBLEM}}
    return {"description": _ERRORS[status], "headers": _HEADER_REFS, "content": content}


def object_of(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
