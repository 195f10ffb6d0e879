"""The check of one column: all of its values at once, or one of them to say what is wrong."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import InputIssue, clip
from fitserve.signature import datetimes
from fitserve.signature.fields import EXACT_INTEGERS, Field, Kind, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

ACCEPTED: dict[Kind, frozenset[type]] = {
    "number": frozenset({int, float}),
    "numeric": frozenset({int, float, bool}),
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
    "datetime": frozenset({str}),
    "any": frozenset({int, float, str, bool}),
}
"""The types of JSON's values that a kind takes. Exact types, since a bool is an int by its class."""

_WANTED: dict[Kind, str] = {
    "number": "a finite number",
    "numeric": "a finite number or a boolean",
    "string": "a string",
    "boolean": "true or false",
    "datetime": datetimes.WANTED,
    "any": "a number, a string or a boolean",
}

FEW = 16
"""Up to so many values are compared one by one: an operation on an array costs as much as ten of them."""

FEW_NUMBERS = 64
"""Up to so many numbers of a single row are bounded by Python's own min, max and sum."""

_NULL = type(None)
_NUMBERS = frozenset({int, float})


class Column:
    """A field with all that its values are compared with, made once."""

    __slots__ = ("_allowed", "_is_float", "_known", "_known_booleans", "field")

    def __init__(self, field: Field) -> None:
        self.field = field
        self._allowed = ACCEPTED[field.kind] | ({_NULL} if field.is_nullable else set())
        self._is_float = field.kind in {"number", "numeric"}
        categories = field.categories if field.is_closed else None
        self._known: frozenset[Any] | None = None
        self._known_booleans: frozenset[Any] = frozenset()
        if categories is not None:
            # true equals 1 and false 0 in Python: kept apart, unless the column holds nothing but booleans,
            # or those that became numbers, as pandas' nullable ones do.
            has_booleans = any(isinstance(one, bool) for one in categories)
            is_same = field.kind == "boolean" or (field.kind == "numeric" and not has_booleans)
            self._known = frozenset(one for one in categories if not isinstance(one, bool))
            self._known_booleans = frozenset(
                bool(one) for one in categories if isinstance(one, bool) or (is_same and one in {0, 1})
            )

    def array(self, values: Sequence[Any]) -> NDArray[Any] | None:
        """Float64 for numbers, datetime64 for dates, else objects; None when a value does not fit.

        A null is NaN, NaT or None in it.
        """
        kinds = set(map(type, values))
        if not kinds <= self._allowed:
            return None
        if self._known is not None and not self._are_known(values, kinds):
            return None
        if self._is_float:
            return numbers(values, kinds, self.field.largest)
        if self.field.kind == "datetime":
            return _datetimes(values)
        if float in kinds or int in kinds:
            found = [value for value in values if type(value) is float or type(value) is int]
            if numbers(found, kinds - {_NULL}, self.field.largest) is None:
                return None
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    def checked_array(self, values: Sequence[Any]) -> NDArray[Any]:
        """The same for values that :meth:`issue` found nothing wrong with."""
        if self._is_float:
            return np.array(values, dtype=np.float64)
        if self.field.kind == "datetime":
            dates = _datetimes(values)
            assert dates is not None  # each has been read once
            return dates
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    def issue(self, value: object, row: int | None) -> InputIssue | None:
        """Say what is wrong with one value, or None."""
        field = self.field
        wanted = _WANTED[field.kind]
        if value is None:
            return None if field.is_nullable else InputIssue(wanted, "null", row, field.name)
        if type(value) not in self._allowed:
            return InputIssue(wanted, describe(value), row, field.name, self._hint(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            issue = self._number_issue(value, row)
            if issue:
                return issue
        if self._known is not None and not self._are_known([value], {type(value)}):
            known = clip(", ".join(map(str, field.categories or ())), 200)
            return InputIssue(f"one of: {known}", "an unknown category", row, field.name)
        if field.kind == "datetime" and datetimes.instant(str(value)) is None:
            return InputIssue(wanted, "a string that is none", row, field.name, datetimes.HINT)
        return None

    def _are_known(self, values: Sequence[Any], kinds: set[type]) -> bool:
        assert self._known is not None
        found = set(values)
        found.discard(None)
        if bool not in kinds:
            return found <= self._known
        if kinds <= {bool, _NULL}:
            return found <= self._known_booleans
        # 1 and true are equal, so that a set of both keeps one of them.
        return {v for v in values if type(v) is bool} <= self._known_booleans and {
            v for v in values if v is not None and type(v) is not bool
        } <= self._known

    def _number_issue(self, value: float, row: int | None) -> InputIssue | None:
        name, largest = self.field.name, self.field.largest
        if not abs(value) <= largest:  # also when it is NaN
            is_finite = isinstance(value, int) or math.isfinite(value)
            came = "a larger one" if is_finite else "a number that is not finite"
            return InputIssue(f"a number between ±{largest:.3g}", came, row, name)
        if isinstance(value, int) and int(float(value)) != value:
            came = "an integer beyond 2^53 that a 64-bit float cannot hold exactly"
            return InputIssue(_WANTED[self.field.kind], came, row, name)
        return None

    def _hint(self, value: object) -> str | None:
        kind = self.field.kind
        if kind in {"number", "numeric"} and isinstance(value, str):
            return "numbers are never read out of strings: send it without quotes"
        if kind == "number" and isinstance(value, bool):
            return "send 1 or 0"
        if isinstance(value, list | dict):
            return "one row is a flat list or object; several rows go to /predict/batch"
        if kind == "datetime":
            return datetimes.HINT
        return None


def numbers(values: Sequence[Any], kinds: set[type], largest: float) -> NDArray[np.float64] | None:
    """Numbers, booleans and nulls as float64, nulls as NaN; None when one does not fit.

    ``kinds`` are the types of the values. An integer must be one that a float64 holds exactly.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond every float: no JSON decoder gives one, a Python caller may
        return None
    if len(values) <= FEW:
        # A comparison with NaN is false, so this also refuses what is not finite.
        is_bounded = all(value is None or -largest <= value <= largest for value in values)
    else:
        is_bounded = _are_bounded(array, largest, has_nulls=_NULL in kinds)
    return array if is_bounded and (int not in kinds or _are_exact(array, values)) else None


def matrix(
    table: Sequence[Sequence[Any]], allowed: frozenset[type], bounds: float | NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Rows of numbers, or columns of them, as one float64 matrix; None when a value does not fit.

    ``bounds`` is the largest magnitude, one for all or one a feature, in the shape of the table's last axes.
    """
    is_single = len(table) == 1
    kinds = set(map(type, table[0] if is_single else chain.from_iterable(table)))
    if is_single and kinds <= _NUMBERS and isinstance(bounds, float) and len(table[0]) <= FEW_NUMBERS:
        row = table[0]
        least, most, total = min(row), max(row), sum(row)
        # A sum with NaN is NaN, which differs from itself; what is bounded is not infinite.
        if not (-bounds <= least and most <= bounds and total == total):  # noqa: PLR0124
            return None
        if int not in kinds or max(-least, most) <= EXACT_INTEGERS:
            return np.array(table, dtype=np.float64)
    if not kinds <= allowed:
        return None
    try:
        array = np.array(table, dtype=np.float64)
    except OverflowError:
        return None
    is_good = _are_bounded(array, bounds, has_nulls=_NULL in kinds)
    return array if is_good and (int not in kinds or _are_exact(array, chain.from_iterable(table))) else None


def _are_bounded(array: NDArray[np.float64], bound: float | NDArray[np.float64], *, has_nulls: bool) -> bool:
    is_good = np.abs(array) <= bound
    if has_nulls:
        is_good |= np.isnan(array)
    return bool(is_good.all())


def _are_exact(array: NDArray[np.float64], values: Iterable[Any]) -> bool:
    """Whether every integer among bounded values is the float that it became."""
    if not (np.abs(array) > EXACT_INTEGERS).any():
        return True
    return all(type(value) is not int or int(float(value)) == value for value in values)


def _datetimes(values: Sequence[Any]) -> NDArray[Any] | None:
    """UTC to the microsecond, a null as NaT; None when a text is no date."""
    found = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[us]")
    places = [i for i, value in enumerate(values) if value is not None]
    texts = [values[i] for i in places]
    together = datetimes.instants(texts) if len(texts) > FEW else None
    if together is not None:
        found[places] = together
        return found
    for place, text in zip(places, texts, strict=True):
        one = datetimes.instant(text)
        if one is None:
            return None
        found[place] = one
    return found
