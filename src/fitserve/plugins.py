"""Parts that are found by lying in a folder: one module each, exporting one constant."""

from __future__ import annotations

import importlib
import pkgutil
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
    for info in pkgutil.iter_modules(package.__path__):
        part = getattr(importlib.import_module(f"{package.__name__}.{info.name}"), constant, None)
        if part is None:
            continue
        if not isinstance(part, kind):
            msg = f"{package.__name__}.{info.name}.{constant} is a {type(part).__name__}, not a {kind.__name__}"
            raise TypeError(msg)
        found.append(part)
    return found
