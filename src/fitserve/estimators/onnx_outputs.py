"""What the outputs of an ONNX model mean.

Decided by their datatypes, by the classes that the graph tells, and by what they give for a few
rows: a table whose rows sum to one is of probabilities, another one is of scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.estimators.onnx_signature import classes_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.onnx_graph import Graph
    from fitserve.estimators.onnx_signature import Note
    from fitserve.signature import Label, OutputName
    from fitserve.types import Declared

SUM_TOLERANCE: Final = 1e-3
"""How far the probabilities of a row may be from a sum of one: float16 and long softmaxes round."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which ONNX outputs are what.

    Attributes:
        predict: give the predictions, a column each; empty where these are the most probable classes.
        probabilities: one tensor or sequence, or a column for each class; empty for a model without.
        extras: by what can be asked for.
        first: what the predictions are called: ``transform`` for a pure transformer.
    """

    predict: tuple[str, ...]
    probabilities: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)
    first: OutputName = "predict"


def classes_of(
    graph: Graph, types: Mapping[str, str], note: Note | None, declared: Declared, trial: Mapping[str, Any] | None
) -> tuple[tuple[Label, ...], ...] | None:
    """The labels in the order of the probabilities: as declared, noted, told by the graph, or as keys of its maps."""
    if declared.classes is not None:
        return (declared.classes,)
    if note is not None:
        return None if note.classes is None else tuple(map(tuple, note.classes))
    for name, kind in types.items():
        if kind.startswith("seq(map(") and trial is not None and len(trial[name]):
            return (tuple(trial[name][0]),)
    for name, kind in types.items():
        if kind in _LABELS and (labels := classes_in(graph, name)):
            n_columns = trial[name].shape[1] if trial is not None and trial[name].ndim > 1 else 1
            return (labels,) if n_columns == 1 else None  # which column has which classes, it does not tell
    return None


_LABELS = frozenset({"tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)"})
_NUMBERS = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)"})


def noted_layout(note: Note, types: Mapping[str, str]) -> Layout:
    """The outputs that the metadata of a converted model name.

    Raises:
        ArtifactError: the model has no such outputs.
    """
    first: OutputName = "predict" if "predict" in note.outputs else "transform"
    if set(note.outputs.values()) - set(types) or first not in note.outputs:
        msg = "has metadata that name outputs which the model does not have: convert the model again"
        raise ArtifactError(msg)
    extras = {name: output for name, output in note.outputs.items() if name not in {first, "predict_proba"}}
    probabilities = (note.outputs["predict_proba"],) if "predict_proba" in note.outputs else ()
    return Layout((note.outputs[first],), probabilities, extras, first)


def layout_of(
    types: Mapping[str, str], trial: Mapping[str, Any] | None, classes: tuple[tuple[Label, ...], ...] | None
) -> Layout:
    """What the outputs are, by datatype and by what they give for a few rows.

    Raises:
        ArtifactError: there are outputs, but none or too many that could be the prediction.
    """
    labels = [name for name, kind in types.items() if kind in _LABELS]
    maps = [name for name, kind in types.items() if kind.startswith("seq(")]
    numbers = [name for name, kind in types.items() if kind in _NUMBERS]
    n_classes = len(classes[0]) if classes else None
    if labels:
        return _classifier_layout(labels[0], maps, numbers, trial, n_classes)
    if len(numbers) == 1:
        if n_classes is not None and trial is not None:
            return _scored_layout(numbers[0], squeezed(trial[numbers[0]]), n_classes)
        return Layout((numbers[0],))
    if numbers and trial is not None and all(squeezed(trial[name]).ndim == 1 for name in numbers):
        return Layout(tuple(numbers))
    told = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    msg = f"gives {told or 'nothing'}: wanted labels with or without probabilities, or one table of numbers"
    raise ArtifactError(msg)


def _classifier_layout(
    label: str, maps: list[str], numbers: list[str], trial: Mapping[str, Any] | None, n_classes: int | None
) -> Layout:
    if maps:
        return Layout((label,), tuple(maps[:1]))
    if trial is None:
        return Layout(
            (label,), tuple(name for name in numbers if name.startswith(("probabilit", "output_probabilit")))[:1]
        )
    columns = [name for name in numbers if squeezed(trial[name]).ndim == 1]
    has_columns = n_classes is not None and len(columns) == n_classes > 1  # each class has its own output
    if has_columns and _is_distribution(np.column_stack([squeezed(trial[name]) for name in columns])):
        return Layout((label,), tuple(columns))
    for name in numbers:
        if trial[name].ndim > 1 and all(map(_is_distribution, probabilities_of([trial[name]]))):
            return Layout((label,), (name,))
    scores = [name for name in numbers if squeezed(trial[name]).ndim == 1 or trial[name].shape[1:] == (n_classes,)]
    return Layout((label,), extras={"decision_function": scores[0]} if len(scores) == 1 else {})


def _scored_layout(name: str, scores: NDArray[Any], n_classes: int) -> Layout:
    """A model without labels, whose classes are declared: its numbers are their probabilities or scores."""
    if scores.ndim > 1 and scores.shape[1] == n_classes:
        return Layout((), (name,))
    if scores.ndim == 1 and n_classes == 2 and ((scores >= 0) & (scores <= 1)).all():  # noqa: PLR2004 - yes or no
        return Layout((), (name,))
    msg = f"gives {scores.shape[1] if scores.ndim > 1 else 1} numbers a row, but {n_classes} classes are declared"
    raise ArtifactError(msg)


def _is_distribution(table: NDArray[Any]) -> bool:
    """Whether the rows, two numbers or more each, are probabilities."""
    if table.ndim != 2 or table.shape[1] < 2:  # noqa: PLR2004
        return False
    is_inside = (table >= -SUM_TOLERANCE).all() and (table <= 1 + SUM_TOLERANCE).all()
    return bool(is_inside and np.abs(table.sum(axis=1) - 1).max() <= SUM_TOLERANCE)


def probabilities_of(raw: list[Any]) -> tuple[NDArray[Any], ...]:
    """One array (n_rows, n_classes) an output, from a table, columns, a stack, or a sequence of maps or tables."""
    if not raw:
        return ()
    if len(raw) > 1:
        return (np.column_stack([squeezed(column) for column in raw]),)
    (values,) = raw
    if isinstance(values, list) and values and isinstance(values[0], dict):
        return (np.array([list(row.values()) for row in values]),)
    if isinstance(values, list) or values.ndim == 3:  # noqa: PLR2004 - (n_outputs, n_rows, n_classes)
        return tuple(np.asarray(part) for part in values)
    if values.ndim == 1 or values.shape[1] == 1:  # of the second class
        return (np.column_stack([1 - squeezed(values), squeezed(values)]),)
    return (values,)


def squeezed(values: Any) -> NDArray[Any]:
    """Without a second dimension of one."""
    array = np.asarray(values)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array  # noqa: PLR2004


def joined(parts: Sequence[Any]) -> Any:
    """The outputs of single rows, one below the other."""
    if isinstance(parts[0], list):
        if parts[0] and isinstance(parts[0][0], dict):
            return [row for part in parts for row in part]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    return np.concatenate(parts, axis=1 if np.ndim(parts[0]) == 3 else 0)  # noqa: PLR2004


def array_of(labels: Sequence[Label]) -> NDArray[Any]:
    """Labels as an array of their own type."""
    if len({type(label) for label in labels}) == 1 and not isinstance(labels[0], str):
        return np.array(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array
