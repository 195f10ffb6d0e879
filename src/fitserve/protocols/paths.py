"""The paths of routes, some of which have parameters: ``/models/{name}/predict``."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fitserve.types import ModelRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_MODEL = ModelRef()
"""What a path without parameters asks for."""

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})

_PARAMETER = re.compile(r"\{(\w+)\}")


def parameters_of(template: str) -> tuple[str, ...]:
    """The names of the parameters of a template, in order."""
    return tuple(_PARAMETER.findall(template))


class Paths:
    """Finds the template that a path fits: one look-up where it has no parameters, else by its parts.

    A parameter is one part of a path, and not empty.
    """

    def __init__(self, templates: Iterable[str]) -> None:
        self._plain: set[str] = set()
        self._shapes: dict[tuple[int, str], list[tuple[str, list[str]]]] = {}
        for template in templates:
            if parameters_of(template):
                parts = template.split("/")
                self._shapes.setdefault((len(parts), parts[1]), []).append((template, parts))
            else:
                self._plain.add(template)

    def find(self, path: str) -> tuple[str, Mapping[str, str]] | None:
        """The template that a path fits and its parameters, or None."""
        if path in self._plain:
            return path, NO_PARAMETERS
        parts = path.split("/")
        if len(parts) < 2:  # noqa: PLR2004 - what stands before and behind the first stroke
            return None
        for template, wanted in self._shapes.get((len(parts), parts[1]), ()):
            found = _fit(wanted, parts)
            if found is not None:
                return template, found
        return None


def _fit(wanted: list[str], parts: list[str]) -> dict[str, str] | None:
    found = {}
    for want, part in zip(wanted, parts, strict=True):
        if want.startswith("{"):
            if not part:
                return None
            found[want[1:-1]] = part
        elif want != part:
            return None
    return found


def ref_of(parameters: Mapping[str, str]) -> ModelRef:
    """What the parameters ``name`` and ``version`` of a path ask for.

    Both ``churn@champion`` in the place of a name and ``@champion`` in that of a version name an alias.
    """
    name, version = parameters.get("name"), parameters.get("version")
    if name is None:
        return DEFAULT_MODEL
    alias: str | None = None
    if version and version[0] == "@":
        alias, version = version[1:], None
    elif "@" in name:
        name, _, alias = name.partition("@")
    return ModelRef(name=name, version=version, alias=alias)


def narrowed(ref: ModelRef, version: str) -> ModelRef | None:
    """What a path asks for, with the version or ``@alias`` that the body names besides; None if that contradicts it.

    Where one names a version and the other an alias, both are kept: the alias must then stand for that version.
    """
    if version.startswith("@"):
        alias = version[1:]
        return replace(ref, alias=alias) if ref.alias in {None, alias} else None
    return replace(ref, version=version) if ref.version in {None, version} else None
