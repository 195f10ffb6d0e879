"""What a model takes and gives, and the check of a table against it.

A table is checked by column, not by cell: one pass over the types of the values,
one over the finished array. Only a table that fails is walked cell by cell, to say
where it is wrong, and only until :data:`~fitserve.errors.MAX_ISSUES` are found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fitserve.errors import MAX_ISSUES, ArtifactError, InputIssue, InvalidInputError, clip, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Kind: TypeAlias = Literal["number", "numeric", "string", "boolean", "datetime", "any"]
"""``numeric`` takes booleans as well: the column went through no step that says what it was at fitting."""
OutputName: TypeAlias = Literal["predict", "predict_proba", "decision_function", "score_samples", "transform"]
"""What a model may be asked for, by the name of scikit-learn's method."""

Label: TypeAlias = str | int | float | bool
Inputs: TypeAlias = "NDArray[np.float64] | dict[str, NDArray[Any]]"
"""A checked table: a matrix (n_rows, n_features) where every field is a number, else columns by name."""

MAX_MAGNITUDE = float(np.finfo(np.float32).max)
"""The largest number a feature may have: scikit-learn's trees compute in float32."""

EXACT_INTEGERS = 2.0**53 - 1
"""Up to it a float64 holds every integer, and no other integer is rounded to one of these."""

_ACCEPTED: dict[Kind, frozenset[type]] = {
    "number": frozenset({int, float}),
    "numeric": frozenset({int, float, bool}),
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
    "any": frozenset({int, float, str, bool}),
}
_WANTED: dict[Kind, str] = {
    "number": "a finite number",
    "numeric": "a finite number or a boolean",
    "string": "a string",
    "boolean": "true or false",
    "any": "a number, a string or a boolean",
}
_EXAMPLES: dict[Kind, Label] = {"number": 0.0, "numeric": 0.0, "string": "", "boolean": False, "any": 0.0}


