"""The OpenAPI document of the models that serve: their own fields, classes and examples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitserve.protocols.openapi import HEADERS, Component, Schema, class_name, in_path, with_parameters
from fitserve.protocols.paths import parameters_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fitserve.protocols.base import Operation, Route
    from fitserve.store.catalog import Catalog, LoadedModel


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

    An inference route that names a model is described once for each of them.

    Args:
        routes: of the protocols.
        models: that serve.
        taken: names of components that somebody else has defined.
    """
    writer = _Writer(models, taken)
    for route in routes:
        if route.inference is not None and parameters_of(route.path):
            for model in models:
                writer.add_of_model(route, model)
        else:
            writer.add(route)
    return {"paths": writer.paths, "components": {"schemas": writer.components.schemas, "headers": HEADERS}}


class _Writer:
    """Writes a document, route by route."""

    def __init__(self, models: Sequence[Described], taken: Collection[str]) -> None:
        self.paths: Schema = {}
        self.components = _Components(taken)
        self._default = next((model.loaded for model in models if model.is_default), None)
        self._parameters = _parameters([model.loaded.name for model in models])
        self._ids: set[str] = set()
        self._done: dict[tuple[Operation, str | None], Schema] = {}

    def add(self, route: Route) -> None:
        """Describe a route as it is, by the default model."""
        parameters = [self._parameters[name] for name in parameters_of(route.path)]
        self._put(route, route.path, with_parameters(self._described(route.operation, self._default), parameters))

    def add_of_model(self, route: Route, model: Described) -> None:
        """Describe an inference route of one model; examples stand where they stand first."""
        name, has_version = model.loaded.name, "version" in parameters_of(route.path)
        found = self._described(route.operation, model.loaded)
        word = re.sub(r"\W", "_", name) + "_version" * has_version
        found = {**found, "operationId": f"{found['operationId']}_{word}"}
        if has_version or model.is_default:
            found = _without_examples(found)
        if has_version:
            found = with_parameters(found, [in_path("version", VERSION_TEXT, enum=list(model.versions))])
        self._put(route, route.path.replace("{name}", name), found)

    def _put(self, route: Route, path: str, found: Schema) -> None:
        """Put a description into its place, under an id of its own: names of models may become one word."""
        wanted, number = found["operationId"], 1
        own = wanted
        while own.lower() in self._ids:
            number += 1
            own = f"{wanted}_{number}"
        self._ids.add(own.lower())
        self.paths.setdefault(path, {})[route.method.lower()] = {**found, "operationId": own}

    def _described(self, describe: Operation, loaded: LoadedModel | None) -> Schema:
        """A description, which costs most of what a document does, made once for all the paths that have it."""
        key = describe, loaded.name if loaded else None
        if key not in self._done:
            prefix = "" if loaded is self._default or loaded is None else class_name(loaded.name)
            self._done[key] = self.components.lifted(dict(describe(loaded)), prefix)
        return self._done[key]


def _without_examples(operation: Schema) -> Schema:
    content = operation["requestBody"]["content"]
    plain = {kind: {"schema": media["schema"]} for kind, media in content.items()}
    return {**operation, "requestBody": {**operation["requestBody"], "content": plain}}


VERSION_TEXT = "The version, or @ and its alias."

MOST_NAMES = 100
"""Of more models than these the names are not listed with each path that takes one."""


def _parameters(names: list[str]) -> dict[str, Schema]:
    """The parameters that paths have, by name."""
    identifier = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"}
    model = {"enum": names} if 0 < len(names) <= MOST_NAMES else identifier
    text = "The model. With @ and an alias behind it, the version that the alias stands for."
    return {
        "name": in_path("name", text, **model),
        "version": in_path("version", VERSION_TEXT, pattern="^@?[A-Za-z0-9._+-]{1,64}$"),
        "alias": in_path("alias", "A name that stands for a version, such as champion.", **identifier),
        "id": in_path("id", "Of the operation.", pattern="^[A-Za-z0-9-]{1,64}$"),
    }


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
