"""Whether two forms of a model answer alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.optimize.rows import Row
    from fitserve.types import Outputs

TIE: Final = 1e-6
"""Two probabilities nearer than this may change places by rounding."""

TOLERANCE: Final = 1e-4
"""What numbers may differ by, absolutely for probabilities, else as a part of the larger of one and the
number: float32 has seven digits, and a forest of a thousand trees loses three of them."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How two forms of a model compare.

    Attributes:
        n_rows: how many rows both answered.
        n_unequal: rows with another label, near ties not counted, or with a number beyond tolerance.
        n_ties: rows with another label where the two largest probabilities are within :data:`TIE`.
        differences: the largest difference of each output: of probabilities absolute, else relative to
            the larger of one and the number.
        extras: outputs besides predictions and probabilities that agree.
    """

    n_rows: int
    n_unequal: int
    n_ties: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    extras: tuple[str, ...] = ()

    @property
    def largest(self) -> float:
        """The largest of the differences."""
        return max(self.differences.values(), default=0.0)


def compare(one: Model, other: Model, rows: Sequence[Row]) -> Parity:
    """Let both answer the rows. Raises what the models raise."""
    names = one.signature.outputs
    if not rows:
        return Parity(0, 0)
    wanted = one.predict(one.signature.check(list(rows)), names)
    came = other.predict(other.signature.check(list(rows)), other.signature.outputs)
    is_label = one.signature.classes is not None or np.asarray(wanted.predictions).dtype.kind != "f"
    differences: dict[str, float] = {}
    if is_label:
        is_unequal = _unequal_labels(wanted.predictions, came.predictions)
    else:
        gaps = _gaps(wanted.predictions, came.predictions)
        differences[names[0]] = float(gaps.max(initial=0.0))
        is_unequal = gaps > TOLERANCE
    is_tie = is_unequal & _ties(wanted) if is_label else np.zeros(len(rows), dtype=bool)
    is_unequal = is_unequal & ~is_tie
    if wanted.probabilities is not None:
        for a, b in zip(wanted.probabilities, came.probabilities or (), strict=True):
            gap = np.abs(a - b).max(axis=1)
            differences["predict_proba"] = max(differences.get("predict_proba", 0.0), float(gap.max(initial=0.0)))
            is_unequal |= ~(gap <= TOLERANCE)
    extras = tuple(
        name for name in came.extras if name in wanted.extras and _agree(wanted.extras[name], came.extras[name])
    )
    return Parity(len(rows), int(is_unequal.sum()), int(is_tie.sum()), differences, extras)


def _agree(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return np.shape(one) == np.shape(other) and bool((_gaps(one, other) <= TOLERANCE).all())


def agrees_with(one: Any, other: Any) -> bool:
    """Whether two outputs are the same numbers within tolerance, shapes included."""
    return _agree(np.asarray(one), np.asarray(other))


def _gaps(one: Any, other: Any) -> NDArray[np.float64]:
    """The largest relative difference of each row; infinite where one is NaN and the other not."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape:
        return np.full(len(a), np.inf)
    with np.errstate(invalid="ignore"):
        gaps = np.abs(a - b) / np.maximum(1.0, np.abs(a))
    gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, gaps)
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    largest: NDArray[np.float64] = gaps.reshape(len(a), -1).max(axis=1)
    return largest


def _unequal_labels(one: Any, other: Any) -> NDArray[np.bool_]:
    a, b = np.asarray(one).tolist(), np.asarray(other).tolist()
    return np.array([x != y for x, y in zip(a, b, strict=True)], dtype=bool)


def _ties(outputs: Outputs) -> NDArray[np.bool_]:
    """The rows in which the two largest probabilities of some output are nearly the same."""
    is_tie = np.zeros(len(outputs.predictions), dtype=bool)
    for part in outputs.probabilities or ():
        if part.shape[1] > 1:
            top = np.partition(part, -2, axis=1)[:, -2:]
            is_tie |= top[:, 1] - top[:, 0] <= TIE
    return is_tie
