"""A reader of FlatBuffers that checks every offset and length against the bytes before it follows it.

Source: https://flatbuffers.dev/internals/ (the format)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.trust.trees import damaged, expect

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = struct.Struct("<I")
_SIGNED = struct.Struct("<i")
_SHORT = struct.Struct("<H")
_SIZES = {"b": 1, "B": 1, "i": 4, "I": 4, "f": 4, "d": 8}


READS_A_BYTE = 8
"""How often the bytes of a buffer may be read, on average.

Many offsets may lead to one place: 100 000 of them to a string of half a megabyte are 50 GB.
The check of a CatBoost model reads 1.04 bytes a byte at most, symmetric or not, with categories or without.
"""

FREE_READS = 1 << 16


class _Buffer:
    """The bytes, and how many of them may still be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = READS_A_BYTE * len(data) + FREE_READS

    def read(self, place: int, size: int) -> bytes:
        """Bytes from a place on."""
        expect(place >= 0 and size >= 0 and place + size <= len(self.data), "a part of it lies outside of it")
        self.left -= size
        expect(self.left >= 0, "its parts lie upon one another")
        return self.data[place : place + size]


class Table:
    """A table of a buffer; its fields are asked for by their number in the schema.

    Raises:
        ArtifactError: by every method: what is asked for leads out of the buffer.
    """

    def __init__(self, buffer: _Buffer, place: int) -> None:
        self._buffer = buffer
        self._place = place
        self._vtable = place - _SIGNED.unpack(self._bytes(place, 4))[0]
        self._n_fields = (_SHORT.unpack(self._bytes(self._vtable, 2))[0] - 4) // 2
        self._size = _SHORT.unpack(self._bytes(self._vtable + 2, 2))[0]
        self._bytes(place, self._size)
        self._bytes(self._vtable, 4 + 2 * max(self._n_fields, 0))

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that a buffer begins with."""
        expect(len(data) >= 4, "it ends before the model does")  # noqa: PLR2004 - an offset
        return cls(_Buffer(data), _WORD.unpack(data[:4])[0])

    def number(self, field: int, kind: str, default: float) -> Any:
        """A number; ``kind`` is a character of :mod:`struct`."""
        place = self._field(field, _SIZES[kind])
        return default if place is None else struct.unpack_from("<" + kind, self._buffer.data, place)[0]

    def table(self, field: int) -> Table:
        """A table that must be there."""
        place = self._target(field)
        expect(place is not None, "a part of it is missing")
        return Table(self._buffer, int(place or 0))

    def tables(self, field: int) -> list[Table]:
        """A list of tables; empty if it is missing."""
        offsets, place = self._items(field, 4)
        return [
            Table(self._buffer, place + 4 * i + _WORD.unpack_from(offsets, 4 * i)[0]) for i in range(len(offsets) // 4)
        ]

    def texts(self, field: int) -> list[str]:
        """A list of strings; empty if it is missing."""
        offsets, place = self._items(field, 4)
        return [self._text(place + 4 * i + _WORD.unpack_from(offsets, 4 * i)[0]) for i in range(len(offsets) // 4)]

    def text(self, field: int) -> str | None:
        """A string, or None if it is missing."""
        place = self._target(field)
        return None if place is None else self._text(place)

    def array(self, field: int, dtype: Any) -> NDArray[Any]:
        """A list of numbers or structs; empty if it is missing."""
        kind = np.dtype(dtype)
        return np.frombuffer(self._items(field, kind.itemsize)[0], dtype=kind)

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return self._field(field, 0) is not None

    def _bytes(self, place: int, size: int) -> bytes:
        return self._buffer.read(place, size)

    def _field(self, field: int, size: int) -> int | None:
        if field >= self._n_fields:
            return None
        offset = _SHORT.unpack_from(self._buffer.data, self._vtable + 4 + 2 * field)[0]
        if offset == 0:
            return None
        expect(offset + size <= self._size, "a part of it lies outside of it")
        return int(self._place + offset)

    def _target(self, field: int) -> int | None:
        place = self._field(field, 4)
        return None if place is None else place + int(_WORD.unpack_from(self._buffer.data, place)[0])

    def _items(self, field: int, size: int) -> tuple[bytes, int]:
        """The bytes of a vector, and where they start."""
        place = self._target(field)
        if place is None:
            return b"", 0
        length = _WORD.unpack(self._bytes(place, 4))[0]
        return self._bytes(place + 4, length * size), place + 4

    def _text(self, place: int) -> str:
        length = _WORD.unpack(self._bytes(place, 4))[0]
        try:
            # CatBoost reads some of its strings to the zero byte that follows them.
            return self._bytes(place + 4, length + 1)[:-1].decode()
        except UnicodeDecodeError:
            damaged("a string in it is not UTF-8 text")
