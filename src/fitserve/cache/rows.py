"""What a model gave for one row, as bytes, and such rows as outputs again.

::

    length of the head   2 bytes, little-endian
    head                 JSON: [n_probabilities or null, [[dtype, shape of a row], ...]]
    cells                of every array but those of objects, one after the other
    objects              JSON: one item for each array of objects; nothing where there is none

The arrays are the predictions, the probabilities, and the extras in the order in which they are named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_LENGTH_BYTES = 2
_LONGEST_HEAD = 2 ** (8 * _LENGTH_BYTES) - 1

_OBJECT = "O"

_PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types of objects that JSON gives back as they were."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One array: what a row of it is, and where in the row's bytes it begins and ends; objects are not there."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the head of a row says. ``n_bytes``: of a row without its objects, the head included."""

    n_probabilities: int | None
    parts: tuple[_Part, ...]
    n_bytes: int
    has_objects: bool


def pack_rows(outputs: Outputs, n_rows: int, extras: Sequence[str]) -> list[bytes] | None:
    """Return each row of outputs as bytes of its own.

    None where they cannot be kept: an array of another length, an extra that is missing, or objects
    that are no texts, finite numbers, booleans or nulls.
    """
    n_probabilities = None if outputs.probabilities is None else len(outputs.probabilities)
    if any(name not in outputs.extras for name in extras):
        return None
    arrays = [outputs.predictions, *(outputs.probabilities or ()), *(outputs.extras[name] for name in extras)]
    if not all(map(_can_be_kept, arrays, [n_rows] * len(arrays))):
        return None
    text = orjson.dumps([n_probabilities, [[array.dtype.str, array.shape[1:]] for array in arrays]])
    if len(text) > _LONGEST_HEAD:
        return None
    head = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    layout = _layout(head)
    cells = np.empty((n_rows, layout.n_bytes), dtype=np.uint8)
    cells[:, : len(head)] = np.frombuffer(head, dtype=np.uint8)
    for array, part in zip(arrays, layout.parts, strict=True):
        if part.end > part.start:
            one = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            cells[:, part.start : part.end] = one.reshape(n_rows, part.end - part.start)
    data, width = cells.tobytes(), layout.n_bytes
    rows = [data[i : i + width] for i in range(0, len(data), width)]
    if not layout.has_objects:
        return rows
    objects = _packed_objects([array for array in arrays if array.dtype.kind == _OBJECT])
    return None if objects is None else [row + text for row, text in zip(rows, objects, strict=True)]


def unpack_rows(rows: Sequence[bytes], extras: Sequence[str]) -> Outputs | None:
    """Return the outputs that rows were packed from, one row at least, in the order given.

    Each array has the type that it had. None where the rows differ in it, as those of two calls may.

    Args:
        rows: what :func:`pack_rows` returned for the same extras.
        extras: their names.
    """
    first = rows[0]
    head = first[: _LENGTH_BYTES + int.from_bytes(first[:_LENGTH_BYTES], "little")]
    n_rows = len(rows)
    if n_rows > 1 and not all([row.startswith(head) for row in rows]):  # noqa: C419 - a list is faster
        return None
    layout = _layout(head)
    width = layout.n_bytes
    cells = np.frombuffer(b"".join([row[:width] for row in rows] if layout.has_objects else rows), dtype=np.uint8)
    cells = cells.reshape(n_rows, width)
    objects = _columns_of_objects([row[width:] for row in rows]) if layout.has_objects else iter(())
    arrays: list[NDArray[Any]] = []
    for part in layout.parts:
        if part.dtype.kind == _OBJECT:
            array = np.empty((n_rows, *part.shape), dtype=object)
            array[:] = next(objects)
        else:
            # A copy: between other arrays a number need not lie where the processor wants it.
            array = cells[:, part.start : part.end].copy().view(part.dtype).reshape(n_rows, *part.shape)
        arrays.append(array)
    n_probabilities = layout.n_probabilities
    first_extra = 1 + (n_probabilities or 0)
    return Outputs(
        arrays[0],
        None if n_probabilities is None else tuple(arrays[1:first_extra]),
        dict(zip(extras, arrays[first_extra:], strict=True)),
    )


@lru_cache(maxsize=256)
def _layout(head: bytes) -> _Layout:
    n_probabilities, arrays = orjson.loads(head[_LENGTH_BYTES:])
    parts: list[_Part] = []
    end = len(head)
    for name, shape in arrays:
        dtype = np.dtype(name)
        start, end = end, end + (0 if dtype.kind == _OBJECT else dtype.itemsize * math.prod(shape))
        parts.append(_Part(dtype, tuple(shape), start, end))
    return _Layout(n_probabilities, tuple(parts), end, any(part.dtype.kind == _OBJECT for part in parts))


def _can_be_kept(array: NDArray[Any], n_rows: int) -> bool:
    if type(array) is not np.ndarray or array.ndim == 0 or len(array) != n_rows:
        return False
    if array.dtype.kind == _OBJECT:
        return array.ndim <= 2  # noqa: PLR2004 - a value or a list of values a row
    return not array.dtype.hasobject and array.dtype.kind != "V" and array.dtype.itemsize > 0


def _columns_of_objects(texts: list[bytes]) -> Iterator[Sequence[Any]]:
    """For each array of objects its items, one a row, from the JSON of each row."""
    return zip(*orjson.loads(b"[%b]" % b",".join(texts)), strict=True)


def _packed_objects(arrays: list[NDArray[Any]]) -> list[bytes] | None:
    """For each row, the JSON of a list with its item of each array; None where JSON changes one."""
    columns = [array.tolist() for array in arrays]
    for array, column in zip(arrays, columns, strict=True):
        values = column if array.ndim == 1 else [value for row in column for value in row]
        if not set(map(type, values)) <= _PLAIN:
            return None
    rows = [list(row) for row in zip(*columns, strict=True)]
    try:
        texts = [orjson.dumps(row) for row in rows]
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, half of a surrogate pair
        return None
    # NaN and infinity become null.
    return texts if all(orjson.loads(text) == row for text, row in zip(texts, rows, strict=True)) else None
