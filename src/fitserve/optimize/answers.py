"""From an engine's raw outputs to the outputs of the model, its own labels among them.

Where rounding could decide, the library does: a row whose two most probable classes are nearer than the engine's
error gets the library's label, and a row with a null that an engine cannot hold is the library's altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fitserve.estimators.onnx_outputs import array_of
from fitserve.estimators.walk import class_in_sklearn
from fitserve.optimize.split import split
from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.base import Run
    from fitserve.signature import Inputs, Label

    Predict: TypeAlias = Callable[[Inputs, Sequence[str]], Outputs]
    Labels: TypeAlias = Callable[[Inputs], NDArray[Any]]


class Answers:
    """The ``predict`` of a compiled form. Any thread, several at once, as far as the library's own call allows it.

    Args:
        run: the engine at work.
        model: the same model by its library.
        note: ``kind``: ``values``, ``labels``, or ``argmax`` where labels are taken from the probabilities;
            ``dtypes`` of the library's predictions and probabilities; ``fills``: what nulls become, by column;
            ``left_nulls``: the columns whose nulls are left to the library; ``left_numbers``: those of texts
            whose numbers are; ``near``: the distance of two probabilities up to which it decides.
        decide: what decides then, in place of the library.
    """

    def __init__(self, run: Run, model: EstimatorModel, note: dict[str, Any], decide: Labels | None = None) -> None:
        signature = model.signature
        self._run = run
        self._library = model.predict
        self._near = float(note["near"])
        self._dtype = np.dtype(note["dtypes"][0])
        self._float = np.dtype(note["dtypes"][1] or "float64")
        self._is_flat = not signature.n_outputs
        self._fills = [(column, value) for column, value in note["fills"] if column not in note["left_nulls"]]
        self._left = _Left(note["left_nulls"], note["left_numbers"])
        self._labels = [_labels(part, self._dtype) for part in signature.classes or ()]
        self._index = [{_key(label): i for i, label in enumerate(part)} for part in signature.classes or ()]
        self._decide = decide or tie_breaker(model)
        self._answer = {"values": self._values, "labels": self._labelled, "argmax": self._argmax}[note["kind"]]

    def __call__(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:  # noqa: ARG002 - never any
        """Predictions, and probabilities where the model has them."""
        left = self._left.rows(inputs)
        if left is None:
            return self._computed(inputs)
        native = self._library(take(inputs, left))
        if left.all():
            return native
        return _merged(left, native, self._computed(take(inputs, ~left)))

    def _computed(self, inputs: Inputs) -> Outputs:
        return self._answer(inputs, self._run(filled(inputs, self._fills) if self._fills else inputs))

    def _values(self, inputs: Inputs, raw: list[Any]) -> Outputs:  # noqa: ARG002 - as its siblings have it
        values = raw[0]
        if self._is_flat and values.ndim > 1:
            values = values.reshape(len(values))
        return Outputs(values.astype(self._dtype, copy=False))

    def _labelled(self, inputs: Inputs, raw: list[Any]) -> Outputs:  # noqa: ARG002
        columns = raw[0].reshape(-1, len(self._labels)).T.tolist()
        named = [
            labels[[index[one] for one in column]]
            for labels, index, column in zip(self._labels, self._index, columns, strict=True)
        ]
        predictions = named[0] if self._is_flat else np.column_stack(named)
        return Outputs(predictions, self._parts(raw[1]) if len(raw) > 1 else None)

    def _argmax(self, inputs: Inputs, raw: list[Any]) -> Outputs:
        parts = self._parts(raw[0])
        if len(parts) == 1 and len(parts[0]) == 1 and self._is_flat:
            row = parts[0][0].tolist()
            *_, second, best = sorted(row) if len(row) > 1 else (-1.0, row[0])
            if best - second > self._near:
                return Outputs(self._labels[0][[row.index(best)]], parts)
            return Outputs(self._decide(inputs), parts)
        named = [labels[part.argmax(axis=1)] for labels, part in zip(self._labels, parts, strict=True)]
        predictions = named[0] if self._is_flat else np.column_stack(named)
        is_near = np.zeros(len(predictions), dtype=bool)
        for part in parts:
            if part.shape[1] > 1:
                top = np.partition(part, -2, axis=1)[:, -2:]
                is_near |= ~(top[:, 1] - top[:, 0] > self._near)  # so that NaN counts as near
        if is_near.any():
            predictions[is_near] = self._decide(take(inputs, is_near))
        return Outputs(predictions, parts)

    def _parts(self, raw: Any) -> tuple[NDArray[Any], ...]:
        """One table (n_rows, n_classes) an output, of a table, a stack or a list of tables."""
        widths = list(map(len, self._labels))
        if len(widths) == 1:
            table = raw.astype(self._float, copy=False)
            if table.shape[1] == 1 and widths == [2]:
                return (np.concatenate((1 - table, table), axis=1),)
            return (table,)
        if isinstance(raw, list) or raw.ndim > 2:  # noqa: PLR2004 - (n_outputs, n_rows, n_classes)
            found = [np.asarray(part)[:, :width] for part, width in zip(raw, widths, strict=True)]
            return tuple(part.astype(self._float, copy=False) for part in found)
        table = raw.astype(self._float, copy=False)  # of each of several labels, the probability to be set
        return tuple(np.column_stack((1 - column, column)) for column in table.T)


class _Left:
    """Which rows are left to the library."""

    def __init__(self, nulls: Sequence[int], numbers: Sequence[int]) -> None:
        self._nulls, self._numbers = list(nulls), list(numbers)

    def rows(self, inputs: Inputs) -> NDArray[np.bool_] | None:
        """A mask of shape (n_rows,), or None where it would have no row."""
        if isinstance(inputs, np.ndarray):
            if not self._nulls or not has_nan(inputs):
                return None
            mask = np.asarray(np.isnan(inputs[:, self._nulls]).any(axis=1))
            return mask if mask.any() else None
        columns = list(inputs.values())
        masks = [_gaps(columns[i]) for i in self._nulls]
        masks += [np.array([not isinstance(value, str) for value in columns[i].tolist()]) for i in self._numbers]
        mask = np.logical_or.reduce([found for found in masks if found is not None])
        return mask if mask.any() else None


def _gaps(column: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which values are null; None where there is none."""
    if column.dtype.kind == "O":
        values = column.tolist()
        return np.array([value is None for value in values]) if None in values else None
    mask = np.isnan(column)
    return mask if mask.any() else None


