"""Rows on which two forms of a model are compared.

Nothing is known of the data: the rows lie around the example, between the thresholds of trees and beyond them, and
hold every category and an unknown one. Every row is one that the model answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from fitserve.errors import InvalidInputError
from fitserve.estimators.walk import attribute, first_step, parts_of
from fitserve.optimize.split import split
from fitserve.optimize.trees import categorical_features, trees_of
from fitserve.signature.fields import MAX_MAGNITUDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.signature import Field, Label, Signature

    Row: TypeAlias = list[Label | None]

N_ROWS: Final = 300
SPREADS: Final = (1.0, 0.1, 0.01, 10.0)
"""Numbers are drawn around the example at these multiples of its size, or of one if that is larger."""

MAX_CELLS: Final = 2**21
"""Of all rows together: a model of 20 000 features is compared on a hundred."""

UNKNOWN: Final = "\u2400"
"""A text that is no category: the symbol for nothing."""

CHUNK: Final = 256
"""Rows in one call: after each a clock can be looked at, and memory stays bounded."""

MAX_CALLS: Final = 300

N_CODES: Final = 70
"""Codes of categories are drawn below it, and some far above."""


def parity_rows(model: Model, estimator: object, *, n_rows: int = N_ROWS, seed: int = 0) -> list[Row]:
    """Rows without nulls that the model answers, the example first.

    Args:
        model: whose signature says what fits.
        estimator: where thresholds, scales, words and rows of the fitting are looked for.
        n_rows: how many to make.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    signature = model.signature
    base = list(signature.example_row())
    n_rows = max(64, min(n_rows, MAX_CELLS // max(1, len(base))))
    words, known = _words(estimator), _known_numbers(estimator, signature)
    columns = [
        _column(f, value, numbers, words, n_rows, rng)
        for f, value, numbers in zip(signature.inputs, base, known, strict=True)
    ]
    rows: list[Row] = [base, *map(list, zip(*columns, strict=True))]
    return answered(model, [row for row in rows if None not in row])


def null_rows(signature: Signature, rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with null in one column."""
    index = signature.names.index(name)
    return [[None if i == index else value for i, value in enumerate(row)] for row in rows]


def answered(model: Model, rows: list[Row]) -> list[Row]:
    """Those of the rows that the model does not refuse, as numbers beyond a bound or unknown categories are.

    Rows among which refusals are looked for in too many calls are left out.
    """
    kept: list[Row] = []
    waiting = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)][::-1]
    n_calls = 0
    while waiting and n_calls < MAX_CALLS:
        some = waiting.pop()
        n_calls += 1
        try:
            model.predict(model.signature.check(list(some)))
        except InvalidInputError:
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]] if middle else []
        else:
            kept += some
    return kept


def _column(
    f: Field, value: Label | None, known: NDArray[np.float64], words: Sequence[str], n: int, rng: np.random.Generator
) -> list[Any]:
    """Values for one column."""
    if f.categories:
        found: list[Any] = list(f.categories)
        if not f.is_closed and all(isinstance(one, str) for one in found):
            found.append(UNKNOWN)
        elif not f.is_closed and f.kind in {"number", "numeric"}:
            found += [-1.0, 0.5, max(map(float, found)) + 1.0]
        return [found[i] for i in rng.integers(len(found), size=n)]
    if f.kind == "boolean":
        return [bool(number) for number in rng.integers(2, size=n)]
    if f.kind in {"number", "numeric"} or (f.kind == "any" and not isinstance(value, str)):
        center = float(value) if isinstance(value, int | float) else 0.0
        numbers = _numbers(center, known, n, rng).clip(-f.largest, f.largest)
        # A numeric column takes booleans: as numbers they are 1 and 0.
        is_bool = rng.random(n) < (0.02 if f.kind == "numeric" else 0.0)
        return [number > 0 if flag else number for number, flag in zip(numbers.tolist(), is_bool.tolist(), strict=True)]
    if f.kind == "string" and words:
        return [" ".join(rng.choice(words, size=rng.integers(1, 12))) for _ in range(n)]
    return [value] * n


def _numbers(center: float, known: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Around the center, between the known numbers and beyond them; some with few digits, as people write them."""
    spread = max(abs(center), 1.0)
    drawn = [center + rng.normal(size=n) * spread * factor for factor in SPREADS]
    known = known[np.abs(known) <= MAX_MAGNITUDE]  # nor NaN
    if len(known):
        low, high = float(known.min()), float(known.max())
        width = high - low or max(abs(low), 1.0)
        drawn += [rng.uniform(low, high, n), rng.uniform(low - width / 2, high + width / 2, n)] * 2
        drawn += [rng.choice(known, n), rng.normal(0.5 * (low + high), width / 4, n)]
    numbers = np.concatenate(drawn)
    numbers = rng.permutation(numbers[np.isfinite(numbers)])[:n]
    size = np.maximum(np.abs(numbers), 1e-300)
    unit = 10.0 ** (np.floor(np.log10(size)) - 2)
    kept = rng.random(n)
    return np.where(kept < 0.3, np.round(numbers / unit) * unit, np.where(kept < 0.4, np.round(numbers), numbers))  # noqa: PLR2004


def _known_numbers(estimator: object, signature: Signature) -> list[NDArray[np.float64]]:
    """Of each column what the estimator keeps of its numbers: thresholds, means and scales, rows of the fitting."""
    width = signature.n_features
    found: list[list[NDArray[np.float64]]] = [[] for _ in range(width)]
    step = first_step(estimator)
    if split(estimator).before is None:
        trees = trees_of(estimator)
        features = np.concatenate([tree.feature for tree in trees] or [np.empty(0, dtype=int)])
        thresholds = np.concatenate([tree.threshold for tree in trees] or [np.empty(0)])
        for index in np.unique(features[features >= 0]).tolist():
            if index < width:
                found[index].append(thresholds[(features == index) & np.isfinite(thresholds)])
        for index in categorical_features(estimator):
            if index < width:
                found[index].append(np.array([*range(N_CODES), 255.0, 1000.0]))
    mean, scale = attribute(step, "mean_"), attribute(step, "scale_")
    for index in range(width):
        if np.shape(mean) == np.shape(scale) == (width,):
            found[index].append(np.array([mean[index] - 3 * scale[index], mean[index] + 3 * scale[index]]))
        for name in ("_fit_X", "support_vectors_", "data_min_", "data_max_", "cluster_centers_", "theta_"):
            value = attribute(step, name)
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape[-1:] == (width,):
                found[index].append(value.reshape(-1, width)[:1000, index].astype(float))
    return [np.concatenate(parts) if parts else np.empty(0) for parts in found]


def _words(estimator: object) -> list[str]:
    """Words that a vectorizer learnt."""
    for part in parts_of(estimator):
        vocabulary = getattr(part, "vocabulary_", None)
        if isinstance(vocabulary, dict):
            return sorted(map(str, vocabulary))[:1000]
    return []
