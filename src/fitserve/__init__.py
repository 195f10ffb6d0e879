"""fitserve: you call ``.fit()``, it serves.

>>> import fitserve
>>> app = fitserve.create_app("model_v1.2.3.joblib")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitserve.app import create_app
    from fitserve.errors import (
        ArtifactError,
        FitserveError,
        InvalidInputError,
        ModelFailedError,
        ModelNotFoundError,
        SettingsError,
    )
    from fitserve.notebook import ServedModel, serve
    from fitserve.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "FitserveError",
    "InvalidInputError",
    "ModelFailedError",
    "ModelNotFoundError",
    "ServedModel",
    "Settings",
    "SettingsError",
    "create_app",
    "serve",
]

_MODULES = {"ServedModel": "notebook", "Settings": "settings", "create_app": "app", "serve": "notebook"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import fitserve`` and ``fitserve --help`` stay quick."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