def has_nan(X: NDArray[np.float64]) -> bool:
    """Whether a number is NaN. The sum of squares tells at a fifth of the cost of looking at each."""
    flat = X.ravel()
    square = flat.dot(flat)
    return bool(square != square)  # noqa: PLR0124 - NaN


def filled(inputs: Inputs, fills: Sequence[tuple[int, float | str]]) -> Inputs:
    """A checked table with the nulls of some columns filled. A copy, where there are any."""
    if isinstance(inputs, np.ndarray):
        if not has_nan(inputs):
            return inputs
        inputs = inputs.copy()
        for i, value in fills:
            inputs[np.isnan(inputs[:, i]), i] = value
        return inputs
    names = list(inputs)
    changed: dict[str, NDArray[Any]] = {}
    for i, value in fills:
        column = inputs[names[i]]
        if (gaps := _gaps(column)) is not None:
            changed[names[i]] = column = column.copy()
            column[gaps] = value
    return {**inputs, **changed} if changed else inputs


def take(inputs: Inputs, mask: NDArray[Any] | slice) -> Inputs:
    """Some rows of a checked table, by a mask, a slice or numbers."""
    if isinstance(inputs, np.ndarray):
        return np.asarray(inputs[mask])
    return {name: column[mask] for name, column in inputs.items()}


def _merged(left: NDArray[np.bool_], one: Outputs, other: Outputs) -> Outputs:
    """The outputs of all rows: of those that were left, and of the others."""

    def put(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        whole = np.empty((len(left), *b.shape[1:]), dtype=np.promote_types(a.dtype, b.dtype))
        whole[left], whole[~left] = a, b
        return whole

    pairs = zip(one.probabilities or (), other.probabilities or (), strict=True)
    return Outputs(
        put(one.predictions, other.predictions),
        None if other.probabilities is None else tuple(put(a, b) for a, b in pairs),
    )


def _labels(labels: Sequence[Label], dtype: np.dtype[Any]) -> NDArray[Any]:
    return array_of(labels) if dtype.kind == "O" else np.array(labels, dtype=dtype)


def _key(label: Label) -> Label:
    """A label as a graph gives it: booleans as the integers that they equal."""
    return int(label) if isinstance(label, bool) else label


def tie_breaker(model: EstimatorModel) -> Labels:
    """What decides between classes that are nearly as probable: the library.

    One row in a hundred of a forest is a draw, and scikit-learn takes a millisecond to check its input and hand
    its trees to threads. Adding them up as it does, one after the other, takes a tenth of that.
    """
    parts = split(model.estimator)
    forest = parts.final
    is_forest = class_in_sklearn(forest) in {"RandomForestClassifier", "ExtraTreesClassifier"}
    if parts.before is not None or not is_forest or forest.n_outputs_ != 1 or model.signature.classes is None:
        return lambda inputs: _by_library(model, inputs)
    trees = [part.tree_ for part in forest.estimators_]
    labels = array_of(model.signature.classes[0])

    def decide(inputs: Inputs) -> NDArray[Any]:
        X = np.ascontiguousarray(inputs, dtype=np.float32)
        total = trees[0].predict(X)
        for tree in trees[1:]:
            total += tree.predict(X)
        return np.asarray(labels[(total / len(trees)).argmax(axis=1)])

    return decide


_OF_TREES = ("sklearn.ensemble", "sklearn.tree", "xgboost", "lightgbm")


def _by_library(model: EstimatorModel, inputs: Inputs) -> NDArray[Any]:
    """The labels that the library gives.

    A sum of trees is the same in any company; a matrix product is not: where there may be one, each row is asked alone.
    """
    n_rows = len(inputs) if isinstance(inputs, np.ndarray) else len(next(iter(inputs.values())))
    if n_rows == 1 or type(split(model.estimator).final).__module__.startswith(_OF_TREES):
        return model.predict(inputs).predictions
    return np.concatenate([model.predict(take(inputs, slice(i, i + 1))).predictions for i in range(n_rows)])
