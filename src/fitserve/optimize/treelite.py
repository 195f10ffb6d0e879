"""Boosters and forests for treelite's GTIL, called by its C function.

The Python wrapper of GTIL parses a configuration and makes a dozen objects of ctypes on each call, which costs twice
what a row costs. Here they are made once. It also pads rows that are too short with NaN: their length is asserted.
Source: https://treelite.readthedocs.io/en/latest/api.html#general-tree-inference-library-gtil
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.formats.base import require
from fitserve.optimize.base import NotCompiledError
from fitserve.optimize.onnx import compile_graph, onnx_run
from fitserve.optimize.rewrite import without_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.base import Run
    from fitserve.optimize.split import Split
    from fitserve.signature import Inputs, Label

ZERO: Final = float(np.float32(1e-35))
"""Source: ``kZeroThreshold`` in https://github.com/microsoft/LightGBM/blob/master/include/LightGBM/meta.h"""


def compile_trees(parts: Split, model: EstimatorModel) -> tuple[bytes, dict[str, Any]]:
    """The steps before the model as a graph, then its trees, with the note of :func:`treelite_run`.

    Raises whatever the converters meet.
    """
    note: dict[str, Any] = {"casts": parts.is_casting, "before": None, "n_before_bytes": 0, "is_zero_missing": False}
    note |= {"levels": None, "order": None}
    before, final = b"", parts.final
    if parts.before is not None:
        graph = compile_graph(parts.before, model.signature, floats="float64")
        before = graph.data
        note["before"] = {"inputs": graph.inputs, "outputs": graph.outputs[:1], "padding": 1}
        note["n_before_bytes"] = len(before)
        # XGBoost takes what a sparse table does not hold as missing.
        note["is_zero_missing"] = parts.library == "xgboost" and _is_sparse(parts.before, model)
    elif parts.library == "sklearn":
        if (bare := without_encoder(final)) is not None:
            final, note["levels"], note["order"] = bare
    elif any(levels is not None for levels in model.levels):
        note["levels"] = [None if levels is None else list(levels) for levels in model.levels]
    return before + bytes(_trees(parts.library, final).serialize_bytes()), note


def _is_sparse(before: Any, model: EstimatorModel) -> bool:
    inputs = model.signature.check([list(model.signature.example_row())])
    return hasattr(before.transform(model.table(inputs)), "toarray")


def _trees(library: str | None, final: Any) -> Any:
    treelite = require("treelite", "convert")
    if library == "lightgbm":
        return treelite.frontend.from_lightgbm(_without_zero(final.booster_))
    if library == "xgboost":
        booster = final.get_booster()
        best = booster.attr("best_iteration")
        # The wrapper stops at the best round.
        return treelite.frontend.from_xgboost(booster if best is None else booster[: int(best) + 1])
    return require("treelite.sklearn", "convert").import_model(final)


def _without_zero(booster: Any) -> Any:
    """A LightGBM booster whose thresholds below zero are below all that it takes for zero.

    It takes numbers up to :data:`ZERO` for 0, which is greater than the threshold -ZERO; treelite does not.
    """
    text = booster.model_to_string()
    changed = text.replace(f"{-ZERO:.17g}", f"{np.nextafter(-ZERO, -1.0):.17g}")
    return booster if changed == text else type(booster)(model_str=changed)


def treelite_run(data: bytes, note: dict[str, Any]) -> Run:
    """Trees at work, behind the steps before them.

    Args:
        data: a graph of ``n_before_bytes``, then the trees.
        note: ``casts``: numbers become float32 first, as scikit-learn's trees have it; ``before``: the note of
            the graph for :func:`onnx_run`, if there is one; ``is_zero_missing``; ``levels`` of columns that are
            categories, whose codes the trees know; ``order`` of the columns, where the trees have another.
    """
    n_before = int(note["n_before_bytes"])
    trees = _Gtil(data[n_before:])
    prepare = onnx_run(data[:n_before], note["before"]) if note["before"] is not None else None
    levels = note["levels"] and [
        None if one is None else {value: code for code, value in enumerate(one) if value is not None}
        for one in note["levels"]
    ]
    casts, is_zero_missing, order = note["casts"], note["is_zero_missing"], note["order"]

    def run(inputs: Inputs) -> list[Any]:
        X = prepare(inputs)[0] if prepare is not None else _matrix(inputs, levels)
        if order is not None:
            X = X[:, order]
        if casts:
            X = X.astype(np.float32)
        elif is_zero_missing:
            X = np.where(X == 0, np.nan, X)
        return [_table(trees(X))]

    return run


