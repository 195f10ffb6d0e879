"""Put together what is said of a model's inputs: the manifest, the example, MLflow and the estimator, in this order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, clip
from fitserve.estimators.columns import Column
from fitserve.signature import Field, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fitserve.types import Declared


def declared_names(declared: Declared) -> tuple[str, ...]:
    """The names of the inputs by whoever says them first; none where nobody does."""
    for fields in (declared.fields, declared.mlflow_fields):
        if fields is not None:
            names = tuple(field.name for field in fields)
            break
    else:
        return tuple(declared.example or ())
    if declared.fields is None and declared.example is not None and set(declared.example) != set(names):
        return tuple(declared.example)
    return names


def named(columns: Sequence[Column], declared: Declared, *, has_names: bool) -> tuple[Column, ...]:
    """The estimator's columns, under the declared names where it has none itself.

    Raises:
        ArtifactError: the declared names are not the estimator's, or not as many.
    """
    own = tuple(column.field.name for column in columns)
    for source, names in _name_lists(declared):
        if has_names and (len(names) != len(own) or set(names) != set(own)):
            wanted, came = clip(", ".join(own), 500), clip(", ".join(names), 500)
            msg = f"has {source} must name each feature once: {wanted}; came: {came}"
            raise ArtifactError(msg)
        if not has_names and len(names) != len(own):
            msg = f"has {source} must name {len(own)} features, as many as the model was fitted on; came: {len(names)}"
            raise ArtifactError(msg)
    names = declared_names(declared)
    if has_names or not names:
        return tuple(columns)
    return tuple(column.renamed(name) for column, name in zip(columns, names, strict=True))


def _name_lists(declared: Declared) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    if declared.fields is not None:
        found.append(("a manifest whose inputs", tuple(field.name for field in declared.fields)))
    if declared.example is not None:
        found.append(("a manifest whose example", tuple(declared.example)))
    if declared.mlflow_fields is not None:
        found.append(("an MLflow signature whose inputs", tuple(field.name for field in declared.mlflow_fields)))
    return found


def merged(column: Column, declared: Declared) -> Column:
    """A column as the first says it who says anything of it."""
    name = column.field.name
    said = _field(declared.fields, name)
    if said is not None:
        return _overruled(column, said, said.learnt_from or "manifest")
    example = declared.example or {}
    # What is not just any column takes what its steps take, whatever the example holds.
    if column.field.kind == "any" and not column.field.categories and (kind := _kind_of(example.get(name))):
        return replace(column, field=replace(column.field, kind=kind, learnt_from="example"))
    said = _field(declared.mlflow_fields, name)
    return column if said is None else _overruled(column, said, said.learnt_from or "mlflow")


def _field(fields: Sequence[Field] | None, name: str) -> Field | None:
    return next((field for field in fields or () if field.name == name), None)


def _overruled(column: Column, said: Field, source: str) -> Column:
    """What the declared field says, and of what it leaves open what the estimator does."""
    own = column.field
    categories = own.categories if said.categories is None else said.categories
    kind = own.kind if said.kind == "any" else said.kind
    is_closed = said.is_closed or (own.is_closed and said.categories is None)
    return replace(
        column,
        field=replace(said, kind=kind, categories=categories, is_closed=is_closed, learnt_from=source),
    )


def told(declared: Declared) -> tuple[Column, ...]:
    """The columns of a model that tells nothing of its inputs."""
    fields = declared.fields or declared.mlflow_fields
    if fields is not None and (declared.fields is not None or declared.example is None):
        source = "manifest" if declared.fields is not None else "mlflow"
        return tuple(Column(replace(field, learnt_from=field.learnt_from or source)) for field in fields)
    example: Mapping[str, Any] = declared.example or {}
    return tuple(
        Column(Field(name, _kind_of(value) or "number", learnt_from="example")) for name, value in example.items()
    )


def _kind_of(value: object) -> Kind | None:
    kinds: dict[type, Kind] = {str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value))
