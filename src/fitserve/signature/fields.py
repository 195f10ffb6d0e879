"""The words of a signature: one input column, its kind, a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Kind: TypeAlias = Literal["number", "numeric", "string", "boolean", "datetime", "any"]
"""``numeric`` takes booleans as well: the column went through no step that says what it was at fitting."""
OutputName: TypeAlias = Literal["predict", "predict_proba", "decision_function", "score_samples", "transform"]
"""What a model may be asked for, by the name of scikit-learn's method."""

Label: TypeAlias = str | int | float | bool

MAX_MAGNITUDE = float(np.finfo(np.float32).max)
"""The largest number a feature may have: scikit-learn's trees compute in float32."""

EXACT_INTEGERS = 2.0**53 - 1
"""Up to it a float64 holds every integer, and no other integer is rounded to one of these."""

_EXAMPLES: dict[Kind, Label] = {
    "number": 0.0,
    "numeric": 0.0,
    "string": "",
    "boolean": False,
    "datetime": "2026-01-31T12:00:00Z",
    "any": 0.0,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One input column.

    Attributes:
        name: of the column.
        kind: which values it takes.
        is_nullable: whether a null is taken, as a missing value.
        categories: the values seen at fitting, where the model keeps them. 3 and 3.0 are one
            category; true and 1 are two.
        is_closed: any other value than ``categories`` is an error of the model, and refused before.
        learnt_from: who told.
        largest: the largest magnitude of a number.
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
