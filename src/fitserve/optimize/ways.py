"""The ways in which a model may be compiled, the fastest engine first."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fitserve.estimators.calls import ARGMAX_CLASSIFIERS
from fitserve.estimators.walk import class_in_sklearn, final_step
from fitserve.optimize.onnx import compile_graph
from fitserve.optimize.rewrite import without_imputers
from fitserve.optimize.split import BOOSTERS, split
from fitserve.optimize.treelite import compile_trees
from fitserve.optimize.trees import trees_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.base import Engine
    from fitserve.optimize.onnx import Graph
    from fitserve.optimize.split import Split

ARGMAX: Final = ARGMAX_CLASSIFIERS | {
    "KNeighborsClassifier", "MultiOutputClassifier", "StackingClassifier", "VotingClassifier",
}  # fmt: skip
"""scikit-learn's classifiers whose label may be taken from the probabilities, if the proof finds none that differs.

The last two have probabilities only where their label is the most probable one, or one close to it."""


@dataclass(frozen=True)
class Way:
    """One way to compile a model.

    Attributes:
        engine: that it is for.
        make: gives data and note. Raises whatever converters raise.
        refusal: why it is not to be tried.
    """

    engine: Engine
    make: Callable[[], tuple[bytes, dict[str, Any]]]
    refusal: str | None = None


def why_unsuitable(model: EstimatorModel) -> str | None:
    """Why no engine can compute a model; None if one may."""
    if model.signature.is_open:
        return "the model does not tell its features: give an example in a manifest"
    if not model.is_library_code:
        return "the model runs code that no engine knows"
    if model.takes_texts:
        return "the model takes free text, of which no proof by examples says enough"
    return None


def ways_of(model: EstimatorModel) -> list[Way]:
    """The ways to try, in order. Raises nothing."""
    estimator, fills = without_imputers(model.estimator)
    parts = split(estimator)
    whole = estimator if parts.before is not None else parts.final
    trees = Way("treelite", partial(_trees, parts, model, fills))
    if parts.library is not None and not parts.is_casting:
        return [trees]
    refusal = "a label would hang on the last digit of a float32" if _has_labels_alone(model) else None
    if trees_of(whole):  # whose sums ONNX Runtime gives as float32
        graph = Way("onnx-float32", partial(_graph, whole, model, fills, ("float64", "float32")), refusal)
        return [graph, trees] if parts.library is not None else [graph]
    return [
        Way("onnx-float64", partial(_graph, whole, model, fills, ("float64",))),
        Way("onnx-float32", partial(_graph, whole, model, fills, ("float32",)), refusal),
    ]


def _graph(
    estimator: Any, model: EstimatorModel, fills: Mapping[int, float | str], floats: tuple[str, ...]
) -> tuple[bytes, dict[str, Any]]:
    """A graph in the first floats that numbers can enter in."""
    *others, last = floats
    for one in others:
        with contextlib.suppress(Exception):
            return _noted(compile_graph(estimator, model.signature, floats=one), model, fills)
    return _noted(compile_graph(estimator, model.signature, floats=last), model, fills)


def _noted(graph: Graph, model: EstimatorModel, fills: Mapping[int, float | str]) -> tuple[bytes, dict[str, Any]]:
    kind = answer_kind(model)
    is_argmax = kind == "argmax" and len(graph.outputs) > 1
    outputs = graph.outputs[1:2] if is_argmax else graph.outputs[: 1 + model.signature.has_probabilities]
    note = {"inputs": graph.inputs, "outputs": outputs, "padding": 1, "kind": kind}
    return graph.data, note | _columns(model, graph.inputs, fills)


def _trees(parts: Split, model: EstimatorModel, fills: Mapping[int, float | str]) -> tuple[bytes, dict[str, Any]]:
    data, note = compile_trees(parts, model)
    inputs = note["before"]["inputs"] if note["before"] is not None else []
    return data, note | {"kind": answer_kind(model)} | _columns(model, inputs, fills)


def _columns(model: EstimatorModel, inputs: list[dict[str, Any]], fills: Mapping[int, float | str]) -> dict[str, Any]:
    """What nulls become, and what is left to the library from the start: no tensor of texts holds a null or number."""
    texts = [one["column"] for one in inputs if one["dtype"] == "str"]
    fields = model.signature.inputs
    return {
        "fills": [[column, value] for column, value in fills.items() if fields[column].is_nullable],
        "left_nulls": [i for i in texts if i not in fills and fields[i].is_nullable],
        "left_numbers": [i for i in texts if fields[i].kind == "any"],
    }


def answer_kind(model: EstimatorModel) -> str:
    """How labels come about: see :class:`~fitserve.optimize.answers.Answers`."""
    signature = model.signature
    if signature.classes is None or signature.outputs[0] != "predict":
        return "values"
    final = final_step(model.estimator)
    name = class_in_sklearn(final)
    is_argmax = name in ARGMAX or (name is None and type(final).__name__ in BOOSTERS)
    return "argmax" if signature.has_probabilities and is_argmax else "labels"


def _has_labels_alone(model: EstimatorModel) -> bool:
    """Whether an engine itself would decide a label: then its last digit may."""
    if answer_kind(model) == "argmax":
        return False
    return model.signature.classes is not None or _predicts_integers(model)


def _predicts_integers(model: EstimatorModel) -> bool:
    inputs = model.signature.check([list(model.signature.example_row())])
    return model.predict(inputs).predictions.dtype.kind != "f"
