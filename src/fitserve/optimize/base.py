"""What passes between the compiler, its engines, and whoever keeps and loads what was compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.signature import Inputs

Engine: TypeAlias = Literal["onnx-float64", "onnx-float32", "treelite"]
"""ONNX Runtime, by the floats in which it computes what it answers, and treelite's GTIL."""

Run: TypeAlias = "Callable[[Inputs], list[Any]]"
"""An engine at work: checked inputs to its raw outputs, as ``Compiled.note["gives"]`` says. Any thread."""

TOLERANCE: Final[dict[Engine, float]] = {"onnx-float64": 1e-10, "onnx-float32": 1e-6, "treelite": 1e-6}
"""What numbers may differ by: probabilities absolutely, values as a part of the larger of the value and the size
that the model's values usually have.

float64 has sixteen digits, of which a matrix product of a thousand terms of mixed sign loses four, and an exponential
two. float32 has seven, and is met where a graph of float32 is all that there is, and at the leaves and the end of
ONNX Runtime's trees, which add up in float64: measured are 8e-8 for forests of 500 trees, 5e-7 for graphs of float32.
treelite computes in the floats of the library, of which XGBoost's are float32, and takes a softmax in float32; all
else differs by 1e-15.
"""

NEAR: Final = 4.0
"""Two probabilities nearer than this many tolerances may change places: then the library itself decides.

Each may be off by one tolerance, so that beyond two of them none can."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A model as one engine takes it.

    Attributes:
        engine: which one.
        data: for the engine; of two parts, one after the other, where columns are prepared by ONNX Runtime first.
        note: what loading needs besides, as JSON has it.
    """

    engine: Engine
    data: bytes = field(repr=False)
    note: dict[str, Any]


class NotCompiledError(Exception):
    """An engine cannot compute the model. The text says why; it never reaches a caller of the service."""


def finite(number: float) -> float | None:
    """A number as JSON has it: None for one that is not finite."""
    return number if abs(number) < float("inf") else None
