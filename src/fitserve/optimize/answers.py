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
    from fitserve.signature import Inputs, Label, Signature

    Predict: TypeAlias = Callable[[Inputs, Sequence[str]], Outputs]
    Labels: TypeAlias = Callable[[Inputs], NDArray[Any]]


class Answers:
    """The ``predict`` of a compiled form. Any thread, several at once, as far as the library's own call allows it.

    Args:
        run: the engine at work.
        model: the same model by its library.
        note: ``kind``: ``values``, ``labels``, or ``argmax`` where labels are taken from the probabilities;
            ``dtypes`` of the library's predictions and probabilities; ``left_nulls``: the columns whose nulls are
            left to the library; ``near``: the distance of two probabilities up to which it decides.
    """

    def __init__(self, run: Run, model: EstimatorModel, note: dict[str, Any]) -> None:
        signature = model.signature
        self._run = run
        self._library = model.predict
        self._near = float(note["near"])
        self._dtype = np.dtype(note["dtypes"][0])
        self._float = np.dtype(note["dtypes"][1] or "float64")
        self._is_flat = not signature.n_outputs
        self._left = _Left(signature, note["left_nulls"])
        self._labels = [_labels(part, self._dtype) for part in signature.classes or ()]
        self._index = [{_key(label): i for i, label in enumerate(part)} for part in signature.classes or ()]
        self._decide = tie_breaker(model)
        self._answer = {"values": self._values, "labels": self._labelled, "argmax": self._argmax}[note["kind"]]

    def __call__(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:  # noqa: ARG002 - never any
        """Predictions, and probabilities where the model has them."""
        left = self._left.rows(inputs)
        if left is None:
            return self._answer(inputs, self._run(inputs))
        native = self._library(take(inputs, left))
        if left.all():
            return native
        rest = take(inputs, ~left)
        return _merged(left, native, self._answer(rest, self._run(rest)))

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

    def __init__(self, signature: Signature, nulls: Sequence[int]) -> None:
        types: dict[str, type] = {"string": str, "any": str, "boolean": bool}
        self._nulls = list(nulls)
        self._types = [] if signature.is_numeric else [
            (i, types[f.kind]) for i, f in enumerate(signature.inputs) if f.kind in types
        ]  # fmt: skip
        self._numbers = [i for i in self._nulls if i not in dict(self._types)]

    def rows(self, inputs: Inputs) -> NDArray[np.bool_] | None:
        """A mask of shape (n_rows,), or None where it would have no row."""
        if isinstance(inputs, np.ndarray):
            if not self._nulls:
                return None
            mask: NDArray[np.bool_] = np.isnan(inputs[:, self._nulls]).any(axis=1)
            return mask if mask.any() else None
        columns = list(inputs.values())
        strange = [i for i, kind in self._types if set(map(type, columns[i].tolist())) != {kind}]
        gaps = [i for i in self._numbers if np.isnan(columns[i]).any()]
        if not strange and not gaps:
            return None
        mask = np.zeros(len(columns[0]), dtype=np.bool_)
        kinds = dict(self._types)
        for i in strange:
            mask |= np.array([type(value) is not kinds[i] for value in columns[i].tolist()])
        for i in gaps:
            mask |= np.isnan(columns[i])
        return mask


def take(inputs: Inputs, mask: NDArray[Any]) -> Inputs:
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
        return lambda inputs: model.predict(inputs).predictions
    trees = [part.tree_ for part in forest.estimators_]
    labels = array_of(model.signature.classes[0])

    def decide(inputs: Inputs) -> NDArray[Any]:
        X = np.ascontiguousarray(inputs, dtype=np.float32)
        total = trees[0].predict(X)
        for tree in trees[1:]:
            total += tree.predict(X)
        return np.asarray(labels[(total / len(trees)).argmax(axis=1)])

    return decide
