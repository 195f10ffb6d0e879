"""Whether two forms of a model answer alike, on rows made for the purpose.

Nothing is known of the data: the rows lie around the example, hold every category and an unknown one, and
stand on the thresholds of trees and one step beside them, where two ways of rounding part first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.errors import InvalidInputError
from fitserve.estimators.walk import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.signature import Field, Label, Signature
    from fitserve.types import Outputs

    Row = list[Label | None]

N_ROWS: Final = 300
N_THRESHOLDS: Final = 200
SPREADS: Final = (1.0, 0.1, 10.0)
"""Numbers are drawn around the example at these multiples of its size, or of one if that is larger."""

UNKNOWN: Final = "\u2400"
"""A text that is no category: the symbol for nothing."""

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


def parity_rows(model: Model, estimator: object, *, seed: int = 0) -> list[Row]:
    """Rows without nulls that the model answers, around its example.

    Args:
        model: whose signature says what fits.
        estimator: where words are looked for.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    signature = model.signature
    base = list(signature.example_row())
    words = _words(estimator)
    columns = [_column(f, value, words, rng) for f, value in zip(signature.inputs, base, strict=True)]
    rows = [base, *map(list, zip(*columns, strict=True))]
    return _answered(model, [row for row in rows if None not in row])


def edge_rows(model: Model, estimator: object, rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Some of the rows with one number at a threshold of a tree, or one step beside it in float32 or float64.

    Where a step before the tree computes with the number, one rounding more or less decides there.
    """
    if not rows:
        return []
    rng = np.random.default_rng(seed)
    return _answered(model, list(_on_thresholds(estimator, model.signature, rows, rng)))


def _answered(model: Model, rows: list[Row]) -> list[Row]:
    return rows if not rows or _is_answered(model, rows) else [row for row in rows if _is_answered(model, [row])]


def null_rows(signature: Signature, rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with null in one column."""
    index = signature.names.index(name)
    return [[None if i == index else value for i, value in enumerate(row)] for row in rows]


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


def _column(f: Field, value: Label | None, words: Sequence[str], rng: np.random.Generator) -> list[Any]:
    """Values for one column."""
    if f.categories:
        known: list[Any] = list(f.categories)
        if not f.is_closed and all(isinstance(one, str) for one in known):
            known.append(UNKNOWN)
        return [known[i] for i in rng.integers(len(known), size=N_ROWS)]
    if f.kind == "boolean":
        return [bool(number) for number in rng.integers(2, size=N_ROWS)]
    if f.kind in {"number", "numeric"} or (f.kind == "any" and not isinstance(value, str)):
        center = float(value) if isinstance(value, int | float) else 0.0
        numbers = np.concatenate([center + rng.normal(size=N_ROWS) * max(abs(center), 1.0) * s for s in SPREADS])
        return [float(number) for number in rng.permutation(numbers)[:N_ROWS].clip(-f.largest, f.largest)]
    if f.kind == "string" and words:
        return [" ".join(rng.choice(words, size=rng.integers(1, 12))) for _ in range(N_ROWS)]
    return [value] * N_ROWS


def _words(estimator: object) -> list[str]:
    """Words that a vectorizer learnt."""
    for part in parts_of(estimator):
        vocabulary = getattr(part, "vocabulary_", None)
        if isinstance(vocabulary, dict):
            return sorted(map(str, vocabulary))[:1000]
    return []


def _on_thresholds(
    estimator: object, signature: Signature, rows: Sequence[Row], rng: np.random.Generator
) -> Iterator[Row]:
    found = [  # features of the table, where no step before makes others
        (index, value)
        for index, value in thresholds_of(estimator)
        if index < signature.n_features and signature.inputs[index].kind in {"number", "numeric"} and np.isfinite(value)
    ]
    for chosen in rng.permutation(len(found))[:N_THRESHOLDS]:
        index, value = found[chosen]
        near = np.float32(value)
        for number in {
            value, float(np.nextafter(value, np.inf)), float(np.nextafter(value, -np.inf)),
            float(near), float(np.nextafter(near, np.float32(np.inf))), float(np.nextafter(near, np.float32(-np.inf))),
        }:  # fmt: skip
            row = list(rows[int(rng.integers(len(rows)))])
            row[index] = number
            yield row


def thresholds_of(estimator: object) -> list[tuple[int, float]]:
    """Feature and threshold of the nodes of scikit-learn's trees; of features, where a step before makes others."""
    found: list[tuple[int, float]] = []
    for part in parts_of(estimator):
        tree = getattr(part, "tree_", None)
        if tree is not None:
            pairs = zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True)
            found += [(index, value) for index, value in pairs if index >= 0]
        for stage in getattr(part, "_predictors", None) or ():
            for predictor in stage:
                nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
                found += zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True)
    return found


def _is_answered(model: Model, rows: Sequence[Row]) -> bool:
    """Whether the rows are not refused, as numbers beyond a bound or unknown categories are."""
    try:
        model.predict(model.signature.check(list(rows)))
    except InvalidInputError:
        return False
    return True
