"""Decompression with bounds: a small file must not become a large one in memory.

Every stream is read piece by piece, and the sum is checked after each piece: what is refused has
taken no more memory than :data:`MAX_BYTES`.
"""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 4 << 30
"""No model file may be larger than this when it is decompressed. Far above what one process serves."""

MAX_RATIO = 200
"""How many bytes a compressed byte may become, beyond :data:`FREE_BYTES`.

deflate reaches 1032, for a file of one repeated byte; models saved with joblib stay below 30.
Source: https://zlib.net/zlib_tech.html
"""

FREE_BYTES = 64 << 20
"""Up to this size the ratio does not matter: an array of zeros is no attack."""

MAX_MEMBERS = 10_000
"""How many files a zip archive may hold."""

PIECE_BYTES = 1 << 20

FEED_BYTES = 1 << 14
"""So much of a stream is given at a time: decompressors copy what they are given and have not used."""

LZ4_MAGIC = b"\x04\x22\x4d\x18"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large things may become."""

    max_bytes: int = MAX_BYTES
    max_ratio: int = MAX_RATIO
    free_bytes: int = FREE_BYTES

    def check(self, n_bytes: int, compressed_bytes: int) -> None:
        """Refuse ``n_bytes`` that came of ``compressed_bytes``.

        Raises:
            ArtifactError: it is too much.
        """
        allowed = min(self.max_bytes, max(self.free_bytes, self.max_ratio * compressed_bytes))
        if n_bytes > allowed:
            raise ArtifactError(
                f"is refused: its {compressed_bytes} bytes decompress to more than {allowed}; "
                "wanted a model, came what looks like a decompression bomb: save it again with less compression"
            )


DEFAULT_BOUNDS = Bounds()


def decompress(data: bytes, bounds: Bounds = DEFAULT_BOUNDS) -> bytes:
    """Return what ``data`` holds when it is zlib, gzip, bz2, xz, lzma or lz4 by its first bytes, else ``data``.

    These are the compressions of :func:`joblib.dump`. Streams that follow one another are joined, as
    Python's ``gzip``, ``bz2`` and ``lzma`` modules do.

    Raises:
        ArtifactError: it is too large when decompressed, ends early, or is damaged.
    """
    if not data:
        raise ArtifactError("is empty")
    fresh = _decompressor(data)
    if fresh is None:
        bounds.check(len(data), len(data))
        return data
    try:
        # What passes the free size is only counted at first: a bomb is refused without its bytes being kept.
        kept = _join_streams(data, fresh, bounds, keep_bytes=bounds.free_bytes)
        return kept if kept is not None else _join_streams(data, fresh, bounds, keep_bytes=bounds.max_bytes) or b""
    except (zlib.error, lzma.LZMAError, OSError, ValueError, RuntimeError) as exc:
        raise ArtifactError(f"is damaged: it does not decompress ({exc})") from exc
    except EOFError:
        raise ArtifactError("is truncated: it ends before its compressed stream does") from None


def _decompressor(data: bytes) -> Callable[[], Any] | None:
    """How to make a decompressor for these first bytes, or None: they are not compressed."""
    # A pickle of protocol 2 or more starts with 0x80: none of these can be one.
    match data[:6]:
        case head if head[:2] == b"\x1f\x8b":
            return lambda: zlib.decompressobj(wbits=31)
        case head if head[:3] == b"BZh":
            return bz2.BZ2Decompressor
        case head if head == b"\xfd7zXZ\x00":
            return lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)
        case head if head[:2] == b"\x5d\x00":
            return lambda: lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=256 << 20)
        case head if head[:4] == LZ4_MAGIC:
            return _lz4
        case head if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
            return zlib.decompressobj  # the check bits of RFC 1950, section 2.2
        case _:
            return None


def _lz4() -> Any:
    try:
        return importlib.import_module("lz4.frame").LZ4FrameDecompressor()
    except ModuleNotFoundError:
        raise ArtifactError("needs the package 'lz4', which is not installed here: it is compressed with it") from None


class _Out:
    """Counts bytes, and keeps them while they are few."""

    def __init__(self, bounds: Bounds, compressed_bytes: int, keep_bytes: int) -> None:
        self.bounds = bounds
        self.compressed_bytes = compressed_bytes
        self.keep_bytes = keep_bytes
        self.n_bytes = 0
        self.kept: io.BytesIO | None = io.BytesIO()

    def write(self, block: bytes) -> None:
        self.n_bytes += len(block)
        self.bounds.check(self.n_bytes, self.compressed_bytes)
        if self.n_bytes > self.keep_bytes:
            self.kept = None
        elif self.kept is not None:
            self.kept.write(block)


def _join_streams(data: bytes, fresh: Callable[[], Any], bounds: Bounds, *, keep_bytes: int) -> bytes | None:
    """Return what the streams hold, or None where that is within bounds and more than ``keep_bytes``."""
    out = _Out(bounds, len(data), keep_bytes)
    place = 0
    while place < len(data):
        place = _one_stream(data, place, fresh(), out)
        # gzip pads with zeros; a stream of another kind, or junk, is no model file of ours
        if _ZEROS.fullmatch(data, place):
            break
        if _decompressor(data[place : place + 6]) is None:
            raise ArtifactError("is damaged: other bytes follow its compressed stream")
    return out.kept.getvalue() if out.kept is not None else None


_ZEROS = re.compile(rb"\0*+")


def _one_stream(data: bytes, place: int, stream: Any, out: _Out) -> int:
    """Decompress the stream that starts at a place into ``out``; return where it ends."""
    piece = _piece_of(stream)
    pending = b""
    while not stream.eof:
        if not pending and getattr(stream, "needs_input", True):
            pending = data[place : place + FEED_BYTES]
            place += len(pending)
        is_over = not pending and place >= len(data)
        block, pending = piece(pending)
        if is_over and not block and not stream.eof:
            raise EOFError
        out.write(block)
    return place - len(stream.unused_data or b"")


def _piece_of(stream: Any) -> Callable[[bytes], tuple[bytes, bytes]]:
    """Return a function: input to (at most a piece of output, input not yet consumed)."""
    if hasattr(stream, "unconsumed_tail"):

        def zlib_piece(pending: bytes) -> tuple[bytes, bytes]:
            block = stream.decompress(pending, PIECE_BYTES)
            return block, stream.unconsumed_tail

        return zlib_piece

    def piece(pending: bytes) -> tuple[bytes, bytes]:
        # bz2, lzma and lz4 keep what they have not consumed; an empty input asks for more of it
        if not pending and stream.needs_input:
            return b"", b""
        return stream.decompress(pending, PIECE_BYTES), b""

    return piece


_SAFE_NAME = re.compile(r"[^\x00-\x1f\\]{1,512}")


def open_zip(data: bytes, bounds: Bounds = DEFAULT_BOUNDS) -> dict[str, bytes]:
    """Read every member of a zip archive (skops, PyTorch) into memory, by its name.

    Folders are left out. Nothing is written anywhere. What archives of arrays (``.npz``) in it unpack
    to counts as if it were unpacked.

    Raises:
        ArtifactError: it is no zip archive, is damaged, is too large when decompressed, or holds a
            link, an encrypted member, a name twice, or a name that leads elsewhere.
    """
    try:
        with _opened(data) as archive:
            members = archive.infolist()
            # What the directory declares is a first filter; the bytes that really come are counted below.
            bounds.check(sum(member.file_size for member in members), len(data))
            return _members(archive, members, bounds, len(data))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as exc:
        raise ArtifactError(f"is damaged, or no zip archive ({exc})") from exc
    except (NotImplementedError, RuntimeError) as exc:
        raise ArtifactError(f"is a zip archive of a kind that is not read here ({exc})") from exc


def _opened(data: bytes) -> zipfile.ZipFile:
    """An archive whose members are few: zipfile makes an object of each before it can be asked how many there are.

    Raises:
        ArtifactError: there are too many, those of archives stored in it included.
    """
    n_members = data.count(_ENTRY)
    if n_members > MAX_MEMBERS:
        raise ArtifactError(f"is refused: it holds {n_members} files; at most {MAX_MEMBERS} are read")
    return zipfile.ZipFile(io.BytesIO(data))


_ENTRY = b"PK\x01\x02"
"""How the entry of a member in the directory at the end begins."""


def _members(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], bounds: Bounds, compressed_bytes: int
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for member in members:
        _check_member(member)
        if member.filename in found:
            raise ArtifactError(f"is refused: it holds {member.filename[:64]!r} twice")
        if member.is_dir():
            continue
        out = io.BytesIO()
        with archive.open(member) as stream:
            while block := stream.read(PIECE_BYTES):
                total += len(block)
                bounds.check(total, compressed_bytes)
                out.write(block)
        found[member.filename] = out.getvalue()
        if member.filename.endswith(".npz"):
            # Who opens it next counts anew: what all of them unpack to counts here.
            total += _declared_bytes(found[member.filename])
            bounds.check(total, compressed_bytes)
    return found


def _declared_bytes(data: bytes) -> int:
    """What the members of an inner archive say they unpack to; they are cut off there when they are read."""
    with _opened(data) as archive:
        return sum(member.file_size for member in archive.infolist())


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if not _SAFE_NAME.fullmatch(name) or name.startswith("/") or ":" in name or ".." in name.split("/"):
        raise ArtifactError(f"is refused: it holds a file whose name leads elsewhere: {name[:64]!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ArtifactError(f"is refused: it holds a link: {name[:64]!r}")
    if member.flag_bits & 0x1:
        raise ArtifactError(f"is refused: it holds an encrypted file: {name[:64]!r}")
