"""Ways through an estimator that is made of others: its first step, its last, and all of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAME_COLUMNS: dict[str, str] = {
    "CalibratedClassifierCV": "calibrated_classifiers_",
    "FixedThresholdClassifier": "estimator_",
    "FrozenEstimator": "estimator",
    "MultiOutputClassifier": "estimators_",
    "MultiOutputRegressor": "estimators_",
    "OneVsOneClassifier": "estimators_",
    "OneVsRestClassifier": "estimators_",
    "OutputCodeClassifier": "estimators_",
    "SelfTrainingClassifier": "estimator_",
    "StackingClassifier": "estimators_",
    "StackingRegressor": "estimators_",
    "TransformedTargetRegressor": "regressor_",
    "TunedThresholdClassifierCV": "estimator_",
    "VotingClassifier": "estimators_",
    "VotingRegressor": "estimators_",
    "_CalibratedClassifier": "estimator",
}
"""Estimators of scikit-learn that hand the table to others as it is, and where they keep those."""

FEW = 10
"""Of many equal sub-estimators, as many are looked into: they saw the same columns."""


def attribute(estimator: Any, name: str) -> Any:
    """An attribute, or None where there is none or a property refuses it with any error."""
    try:
        return getattr(estimator, name, None)
    except Exception:  # noqa: BLE001 - a property of a model may raise anything
        return None


def has_method(estimator: object, method: str) -> bool:
    """Whether it has the method; a property of a meta-estimator may raise instead of saying no."""
    return callable(attribute(estimator, method))


def class_in_sklearn(step: object) -> str | None:
    """The name of a class of scikit-learn's own; None for any other, subclasses included."""
    return type(step).__name__ if type(step).__module__.startswith("sklearn.") else None


def is_step(step: object) -> bool:
    """Whether a step of a pipeline does anything: neither None nor ``passthrough``."""
    return step is not None and not isinstance(step, str)


def winner(estimator: Any) -> Any:
    """The estimator that a search has found; any other as it is."""
    while (best := attribute(estimator, "best_estimator_")) is not None:
        estimator = best
    return estimator


def final_step(estimator: Any) -> Any:
    """The estimator that predicts: the last step of a pipeline, the winner of a search."""
    while True:
        estimator = winner(estimator)
        if (steps := attribute(estimator, "steps")) is None:
            return estimator
        estimator = steps[-1][1]


def first_step(estimator: Any) -> Any:
    """The estimator that first sees the table."""
    while True:
        estimator = winner(estimator)
        if (steps := attribute(estimator, "steps")) is None:
            return estimator
        estimator = next((step for _, step in steps if is_step(step)), None)


def inner(estimator: Any) -> list[Any]:
    """The fitted estimators that an estimator hands its whole table to, at most :data:`FEW`."""
    if (union := attribute(estimator, "transformer_list")) is not None:
        return [transformer for _, transformer in union if is_step(transformer)]
    kind = class_in_sklearn(estimator)
    if kind in {"BaggingClassifier", "BaggingRegressor"}:
        width = range(int(estimator.n_features_in_))
        pairs = zip(estimator.estimators_, estimator.estimators_features_, strict=True)
        return [part for part, features in pairs if list(features) == list(width)][:FEW]
    found = attribute(estimator, _SAME_COLUMNS.get(kind or "", ""))
    if found is None:
        return []
    parts = found if isinstance(found, list | tuple | np.ndarray) else [found]
    return [part for part in parts if is_step(part)][:FEW]


def takes_texts(estimator: Any) -> bool:
    """Whether it was fitted on a list of texts, and not on a table."""
    step = first_step(estimator)
    try:
        tags = step.__sklearn_tags__().input_tags
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False
    if tags.string and not tags.two_d_array:
        return True
    parts = inner(step)
    return bool(parts) and all(map(takes_texts, parts))


def feature_names(estimator: Any) -> tuple[str, ...] | None:
    """The names of the columns that it was fitted on; None where it had or kept none."""
    for part in _heads(estimator):
        for name in ("feature_names_in_", "feature_names_"):
            found = attribute(part, name)
            if found is not None and len(found):
                names = tuple(str(value) for value in found)
                # CatBoost numbers the columns of a matrix.
                return None if names == tuple(map(str, range(len(names)))) and name == "feature_names_" else names
    return None


def feature_count(estimator: Any) -> int | None:
    """The number of columns that it was fitted on; None where it does not tell."""
    for part in _heads(estimator):
        if found := attribute(part, "n_features_in_"):
            return int(found)
        if (names := attribute(part, "feature_names_")) is not None:  # all that a copy of a CatBoost model has
            return len(names)
    thresholds = attribute(first_step(estimator), "X_thresholds_")  # of an isotonic regression
    return None if thresholds is None else 1


def _heads(estimator: Any) -> Iterator[Any]:
    """Those parts of an estimator that see its table, itself first."""
    yield estimator
    step = first_step(estimator)
    if step is not None and step is not estimator:
        yield from _heads(step)
    for part in inner(step):
        yield from _heads(part)


def parts_of(estimator: object) -> Iterator[Any]:
    """Every object and function that the estimator is made of, itself first."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or part is None or isinstance(part, str | bytes | int | float | complex | np.generic):
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, np.ndarray):
            waiting += part.ravel().tolist() if part.dtype == object else []
        else:
            yield part
            waiting += vars(part).values() if hasattr(part, "__dict__") and not isinstance(part, type) else []


def package_of(part: object) -> str:
    """The package that a class, function or object comes from."""
    module = getattr(part, "__module__", None) or type(part).__module__
    return str(module).partition(".")[0]
