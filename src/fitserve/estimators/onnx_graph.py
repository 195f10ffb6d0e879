"""What stands in the bytes of an ONNX model, read before the runtime sees them.

A walk over the protobuf of a ModelProto that needs no package: it finds the graph's nodes and
metadata, and whatever a hostile file would use to reach beyond itself. Every message that may hold a
tensor is walked: nodes, attributes, subgraphs, functions, sparse tensors, training graphs.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (field numbers),
https://protobuf.dev/programming-guides/encoding/ (the wire format).
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fitserve.errors import ArtifactError, clip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

MODEL_FIELDS: Final = {
    1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, 7: LENGTH, 8: LENGTH, 14: LENGTH,
    20: LENGTH, 25: LENGTH, 26: LENGTH,
}  # fmt: skip
"""ModelProto: ir_version 1, producer_name 2, producer_version 3, graph 7, opset_import 8, metadata_props 14, …"""

CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message hold a message that may, at some depth, hold a tensor."""

MOST_LEVELS = 100
"""How deep messages may stand in each other: protobuf's own limit."""

MOST_VALUES_A_BYTE = 8
"""A tensor says no more values than this for each byte that it holds: the smallest datatype has 2 bits."""

MOST_SPARSE_VALUES = 2**28
"""Values of a sparse tensor with its zeros, which the runtime writes out: 1 GiB of float32."""

MOST_DIMENSIONS = 64
"""Of a tensor, as it is written; the runtime's own have fewer."""

MOST_MODEL_FIELDS = 100_000

# Numbers of an attribute stand one by one, millions of them in a forest: these runs are skipped in one go.
_RUNS = {
    (7, FIXED32): re.compile(rb"(?:\x3d[\x00-\xff]{4})*+"),
    (8, VARINT): re.compile(rb"(?:\x40[\x80-\xff]*+[\x00-\x7f])*+"),
}


class Span(NamedTuple):
    """A message, from ``start`` to before ``stop`` in the bytes of the file."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Node:
    """An operator of the main graph: its type, the names that it reads and writes, its attributes by name."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Span]


@dataclass(frozen=True, slots=True)
class Graph:
    """What :func:`read_graph` found.

    Attributes:
        data: the bytes that the spans point into.
        metadata: the model's ``metadata_props``.
        producer: name and version of the program that wrote it.
        nodes: of the main graph.
        constants: initializers of the main graph, by name.
        external: names of the files that hold tensors.
    """

    data: bytes = field(repr=False)
    metadata: Mapping[str, str]
    producer: tuple[str, str]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Span]
    external: frozenset[str]


def looks_like_model(data: bytes) -> bool:
    """Whether the bytes are a ModelProto, by its outermost fields; a truncated one still is. Never raises."""
    seen = set()
    try:
        for count, (number, wire, _) in enumerate(_fields(data, Span(0, len(data)))):
            if MODEL_FIELDS.get(number) != wire or count > MOST_MODEL_FIELDS:
                return False
            seen.add(number)
    except ArtifactError:
        seen.add(7)  # it ends within a field, most likely the graph: by far the longest
    return {1, 7} <= seen


def read_graph(data: bytes, files: Mapping[str, bytes]) -> Graph:
    """Walk the whole model.

    Args:
        data: of the ``.onnx`` file.
        files: that a tensor may lie in, by plain name.

    Raises:
        ArtifactError: the bytes end early or are no ModelProto; a tensor lies in a file that is not in
            ``files``, or says more values than its bytes can hold.
    """
    external: set[str] = set()
    waiting = [("model", Span(0, len(data)), 0)]
    while waiting:
        kind, span, level = waiting.pop()
        if level > MOST_LEVELS:
            msg = (
                f"is damaged, or made to do harm: its messages stand more than {MOST_LEVELS} levels deep in each other"
            )
            raise ArtifactError(msg)
        if kind == "tensor":
            _check_tensor(data, span, files, external)
            continue
        if kind == "sparse":
            _check_sparse(data, span)
        children = CHILDREN[kind]
        for number, wire, value in _fields(data, span):
            if number in children and wire == LENGTH:
                waiting.append((children[number], value, level + 1))
    return _main_graph(data, frozenset(external))


