"""From checked inputs to the table that an estimator was fitted on: a frame, a matrix, or a list of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.estimators.columns import Column, is_missing, zone_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.signature import Inputs


MAX_WHOLE = 2.0**63
"""No whole number this large is an integer to a library that has 64 bits for it."""


class FittedTable:
    """Makes tables like the one that an estimator was fitted on.

    Attributes:
        has_names: whether the estimator was fitted with names, and shall be given a frame.
    """

    def __init__(self, columns: Sequence[Column], *, names: Sequence[str] | None, is_texts: bool) -> None:
        self._columns = tuple(columns)
        self._names = names
        self._is_texts = is_texts
        self.has_names = names is not None
        self.needs_frame = any(column.levels is not None for column in columns)
        # Columns that go as the float64 numbers that they are.
        self._is_plain = all(
            column.field.kind in {"number", "numeric"}
            and column.levels is None
            and not column.is_hashed
            and (column.known is None or column.known.dtype.kind in "fiub")
            for column in columns
        )

    @property
    def is_plain(self) -> bool:
        """Whether every table is one of numbers only."""
        return self._is_plain

    def __call__(self, inputs: Inputs) -> Any:
        """The table for the estimator; inputs as :meth:`Signature.check` gives them."""
        if self._is_texts and isinstance(inputs, dict):
            return next(iter(inputs.values()))
        if self.has_names or self.needs_frame:
            return self._frame(inputs)
        if not isinstance(inputs, dict):
            return inputs
        arrays = list(map(converted, self._columns, inputs.values()))
        if all(array.dtype.kind in "fb" for array in arrays):
            return np.column_stack([array.astype(np.float64) for array in arrays])
        return np.column_stack([array.astype(object) for array in arrays])

    def _frame(self, inputs: Inputs) -> Any:
        import pandas as pd

        names = self._names or [column.field.name for column in self._columns]
        if not isinstance(inputs, dict):
            if self._is_plain:
                return pd.DataFrame(inputs, columns=list(names), copy=False)
            inputs = dict(zip(names, inputs.T, strict=True))
        arrays = {}
        for name, column, values in zip(names, self._columns, inputs.values(), strict=True):
            array = converted(column, values)
            # Without the type pandas would make its own strings of objects, and NaN of None.
            arrays[name] = pd.Series(array, dtype=object, copy=False) if array.dtype == object else array
        return pd.DataFrame(arrays)


def converted(column: Column, values: NDArray[Any]) -> Any:
    """The values of one column in the type that it had at fitting."""
    if column.levels is not None:
        return _categorical(column.levels, values)
    if values.dtype.kind == "M":
        return values if column.known is None else _dates(values, column.known)
    if column.is_hashed:
        return _objects([_hashable(value) for value in values.tolist()])
    if column.known is not None and column.known.dtype.kind not in "fiub":
        # 3.0 becomes the 3 that the encoder knows.
        own = {value: value for value in column.known.tolist() if not is_missing(value)}
        return _objects([column.null if is_missing(v) else own.get(v, v) for v in values.tolist()])
    if values.dtype != object:
        return values
    found = values.tolist()
    kinds = set(map(type, found))
    if column.is_float or (column.field.kind == "any" and column.known is None and str not in kinds):
        return np.array(found, dtype=np.float64)
    if kinds == {bool}:
        return values.astype(np.bool_)
    return _objects([column.null if value is None else value for value in found]) if type(None) in kinds else values


def _dates(values: NDArray[Any], known: NDArray[Any]) -> Any:
    """Dates in the unit of those that were fitted, or in their time zone."""
    zone = zone_of(known)
    if zone is None:
        return values.astype(known.dtype)
    import pandas as pd

    return pd.DatetimeIndex(values, tz="UTC").tz_convert(zone)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _hashable(value: Any) -> Any:
    """A category as CatBoost takes it: it refuses floats, and reads 3 and "3" as the same."""
    if isinstance(value, float) and not is_missing(value):
        # CatBoost makes 64-bit integers of integers.
        return int(value) if value.is_integer() and abs(value) < MAX_WHOLE else str(value)
    return value


def _categorical(levels: Sequence[Any], values: NDArray[Any]) -> Any:
    """A categorical column: the categories of the fitting, then those that are new, for the model to judge."""
    import pandas as pd

    codes: Mapping[Any, int] = {level: code for code, level in enumerate(levels)}
    found = [None if is_missing(value) else value for value in values.tolist()]
    new = list(dict.fromkeys(_like(levels, value) for value in found if value is not None and value not in codes))
    codes = {**codes, **{value: len(levels) + i for i, value in enumerate(new)}}
    index = [-1 if value is None else codes[value] for value in found]
    return pd.Categorical.from_codes(index, dtype=pd.CategoricalDtype([*levels, *new]))


def _like(levels: Sequence[Any], value: Any) -> Any:
    """A new category in the type of the others: 7.0 among integers is 7."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and all(type(level) is int for level in levels) else value


def require_pandas() -> None:
    """Import pandas.

    Raises:
        ArtifactError: it is not installed.
    """
    try:
        import pandas as pd  # noqa: F401 - from now on it is loaded
    except ModuleNotFoundError:
        msg = "was fitted on a table with named columns and needs pandas: pip install 'fitserve[pandas]'"
        raise ArtifactError(msg) from None