def _matrix(inputs: Inputs, levels: Sequence[Mapping[Label, int] | None] | None) -> NDArray[np.float64]:
    """All columns as numbers; of a category its code, NaN where it is unknown."""
    if levels is None:
        if isinstance(inputs, np.ndarray):
            return inputs
        return np.column_stack([column.astype(np.float64) for column in inputs.values()])
    columns = inputs.T if isinstance(inputs, np.ndarray) else inputs.values()
    return np.column_stack(
        [
            column.astype(np.float64) if codes is None else [codes.get(value, np.nan) for value in column.tolist()]
            for column, codes in zip(columns, levels, strict=True)
        ]
    )


def _table(out: NDArray[Any]) -> NDArray[Any]:
    """GTIL's (n_rows, n_targets, n_classes) as ONNX models have it."""
    if out.shape[1] == 1:
        return out[:, 0]
    return out[:, :, 0] if out.shape[2] == 1 else out.transpose(1, 0, 2)


class _Gtil:
    """A model of treelite, ready to be called with one thread. Any thread, several at once."""

    def __init__(self, data: bytes) -> None:
        treelite = require("treelite", "convert")
        from treelite.core import _LIB
        from treelite.gtil.gtil import GTILConfig

        self._model = treelite.Model.deserialize_bytes(data)
        self._config = GTILConfig(predict_type="default", nthread=1)
        self._library = _LIB
        self._type = self._model.input_type.encode()
        self._in, self._out = np.dtype(self._model.input_type), np.dtype(self._model.output_type)
        self._width = int(self._model.num_feature)
        pointer, number = ctypes.c_void_p, ctypes.c_uint64
        kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, ctypes.c_char_p, number, pointer, pointer)
        self._predict: Callable[..., int] = kind(("TreeliteGTILPredict", _LIB))
        self._handles = self._model.handle.value, self._config.handle.value
        self._shape = self._output_shape()
        self._row = threading.local()

    def __call__(self, X: NDArray[Any]) -> NDArray[Any]:
        """Map (n_rows, n_features) to (n_rows, n_targets, n_classes)."""
        assert X.shape[1] == self._width
        n_rows = len(X)
        model, config = self._handles
        if n_rows == 1:  # the addresses of two arrays cost as much as a small model
            try:
                into, into_at, out, out_at = self._row.buffers
            except AttributeError:
                into, out = np.zeros((1, self._width), dtype=self._in), np.zeros((1, *self._shape), dtype=self._out)
                into_at, out_at = into.ctypes.data, out.ctypes.data
                self._row.buffers = into, into_at, out, out_at
            into[...] = X
            self._check(self._predict(model, into_at, self._type, 1, out_at, config))
            return np.array(out)
        X = np.ascontiguousarray(X, dtype=self._in)
        out = np.zeros((n_rows, *self._shape), dtype=self._out)
        self._check(self._predict(model, X.ctypes.data, self._type, n_rows, out.ctypes.data, config))
        return out

    def _output_shape(self) -> tuple[int, ...]:
        """The shape of a row's output."""
        shape, rank = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        arguments = self._model.handle, ctypes.c_uint64(1), self._config.handle
        self._check(self._library.TreeliteGTILGetOutputShape(*arguments, ctypes.byref(shape), ctypes.byref(rank)))
        _, *found = (int(shape[i]) for i in range(rank.value))
        if len(found) != 2:  # noqa: PLR2004
            msg = f"treelite gives rows of shape {found}: wanted targets and classes"
            raise NotCompiledError(msg)
        return tuple(found)

    def _check(self, code: int) -> None:
        if code:
            msg = f"treelite failed: {self._library.TreeliteGetLastError().decode(errors='replace')[:200]}"
            raise RuntimeError(msg)