def _main_graph(data: bytes, external: frozenset[str]) -> Graph:
    metadata: dict[str, str] = {}
    producer = {2: "", 3: ""}
    nodes: list[Node] = []
    constants: dict[str, Span] = {}
    for number, wire, value in _fields(data, Span(0, len(data))):
        if wire != LENGTH:
            continue
        if number in producer:
            producer[number] = text(data, value)
        elif number == 14:  # noqa: PLR2004 - metadata_props
            key, entry = _entry(data, value)
            metadata[key] = entry
        elif number == 7:  # noqa: PLR2004 - graph
            for inner, inner_wire, part in _fields(data, value):
                if inner == 1 and inner_wire == LENGTH:
                    nodes.append(_node(data, part))
                elif inner == 5 and inner_wire == LENGTH:  # noqa: PLR2004 - initializer
                    constants[_first_text(data, part, 8)] = part
    return Graph(data, metadata, (producer[2], producer[3]), tuple(nodes), constants, external)


def _node(data: bytes, span: Span) -> Node:
    names: dict[int, list[str]] = {1: [], 2: [], 4: []}
    attributes = {}
    for number, wire, value in _fields(data, span):
        if wire == LENGTH and number in names:
            names[number].append(text(data, value))
        elif wire == LENGTH and number == 5:  # noqa: PLR2004 - attribute
            attributes[_first_text(data, value, 1)] = value
    return Node("".join(names[4][-1:]), tuple(names[1]), tuple(names[2]), attributes)


def _check_tensor(data: bytes, span: Span, files: Mapping[str, bytes], external: set[str]) -> None:
    shape: list[int] = []
    is_external, locations, n_bytes = False, [], span.stop - span.start
    for number, wire, value in _fields(data, span):
        if number == 1:
            shape += dimensions(data, wire, value)
        elif number == 13 and wire == LENGTH:  # noqa: PLR2004 - external_data
            key, location = _entry(data, value)
            is_external = True
            locations += [location] if key == "location" else []
        elif number == 14:  # noqa: PLR2004 - data_location
            is_external = is_external or value.start != 0
    if is_external:
        for location in locations or [""]:
            if location not in files or "/" in location or "\\" in location:
                msg = (
                    f"keeps numbers in another file, {clip(location)!r}, which is not part of this model: "
                    "serve the folder of both with a manifest that lists them (fitserve pack), "
                    "or save the model as one file (onnx.save_model(…, save_as_external_data=False))"
                )
                raise ArtifactError(msg)
            n_bytes += len(files[location])
        external.update(locations)
    if (n_values := _n_values(shape)) > MOST_VALUES_A_BYTE * n_bytes:
        msg = f"is damaged, or made to do harm: a tensor of {n_bytes} bytes says that it has {n_values} values"
        raise ArtifactError(msg)


def _check_sparse(data: bytes, span: Span) -> None:
    shape: list[int] = []
    for number, wire, value in _fields(data, span):
        if number == 3:  # noqa: PLR2004 - dims
            shape += dimensions(data, wire, value)
    if (n_values := _n_values(shape)) > MOST_SPARSE_VALUES:
        msg = f"is damaged, or made to do harm: a sparse tensor says that it has {n_values} values"
        raise ArtifactError(msg)


def _n_values(shape: list[int]) -> int:
    """How many values a tensor has, after its dimensions are counted: a product of many takes minutes."""
    if len(shape) > MOST_DIMENSIONS:
        msg = f"is damaged, or made to do harm: a tensor has {len(shape)} dimensions, more than {MOST_DIMENSIONS}"
        raise ArtifactError(msg)
    return math.prod(shape)


def dimensions(data: bytes, wire: int, value: Span) -> list[int]:
    """The numbers of a ``repeated int64`` field, packed or not.

    Raises:
        ArtifactError: one is negative, which no dimension is.
    """
    numbers = [value.start] if wire == VARINT else list(_varints(data, value))
    if any(number >= 1 << 63 for number in numbers):
        msg = "is damaged, or made to do harm: a tensor has a negative dimension"
        raise ArtifactError(msg)
    return numbers


