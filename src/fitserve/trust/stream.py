"""What the pickle machine reads, and what stands for what it may not make."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitserve.trust.allowlist import Use

ARRAY_HEADER = "joblib.numpy_pickle.NumpyArrayWrapper"
"""What joblib writes before the bytes of an array. Never imported: :class:`ArrayHeader` stands for it."""


class Refused(Exception):  # noqa: N818 - a verdict, caught by those who tell the operator
    """The stream does what no model file needs; the text is a predicate that follows the file's name."""


class Stream(io.BytesIO):
    """The bytes of the file, not copied; reading past the end raises EOFError."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._n_bytes = len(data)  # getbuffer() would tell, and copy all of them

    def read(self, size: int | None = -1, /) -> bytes:
        """Read exactly ``size`` bytes."""
        block = super().read(size)
        if size is not None and len(block) < size:
            raise EOFError
        return block

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a whole line, with its end."""
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._n_bytes - self.tell()


class ArrayHeader:
    """An array of a joblib file whose bytes have not been read yet."""


class Token:
    """A listed global that may not be used as a value: in a model it would be inert."""

    __slots__ = ("name", "thing", "uses")

    def __init__(self, name: str, thing: Any, uses: frozenset[Use]) -> None:
        self.name = name
        self.thing = thing
        self.uses = uses
