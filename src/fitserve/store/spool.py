"""Artifacts kept by content, so that every process of a server loads the same bytes, whatever becomes of their path.

One file holds one artifact, and is called what :func:`~fitserve.store.verify.identity` calls it::

    fitserve-spool 1 <length of the head> <sha256 of the head>
    the head: JSON, {message, report, blobs: [[length, sha256], …]}
    the blobs

It appears by a rename, whole, and nobody but root may write into it, as a confined process may not change that. It can
be replaced or removed; who reads it goes on with what it was.

The bytes of a large pickle are read where they lie, through a map, so that the processes of a server do not each
hold them beside the model while they load it. Root could change them after they were hashed: the loader of pickles
checks every step when it takes it, and hashes a copy of what it takes on trust. All else is copied before it is
hashed, because the other formats want ``bytes``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import mmap
import os
import pickle
import secrets
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import orjson

from fitserve.errors import ArtifactError
from fitserve.store.loading import LARGE_BYTES
from fitserve.store.message import artifact_message, artifact_of
from fitserve.store.verify import identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from fitserve.types import Artifact

logger = logging.getLogger(__name__)

MAX_SPOOL_BYTES = 16 * 2**30
"""What all that is not needed may hold together, beside what is: the latest used stay."""

MAX_AGE_S = 30 * 86_400.0
"""What nobody has used for so long goes: servers that run have it in memory, and told us if they need it."""

YOUNG_S = 60.0
"""What was used so short ago stays: another process may be about to load it."""

ABANDONED_S = 3600.0
"""A half-written file older than this was left by a process that has died."""

_MAGIC = "fitserve-spool 1"
_FIRST_LINE_BYTES = 128
_MAX_HEAD_BYTES = 256 * 2**20
_PARTIAL = ".partial-"
_USED = ".used-"
_CHANGED = "its bytes have changed"


@dataclass(frozen=True, slots=True)
class Spool:
    """The artifacts of one folder, which is this user's alone. Any process, any thread; blocks.

    Attributes:
        folder: made by the first :meth:`put`.
    """

    folder: Path

    def has(self, identity: str) -> bool:
        """Whether an artifact is kept; it may be damaged, or go before it is read."""
        return self._is_ours() and (self.folder / identity).is_file()

    def put(self, artifact: Artifact, report: Mapping[str, Any]) -> str:
        """Keep an artifact and what trying it has shown, whole or not at all. Returns its identity.

        Where the disk is full, read-only or gone, the log says so, and the artifact is not kept.
        """
        key = identity(artifact)
        if self.has(key):
            _mark_used(self.folder / key)
            return key
        message, blobs = artifact_message(artifact)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                raise PermissionError(errno.EPERM, "others can write there")
            partial = self.folder / f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"
            try:
                _write(partial, message, report, blobs)
                partial.rename(self.folder / key)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as exc:
            logger.warning(
                "the bytes of %s %s are not kept for the other processes, which read them from their path: %s: %s",
                *(artifact.name, artifact.version, self.folder, exc.strerror),
            )
        return key

    def get(self, identity: str) -> tuple[Artifact, Mapping[str, Any]]:
        """An artifact and the report that was kept with it.

        The data of a large pickle is a ``memoryview``, which the loader of pickles takes, and which can be hashed,
        cut, written and sent like ``bytes``. Let go of it when the model is loaded.

        Raises:
            ArtifactError: it is not kept, or was damaged, and is not kept any more; the text follows its name.
        """
        path = self.folder / identity
        try:
            if not self._is_ours():
                raise PermissionError(errno.EPERM, "others can write there")
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            msg = f"is not kept in {self.folder} ({exc.strerror}): reload the model"
            raise ArtifactError(msg) from exc
        with os.fdopen(file, "rb") as stream:
            try:
                found = _read(stream, identity)
            except OSError as exc:
                msg = f"cannot be read where it is kept, in {self.folder}: {exc.strerror}"
                raise ArtifactError(msg) from exc
            except (ValueError, LookupError, TypeError) as exc:
                _remove(path)
                msg = f"was damaged where it was kept, in {self.folder} ({exc}): reload the model"
                raise ArtifactError(msg) from exc
        _mark_used(path)
        return found

    def _is_ours(self) -> bool:
        """Whether nobody else can put an artifact here."""
        try:
            status = self.folder.lstat()
        except OSError:
            return False
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        return is_ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    def prune(self, keep: set[str], *, limit_bytes: int = MAX_SPOOL_BYTES) -> None:
        """Remove what is old, what is more than may be kept, and what was left half-written. Never raises.

        Args:
            keep: identities that stay, and count as used now.
            limit_bytes: what all others may hold together.
        """
        for key in keep:
            _mark_used(self.folder / key)
        n_bytes, now_s = 0, time.time()
        for path, age_s, size in self._by_age(now_s):
            if path.name.startswith(_PARTIAL):
                is_over = age_s > ABANDONED_S
            elif path.name in keep or age_s < YOUNG_S:
                continue
            else:
                n_bytes += size
                is_over = age_s > MAX_AGE_S or n_bytes > limit_bytes
            if is_over:
                _remove(path)

    def _by_age(self, now_s: float) -> list[tuple[Path, float, int]]:
        """Every file with the time since it was used, and its size; the one used last first."""
        found: dict[Path, os.stat_result] = {}
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):  # another process removes, too
                    found[path] = path.stat()
        entries = []
        for path, status in found.items():
            if not path.name.startswith(_USED):
                used = found.get(path.with_name(_USED + path.name), status)
                entries.append((path, now_s - max(used.st_mtime, status.st_mtime), status.st_size))
        return sorted(entries, key=lambda entry: entry[1])


def _write(path: Path, message: Mapping[str, Any], report: Mapping[str, Any], blobs: Sequence[bytes]) -> None:
    hashed = [[len(blob), hashlib.sha256(blob).hexdigest()] for blob in blobs]
    head = orjson.dumps({"message": message, "report": report, "blobs": hashed})
    # The rights are given when it is made: a confined process cannot take them away later.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{_MAGIC} {len(head)} {hashlib.sha256(head).hexdigest()}\n".encode())
        for part in (head, *blobs):
            file.write(part)
        file.flush()
        os.fsync(descriptor)


def _read(file: BufferedReader, key: str) -> tuple[Artifact, Mapping[str, Any]]:
    """Read what :func:`_write` has written; any error means that it is not that."""
    program, release, length, checksum = file.readline(_FIRST_LINE_BYTES).decode("ascii").split()
    _expect(f"{program} {release}" == _MAGIC and 0 < int(length) <= _MAX_HEAD_BYTES, "it does not begin as it should")
    head = _exactly(file, int(length), checksum)
    document = orjson.loads(head)
    message, report = document["message"], document["report"]
    said = hashlib.sha256(orjson.dumps(message, option=orjson.OPT_SORT_KEYS)).hexdigest()
    _expect(said == key, "it is another artifact")
    sizes = [length for length, _ in document["blobs"]]
    _expect(file.tell() + sum(sizes) == os.fstat(file.fileno()).st_size, "it is truncated, or more bytes follow")
    # Of a folder, the digest is that of a list of files, of which some are not in the artifact.
    _expect(bool(message["files"]) or document["blobs"][0][1] == message["digest"], "it has the bytes of another one")
    if len(sizes) == 1 and sizes[0] >= LARGE_BYTES and file.peek(1)[:1] == pickle.PROTO:
        view = _mapped(file, *document["blobs"][0])
        return replace(artifact_of(message, [b""]), data=cast("bytes", view)), report
    return artifact_of(message, [_exactly(file, length, digest) for length, digest in document["blobs"]]), report


def _mapped(file: BinaryIO, length: int, digest: str) -> memoryview:
    """As :func:`_exactly`, without a copy."""
    begin = file.tell()
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[begin : begin + length]
    _expect(hashlib.sha256(view).hexdigest() == digest, _CHANGED)
    return view


def _exactly(file: BinaryIO, length: int, digest: str) -> bytes:
    """So many bytes, which have this sha256."""
    data = file.read(length)
    _expect(len(data) == length and hashlib.sha256(data).hexdigest() == digest, _CHANGED)
    return data


def _expect(is_so: bool, what_is_wrong: str) -> None:  # noqa: FBT001 - an assertion about a file
    if not is_so:
        raise ValueError(what_is_wrong)


def _remove(path: Path) -> None:
    for gone in (path, path.with_name(_USED + path.name)):
        with contextlib.suppress(OSError):
            gone.unlink()


def _mark_used(path: Path) -> None:
    """Note the present time beside a file: a confined process cannot set times."""
    with contextlib.suppress(OSError):
        path.with_name(_USED + path.name).write_bytes(b"\n")
