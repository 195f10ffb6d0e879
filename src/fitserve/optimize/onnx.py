"""scikit-learn estimators as ONNX graphs, and ONNX Runtime at work on them.

The conversion is shared with ``fitserve convert``; a graph that is compiled to be served is not a file of its own:
it has no metadata, and says labels only where they cannot be taken from probabilities.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fitserve.estimators.onnx_outputs import joined
from fitserve.formats.base import require
from fitserve.optimize.base import NotCompiledError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.optimize.base import Run
    from fitserve.signature import Field, Inputs, Signature

OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""Of 2022: read by ONNX Runtime since 1.14."""

PADDINGS: Final = (1, 8, 0)
"""Rows are run in multiples of so many, the last one repeated: vector instructions take up to eight numbers at once
and compute the rest of an array otherwise, so that the last digits of a row hung on how many there are. 0 runs
each row by itself. The first is taken under which a row alone has the bits that it has in company."""


def to_proto(estimator: Any, types: list[tuple[str, Any]]) -> Any:
    """What skl2onnx makes of an estimator, with probabilities as one table where there are any. Raises anything."""
    skl2onnx = require("skl2onnx", "convert")

    def convert(options: dict[str, Any] | None) -> Any:
        return skl2onnx.convert_sklearn(
            estimator, name="fitserve", initial_types=types, options=options, target_opset=OPSETS
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return convert({"zipmap": False})
        except NameError as exc:  # an estimator without probabilities does not know the option
            if "zipmap" not in str(exc):
                raise
            return convert(None)


def types_of(fields: Sequence[Field], floats: str, *, by_column: bool) -> list[tuple[str, Any]]:
    """Inputs as skl2onnx names them: one table, or one column each."""
    from skl2onnx.common import data_types

    number = data_types.DoubleTensorType if floats == "float64" else data_types.FloatTensorType
    if not by_column:
        return [("X", number([None, len(fields)]))]
    kinds = {"string": data_types.StringTensorType, "boolean": data_types.BooleanTensorType}
    return [(f.name, kinds.get(kind_of(f), number)([None, 1])) for f in fields]


def kind_of(f: Field) -> Any:
    """The kind that a column has in ONNX, where each has a datatype."""
    if f.kind != "any":
        return f.kind
    return "string" if f.categories and all(isinstance(one, str) for one in f.categories) else "numeric"


def layouts_of(signature: Signature) -> list[bool]:
    """Whether there is an input for each column: the ways to try, in order.

    Steps that choose columns by name need an input for each; all others take one table.
    """
    is_numeric = all(f.kind in {"number", "numeric"} for f in signature.inputs)
    return ([False] if is_numeric else []) + ([True] if signature.is_named or not is_numeric else [])


def is_usable(f: Field) -> bool:
    """Whether an engine can take a column: numbers and booleans as numbers, and texts that are categories.

    Of free text no proof by examples says enough, dates it has none, and of numbers or texts it takes one only.
    """
    return f.kind in {"number", "numeric", "boolean"} or (bool(f.categories) and kind_of(f) == "string")


class Graph(NamedTuple):
    """A converted estimator: its bytes, what it takes, as :func:`onnx_run` wants it, and its outputs by name."""

    data: bytes
    inputs: list[dict[str, Any]]
    outputs: list[str]


def compile_graph(estimator: Any, signature: Signature, *, floats: str) -> Graph:
    """Convert an estimator, with one input or one for each column. Raises whatever the converter meets at last.

    Args:
        estimator: fitted, by steps that skl2onnx knows.
        signature: of the model. A column that no engine can take is left out: the steps may not look at it.
        floats: ``float64`` or ``float32``: in which numbers enter.
    """
    failure: Exception | None = None
    for by_column in layouts_of(signature):
        try:
            data = _converted(estimator, signature, floats, by_column=by_column)
            outputs = [output.name for output in start_session(data).get_outputs()]
        except Exception as exc:  # noqa: BLE001 - the converter raises whatever it meets
            failure = exc
            continue
        return Graph(data, _inputs_note(signature, floats, by_column=by_column), outputs)
    assert failure is not None  # there is one layout at least
    raise failure


def _converted(estimator: Any, signature: Signature, floats: str, *, by_column: bool) -> bytes:
    fields = [replace(f, kind="numeric") if f.kind == "boolean" else f for f in signature.inputs if is_usable(f)]
    types = types_of(fields, floats, by_column=by_column)
    if not types:
        msg = "no column is one that an engine can take"
        raise NotCompiledError(msg)
    proto = to_proto(estimator, types)
    return bytes((_with_casting_trees(proto) if floats == "float64" else proto).SerializeToString())


def _with_casting_trees(proto: Any) -> Any:
    """A graph of float64 whose trees see their input cast to float32, as scikit-learn's do, and add up in float64.

    ONNX Runtime adds in the floats of the input, but gives float32, whatever the converter has declared.
    """
    from onnx import TensorProto, helper

    def cast(before: str, after: str, dtype: int) -> Any:
        return helper.make_node("Cast", [before], [after], to=dtype)

    nodes = []
    for number, node in enumerate(proto.graph.node):
        if not node.op_type.startswith("TreeEnsemble"):
            nodes.append(node)
            continue
        before, after, name = node.input[0], node.output[-1], f"fitserve_tree_{number}"
        node.input[0], node.output[len(node.output) - 1] = f"{name}_in", f"{name}_out"
        nodes += [cast(before, f"{name}_32", TensorProto.FLOAT), cast(f"{name}_32", f"{name}_in", TensorProto.DOUBLE)]
        nodes += [node, cast(f"{name}_out", after, TensorProto.DOUBLE)]
    if len(nodes) > len(proto.graph.node):
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        for output in proto.graph.output:
            if output.type.tensor_type.elem_type == TensorProto.FLOAT:
                output.type.tensor_type.elem_type = TensorProto.DOUBLE
    return proto


def _inputs_note(signature: Signature, floats: str, *, by_column: bool) -> list[dict[str, Any]]:
    """What the graph takes: of each input its name, the column that it is, and its datatype."""
    if not by_column:
        return [{"name": "X", "column": None, "dtype": floats}]
    return [
        {"name": f.name, "column": index, "dtype": "str" if kind_of(f) == "string" else floats}
        for index, f in enumerate(signature.inputs)
        if is_usable(f)
    ]


def start_session(data: bytes) -> Any:
    """A session of one thread, which belongs to whoever calls it. Any thread; several at once.

    Source: https://onnxruntime.ai/docs/performance/tune-performance/threading.html
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # the runtime's own kinds
        msg = f"ONNX Runtime does not take the graph: {' '.join(str(exc).split())[:200]}"
        raise NotCompiledError(msg) from exc


def onnx_run(data: bytes, note: dict[str, Any]) -> Run:
    """A graph at work.

    Args:
        data: the graph.
        note: ``inputs`` and ``outputs`` as :class:`Graph` has them, and ``padding``, one of :data:`PADDINGS`.
    """
    run, outputs, padding = start_session(data).run, list(note["outputs"]), int(note["padding"])
    feed = _table_feed(note["inputs"][0]) if note["inputs"][0]["column"] is None else _column_feed(note["inputs"])

    def simple(inputs: Inputs) -> list[Any]:
        return run(outputs, feed(inputs))  # type: ignore[no-any-return]

    def padded(inputs: Inputs) -> list[Any]:
        feeds = feed(inputs)
        n_rows = len(next(iter(feeds.values())))
        if n_missing := -n_rows % padding:
            feeds = {name: np.concatenate((part, part[-1:].repeat(n_missing, 0))) for name, part in feeds.items()}
        return [_first(raw, n_rows) for raw in run(outputs, feeds)]

    def one_by_one(inputs: Inputs) -> list[Any]:
        feeds = feed(inputs)
        n_rows = len(next(iter(feeds.values())))
        rows = [run(outputs, {name: part[i : i + 1] for name, part in feeds.items()}) for i in range(n_rows)]
        return [joined(parts) for parts in zip(*rows, strict=True)]

    return {0: one_by_one, 1: simple}.get(padding, padded)


def _first(raw: Any, n_rows: int) -> Any:
    """The first rows of an output: a table, a stack (n_outputs, n_rows, n_classes), or a list of tables."""
    if isinstance(raw, list):
        return [part[:n_rows] for part in raw]
    return raw[:, :n_rows] if raw.ndim == 3 else raw[:n_rows]  # noqa: PLR2004


def _table_feed(note: dict[str, Any]) -> Any:
    name, dtype = note["name"], np.dtype(note["dtype"])

    def feed(inputs: Inputs) -> dict[str, NDArray[Any]]:
        X = inputs if isinstance(inputs, np.ndarray) else np.column_stack(list(inputs.values()))
        return {name: X.astype(dtype, copy=False)}

    return feed


def _column_feed(notes: list[dict[str, Any]]) -> Any:
    plan = [
        (note["name"], note["column"], None if note["dtype"] == "str" else np.dtype(note["dtype"])) for note in notes
    ]

    def feed(inputs: Inputs) -> dict[str, NDArray[Any]]:
        columns = inputs.T if isinstance(inputs, np.ndarray) else list(inputs.values())
        return {
            name: (columns[index] if dtype is None else columns[index].astype(dtype, copy=False)).reshape(-1, 1)
            for name, index, dtype in plan
        }

    return feed
