"""The OpenAPI document of the models that serve: their own fields, classes and examples.

A schema says what the checks accept, so that a client made from it is never refused. Whatever has a
name is a component of the document, so that it stands there once and a generated client has a class of it.
Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitserve.errors import MAX_ISSUES
from fitserve.protocols.paths import parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from fitserve.protocols.base import Route
    from fitserve.store.catalog import Catalog, LoadedModel

Schema = dict[str, Any]


class Component(dict[str, Any]):
    """A schema that stands once in the document, under its name; elsewhere there is a reference to it.

    ``is_common``: it is the same whichever model it is used for. Of the others each model has its own.
    """

    def __init__(self, name: str, schema: Mapping[str, Any], *, is_common: bool = False) -> None:
        super().__init__(schema)
        self.name = name
        self.is_common = is_common


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


@dataclass(frozen=True, slots=True)
class Described:
    """A model as the document has it.

    Attributes:
        loaded: the version that serves.
        versions: the labels of those that take and give the same, and the aliases that stand for one of them.
        is_default: it is the one that answers where none is named.
    """

    loaded: LoadedModel
    versions: tuple[str, ...]
    is_default: bool


def described(catalog: Catalog) -> list[Described]:
    """What there is to describe of the models that serve."""
    assignment = catalog.assignment
    found = []
    for loaded in catalog.serving():
        model = assignment.models[loaded.name]
        same = [
            known.version
            for known in model.versions.values()
            if known.version == loaded.version or (known.is_kept and _is_alike(catalog, loaded, known.version))
        ]
        aliases = [f"@{alias}" for alias, version in model.aliases.items() if version in same]
        found.append(Described(loaded, (*same, *aliases), loaded.name == assignment.default))
    return found


def _is_alike(catalog: Catalog, loaded: LoadedModel, version: str) -> bool:
    other = catalog.loaded(loaded.name, version)
    return other is not None and other.model.signature == loaded.model.signature


def document(routes: Iterable[Route], models: Sequence[Described], taken: Collection[str] = ()) -> Schema:
    """The ``paths`` and ``components`` of the document.

    An inference route of one model among several is described once for each of them.

    Args:
        routes: of the protocols.
        models: that serve.
        taken: names of components that somebody else has defined.
    """
    found = _Components(taken)
    paths: Schema = {}
    default = next((model.loaded for model in models if model.is_default), None)
    parameters = _parameters([model.loaded.name for model in models])
    suffixes = _suffixes(models)
    done: dict[Any, Schema] = {}

    def once(describe: Callable[[LoadedModel | None], Mapping[str, Any]], loaded: LoadedModel | None) -> Schema:
        """A description, which costs most of what the document does, made once for all the paths that have it."""
        key = describe, loaded and loaded.name
        if key not in done:
            prefix = "" if loaded is default or loaded is None else class_name(loaded.name)
            done[key] = found.lifted(dict(describe(loaded)), prefix)
        return done[key]

    for route in routes:
        names = parameters_of(route.path)
        if route.inference is None or not names:
            own = [parameters[name] for name in names]
            paths.setdefault(route.path, {})[route.method.lower()] = with_parameters(
                once(route.operation, default), own
            )
            continue
        for model in models:
            loaded = model.loaded
            described = once(route.operation, loaded)
            suffix = suffixes[loaded.name] + "_version" * ("version" in names)
            described = {**described, "operationId": f"{described['operationId']}_{suffix}"}
            own = [_in_path("version", "The version, or @ and its alias.", enum=list(model.versions))]
            path = route.path.replace("{name}", loaded.name)
            paths.setdefault(path, {})[route.method.lower()] = with_parameters(described, own[: len(names) - 1])
    return {"paths": paths, "components": {"schemas": found.schemas, "headers": _HEADERS}}


MOST_NAMES = 100
"""Of more models than these the names are not listed with each path that takes one."""


def _parameters(names: list[str]) -> dict[str, Schema]:
    """The parameters that paths have, by name."""
    identifier = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"}
    model = {"enum": names} if 0 < len(names) <= MOST_NAMES else identifier
    text = "The model. With @ and an alias behind it, the version that the alias stands for."
    return {
        "name": _in_path("name", text, **model),
        "version": _in_path("version", "The version, or @ and its alias.", pattern="^@?[A-Za-z0-9._+-]{1,64}$"),
        "alias": _in_path("alias", "A name that stands for a version, such as champion.", **identifier),
        "id": _in_path("id", "Of the operation.", pattern="^[A-Za-z0-9-]{1,64}$"),
    }


def _in_path(name: str, text: str, **schema: Any) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string", **schema}}


def with_parameters(operation: Schema, parameters: Sequence[Schema]) -> Schema:
    """The same operation with parameters more, in front of those that it has."""
    return {**operation, "parameters": [*parameters, *operation.get("parameters", ())]} if parameters else operation


def _suffixes(models: Sequence[Described]) -> dict[str, str]:
    """What tells the operations of one model from those of the others: its name as an identifier, by its name."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for model in models:
        word = same = re.sub(r"\W", "_", model.loaded.name)
        number = 1
        while word.lower() in taken:
            number += 1
            word = f"{same}_{number}"
        taken.add(word.lower())
        found[model.loaded.name] = word
    return found


def class_name(text: str) -> str:
    """A text as the name of a component; empty if it has no letters of ours."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    made = "".join(word[0].upper() + word[1:] for word in words)
    return made if made[:1].isalpha() else ""


class _Components:
    """The components met so far, by name."""

    def __init__(self, taken: Collection[str]) -> None:
        self.schemas: Schema = {}
        self._taken = {name.lower() for name in taken}

    def lifted(self, value: Any, prefix: str = "") -> Any:
        """The same with a reference in place of each component; ``prefix`` begins the names of a model's own."""
        if isinstance(value, list | tuple):
            return [self.lifted(item, prefix) for item in value]
        if not isinstance(value, dict):
            return value
        plain = {key: self.lifted(item, prefix) for key, item in value.items()}
        if not isinstance(value, Component):
            return plain
        wanted = value.name if value.is_common else prefix + value.name
        name, number = wanted, 1
        # Without case: some generators make a file of each.
        while name.lower() in self._taken and self.schemas.get(name) != plain:
            number += 1
            name = f"{wanted}{number}"
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