def list_of(data: bytes, span: Span) -> list[str] | list[int]:
    """The strings or integers of an attribute, or of a one-dimensional tensor in an attribute."""
    strings: list[str] = []
    integers: list[int] = []
    for number, wire, value in _fields(data, span, skips_runs=False):
        if number == 9 and wire == LENGTH:  # noqa: PLR2004 - strings
            strings.append(text(data, value))
        elif number == 8:  # noqa: PLR2004 - ints
            integers += [value.start] if wire == VARINT else _varints(data, value)
        elif number == 5 and wire == LENGTH:  # noqa: PLR2004 - t
            return vector_of(data, value)
    return strings or [_signed(number) for number in integers]


def vector_of(data: bytes, span: Span) -> list[str] | list[int]:
    """The strings or integers of a tensor; empty for one of another datatype."""
    strings: list[str] = []
    integers: list[int] = []
    datatype, raw = 0, b""
    for number, wire, value in _fields(data, span):
        if number == 2:  # noqa: PLR2004 - data_type
            datatype = value.start
        elif number == 6 and wire == LENGTH:  # noqa: PLR2004 - string_data
            strings.append(text(data, value))
        elif number in {5, 7}:  # int32_data, int64_data
            integers += [value.start] if wire == VARINT else _varints(data, value)
        elif number == 9 and wire == LENGTH:  # noqa: PLR2004 - raw_data
            raw = data[value.start : value.stop]
    width = {6: "i", 7: "q"}.get(datatype)  # INT32, INT64
    if raw and width and len(raw) % struct.calcsize(f"<{width}") == 0:
        return [number for (number,) in struct.iter_unpack(f"<{width}", raw)]
    return strings or ([_signed(number) for number in integers] if width else [])


def has_nonzero(data: bytes, span: Span) -> bool:
    """Whether an attribute holds an integer other than zero."""
    return any(list_of(data, span))


def text(data: bytes, span: Span) -> str:
    """A string; bytes that are no UTF-8 are replaced."""
    return data[span.start : span.stop].decode("utf-8", "replace")


def _entry(data: bytes, span: Span) -> tuple[str, str]:
    return _first_text(data, span, 1), _first_text(data, span, 2)


def _first_text(data: bytes, span: Span, wanted: int) -> str:
    """The last string field of that number, as protobuf reads a field that comes twice."""
    found = ""
    for number, wire, value in _fields(data, span):
        if number == wanted and wire == LENGTH:
            found = text(data, value)
    return found


def _fields(data: bytes, span: Span, *, skips_runs: bool = True) -> Iterator[tuple[int, int, Span]]:
    """Each field of a message: number, wire type, and where its content lies; of a varint, its value in ``start``."""
    position, stop = span
    while position < stop:
        begin = position
        tag, position = _varint(data, position, stop)
        number, wire = tag >> 3, tag & 7
        run = _RUNS.get((number, wire)) if skips_runs else None
        if run is not None and (match := run.match(data, begin, stop)) and match.end() > position:
            position = match.end()
            continue
        if wire == VARINT:
            value, position = _varint(data, position, stop)
            yield number, wire, Span(value, position)
            continue
        if wire == LENGTH:
            length, position = _varint(data, position, stop)
        elif wire in {FIXED32, FIXED64}:
            length = 4 if wire == FIXED32 else 8
        else:
            msg = "is damaged, or no ONNX model"
            raise ArtifactError(msg)
        if position + length > stop:
            msg = "is truncated or damaged: it ends before the model does"
            raise ArtifactError(msg)
        yield number, wire, Span(position, position + length)
        position += length


def _varints(data: bytes, span: Span) -> Iterator[int]:
    position = span.start
    while position < span.stop:
        value, position = _varint(data, position, span.stop)
        yield value


def _varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= stop or shift > 63:  # noqa: PLR2004 - ten bytes hold 64 bits
            msg = "is truncated or damaged: it ends before the model does"
            raise ArtifactError(msg)
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no continuation bit
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
