"""What travels between a process and the child that works for it: JSON and bytes, never a pickle.

A payload is a file in memory: how many parts, the length of each, then the parts. The first part
is the order as JSON, the others are blobs, which the child maps and does not copy. A reply is one
JSON object after its length.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import mmap
import os
import struct
import tempfile
from typing import TYPE_CHECKING, Any

from fitserve.errors import FitserveError, UntrustedArtifactError, clip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LENGTH = struct.Struct("!Q")
"""How a length is written."""

LONGEST_TEXT = 8_000
"""Characters of an error's text that are passed on."""

_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE


def pack(order: Mapping[str, Any], blobs: Sequence[bytes | memoryview]) -> int:
    """Write an order and its blobs to a file that has no name, and return its descriptor.

    It is sealed against changes where the kernel can do that.
    """
    parts = [json.dumps(order).encode(), *blobs]
    lengths = b"".join(LENGTH.pack(len(part)) for part in parts)
    file = _nameless_file()
    try:
        for part in (LENGTH.pack(len(parts)), lengths, *parts):
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
        with contextlib.suppress(AttributeError, OSError):  # not a file in memory
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def _nameless_file() -> int:
    try:
        return os.memfd_create("fitserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def unpack(file: int) -> tuple[dict[str, Any], list[memoryview]]:
    """Map a payload, and return the order and the blobs."""
    view = memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
    (count,) = LENGTH.unpack_from(view)
    lengths = [LENGTH.unpack_from(view, LENGTH.size * (i + 1))[0] for i in range(count)]
    ends = list(itertools.accumulate(lengths, initial=LENGTH.size * (count + 1)))
    order, *blobs = [view[start:end] for start, end in itertools.pairwise(ends)]
    return json.loads(bytes(order)), blobs


def describe(error: FitserveError) -> dict[str, Any]:
    """An error of ours as JSON, to be raised again on the other side by :func:`rebuild`."""
    kinds = _kinds()
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in kinds)
    told: dict[str, Any] = {"kind": name, "text": str(error)}
    if isinstance(error, UntrustedArtifactError):
        told |= {"digest": error.digest, "missing": list(error.missing)}
    return told


def rebuild(told: Mapping[str, Any]) -> FitserveError:
    """The error that :func:`describe` told of. The child may be hostile: nothing of it is taken on trust.

    Raises:
        KeyError, TypeError: it is no such description.
    """
    text = printable(told["text"], LONGEST_TEXT)
    kind = _kinds()[told["kind"]]
    if issubclass(kind, UntrustedArtifactError):
        missing = [printable(name, 300) for name in told["missing"][:1000]]
        return kind(text, digest=printable(told["digest"], 64), missing=missing)
    return kind(text)


def _kinds() -> dict[str, type[FitserveError]]:
    """The errors that are rebuilt from their text, and the one that has its own rule; others become their base."""
    found, todo = {}, [FitserveError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        is_plain = kind.__init__ is FitserveError.__init__
        if kind.__module__ == FitserveError.__module__ and (is_plain or issubclass(kind, UntrustedArtifactError)):
            found[kind.__name__] = kind
    return found


def printable(text: object, length: int) -> str:
    """Text that came from a child, with nothing in it that could steer a terminal."""
    if not isinstance(text, str):
        msg = f"text is a {type(text).__name__}"
        raise TypeError(msg)
    return clip("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text), length)


def one_line(text: str, length: int = 300) -> str:
    """The text without line breaks, clipped."""
    return clip(" ".join(printable(text, LONGEST_TEXT).split()), length)
