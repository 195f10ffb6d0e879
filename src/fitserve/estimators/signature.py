"""Learn a signature from a fitted scikit-learn estimator.

Nothing is asked of the user: names and numbers of features, column types and categories
stand in the estimator and in the transformers of its first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.signature import Field, Kind, Label, Signature


def infer_signature(estimator: Any, example: Mapping[str, Any] | None = None) -> Signature:
    """Read the signature off a fitted estimator.

    Args:
        estimator: fitted; a Pipeline or a search over one is looked through.
        example: a valid row by feature name, where the author gave one.

    Raises:
        ArtifactError: the example does not name the estimator's features.
    """
    named = _attribute(estimator, "feature_names_in_")
    n_features = _attribute(estimator, "n_features_in_")
    if named is not None:
        names = tuple(str(name) for name in named)
    elif n_features is not None:
        names = tuple(f"x{i}" for i in range(int(n_features)))
    elif takes_texts(estimator):
        names = ("text",)
    else:
        names = tuple(example or ())  # nobody else tells
    step = first_step(estimator)
    if takes_texts(estimator):
        fields: tuple[Field, ...] = (Field("text", "string", learnt_from=type(step).__name__),)
    elif named is None and n_features is None:
        fields = tuple(_told(name, value) for name, value in (example or {}).items())
    else:
        fields = _fields(step, names)
    row = None
    if example is not None:
        if set(example) != set(names):
            msg = f"has a manifest whose example must name each feature once: {', '.join(names)}"
            raise ArtifactError(msg)
        row = tuple(example[name] for name in names)
    return Signature(
        inputs=fields,
        is_named=named is not None,
        is_open=not names,
        classes=_classes(estimator),
        example=row,
    )


def _told(name: str, value: Any) -> Field:
    """The field that the author's example tells of, where the model does not."""
    kinds: dict[type, Kind] = {str: "string", bool: "boolean"}
    return Field(name, kinds.get(type(value), "number"), learnt_from="manifest")


def class_in_sklearn(step: object) -> str | None:
    """The name of a class of scikit-learn's own; None for any other, subclasses included."""
    return type(step).__name__ if type(step).__module__.startswith("sklearn.") else None


def final_step(estimator: Any) -> Any:
    """The estimator that predicts: the last step of a pipeline, the winner of a search."""
    while True:
        if (best := _attribute(estimator, "best_estimator_")) is not None:
            estimator = best
        elif (steps := _attribute(estimator, "steps")) is not None:
            estimator = steps[-1][1]
        else:
            return estimator


def first_step(estimator: Any) -> Any:
    """The estimator that first sees the table."""
    while True:
        if (best := _attribute(estimator, "best_estimator_")) is not None:
            estimator = best
        elif (steps := _attribute(estimator, "steps")) is not None:
            estimator = next((step for _, step in steps if step is not None and not isinstance(step, str)), None)
        else:
            return estimator


_PLACES_IN_THE_DATA = (
    "_fit_X", "mean_", "center_", "data_min_", "statistics_",
    "theta_", "means_", "cluster_centers_", "support_vectors_",
)  # fmt: skip
"""Attributes in which a fitted estimator keeps rows of its data, or the middle of them.

Only their mean is used: a row itself may be somebody's, and the example is public.
"""


def typical_row(estimator: Any, n_features: int) -> tuple[float, ...] | None:
    """A row like those of the fitting, to four digits, if the first step keeps anything to make one of."""
    step = first_step(estimator)
    for name in _PLACES_IN_THE_DATA:
        value = _attribute(step, name)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape[-1:] == (n_features,):
            return _rounded(value.reshape(-1, n_features).mean(axis=0))
    trees = [tree for part in _trees(step) if (tree := _attribute(part, "tree_")) is not None]
    if not trees:
        return None
    splits, thresholds = (np.concatenate([getattr(tree, name) for tree in trees]) for name in ("feature", "threshold"))
    found = [thresholds[splits == i] for i in range(n_features)]
    return _rounded(np.array([np.median(values) if len(values) else 0.0 for values in found]))


def _trees(step: Any) -> list[Any]:
    """The step itself, or the first few estimators that it is made of."""
    parts = _attribute(step, "estimators_")
    return [step] if parts is None else list(np.asarray(parts, dtype=object).ravel()[:10])


def _rounded(row: Any) -> tuple[float, ...] | None:
    return tuple(float(f"{value:.4g}") for value in row) if np.isfinite(row).all() else None


def takes_texts(estimator: Any) -> bool:
    """Whether it was fitted on a list of texts, and not on a table."""
    try:
        tags = first_step(estimator).__sklearn_tags__().input_tags
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False
    return bool(tags.string and not tags.two_d_array)


def _attribute(estimator: Any, name: str) -> Any:
    """An attribute that a property may refuse with any error."""
    try:
        return getattr(estimator, name, None)
    except Exception:  # noqa: BLE001 - a property of a model may raise anything
        return None


