"""A row like those of the fitting, for examples and trials, made of what a fitted step keeps of its data."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitserve.estimators.walk import FEW, attribute

_PLACES_IN_THE_DATA = (
    "_fit_X", "mean_", "center_", "data_min_", "statistics_",
    "theta_", "means_", "cluster_centers_", "support_vectors_",
)  # fmt: skip
"""Attributes in which a fitted estimator keeps rows of its data, or the middle of them.

Only their mean is used: a row itself may be somebody's, and the example is public.
"""


def typical_row(step: Any, n_features: int) -> tuple[float, ...] | None:
    """A row like those of the fitting, to four digits, if the step keeps anything to make one of."""
    for name in _PLACES_IN_THE_DATA:
        value = attribute(step, name)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape[-1:] == (n_features,):
            return _rounded(value.reshape(-1, n_features).mean(axis=0))
    trees = [tree for part in _trees(step) if hasattr(tree := attribute(part, "tree_"), "threshold")]
    if not trees:
        return None
    splits, thresholds = (np.concatenate([getattr(tree, name) for tree in trees]) for name in ("feature", "threshold"))
    found = [thresholds[splits == i] for i in range(n_features)]
    return _rounded(np.array([np.median(values) if len(values) else 0.0 for values in found]))


def _trees(step: Any) -> list[Any]:
    """The step itself, or the first few estimators that it is made of."""
    parts = attribute(step, "estimators_")
    return [step] if parts is None else list(np.asarray(parts, dtype=object).ravel()[:FEW])


def _rounded(row: Any) -> tuple[float, ...] | None:
    return tuple(float(f"{value:.4g}") for value in row) if np.isfinite(row).all() else None
