"""What the pickle machine reads, and what stands for what it may not make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitserve.trust.allowlist import Use

ARRAY_HEADER = "joblib.numpy_pickle.NumpyArrayWrapper"
"""What joblib writes before the bytes of an array. Never imported: :class:`ArrayHeader` stands for it."""


_LINE_BYTES = 64
"""Names and numbers are shorter; a longer line is looked for in steps."""


class Refused(Exception):  # noqa: N818 - a verdict, caught by those who tell the operator
    """The stream does what no model file needs; the text is a predicate that follows the file's name."""


class Stream:
    """The bytes of the file, not copied, be they in a map; reading past the end raises EOFError."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data)
        self._n_bytes = len(data)
        self._place = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read exactly ``size`` bytes, or all that are left."""
        end = self._n_bytes if size < 0 else self._place + size
        if end > self._n_bytes:
            raise EOFError
        block = self._view[self._place : end].tobytes()
        self._place = end
        return block

    def readline(self) -> bytes:
        """Read a whole line, with its end."""
        length = _LINE_BYTES
        while True:
            block = self._view[self._place : self._place + length].tobytes()
            if n_before := block.find(b"\n") + 1:
                self._place += n_before
                return block[:n_before]
            if len(block) < length:
                raise EOFError
            length *= 4

    def skip(self, size: int) -> None:
        """Pass over bytes, of which so many are left."""
        self._place += size

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._n_bytes - self._place


class ArrayHeader:
    """An array of a joblib file whose bytes have not been read yet."""


class Token:
    """A listed global that may not be used as a value: in a model it would be inert."""

    __slots__ = ("name", "thing", "uses")

    def __init__(self, name: str, thing: Any, uses: frozenset[Use]) -> None:
        self.name = name
        self.thing = thing
        self.uses = uses