@dataclass(frozen=True, slots=True)
class Field:
    """One input column.

    ``categories`` are the values seen at fitting, where the model keeps them; ``is_closed``
    says that any other value is an error of the model, so that it is refused before. ``largest``
    is the largest magnitude of a number.
    """

    name: str
    kind: Kind = "number"
    is_nullable: bool = False
    categories: tuple[Label, ...] | None = None
    is_closed: bool = False
    learnt_from: str = ""
    largest: float = MAX_MAGNITUDE

    @property
    def example(self) -> Label:
        """A value that fits."""
        if self.categories:
            return self.categories[0]
        return _EXAMPLES[self.kind]

    def issue(self, value: object, row: int | None) -> InputIssue | None:
        """Say what is wrong with one value, or None."""
        if value is None:
            if self.is_nullable:
                return None
            return InputIssue(_WANTED[self.kind], "null", row, self.name)
        if type(value) not in _ACCEPTED[self.kind]:
            return InputIssue(_WANTED[self.kind], describe(value), row, self.name, self._hint(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            issue = self._number_issue(value, row)
            if issue:
                return issue
        if self.is_closed and self.categories is not None and value not in self.categories:
            known = clip(", ".join(map(str, self.categories)), 200)
            return InputIssue(f"one of: {known}", "an unknown category", row, self.name)
        return None

    def _number_issue(self, value: float, row: int | None) -> InputIssue | None:
        if not abs(value) <= self.largest:  # also when it is NaN
            came = "a larger one" if math.isfinite(value) else "a number that is not finite"
            return InputIssue(f"a number between ±{self.largest:.3g}", came, row, self.name)
        if isinstance(value, int) and int(float(value)) != value:
            came = "an integer beyond 2^53 that a 64-bit float cannot hold exactly"
            return InputIssue(_WANTED[self.kind], came, row, self.name)
        return None

    def _hint(self, value: object) -> str | None:
        if self.kind in {"number", "numeric"} and isinstance(value, str):
            return "numbers are never read out of strings: send it without quotes"
        if self.kind == "number" and isinstance(value, bool):
            return "send 1 or 0"
        if isinstance(value, list | dict):
            return "one row is a flat list or object; several rows go to /predict/batch"
        return None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of one model version.

    Attributes:
        inputs: the columns, in the order of fitting.
        is_named: whether the model was fitted with names; otherwise they are x0, x1, …
        is_open: the model does not tell its features: rows of numbers of any one length.
        classes: the labels, in the order of the probabilities; one tuple an output for a
            model of several; None for a regressor.
        n_outputs: how many values one prediction has; 0 means a single bare value.
        has_probabilities: whether the model gives a probability for each class.
        outputs: what can be asked for; ``predict`` is first, ``transform`` for a pure transformer.
        example: a row that fits, where the manifest gives one.
        names: of the inputs.
        class_names: the classes as keys of a JSON object.
        is_numeric: every table becomes one matrix.
    """

    inputs: tuple[Field, ...]
    is_named: bool = False
    is_open: bool = False
    classes: tuple[tuple[Label, ...], ...] | None = None
    n_outputs: int = 0
    has_probabilities: bool = False
    outputs: tuple[OutputName, ...] = ("predict",)
    example: tuple[Label | None, ...] | None = None
    names: tuple[str, ...] = field(init=False, repr=False)
    class_names: tuple[tuple[str, ...], ...] | None = field(init=False, repr=False)
    is_numeric: bool = field(init=False, repr=False)
    _is_nullable: bool = field(init=False, repr=False)
    _required: list[int] = field(init=False, repr=False)
    _largest: float = field(init=False, repr=False)
    _pick: Callable[[dict[str, Any]], tuple[Any, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(column.name for column in self.inputs)
        if len(set(names)) < len(names):
            msg = "feature names must differ"
            raise ArtifactError(msg)
        pick = itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names)
        for key, value in {
            "names": names,
            "class_names": self.classes and tuple(tuple(map(label_name, labels)) for labels in self.classes),
            "is_numeric": all(column.kind == "number" and not column.is_closed for column in self.inputs),
            "_largest": min((column.largest for column in self.inputs), default=MAX_MAGNITUDE),
            "_required": [i for i, column in enumerate(self.inputs) if not column.is_nullable],
            "_is_nullable": any(column.is_nullable for column in self.inputs),
            "_pick": pick,
        }.items():
            object.__setattr__(self, key, value)

    @property
    def n_features(self) -> int:
        """The number of input columns."""
        return len(self.inputs)

    def example_row(self) -> tuple[Label | None, ...]:
        """A row that passes :meth:`check`: the manifest's, else one made of the fields' examples."""
        return self.example or tuple(column.example for column in self.inputs)

    def check(self, instances: Sequence[object], *, first_row: int | None = 0) -> Inputs:
        """Turn rows, each a list of values or an object by name, into checked arrays.

        ``first_row`` is the number that errors give the first row, None to leave rows unnamed.

        Raises:
            InvalidInputError: a row or a value does not fit; at most ``MAX_ISSUES`` are told.
        """
        if self.is_open:
            return self._closed_over(instances).check(instances, first_row=first_row)
        rows = self._positional(instances)
        inputs = None if rows is None else self._arrays(rows)
        if inputs is None:
            inputs = self._arrays(self._checked_rows(instances, first_row), is_checked=True)
            assert inputs is not None  # the cells have been checked one by one
        return inputs

    def _closed_over(self, instances: Sequence[object]) -> Signature:
        """The signature of as many numbers as the first row has."""
        first = instances[0]
        if not isinstance(first, list) or not first:
            came = describe(first)
            raise InvalidInputError(
                [InputIssue("a list of numbers: this model does not tell its features' names", came)]
            )
        return Signature(inputs=tuple(Field(f"x{i}") for i in range(len(first))))

    def _positional(self, instances: Sequence[object]) -> Sequence[Sequence[Any]] | None:
        """Rows as sequences in the order of the columns, or None when one has the wrong shape."""
        kinds = set(map(type, instances))
        if kinds == {dict}:
            if set(map(len, instances)) != {len(self.inputs)}:  # type: ignore[arg-type]
                return None
            try:
                return list(map(self._pick, instances))  # type: ignore[arg-type]
            except KeyError:
                return None
        if kinds == {list} and set(map(len, instances)) == {len(self.inputs)}:  # type: ignore[arg-type]
            return instances  # type: ignore[return-value]
        return None

    def _arrays(self, rows: Sequence[Sequence[Any]], *, is_checked: bool = False) -> Inputs | None:
        """The arrays, or None when a value does not fit."""
        if self.is_numeric:
            allowed = _NUMBERS_AND_NULL if self._is_nullable else _ACCEPTED["number"]
            X = _numbers(rows, chain.from_iterable(rows), allowed, self._largest, is_checked=is_checked)
            # Some columns take nulls and some do not: here they are NaN already.
            if X is not None and self._is_nullable and self._required and np.isnan(X[:, self._required]).any():
                return None
            return X
        columns: dict[str, NDArray[Any]] = {}
        for column, values in zip(self.inputs, zip(*rows, strict=True), strict=True):
            array = _column(column, values, is_checked=is_checked)
            if array is None:
                return None
            columns[column.name] = array
        return columns

    def _checked_rows(self, instances: Sequence[object], first_row: int | None) -> list[list[Any]]:
        """Walk the table cell by cell and raise what is wrong, or return it in order."""
        issues: list[InputIssue] = []
        rows: list[list[Any]] = []
        for index, instance in enumerate(instances):
            number = None if first_row is None else first_row + index
            row, found = self._row(instance, number)
            if not found:
                cells = (column.issue(value, number) for column, value in zip(self.inputs, row, strict=True))
                found = [issue for issue in cells if issue]
            issues += found
            if len(issues) >= MAX_ISSUES:
                break
            rows.append(row)
        if issues:
            raise InvalidInputError(issues)
        return rows

    def _row(self, instance: object, number: int | None) -> tuple[list[Any], list[InputIssue]]:
        """One row in the order of the columns, or what is wrong with its shape."""
        if isinstance(instance, dict):
            issues = self._name_issues(instance, number)
            return ([] if issues else list(self._pick(instance))), issues
        if isinstance(instance, list):
            if len(instance) == len(self.inputs):
                return instance, []
            wanted = f"{len(self.inputs)} values, in this order: {clip(', '.join(self.names), 200)}"
            return [], [InputIssue(wanted, count(len(instance), "value"), number)]
        wanted = "a row: a list of values, or an object by feature name"
        return [], [InputIssue(wanted, describe(instance), number)]

    def _name_issues(self, row: dict[str, Any], number: int | None) -> list[InputIssue]:
        missing = [name for name in self.names if name not in row]
        known = set(self.names)
        unknown = [name for name in row if name not in known]
        issues = [
            InputIssue(
                "a known feature name", "an unknown one", number, clip(name), did_you_mean(name, missing or known)
            )
            for name in unknown[:MAX_ISSUES]
        ]
        issues += [InputIssue("every feature", "nothing", number, name) for name in missing[:MAX_ISSUES]]
        return issues


def _numbers(
    values: Sequence[Any],
    flat: chain[Any] | Sequence[Any],
    allowed: frozenset[type],
    largest: float,
    *,
    is_checked: bool,
) -> NDArray[np.float64] | None:
    """Numbers and nulls as float64, nulls as NaN; None when a value is not a number that fits."""
    kinds = set(map(type, flat))
    if not is_checked and not kinds <= allowed:
        return None
    array = np.array(values, dtype=np.float64)
    if is_checked:
        return array
    magnitude = np.abs(array)
    if type(None) in kinds:
        magnitude = magnitude[~np.isnan(magnitude)]
    # A comparison with NaN is false, so this also refuses what is not finite.
    if not (magnitude <= (min(EXACT_INTEGERS, largest) if int in kinds else largest)).all():
        return None
    return array


_NUMBERS_AND_NULL = _ACCEPTED["number"] | {type(None)}


def _column(column: Field, values: tuple[Any, ...], *, is_checked: bool) -> NDArray[Any] | None:
    """One column as an array: float64 for numbers, else objects; None when a value does not fit."""
    if column.is_closed and not is_checked:
        return None
    if column.kind in {"number", "numeric"}:
        allowed = _ACCEPTED[column.kind] | ({type(None)} if column.is_nullable else set())
        return _numbers(values, values, allowed, column.largest, is_checked=is_checked)
    if not is_checked:
        kinds = set(map(type, values))
        # Numbers of a column of any kind must be looked at one by one.
        if not kinds <= {str, bool} & _ACCEPTED[column.kind]:
            return None
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def label_name(label: Label) -> str:
    """A class label as the key of a JSON object: as JSON spells it, without quotes."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def describe(value: object) -> str:
    """Name the JSON type of a value, never the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return f"a list of {count(len(value), 'value')}"
        case dict():
            return f"an object of {count(len(value), 'member')}"
        case _:
            return f"a value of type {type(value).__name__}"


def count(number: int, noun: str) -> str:
    """Return ``1 value``, ``2 values``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
