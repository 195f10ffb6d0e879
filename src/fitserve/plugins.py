"""Parts that are found by lying in a folder: one module each, exporting one constant."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")


def discover(package: ModuleType, kind: type[T], constant: str) -> list[T]:
    """Import every module of ``package`` and collect its ``constant``, in order of module name.

    Modules that have no such constant are the package's own words (``base``) and are passed over.

    Raises:
        TypeError: a module exports the constant, but of another type.
    """
    found: list[T] = []
    for module, part in _parts(package, constant):
        if not isinstance(part, kind):
            msg = f"{module}.{constant} is a {type(part).__name__}, not a {kind.__name__}"
            raise TypeError(msg)
        found.append(part)
    return found


@cache
def _parts(package: ModuleType, constant: str) -> list[tuple[str, object]]:
    """The constants of the modules that have one, by the name of the module. Looked for once."""
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    parts = ((name, getattr(importlib.import_module(name), constant, None)) for name in names)
    return [(name, part) for name, part in parts if part is not None]
