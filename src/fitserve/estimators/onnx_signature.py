"""What an ONNX model says of its inputs and outputs, and what is said of them besides.

The runtime tells names, datatypes and shapes; the graph tells classes. A model that ``fitserve convert``
wrote also tells its fields, in its metadata under :data:`NOTE_KEY`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fitserve.errors import ArtifactError, clip
from fitserve.estimators.onnx_graph import list_of, vector_of
from fitserve.signature import EXACT_INTEGERS, MAX_MAGNITUDE, Field, Kind, Label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.estimators.onnx_graph import Graph
    from fitserve.types import Declared

NOTE_KEY: Final = "fitserve.signature"

DATATYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(np.object_),
}
"""NumPy's datatypes by the runtime's; a string is an object of Python."""

_KINDS: Final[dict[str, frozenset[Kind]]] = {
    "b": frozenset({"boolean"}),
    "O": frozenset({"string"}),
    "i": frozenset({"number", "numeric", "boolean"}),
    "u": frozenset({"number", "numeric", "boolean"}),
    "f": frozenset({"number", "numeric", "boolean"}),
}
"""Kinds of field that can be written into a tensor, by the datatype's kind; booleans are 0 and 1."""


class NotedField(BaseModel):
    """One field as it stands in the metadata: see :class:`~fitserve.signature.Field`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    kind: Kind
    is_nullable: bool = False
    categories: list[Label] | None = None
    is_closed: bool = False
    largest: float = MAX_MAGNITUDE


class Note(BaseModel):
    """What a converted model tells of itself.

    Attributes:
        fields: in the order of the inputs' columns.
        is_named: whether the model was fitted with names.
        classes: labels in the order of the probabilities, one list an output.
        outputs: from what can be asked for to the name of the ONNX output that gives it.
        example: a row that the model answers.
        null_text: what a null becomes in a column of strings.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    fields: list[NotedField]
    is_named: bool = False
    classes: list[list[Label]] | None = None
    outputs: dict[str, str]
    example: list[Label | None] | None = None
    null_text: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One input tensor, and the columns from ``start`` to before ``stop`` that are written into it.

    ``rank`` is 1 or 2; ``n_rows`` is how many rows it takes at a time, None for any number.
    """

    name: str
    dtype: np.dtype[Any]
    rank: int
    start: int
    stop: int
    n_rows: int | None = None


def read_note(graph: Graph) -> Note | None:
    """The metadata of a model that ``fitserve convert`` wrote.

    Raises:
        ArtifactError: they are there, and wrong.
    """
    if NOTE_KEY not in graph.metadata:
        return None
    try:
        return Note.model_validate_json(graph.metadata[NOTE_KEY])
    except ValidationError as exc:
        msg = f"has metadata {NOTE_KEY} that is wrong: {exc.errors()[0]['msg']}: convert the model again"
        raise ArtifactError(msg) from exc


def slots_of(inputs: Sequence[Any], n_told: int | None) -> list[Slot]:
    """The input tensors of a session, as columns of a table; empty if nobody tells how many there are.

    Args:
        inputs: as ``session.get_inputs()`` gives them.
        n_told: how many fields are told of besides, for a single tensor that does not say how wide it is.

    Raises:
        ArtifactError: an input is no column and no table.
    """
    slots: list[Slot] = []
    for tensor in inputs:
        dtype = DATATYPES.get(tensor.type)
        rank = len(tensor.shape)
        if dtype is None or rank not in {1, 2}:
            msg = (
                f"takes an input {clip(tensor.name)!r} of type {tensor.type} and shape {tensor.shape}: "
                "wanted tables, which are tensors of shape [rows, columns] or [rows]"
            )
            raise ArtifactError(msg)
        n_rows = tensor.shape[0] if isinstance(tensor.shape[0], int) else None
        if n_rows not in {None, 1}:
            msg = f"takes exactly {n_rows} rows at a time: export it with a first dimension that is free"
            raise ArtifactError(msg)
        width = tensor.shape[1] if rank > 1 else 1
        if not isinstance(width, int) and len(inputs) == 1:
            width = n_told
        if width is None:
            return []
        if not isinstance(width, int) or width < 1:
            shape = f"an input {clip(tensor.name)!r} of shape {tensor.shape}"
            msg = f"takes {shape}: export it with a fixed number of columns"
            raise ArtifactError(msg)
        start = slots[-1].stop if slots else 0
        slots.append(Slot(tensor.name, dtype, rank, start, start + width, n_rows))
    return slots


def fields_of(slots: Sequence[Slot], note: Note | None, declared: Declared) -> tuple[Field, ...]:
    """Every column, by what is declared, what the metadata say, and what the tensors are; the first that tells wins.

    Raises:
        ArtifactError: what is said does not fit the tensors.
    """
    own = tuple(field for slot in slots for field in _fields_of(slot, is_alone=len(slots) == 1))
    is_named = len(slots) > 1
    if note is not None:
        noted = tuple(
            Field(
                f.name,
                f.kind,
                f.is_nullable,
                tuple(f.categories) if f.categories else None,
                f.is_closed,
                "metadata",
                f.largest,
            )
            for f in note.fields
        )
        own, is_named = _overlaid(own, noted, by_name=False), is_named or note.is_named
    if declared.mlflow_fields is not None:
        own = _overlaid(own, declared.mlflow_fields, by_name=is_named)
    if declared.example is not None:
        own = _overlaid(own, tuple(Field(name, "any") for name in declared.example), by_name=is_named)
    if declared.fields is not None:
        own = _overlaid(own, declared.fields, by_name=is_named)
    return own


def _fields_of(slot: Slot, *, is_alone: bool) -> list[Field]:
    kind: Kind = "boolean" if slot.dtype.kind == "b" else "string" if slot.dtype.kind == "O" else "number"
    width = slot.stop - slot.start
    if is_alone and (width > 1 or slot.rank > 1):
        names = [f"x{i}" for i in range(width)]
    else:
        names = [slot.name] if width == 1 else [f"{slot.name}_{i}" for i in range(width)]
    return [Field(name, kind, learnt_from="onnx", largest=_largest(slot.dtype)) for name in names]


def _largest(dtype: np.dtype[Any]) -> float:
    if dtype.kind == "f":
        return min(MAX_MAGNITUDE, float(np.finfo(dtype).max))
    return min(EXACT_INTEGERS, float(np.iinfo(dtype).max)) if dtype.kind in "iu" else MAX_MAGNITUDE


def _overlaid(own: tuple[Field, ...], said: tuple[Field, ...], *, by_name: bool) -> tuple[Field, ...]:
    """The model's fields with what is said of them; by position where the model has no names of its own."""
    if by_name and {field.name for field in said} != {field.name for field in own}:
        msg = f"has a manifest whose fields must be those of the model: {clip(', '.join(f.name for f in own), 300)}"
        raise ArtifactError(msg)
    if len(said) != len(own):
        msg = f"has a manifest or metadata that tell of {len(said)} features; the model takes {len(own)}"
        raise ArtifactError(msg)
    if by_name:
        by = {field.name: field for field in said}
        said = tuple(by[field.name] for field in own)
    return tuple(_one_overlaid(mine, theirs) for mine, theirs in zip(own, said, strict=True))


