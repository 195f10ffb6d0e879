"""A signature, and the check of a table: rows by position, rows by name, or columns by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fitserve.errors import MAX_ISSUES, ArtifactError, InputIssue, InvalidInputError, clip, did_you_mean
from fitserve.signature.columns import ACCEPTED, Column, matrix
from fitserve.signature.fields import MAX_MAGNITUDE, Field, Label, OutputName, count, describe, label_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

Inputs: TypeAlias = "NDArray[np.float64] | dict[str, NDArray[Any]]"
"""A checked table: a matrix (n_rows, n_features) where every field is a number, else columns by name."""

Table: TypeAlias = "Sequence[object] | Mapping[str, object]"
"""A table as it comes: rows, each a list or an object by name, or an object of equally long lists by name."""


def count_rows(table: Table) -> int:
    """How many rows a table has; of columns that are not equally long, the longest one's."""
    if isinstance(table, dict):
        return max((len(values) for values in table.values() if isinstance(values, list)), default=0)
    return len(table)


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
        has_score_per_class: whether as many columns of a decision function as there are classes
            belong to one each. One against one, three classes have three pairs.
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
    has_score_per_class: bool = True
    outputs: tuple[OutputName, ...] = ("predict",)
    example: tuple[Label | None, ...] | None = None
    names: tuple[str, ...] = field(init=False, repr=False)
    class_names: tuple[tuple[str, ...], ...] | None = field(init=False, repr=False)
    is_numeric: bool = field(init=False, repr=False)
    _columns: tuple[Column, ...] = field(init=False, repr=False, compare=False)
    _required: list[int] = field(init=False, repr=False, compare=False)
    _allowed: frozenset[type] = field(init=False, repr=False, compare=False)
    _bounds: float | NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _pick: Callable[[Mapping[str, Any]], tuple[Any, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(column.name for column in self.inputs)
        if len(set(names)) < len(names):
            msg = "feature names must differ"
            raise ArtifactError(msg)
        is_nullable = any(column.is_nullable for column in self.inputs)
        largest = [column.largest for column in self.inputs] or [MAX_MAGNITUDE]
        kinds = {column.kind for column in self.inputs}
        takes_booleans = kinds == {"numeric"}  # all of them, or each column has to be looked at by itself
        for key, value in {
            "names": names,
            "class_names": self.classes and tuple(tuple(map(label_name, labels)) for labels in self.classes),
            "is_numeric": (takes_booleans or kinds <= {"number"})
            and not any(column.is_closed for column in self.inputs),
            "_columns": tuple(map(Column, self.inputs)),
            "_required": [i for i, column in enumerate(self.inputs) if is_nullable and not column.is_nullable],
            "_allowed": ACCEPTED["numeric" if takes_booleans else "number"] | ({type(None)} if is_nullable else set()),
            "_bounds": largest[0] if len(set(largest)) == 1 else np.array(largest),
            "_pick": itemgetter(*names) if len(names) > 1 else lambda row: tuple(row[name] for name in names),
        }.items():
            object.__setattr__(self, key, value)

    @property
    def n_features(self) -> int:
        """The number of input columns."""
        return len(self.inputs)

    def example_row(self) -> tuple[Label | None, ...]:
        """A row that passes :meth:`check`: the manifest's, else one made of the fields' examples."""
        return self.example or tuple(column.example for column in self.inputs)

    def check(self, table: Table, *, first_row: int | None = 0) -> Inputs:
        """Turn a table of at least one row into checked arrays, the same whichever form it has.

        ``first_row`` is the number that errors give the first row, None to leave rows unnamed.

        Raises:
            InvalidInputError: a row or a value does not fit; at most ``MAX_ISSUES`` are told.
        """
        if self.is_open:
            return self._closed_over(table).check(table, first_row=first_row)
        if isinstance(table, dict):
            columns = self._named_columns(table)
            inputs = self._from_columns(columns)
            return inputs if inputs is not None else self._checked(list(zip(*columns, strict=True)), first_row)
        rows = self._positional(table)  # type: ignore[arg-type]
        inputs = None if rows is None else self._from_rows(rows)
        return inputs if inputs is not None else self._checked(table, first_row)  # type: ignore[arg-type]

    def _closed_over(self, table: Table) -> Signature:
        """The signature of as many numbers as the first row has."""
        first = table if isinstance(table, dict) else table[0]  # type: ignore[index]
        if not isinstance(first, list) or not first:
            came = describe(first)
            raise InvalidInputError(
                [InputIssue("a list of numbers: this model does not tell its features' names", came)]
            )
        return Signature(inputs=tuple(Field(f"x{i}") for i in range(len(first))))

    def _positional(self, rows: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
        """Rows as sequences in the order of the columns, or None when one has the wrong shape."""
        kinds = set(map(type, rows))
        if kinds == {dict}:
            if set(map(len, rows)) != {len(self.inputs)}:
                return None
            try:
                return list(map(self._pick, rows))
            except KeyError:
                return None
        if kinds == {list} and set(map(len, rows)) == {len(self.inputs)}:
            return rows
        return None

    def _from_rows(self, rows: Sequence[Sequence[Any]]) -> Inputs | None:
        """The arrays, or None when a value does not fit."""
        if self.is_numeric:
            return self._without_missing(matrix(rows, self._allowed, self._bounds))
        return self._from_columns(list(zip(*rows, strict=True)))

    def _from_columns(self, columns: Sequence[Sequence[Any]]) -> Inputs | None:
        """The arrays of columns in the order of fitting, or None when a value does not fit."""
        if self.is_numeric:
            bounds = self._bounds[:, np.newaxis] if isinstance(self._bounds, np.ndarray) else self._bounds
            X = matrix(columns, self._allowed, bounds)
            # In the order of rows, as from rows: a sum in another order may differ in its last digit.
            return None if X is None else self._without_missing(np.ascontiguousarray(X.T))
        arrays: dict[str, NDArray[Any]] = {}
        for column, values in zip(self._columns, columns, strict=True):
            array = column.array(values)
            if array is None:
                return None
            arrays[column.field.name] = array
        return arrays

    def _without_missing(self, X: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """The matrix, or None when a value is missing in a column that must have one."""
        if X is not None and self._required and np.isnan(X[:, self._required]).any():
            return None
        return X

    def _named_columns(self, table: dict[str, Any]) -> tuple[list[Any], ...]:
        """Columns in the order of fitting.

        Raises:
            InvalidInputError: a name is unknown or missing, or the columns are no lists of one length.
        """
        issues = self._name_issues(table, None)
        if not issues:
            columns = self._pick(table)
            issues = [
                InputIssue(
                    "a list with a value for each row", describe(values), None, name, "a single row is a list item"
                )
                for name, values in zip(self.names, columns, strict=True)
                if not isinstance(values, list)
            ]
        if not issues:
            n_rows = len(columns[0])
            issues = [
                InputIssue(
                    f"{count(n_rows, 'value')}, as in column {clip(self.names[0])!r}", describe(values), None, name
                )
                for name, values in zip(self.names, columns, strict=True)
                if len(values) != n_rows
            ]
        if issues:
            raise InvalidInputError(issues)
        return columns

    def _checked(self, instances: Sequence[object], first_row: int | None) -> Inputs:
        """Walk the table cell by cell and raise what is wrong, or return its arrays."""
        issues: list[InputIssue] = []
        rows: list[Sequence[Any]] = []
        for index, instance in enumerate(instances):
            number = None if first_row is None else first_row + index
            row, found = self._row(instance, number)
            if not found:
                cells = (column.issue(value, number) for column, value in zip(self._columns, row, strict=True))
                found = [issue for issue in cells if issue]
            issues += found
            if len(issues) >= MAX_ISSUES:
                break
            rows.append(row)
        if issues:
            raise InvalidInputError(issues)
        if self.is_numeric:
            return np.array(rows, dtype=np.float64)
        columns = zip(self._columns, zip(*rows, strict=True), strict=True)
        return {column.field.name: column.checked_array(values) for column, values in columns}

    def _row(self, instance: object, number: int | None) -> tuple[Sequence[Any], list[InputIssue]]:
        """One row in the order of the columns, or what is wrong with its shape."""
        if isinstance(instance, dict):
            issues = self._name_issues(instance, number)
            return ([] if issues else self._pick(instance)), issues
        if isinstance(instance, list | tuple):  # a tuple is a row of columns, which no JSON decoder gives
            if len(instance) == len(self.inputs):
                return instance, []
            wanted = f"{len(self.inputs)} values, in this order: {clip(', '.join(self.names), 200)}"
            return [], [InputIssue(wanted, count(len(instance), "value"), number)]
        wanted = "a row: a list of values, or an object by feature name"
        return [], [InputIssue(wanted, describe(instance), number)]

    def _name_issues(self, given: Mapping[str, Any], number: int | None) -> list[InputIssue]:
        missing = [name for name in self.names if name not in given]
        known = set(self.names)
        unknown = [name for name in given if name not in known]
        issues = [
            InputIssue(
                "a known feature name", "an unknown one", number, clip(name), did_you_mean(name, missing or known)
            )
            for name in unknown[:MAX_ISSUES]
        ]
        issues += [InputIssue("every feature", "nothing", number, name) for name in missing[:MAX_ISSUES]]
        return issues
