"""One input column as an estimator was fitted on it, besides what its callers need to know."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.signature import Field, Kind, Label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

NO_NUMBER = float("nan")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what callers may send, and what the estimator must be given.

    Attributes:
        field: name, kind, categories; whether nulls and unknown categories are taken, as the
            estimator says it. A trial has the last word on both.
        known: the values that an encoder keeps, in its own type.
        levels: of a categorical column of a frame, in the order of their codes.
        null: what a missing value was at fitting: NaN, or None.
        is_hashed: a categorical feature of CatBoost: integers and strings, never floats.
        is_float: booleans are given as 0.0 and 1.0, so that they can be missing.
        typical: a number like those of the fitting.
    """

    field: Field
    known: NDArray[Any] | None = None
    levels: tuple[Label, ...] | None = None
    null: Any = NO_NUMBER
    is_hashed: bool = False
    is_float: bool = False
    typical: float | None = None

    def renamed(self, name: str) -> Column:
        """The same column under another name."""
        return replace(self, field=replace(self.field, name=name))


def category_column(name: str, values: NDArray[Any], origin: str, *, is_closed: bool) -> Column:
    """The column of an encoder that keeps the categories of its column, missing ones among them."""
    if values.dtype.kind == "M":
        times = values[~np.isnat(values)]
        labels: list[Any] = _spelt(times)
        field = Field(name, "datetime", learnt_from=origin)
        is_nullable = len(times) < len(values) or not is_closed
        return Column(
            replace(field, categories=tuple(labels), is_closed=is_closed, is_nullable=is_nullable), known=values
        )
    everything = values.tolist()
    if zone_of(values) is not None:  # dates with an offset come as objects
        times = [np.datetime64(one.tz_convert(None), "us") for one in everything if not is_missing(one)]
        found = category_column(name, np.array(times), origin, is_closed=is_closed)
        is_nullable = found.field.is_nullable or len(times) < len(everything)
        return replace(found, field=replace(found.field, is_nullable=is_nullable), known=values)
    labels = [label for label in everything if not is_missing(label)]
    # What pandas calls boolean, with nulls, an encoder sees as floats.
    may_be_booleans = values.dtype.kind == "f" and set(labels) <= {0.0, 1.0}
    field = Field(
        name,
        "numeric" if may_be_booleans else kind_of(labels),
        is_nullable=len(labels) < len(everything) or not is_closed,
        categories=tuple(labels),
        is_closed=is_closed,
        learnt_from=origin,
    )
    return Column(field, known=values, null=None if None in everything else NO_NUMBER)


def zone_of(values: NDArray[Any]) -> Any:
    """The time zone of dates with an offset, None of any other values."""
    listed: list[Any] = values.tolist() if values.dtype == object else []
    first = next((one for one in listed if not is_missing(one)), None)
    return getattr(first, "tzinfo", None) if hasattr(first, "tz_convert") else None


def _spelt(times: NDArray[np.datetime64]) -> list[Any]:
    """Dates and times as they are sent: no longer than the finest of them needs, and to the microsecond at most."""
    unit: Any = next((u for u in ("D", "s", "ms") if (times == times.astype(f"datetime64[{u}]")).all()), "us")
    return [str(text) for text in np.datetime_as_string(times.astype(f"datetime64[{unit}]"))]


def level_column(name: str, levels: Sequence[Any], origin: str, *, is_closed: bool = False) -> Column:
    """A column that was of pandas' category type at fitting."""
    labels = tuple(level.item() if isinstance(level, np.generic) else level for level in levels)
    field = Field(name, kind_of(labels), is_nullable=True, categories=labels, is_closed=is_closed, learnt_from=origin)
    return Column(field, levels=labels)


def kind_of(labels: Iterable[Any]) -> Kind:
    """The kind of a column that holds these values."""
    kinds = set(map(type, labels))
    if kinds == {str}:
        return "string"
    if kinds == {bool}:
        return "boolean"
    return "number" if kinds and kinds <= {int, float} else "any"


def is_missing(label: Any) -> bool:
    """Whether a value stands for none: None, NaN, or pandas' NA and NaT."""
    return (
        label is None
        or (isinstance(label, float) and math.isnan(label))
        or type(label).__name__ in {"NAType", "NaTType"}
    )


_SPECIFIC: tuple[Kind, ...] = ("any", "numeric", "number", "boolean", "datetime", "string")
"""Kinds, what says the most last."""


def both(one: Column, other: Column) -> Column:
    """A column that goes two ways and must fit both."""
    a, b = one.field, other.field
    stricter = a if a.is_closed or not b.is_closed else b
    known = one if one.known is not None or one.levels is not None else other
    origins = list(dict.fromkeys(f"{a.learnt_from}, {b.learnt_from}".split(", ")))
    return Column(
        Field(
            a.name,
            max(a.kind, b.kind, key=_SPECIFIC.index),
            is_nullable=a.is_nullable and b.is_nullable,
            categories=stricter.categories or a.categories or b.categories,
            is_closed=stricter.is_closed,
            learnt_from=", ".join(origins[:3]),
        ),
        known=known.known,
        levels=one.levels or other.levels,
        null=None if one.null is None or other.null is None else NO_NUMBER,
        is_hashed=one.is_hashed or other.is_hashed,
        is_float=one.is_float or other.is_float,
        typical=other.typical if one.typical is None else one.typical,
    )
