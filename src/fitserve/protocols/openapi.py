"""The OpenAPI document of the model that serves: its own fields, classes and an example.

A schema says exactly what the checks accept, so that a client made from it is never refused.
Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.errors import MAX_ISSUES
from fitserve.signature import Field, Kind, Label, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fitserve.protocols.base import Route
    from fitserve.store.catalog import LoadedModel

Schema = dict[str, Any]

_HEADERS: Schema = {
    "X-Process-Time": {
        "description": "Milliseconds from the request's arrival to the reply's first byte.",
        "schema": {"type": "string", "pattern": r"^\d+\.\d+$"},
    },
    "X-Model-Version": {"description": "The model version that answered.", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "The caller's own if it was valid, else made here.", "schema": {"type": "string"}},
}

TAGS = ("Predictions", "Model", "Health")
"""The groups of operations, in the order in which a reader wants them."""

_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
TIMESTAMP: Schema = {"type": "string", "format": "date-time"}

_PROBLEM: Schema = {
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
            "items": {
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
        },
    },
    "required": [
        "type", "title", "status", "detail", "instance", "error", "status_code", "timestamp", "request_id",
    ],
}  # fmt: skip

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


def paths(routes: Iterable[Route], loaded: LoadedModel | None) -> Schema:
    """The ``paths`` of the document."""
    found: Schema = {}
    for route in routes:
        found.setdefault(route.path, {})[route.method.lower()] = dict(route.operation(loaded))
    return found


def components() -> Schema:
    """The ``components`` of the document."""
    return {"schemas": {"Problem": _PROBLEM}}


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
                "headers": _HEADERS,
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
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {"description": _ERRORS[status], "headers": _HEADERS, "content": content}


def object_of(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these members."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_JSON_TYPES: dict[Kind, tuple[str, ...]] = {
    "number": ("number",),
    "numeric": ("number", "boolean"),
    "string": ("string",),
    "boolean": ("boolean",),
    "any": ("number", "string", "boolean"),
}


def field_schema(field: Field) -> Schema:
    """One input value."""
    bounds: Schema = {"minimum": -field.largest, "maximum": field.largest}
    types = list(_JSON_TYPES[field.kind])
    if field.is_closed and field.categories is not None:
        return {"enum": [*field.categories, *([None] if field.is_nullable else [])]}
    if field.is_nullable:
        types = [*types, "null"]
    schema: Schema = {"type": types[0] if len(types) == 1 else types}
    return {**schema, **bounds} if "number" in types else schema


def row_schemas(signature: Signature) -> dict[str, Schema]:
    """The forms of one row: a list, an object by name, a list of name and value."""
    if signature.is_open:
        number = field_schema(Field(""))
        return {"list": {"type": "array", "items": number, "minItems": 1}}
    schemas = [field_schema(field) for field in signature.inputs]
    n_features = len(schemas)
    exactly: Schema = {"type": "array", "minItems": n_features, "maxItems": n_features}
    is_uniform = all(schema == schemas[0] for schema in schemas)
    pairs = [
        object_of({"name": {"const": name}, "value": schema})
        for name, schema in zip(signature.names, schemas, strict=True)
    ]
    return {
        "list": {**exactly, "items": schemas[0]} if is_uniform else {**exactly, "prefixItems": schemas, "items": False},
        "object": object_of(dict(zip(signature.names, schemas, strict=True))),
        "pairs": {**exactly, "prefixItems": pairs, "items": False, "description": "In any order."},
    }


def prediction_schema(signature: Signature) -> Schema:
    """One prediction: the label or the value that the model gives for a row."""
    if signature.is_open:
        return {}
    if signature.classes is None:
        one: list[Schema] = [{"type": ["number", "string", "boolean", "null"]}] * (signature.n_outputs or 1)
    else:
        one = [_label_schema(labels) for labels in signature.classes]
    return _one_or_list(signature, one)


def probability_schema(signature: Signature) -> Schema:
    """The probability of the predicted class."""
    if not signature.has_probabilities:
        return {"type": "null"} if not signature.is_open else {}
    number = {"type": ["number", "null"], "minimum": 0, "maximum": 1.000001}
    return _one_or_list(signature, [number] * (signature.n_outputs or 1))


def probabilities_schema(signature: Signature) -> Schema:
    """The probability of each class, by its label."""
    if not signature.has_probabilities or signature.class_names is None:
        return {"type": "null"} if not signature.is_open else {}
    number = {"type": ["number", "null"]}
    return _one_or_list(signature, [object_of(dict.fromkeys(names, number)) for names in signature.class_names])


def _label_schema(labels: tuple[Label, ...]) -> Schema:
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    types = sorted({names[type(label)] for label in labels})
    return {"type": types[0] if len(types) == 1 else types, "enum": list(labels)}


def _one_or_list(signature: Signature, schemas: list[Schema]) -> Schema:
    if signature.n_outputs == 0:
        return schemas[0]
    # Not prefixItems: tools read it as the list form of items, which OpenAPI 3.1 has not.
    distinct = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    items = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    return {"type": "array", "minItems": signature.n_outputs, "maxItems": signature.n_outputs, "items": items}
