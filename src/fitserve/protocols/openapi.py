"""The words of the OpenAPI document: components, operations, objects.

A schema says what the checks accept, so that a client made from it is never refused. Whatever has a
name is a component of the document, so that it stands there once and a generated client has a class of it.
Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fitserve.errors import MAX_ISSUES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


Schema = dict[str, Any]


class Component(dict[str, Any]):
    """A schema that stands once in the document, under its name; elsewhere there is a reference to it.

    ``is_common``: it is the same whichever model it is used for. Of the others each model has its own.
    """

    def __init__(self, name: str, schema: Mapping[str, Any], *, is_common: bool = False) -> None:
        super().__init__(schema)
        self.name = name
        self.is_common = is_common


HEADERS: Schema = {
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

_HEADER_REFS: Schema = {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}

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
    is_common=True,
)

PROBLEM: Schema = Component("Problem", {
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
}, is_common=True)  # fmt: skip

_ERRORS = {
    400: "The body is not JSON, or names a key twice.",
    403: "This caller may not.",
    404: "There is no such model, version, alias or operation.",
    409: "Another operation is under way.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    422: "The input does not fit the model.",
    500: "The model or the server failed.",
    503: "No model is ready.",
    504: "It takes longer than callers are kept waiting.",
}


def class_name(text: str) -> str:
    """A text as the name of a component; empty if it has no letters of ours."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    made = "".join(word[0].upper() + word[1:] for word in words)
    return made if made[:1].isalpha() else ""


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
    """One operation: what it takes, what it answers, how it fails.

    A body of which no member is required may be left out.
    """
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
        found["requestBody"] = {"required": body.get("required") != [], "content": {"application/json": media}}
    return found


def in_query(name: str, text: str, schema: Schema) -> Schema:
    """A parameter behind the question mark, which may be left out."""
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _error(status: int) -> Schema:
    content = {"application/problem+json": {"schema": PROBLEM}}
    return {"description": _ERRORS[status], "headers": _HEADER_REFS, "content": content}


def object_of(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def in_path(name: str, text: str, **schema: Any) -> Schema:
    """A parameter that is a part of the path: a text."""
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string", **schema}}


def with_parameters(operation: Schema, parameters: Sequence[Schema]) -> Schema:
    """The same operation with parameters more, in front of those that it has."""
    return {**operation, "parameters": [*parameters, *operation.get("parameters", ())]} if parameters else operation
