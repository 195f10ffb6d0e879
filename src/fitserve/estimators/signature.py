"""Learn a signature from a fitted estimator.

Nothing is asked of the user: names and numbers of features, column types and categories
stand in the estimator and in the first steps that see its table. What is declared besides wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.estimators.columns import Column
from fitserve.estimators.declared import declared_names, merged, named, told
from fitserve.estimators.steps import columns_of
from fitserve.estimators.walk import attribute, feature_count, feature_names, first_step, takes_texts
from fitserve.signature import Field, Label, Signature
from fitserve.types import Declared

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a fitted estimator tells without being called.

    Attributes:
        signature: inputs and classes; whether nulls and unknown categories are taken is what
            the parts say, before any trial.
        columns: the inputs again, as the estimator was fitted on them.
        own_names: of the columns, where the estimator has names itself.
        has_texts: it was fitted on a list of texts.
        relabels: its classes are numbered only, and the declared ones name them.
    """

    signature: Signature
    columns: tuple[Column, ...]
    own_names: tuple[str, ...] | None
    has_texts: bool
    relabels: bool


def infer_signature(estimator: Any, declared: Declared | None = None) -> Inferred:
    """Read the signature off a fitted estimator.

    Args:
        estimator: fitted; pipelines, searches and ensembles are looked through.
        declared: what is said besides, by field; see :class:`~fitserve.types.Declared`.

    Raises:
        ArtifactError: what is declared does not belong to this estimator.
    """
    declared = declared or Declared()
    own_names = feature_names(estimator)
    has_texts = own_names is None and takes_texts(estimator)
    columns = _columns(estimator, own_names, declared, has_texts=has_texts)
    columns = tuple(merged(column, declared) for column in columns)
    names = tuple(column.field.name for column in columns)
    row = None if declared.example is None else _row(declared.example, names)
    classes, relabels = _declared_classes(_classes(estimator), declared.classes)
    signature = Signature(
        inputs=tuple(column.field for column in columns),
        is_named=own_names is not None or bool(declared_names(declared)),
        is_open=not columns,
        classes=classes,
        example=row,
    )
    return Inferred(signature, columns, own_names, has_texts, relabels)


def _columns(
    estimator: Any, own_names: tuple[str, ...] | None, declared: Declared, *, has_texts: bool
) -> tuple[Column, ...]:
    """The columns by the estimator, under the names that they are to have."""
    if has_texts:
        field = Field("text", "string", learnt_from=type(first_step(estimator)).__name__)
        return named([Column(field)], declared, has_names=False)
    n_features = feature_count(estimator)
    if own_names is None and n_features is None:
        return told(declared)
    names = own_names if own_names is not None else tuple(f"x{i}" for i in range(n_features or 0))
    found = columns_of(estimator, names)
    columns = [found[name].renamed(name) for name in names]
    if own_names is None:  # a row by position says nothing by a boolean
        columns = [
            replace(column, field=replace(column.field, kind="number")) if column.field.kind == "numeric" else column
            for column in columns
        ]
    return named(columns, declared, has_names=own_names is not None)


def _row(example: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    values = list(example.values())
    return tuple(example.get(name, value) for name, value in zip(names, values, strict=True))


def _classes(estimator: Any) -> tuple[tuple[Label, ...], ...] | None:
    classes = attribute(estimator, "classes_")
    if classes is None or len(classes) == 0:
        return None
    if isinstance(classes, Sequence):
        return tuple(map(_labels, classes))
    return (_labels(classes),)


def _declared_classes(
    own: tuple[tuple[Label, ...], ...] | None, declared: tuple[Label, ...] | None
) -> tuple[tuple[tuple[Label, ...], ...] | None, bool]:
    """The classes to show, and whether predictions are to be renamed to them."""
    if declared is None or own == (tuple(declared),):
        # 1 equals True, and is another label.
        is_other = declared is not None and list(map(type, declared)) != list(map(type, own[0] if own else ()))
        return (own, False) if not is_other else ((tuple(declared or ()),), True)
    if own is None or len(own) > 1 or own[0] != tuple(range(len(own[0]))):
        msg = "has declared classes that are not the model's own: leave them out"
        raise ArtifactError(msg)
    if len(declared) != len(own[0]) or len(set(declared)) < len(declared):
        msg = f"has {len(declared)} declared classes, but the model knows {len(own[0])}: wanted as many, each once"
        raise ArtifactError(msg)
    return (tuple(declared),), True


def _labels(classes: Any) -> tuple[Label, ...]:
    return tuple(
        label if isinstance(label, str | int | float | bool) else _text(label) for label in np.asarray(classes).tolist()
    )


def _text(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
