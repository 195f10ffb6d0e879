"""Follow a table through the steps of a fitted estimator, and learn of each column what its first steps keep."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.estimators.booster_columns import booster_columns
from fitserve.estimators.columns import Column, both, category_column, is_missing, kind_of
from fitserve.estimators.example import typical_row
from fitserve.estimators.walk import attribute, class_in_sklearn, inner, is_step, takes_texts, winner
from fitserve.signature import Field, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMPUTERS = frozenset({"SimpleImputer", "KNNImputer", "IterativeImputer"})
"""Steps that fill what is missing and leave the columns as and where they were."""


def columns_of(step: Any, names: Sequence[str], place: str = "") -> dict[str, Column]:
    """What a fitted step, however nested, tells of the columns ``names`` that it is given.

    ``place`` says where the step stands, for :attr:`Field.learnt_from`: ``ColumnTransformer.cat``.
    """
    step = winner(step)
    if not is_step(step):
        return {name: _unknown(name, place or "Pipeline") for name in names}
    origin = f"{type(step).__name__} of {place}" if place else type(step).__name__
    if (boosted := booster_columns(step, names)) is not None:
        return boosted
    if (steps := attribute(step, "steps")) is not None:
        return _through_pipeline([one for _, one in steps if is_step(one)], names, place)
    if (transformers := attribute(step, "transformers_")) is not None:
        return _through_transformers(type(step).__name__, transformers, names)
    if parts := inner(step):
        return _through_all(parts, names, place)
    if class_in_sklearn(step) in _IMPUTERS:
        return _filled(step, names, place)
    return _of_step(step, names, origin)


def _of_step(step: Any, names: Sequence[str], origin: str) -> dict[str, Column]:
    """The columns of a step that is not made of others."""
    if takes_texts(step):
        return {name: Column(Field(name, "string", learnt_from=origin)) for name in names}
    if (preprocessor := attribute(step, "_preprocessor")) is not None and class_in_sklearn(step):
        return _of_histogram(step, preprocessor, names, origin)
    return _encoded(step, names, origin) or _unspecific(step, names, origin)


def _unknown(name: str, origin: str) -> Column:
    return Column(Field(name, "any", is_nullable=True, learnt_from=origin))


def _through_pipeline(steps: list[Any], names: Sequence[str], place: str) -> dict[str, Column]:
    """The first step that is no imputer tells what the columns are; imputers, that they may be missing."""
    filled: dict[str, Column] = {}
    found: dict[str, Column] | None = None
    for i, step in enumerate(steps):
        is_last = i == len(steps) - 1
        if class_in_sklearn(step) in _IMPUTERS and not is_last:
            filled = filled or _filled(step, names, place)
            continue
        found = columns_of(step, names, place)
        break
    if found is None:
        return {name: _unknown(name, place or "Pipeline") for name in names}
    columns = {name: _behind(filled[name], column) if filled else column for name, column in found.items()}
    return _with_categories(columns, steps[-1])


def _behind(filled: Column, column: Column) -> Column:
    """A column whose missing values are filled before a step sees it."""
    joined = both(column, filled)
    field = replace(
        joined.field, is_nullable=True, learnt_from=f"{filled.field.learnt_from}, {column.field.learnt_from}"
    )
    return replace(joined, field=field)


def _filled(step: Any, names: Sequence[str], place: str) -> dict[str, Column]:
    """What an imputer tells: the kind of its statistics, and how a missing value is spelt."""
    origin = type(step).__name__ + (f" of {place}" if place else "")
    statistics = attribute(step, "statistics_")
    null = None if attribute(step, "missing_values") is None else float("nan")
    columns = {}
    for i, name in enumerate(names):
        kind: Kind = "numeric"
        typical = None
        if class_in_sklearn(step) == "SimpleImputer" and statistics is not None and len(statistics) == len(names):
            value = statistics[i].item() if isinstance(statistics[i], np.generic) else statistics[i]
            told = "any" if is_missing(value) else kind_of([value])
            is_recorded = getattr(attribute(step, "_fit_dtype"), "kind", "O") in "iuf"
            kind = "numeric" if told == "number" and not is_recorded else told
            is_made = told == "number" and attribute(step, "strategy") != "constant"
            typical = float(f"{value:.4g}") if is_made else None
        columns[name] = Column(Field(name, kind, is_nullable=True, learnt_from=origin), null=null, typical=typical)
    return columns


def _with_categories(columns: dict[str, Column], final: Any) -> dict[str, Column]:
    """Columns that reach the last step as they are, by the name that they have there, with its categories.

    A ColumnTransformer that gives frames calls a column that it passes ``remainder__c``, or ``c``.
    """
    final = winner(final)
    names = attribute(final, "feature_name_") or attribute(final, "feature_names_")
    names = attribute(final, "feature_names_in_") if names is None else names
    if names is None or not any(column.field.kind == "any" for column in columns.values()):
        return columns
    known = columns_of(final, [str(name) for name in names])
    short = {
        name.rpartition("__")[2]: column
        for name, column in known.items()
        if column.field.categories or column.is_hashed
    }
    return {
        name: short[name].renamed(name) if column.field.kind == "any" and name in short else column
        for name, column in columns.items()
    }


def _through_transformers(kind: str, transformers: Any, names: Sequence[str]) -> dict[str, Column]:
    """The columns of a ColumnTransformer; one that it drops may be anything."""
    fields: dict[str, Column] = {}
    for label, transformer, chosen in transformers:
        place = f"{kind}.{label}"
        if isinstance(transformer, str) and transformer == "drop":
            continue
        if class_in_sklearn(transformer) == "FunctionTransformer" and transformer.func is None:
            transformer = "passthrough"  # noqa: PLW2901 - what scikit-learn made of it
        for name, column in columns_of(transformer, column_names(chosen, names), place).items():
            fields[name] = both(fields[name], column) if name in fields else column
    return {name: fields.get(name) or _unknown(name, kind) for name in names}


def _through_all(parts: list[Any], names: Sequence[str], place: str) -> dict[str, Column]:
    """The columns of estimators that are each given the whole table."""
    together: dict[str, Column] = {}
    for part in parts:
        for name, column in columns_of(part, names, place).items():
            together[name] = both(together[name], column) if name in together else column
    return together


def _of_histogram(step: Any, preprocessor: Any, names: Sequence[str], origin: str) -> dict[str, Column]:
    """The columns of a gradient boosting with categorical features, whose encoder it keeps to itself."""
    is_coded = step.is_categorical_
    encoder = preprocessor.named_transformers_["encoder"]
    coded = [name for name, is_one in zip(names, is_coded, strict=True) if is_one]
    encoded = _encoded(encoder, coded, f"categorical_features of {origin}")
    numeric = _unspecific(step, [name for name in names if name not in encoded], origin)
    return {name: encoded.get(name) or numeric[name] for name in names}


def _encoded(step: Any, names: Sequence[str], origin: str) -> dict[str, Column]:
    """The columns of an encoder that keeps the categories of each column; empty for any other step."""
    categories = attribute(step, "categories_")
    # An imputer before it may have added columns behind, which tell what was missing.
    if not isinstance(categories, list | tuple) or len(categories) < len(names):
        return {}
    is_closed = attribute(step, "handle_unknown") == "error"
    return {
        name: category_column(name, np.asarray(values), origin, is_closed=is_closed)
        for name, values in zip(names, categories, strict=False)
    }


def _unspecific(step: Any, names: Sequence[str], origin: str) -> dict[str, Column]:
    """The columns of a step that keeps nothing of their types but what its own code takes."""
    kind: Kind = "numeric" if is_numeric(step) else "any"
    typical = typical_row(step, len(names)) if kind == "numeric" else None
    is_nullable = kind == "any" or _allows_nan(step)
    return {
        name: Column(
            Field(name, kind, is_nullable=is_nullable, learnt_from=origin),
            typical=None if typical is None else typical[i],
        )
        for i, name in enumerate(names)
    }


def is_numeric(step: Any) -> bool:
    """Whether a step of scikit-learn takes numbers only: what its own code would refuse."""
    if class_in_sklearn(step) is None:
        return False
    try:
        tags = step.__sklearn_tags__().input_tags
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False
    return not (tags.string or tags.categorical) and type(step).__name__ not in _OF_ANY


_OF_ANY = frozenset({"FunctionTransformer", "DummyClassifier", "DummyRegressor", "MissingIndicator"})
"""Steps of scikit-learn that take whatever comes, though they do not say so."""


def _allows_nan(step: Any) -> bool:
    try:
        return bool(step.__sklearn_tags__().input_tags.allow_nan)
    except Exception:  # noqa: BLE001 - no tags, no knowledge
        return False


def column_names(columns: Any, names: Sequence[str]) -> list[str]:
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
