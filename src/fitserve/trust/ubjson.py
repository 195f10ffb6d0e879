"""A reader of the UBJSON that XGBoost writes, which believes no length before it has counted the bytes.

Source: https://ubjson.org, and what XGBoost 3.2 writes: object keys and strings have 64-bit lengths,
arrays of numbers are typed, big-endian.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from fitserve.trust.trees import damaged, expect

MAX_DEPTH = 64
"""XGBoost's own files are 8 deep; its reader recurses."""

_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_LENGTH = struct.Struct(">q")


def read_ubjson(data: bytes) -> Any:
    """Read a document into dicts, lists, strings and numbers; typed arrays become numpy arrays over ``data``.

    Raises:
        ArtifactError: it is not such a document, is truncated, goes on after its end, is nested
            deeper than :data:`MAX_DEPTH`, or names a member twice.
    """
    reader = _Reader(data)
    value = reader.value(0)
    expect(reader.place == len(data), "something follows after its end")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        expect(0 <= size <= len(self.data) - self.place, "it ends before the model does, or a length in it is wrong")
        self.place += size
        return self.data[self.place - size : self.place]

    def length(self) -> int:
        """A length, which is always a 64-bit integer."""
        expect(self.take(1) == b"L", "a length in it is not one")
        return int(_LENGTH.unpack(self.take(8))[0])

    def text(self) -> str:
        """A string without its mark."""
        try:
            return self.take(self.length()).decode()
        except UnicodeDecodeError:
            damaged("a string in it is not UTF-8 text")

    def value(self, depth: int) -> Any:
        """Any value with its mark."""
        expect(depth < MAX_DEPTH, "it is nested too deeply")
        mark = self.take(1)
        if mark == b"{":
            return self.members(depth)
        if mark == b"[":
            return self.items(depth)
        if mark == b"S":
            return self.text()
        if mark in _NUMBERS:
            return self.numbers(mark, 1)[0].item()
        constants = {b"T": True, b"F": False, b"Z": None}
        expect(mark in constants, "it holds a value of no known kind")
        return constants[mark]

    def members(self, depth: int) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = {}
        while self.data[self.place : self.place + 1] != b"}":
            name = self.text()
            expect(name not in found, "it names a member twice")
            found[name] = self.value(depth + 1)
        self.place += 1
        return found

    def items(self, depth: int) -> Any:
        """An array: typed and counted, counted, or up to its end mark."""
        mark = self.data[self.place : self.place + 1]
        if mark == b"$":
            kind = self.take(2)[1:]
            expect(kind in _NUMBERS and self.take(1) == b"#", "an array in it is of no known kind")
            return self.numbers(kind, self.length())
        if mark == b"#":
            self.place += 1
            length = self.length()
            # Each item has a mark of one byte at least: no list is allocated for what is not there.
            expect(0 <= length <= len(self.data) - self.place, "an array in it is longer than the file")
            return [self.value(depth + 1) for _ in range(length)]
        found = []
        while self.data[self.place : self.place + 1] != b"]":
            found.append(self.value(depth + 1))
        self.place += 1
        return found

    def numbers(self, mark: bytes, length: int) -> Any:
        """Numbers of one type, as a view."""
        kind = np.dtype(_NUMBERS[mark])
        expect(0 <= length <= len(self.data), "an array in it is longer than the file")
        return np.frombuffer(self.take(length * kind.itemsize), dtype=kind)
