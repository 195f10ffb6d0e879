"""Estimators rewritten into what converters know, with what is to be done with their columns instead."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from fitserve.estimators.walk import attribute, class_in_sklearn, is_step, winner


def without_imputers(estimator: Any) -> tuple[Any, dict[int, float | str]]:
    """An estimator without the imputers that come first, and by column what a null becomes instead.

    ONNX Runtime has none for float64, and skl2onnx none for texts whose missing value is NaN, which is how pandas
    marks it. A copy, as far as it differs.
    """
    estimator = winner(estimator)
    kind = class_in_sklearn(estimator)
    if kind == "Pipeline":
        return _pipeline(estimator)
    if kind != "ColumnTransformer":
        return estimator, {}
    found: dict[int, float | str] = {}
    transformers = []
    places = attribute(estimator, "_transformer_to_input_indices") or {}
    for name, transformer, columns in estimator.transformers_:
        fills = _fills(transformer, list(places.get(name, ())))
        found |= fills
        transformers.append((name, _rest(transformer) if fills else transformer, columns))
    if found:
        estimator = copy.copy(estimator)
        estimator.transformers_ = transformers
    return estimator, found


def _pipeline(estimator: Any) -> tuple[Any, dict[int, float | str]]:
    steps = [(name, step) for name, step in estimator.steps if is_step(step)]
    if len(steps) < 2:  # noqa: PLR2004 - what transforms, and what it transforms for
        return estimator, {}
    name, step = steps[0]
    fills = _fills(step, list(range(int(attribute(step, "n_features_in_") or 0))))
    first: list[tuple[str, Any]] = []
    if not fills:
        before, fills = without_imputers(step)
        first = [(name, before)]
    if fills:
        estimator = copy.copy(estimator)
        estimator.steps = [*first, *steps[1:]]
    return estimator, fills


def _fills(transformer: Any, columns: list[int]) -> dict[int, float | str]:
    """What an imputer that comes first fills each column with."""
    steps = attribute(transformer, "steps")
    imputer = steps[0][1] if steps else transformer
    if class_in_sklearn(imputer) != "SimpleImputer" or attribute(imputer, "indicator_") is not None:
        return {}
    if not (imputer.missing_values is None or imputer.missing_values != imputer.missing_values):
        return {}
    values = np.asarray(imputer.statistics_).tolist()
    is_whole = all(isinstance(value, str) or (isinstance(value, float) and math.isfinite(value)) for value in values)
    return dict(zip(columns, values, strict=True)) if is_whole and len(values) == len(columns) else {}


def _rest(transformer: Any) -> Any:
    """A transformer without its first step."""
    steps = attribute(transformer, "steps")
    return type(transformer)(steps[1:]) if steps and len(steps) > 1 else "passthrough"


def without_encoder(histograms: Any) -> tuple[Any, list[list[Any] | None], list[int]] | None:
    """Histogram boosting without the encoder of its categories; None where it has none. A copy.

    Returns:
        The copy, whose trees look at codes; of each column its categories in the order of their codes; and the
        columns in the order in which the trees number them.
    """
    encoders = attribute(histograms, "_preprocessor")
    if encoders is None:
        return None
    is_category = np.asarray(histograms.is_categorical_)
    order = [*np.flatnonzero(is_category).tolist(), *np.flatnonzero(~is_category).tolist()]
    categories = encoders.transformers_[0][1].categories_
    levels: list[list[Any] | None] = [None] * len(order)
    for column, known in zip(order, categories, strict=False):
        levels[column] = [None if value != value else value for value in known.tolist()]  # noqa: PLR0124 - NaN, which JSON has not
    bare = copy.copy(histograms)
    bare._preprocessor = None  # noqa: SLF001 - treelite reads it, and knows no texts
    return bare, levels, order
