"""Find out by trial, on one row, which nulls, texts, unknown categories and large numbers a model answers.

What its parts say of themselves is not enough: a step that lets NaN pass tells nothing of the steps behind it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fitserve.signature import MAX_MAGNITUDE, Field, Kind, Label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row: TypeAlias = "Sequence[Label | None]"

MAGNITUDES = (MAX_MAGNITUDE, 1e30, 1e15, 1e9)
"""The bounds that are tried for a model's numbers, the largest first."""

MAX_TRIALS = 64
"""What is not found out by so many calls of one kind is refused: a load that takes minutes would be worse."""

NO_CATEGORY = "fitserve tries a category that nobody knows"


class Trials:
    """Tries one model.

    Args:
        inputs: the columns, as the model's parts tell them.
        row: an example that the model answers.
        answers: whether the model answers a row with finite numbers, whatever it holds.
    """

    def __init__(self, inputs: Sequence[Field], row: Row, answers: Callable[[Row], bool]) -> None:
        self._inputs = tuple(inputs)
        self._row = list(row)
        self._answers = answers
        self._places = {field.name: i for i, field in enumerate(inputs)}
        self._n_left = 0

    def inputs(self, *, has_bounds: bool) -> tuple[Field, ...]:
        """The columns as the model has been found to take them; ``has_bounds`` tries large numbers, too."""
        self._inputs = self._with_texts()
        self._inputs = self._with_nulls()
        self._inputs = self._with_unknown()
        return self._with_magnitudes() if has_bounds else self._inputs

    def _with_texts(self) -> tuple[Field, ...]:
        """Columns of any kind that take no text after all are numeric, those that take no number strings."""
        unclear = [field for field in self._inputs if field.kind == "any" and not field.categories]
        texts = self._accepting(unclear, lambda _: "a")
        numbers = self._accepting([field for field in unclear if field.name in texts], lambda _: 1.0)
        kinds: dict[str, Kind] = {
            field.name: "numeric" if field.name not in texts else "any" if field.name in numbers else "string"
            for field in unclear
        }
        return tuple(replace(field, kind=kinds.get(field.name, field.kind)) for field in self._inputs)

    def _with_nulls(self) -> tuple[Field, ...]:
        nullable = self._accepting(self._inputs, lambda _: None)
        return tuple(replace(field, is_nullable=field.name in nullable) for field in self._inputs)

    def _with_unknown(self) -> tuple[Field, ...]:
        """Columns of known categories, closed where any other is an error of the model.

        What its parts refuse by their own word stays closed: XGBoost's search takes some unknown categories for others.
        """
        unclear = [f for f in self._inputs if not f.is_closed and _unknown_category(f) is not None]
        opened = self._accepting(unclear, _unknown_category)
        closed = {field.name for field in self._inputs if field.is_closed or field in unclear} - opened
        return tuple(
            replace(field, is_closed=field.name in closed and field.kind != "datetime") for field in self._inputs
        )

    def _with_magnitudes(self) -> tuple[Field, ...]:
        """Columns bounded where the model answers: squares and trees of float32 end before float64 does."""
        numbers = {f.name for f in self._inputs if f.kind in {"number", "numeric"} and not f.categories}
        for largest in MAGNITUDES:
            rows = (
                [
                    sign * largest if f.name in numbers else known
                    for f, known in zip(self._inputs, self._row, strict=True)
                ]
                for sign in (1.0, -1.0)
            )
            with np.errstate(all="ignore"):  # that something overflows is what is asked
                if all(map(self._answers, rows)):
                    return tuple(replace(field, largest=largest) for field in self._inputs)
        return self._inputs

    def _accepting(self, fields: Iterable[Field], probe: Callable[[Field], Label | None]) -> set[str]:
        """The names of those columns in which the model answers a probe.

        Most models take it everywhere, or nowhere; else columns that were learnt from the same step are
        alike, and only then they are halved: a trial a column would take seconds on a wide table.
        """
        waiting = list(fields)
        self._n_left = MAX_TRIALS
        if not waiting or self._passes(waiting, probe):
            return {field.name for field in waiting}
        groups: dict[tuple[str, str, bool], list[Field]] = {}
        for field in waiting:
            groups.setdefault((field.learnt_from, field.kind, field.is_nullable), []).append(field)
        accepted: set[str] = set()
        for group in groups.values():
            some = {
                group[0].name: group[0],
                group[len(group) // 2].name: group[len(group) // 2],
                group[-1].name: group[-1],
            }
            if len(groups) > 1 and self._passes(group, probe):
                accepted |= {field.name for field in group}
            elif any(self._passes([field], probe) for field in some.values()):
                accepted |= self._halved(group, probe)
        return accepted

    def _halved(self, group: list[Field], probe: Callable[[Field], Label | None]) -> set[str]:
        if self._passes(group, probe):
            return {field.name for field in group}
        if len(group) == 1:
            return set()
        middle = len(group) // 2
        return self._halved(group[:middle], probe) | self._halved(group[middle:], probe)

    def _passes(self, fields: Iterable[Field], probe: Callable[[Field], Label | None]) -> bool:
        self._n_left -= 1
        if self._n_left < 0:
            return False
        row = list(self._row)
        for field in fields:
            row[self._places[field.name]] = probe(field)
        return self._answers(row)


def _unknown_category(field: Field) -> Label | None:
    """A value that is none of the categories; None where there are none, or no other value."""
    if not field.categories:
        return None
    match field.kind:
        case "number" | "numeric":
            return max(float(value) for value in field.categories) + 1.0
        case "boolean":
            return next((value for value in (False, True) if value not in field.categories), None)
        case "datetime":
            return "1876-03-10T12:00:00Z"
        case _:
            return NO_CATEGORY
