"""One folder of a repository, looked at without reading the models in it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.store.files import CHANGED, Folder
from fitserve.store.names import is_unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 100_000
"""Files and folders that one folder may hold."""

MAX_DIGESTS = 100_000
"""Files whose digests are remembered; then all are forgotten."""

RACY_NS = 2 * 10**9
"""A file that changed so short a time ago may change again without a sign: its times are only as fine as the clock
of the file system, 4 ms on most and 2 s on FAT. Source: https://git-scm.com/docs/racy-git
"""

_digests: dict[tuple[int, ...], str] = {}


class Level(Folder):
    """An open folder without those below it. What cannot be taken is told, and hides nothing else.

    Attributes:
        files: those in it, by name, sorted; links to files among them.
        folders: those in it, by name, sorted. Links to folders are not among them.
        refused: why an entry is not taken, by its name. Hidden ones are not told.
    """

    def __init__(self, descriptor: int, below: str = "") -> None:
        self.folders: list[str] = []
        self.refused: dict[str, str] = {}
        super().__init__(descriptor, below)
        self.folders.sort()

    def _walk(self, descriptor: int, prefix: str, depth: int) -> Iterator[str]:  # noqa: ARG002 - it is not deep
        with os.scandir(descriptor) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    msg = f"has more than {MAX_ENTRIES} files and folders in one folder"
                    raise ArtifactError(msg)
                if entry.name.startswith("."):
                    continue
                if (why := self._why_not(entry)) is not None:
                    self.refused[entry.name if entry.name.isprintable() else ascii(entry.name)] = why
                elif entry.is_dir(follow_symlinks=False):
                    self.folders.append(entry.name)
                else:
                    yield entry.name

    def _why_not(self, entry: os.DirEntry[str]) -> str | None:
        if not entry.name.isprintable():
            return "has a name that is not printable"
        if is_unfinished(entry.name):
            return "is called as files are that are being written"
        if not entry.is_symlink():
            is_usual = entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            return None if is_usual else "is neither a file nor a folder"
        try:
            return None if self._is_file(entry.name) else "is a link to a folder, and those are not followed"
        except ArtifactError:
            return "is a link to nothing, or out of the folder: links must be relative and stay inside"


def digest_of_file(folder: Folder, name: str) -> str:
    """sha256 in hex of a file, which is read in pieces; of one that is unchanged since, as it was remembered.

    Thread-safe.

    Raises:
        ArtifactError: it cannot be read, or changes meanwhile.
    """
    try:
        descriptor = folder.open(name)
    except OSError as exc:
        msg = f"has a file {name} that cannot be read: {exc.strerror}"
        raise ArtifactError(msg) from exc
    try:
        return digest_of_open(descriptor)
    finally:
        os.close(descriptor)


def digest_of_open(descriptor: int) -> str:
    """The same of an open file, from its beginning.

    Raises:
        ArtifactError: it is no regular file, or changes meanwhile.
    """
    state = state_of(status := os.fstat(descriptor))
    if not stat.S_ISREG(status.st_mode):
        msg = "is no regular file"
        raise ArtifactError(msg)
    if (known := _digests.get(state)) is not None:
        return known
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if state_of(os.fstat(descriptor)) != state:
        raise ArtifactError(CHANGED)
    if time.time_ns() - status.st_ctime_ns > RACY_NS:
        if len(_digests) >= MAX_DIGESTS:
            _digests.clear()
        _digests[state] = digest
    return digest


def state_of(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever a file does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