def _one_overlaid(mine: Field, theirs: Field) -> Field:
    if theirs.kind == "any":  # a name, and no more
        return replace(mine, name=theirs.name)
    if (theirs.kind == "string") != (mine.kind == "string") or theirs.kind == "datetime":
        msg = (
            f"has a manifest whose field {clip(theirs.name)!r} is of kind {theirs.kind}; the model takes a {mine.kind}"
        )
        raise ArtifactError(msg)
    return replace(theirs, largest=min(theirs.largest, mine.largest))


def check_kinds(slots: Sequence[Slot], fields: Sequence[Field]) -> None:
    """Refuse fields that cannot be written into their tensors.

    Raises:
        ArtifactError: there is one.
    """
    for slot in slots:
        for field in fields[slot.start : slot.stop]:
            if field.kind not in _KINDS[slot.dtype.kind]:
                msg = (
                    f"takes a {slot.dtype} in the column {clip(field.name)!r}, which is said to be of kind {field.kind}"
                )
                raise ArtifactError(msg)


def classes_in(graph: Graph, output: str) -> tuple[Label, ...] | None:
    """The labels of the classifier that writes ``output``, where the graph tells them.

    Walks from the output through the operators that only pass labels on, to an operator with
    ``classlabels_*`` or to the constant that labels are taken out of.
    """
    writers = {name: node for node in graph.nodes for name in node.outputs}
    for _ in range(len(graph.nodes)):
        node = writers.get(output)
        if node is None:
            return None
        for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
            if name in node.attributes and (labels := list_of(graph.data, node.attributes[name])):
                return tuple(labels)
        if node.operator in {"ArrayFeatureExtractor", "Gather"} and node.inputs[0] in graph.constants:
            return tuple(vector_of(graph.data, graph.constants[node.inputs[0]])) or None
        if node.operator not in _PASSING or not node.inputs:
            return None
        output = node.inputs[0]
    return None


_PASSING = frozenset({"ArrayFeatureExtractor", "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def knows_missing(graph: Graph) -> bool:
    """Whether some operator treats a missing number otherwise than as a number."""
    for node in graph.nodes:
        if node.operator in {"Imputer", "IsNaN"}:
            return True
        tracks = node.attributes.get("nodes_missing_value_tracks_true")
        if tracks is not None and any(list_of(graph.data, tracks)):
            return True
    return False