def _fields(step: Any, names: tuple[str, ...]) -> tuple[Field, ...]:
    origin = type(step).__name__
    if (transformers := _attribute(step, "transformers_")) is None:
        numeric = Field("", "number", is_nullable=_allows_nan(step), learnt_from=origin)
        fields = _encoded(step, list(names)) or dict.fromkeys(names, numeric)
    else:
        fields = {}
        for label, transformer, columns in transformers:
            chosen = _column_names(columns, names)
            for name, field in _transformed(transformer, chosen, f"{origin}.{label}").items():
                # A column that goes two ways must fit both.
                fields[name] = field if name not in fields else _both(fields[name], field)
    unseen = Field("", "any", is_nullable=True, learnt_from=origin)
    return tuple(_renamed(fields.get(name, unseen), name) for name in names)


def _transformed(transformer: Any, names: list[str], origin: str) -> dict[str, Field]:
    """The fields of the columns that one transformer of a ColumnTransformer takes."""
    is_dropped = transformer == "drop"
    if isinstance(transformer, str):
        return {name: Field(name, "any", is_nullable=is_dropped, learnt_from=origin) for name in names}
    if takes_texts(transformer):
        return {name: Field(name, "string", learnt_from=origin) for name in names}
    steps = [step for _, step in (_attribute(transformer, "steps") or [("", transformer)])]
    imputers = [step for step in steps if _attribute(step, "statistics_") is not None]
    fills_missing = bool(imputers)
    for step in steps:
        if encoded := _encoded(step, names):
            return {
                name: Field(
                    name,
                    field.kind,
                    is_nullable=field.is_nullable or fills_missing,
                    categories=field.categories,
                    is_closed=field.is_closed,
                    learnt_from=origin,
                )
                for name, field in encoded.items()
            }
    kind: Kind = "number" if _is_numeric(steps[0]) else "any"
    is_nullable = fills_missing or (kind == "any") or all(_allows_nan(step) for step in steps)
    return {name: Field(name, kind, is_nullable=is_nullable, learnt_from=origin) for name in names}


def _encoded(step: Any, names: list[str]) -> dict[str, Field]:
    """The fields of an encoder that keeps the categories of each column; empty for any other step."""
    categories = _attribute(step, "categories_")
    if categories is None or len(categories) != len(names):
        return {}
    is_closed = getattr(step, "handle_unknown", None) == "error"
    fields = {}
    for name, values in zip(names, categories, strict=True):
        labels = [label for label in values.tolist() if not _is_missing(label)]
        kinds = set(map(type, labels))
        kind: Kind = "string" if kinds == {str} else "boolean" if kinds == {bool} else "any"
        if kinds and kinds <= {int, float}:
            kind = "number"
        is_nullable = len(labels) < len(values) or not is_closed
        fields[name] = Field(name, kind, is_nullable=is_nullable, categories=tuple(labels), is_closed=is_closed)
    return fields


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))


def _is_numeric(step: Any) -> bool:
    """Whether a scikit-learn transformer takes numbers only: what its own code would refuse."""
    if not type(step).__module__.startswith("sklearn."):
        return False
    try:
        tags = step.__sklearn_tags__().input_tags
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False
    return not (tags.string or tags.categorical) and type(step).__name__ != "FunctionTransformer"


def _allows_nan(step: Any) -> bool:
    try:
        return bool(step.__sklearn_tags__().input_tags.allow_nan)
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False


def _column_names(columns: Any, names: tuple[str, ...]) -> list[str]:
    """What a ColumnTransformer calls its columns: names, positions, a slice or a mask."""
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = names.index(columns.start) if columns.start is not None else 0
            stop = names.index(columns.stop) + 1 if columns.stop is not None else len(names)
            return list(names[start:stop])
        return list(names[columns])
    items = [columns] if isinstance(columns, str | int) else list(columns)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [name for name, is_chosen in zip(names, items, strict=True) if is_chosen]
    return [item if isinstance(item, str) else names[int(item)] for item in items]


def _both(one: Field, other: Field) -> Field:
    kind: Kind = one.kind if other.kind in {one.kind, "any"} else other.kind
    stricter = one if one.is_closed or not other.is_closed else other
    return Field(
        one.name,
        kind,
        is_nullable=one.is_nullable and other.is_nullable,
        categories=stricter.categories or one.categories or other.categories,
        is_closed=stricter.is_closed,
        learnt_from=f"{one.learnt_from}, {other.learnt_from}",
    )


def _renamed(field: Field, name: str) -> Field:
    return Field(name, field.kind, field.is_nullable, field.categories, field.is_closed, field.learnt_from)


def _classes(estimator: Any) -> tuple[tuple[Label, ...], ...] | None:
    classes = _attribute(estimator, "classes_")
    if classes is None:
        return None
    if isinstance(classes, Sequence):
        return tuple(_labels(output) for output in classes)
    return (_labels(classes),)


def _labels(classes: Any) -> tuple[Label, ...]:
    return tuple(
        label if isinstance(label, str | int | float | bool) else _text(label) for label in np.asarray(classes).tolist()
    )


def _text(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
