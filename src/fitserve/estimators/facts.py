"""What is known of an estimator besides its signature: its class, the libraries that it runs, their versions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.estimators.walk import final_step
from fitserve.types import MAY_DIFFER, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIBRARIES = frozenset({
    "_catboost", "_thread", "builtins", "catboost", "collections", "ctypes", "datetime", "enum", "fitserve",
    "functools", "joblib", "lightgbm", "numpy", "pandas", "re", "scipy", "sklearn", "xgboost",
})  # fmt: skip
"""Packages whose code does the same work whatever the values; anybody else's may sleep or loop on some."""

_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "_catboost": "catboost",
    "pandas": "pandas",
}


def facts_of(
    estimator: Any, packages: set[str], caught: Sequence[Warning | str], declared: Mapping[str, str]
) -> ModelFacts:
    """The facts of an estimator.

    Args:
        estimator: fitted; its last step gives the type.
        packages: that its parts come from.
        caught: what was warned of while it was loaded.
        declared: versions at fitting, by distribution name; a file itself seldom tells.
    """
    notes: list[str] = []
    fitted_with = dict(declared)
    for warning in caught:
        version = getattr(warning, "original_sklearn_version", None)
        if version is None:
            notes.append(f"{type(warning).__name__} while loading: {warning}")
        else:
            fitted_with["scikit-learn"] = version
    libraries: dict[str, tuple[str | None, str]] = {"numpy": (fitted_with.get("numpy"), np.__version__)}
    for package in sorted(packages & set(_DISTRIBUTIONS)):
        name = _DISTRIBUTIONS[package]
        module = sys.modules.get("catboost" if package == "_catboost" else package)
        now = str(getattr(module, "__version__", "unknown"))
        # scikit-learn warns unless the two are equal.
        libraries[name] = (fitted_with.get(name, now if package == "sklearn" else None), now)
    for name, (then, now) in libraries.items():
        if then is not None and then != now and name != "numpy":
            notes.append(f"fitted with {name} {then}, served with {now}: {MAY_DIFFER}")
    return ModelFacts(_kind(estimator), libraries, tuple(dict.fromkeys(notes)))


def _kind(estimator: Any) -> str:
    final = final_step(estimator)
    return (
        type(getattr(final, "booster_", final)).__name__
        if type(final).__module__.startswith("fitserve")
        else (type(final).__name__)
    )
