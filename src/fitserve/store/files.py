"""Files opened once, read once, and never through a link that leads out of the folder that was given.

The path that the operator gives is resolved by the one call that opens it, links in it included, so that
Kubernetes mounts and ``current →`` links work. Everything below is opened relative to that descriptor, one
component at a time and without following links; a link found on the way is read and walked in the same
manner, so that no rename or swapped link, whenever it happens, can lead out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fitserve.errors import ArtifactError, ArtifactNotFoundError, clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_FILE_BYTES = 16 * 2**30
"""The largest file, and the most that all files of a folder may hold together."""

MAX_FILES = 10_000
"""Entries of a folder and of the folders below it."""

MAX_DEPTH = 32
"""Folders within folders: each is held open while it is walked."""

HEAD_BYTES = 2**16
"""What :meth:`Folder.ends` reads of the beginning of a file, by which formats are known;"""

TAIL_BYTES = 4 * 2**20
"""and of the end of a zip archive, whose members stand there, about 100 bytes for each."""

MAX_LINKS = 40
"""Links on one path, as Linux counts them (``man 7 path_resolution``)."""

# Without O_NONBLOCK the opening of a named pipe would wait for a writer.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_REGULAR = "is no regular file"
CHANGED = "changed while it was read: write it elsewhere and rename it into place"


class Folder:
    """An open folder; its files are read at most once each. Close it, or use it in a ``with``.

    It may be one below the folder that the operator gave: then links may lead anywhere in that one.

    Hidden files (``.git``, the ``..data`` of a Kubernetes volume) are passed over, and so are links to
    folders. A link to a file counts as that file if it stays inside; one that leads out is refused.

    Attributes:
        files: every file below, by its path with ``/``, sorted.
    """

    def __init__(self, descriptor: int, below: str = "") -> None:
        """Walk a folder.

        Args:
            descriptor: of the folder that the operator gave; closed with this, or if this raises.
            below: the folder below it that is meant, with ``/``; "" for itself.

        Raises:
            ArtifactError: it has too much in it, a name that is not printable, or a link that leads out.
            OSError: it cannot be read.
        """
        self._descriptor = descriptor
        self._below = below and f"{below}/"
        self._contents: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}
        self._n_bytes = 0
        self._n_entries = 0
        try:
            opened = self.open("")
            try:
                self.files = tuple(sorted(self._walk(opened, "", 0)))
            finally:
                os.close(opened)
        except BaseException:
            os.close(descriptor)
            raise
        self._known = frozenset(self.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def read(self, name: str) -> bytes:
        """The bytes of one of :attr:`files`; the same ones however often they are asked for.

        Raises:
            ArtifactError: it has become something else, cannot be read, or is too large.
        """
        if name not in self._contents:
            data = self._look(name, lambda descriptor: _read(descriptor, MAX_FILE_BYTES - self._n_bytes))
            self._contents[name] = data
            self._n_bytes += len(data)
        return self._contents[name]

    def ends(self, name: str) -> bytes:
        """The beginning of one of :attr:`files`; of a zip archive with its end. The whole where it is small.

        Enough for :attr:`~fitserve.formats.base.Format.matches`, however large the file is.

        Raises:
            ArtifactError: as :meth:`read`.
        """
        if name in self._contents:
            return self._contents[name]
        return self._look(name, _ends)

    def digest(self, name: str) -> str:
        """sha256, in hex, of the bytes that :meth:`read` gives.

        Raises:
            ArtifactError: as :meth:`read`.
        """
        if name not in self._digests:
            self._digests[name] = hashlib.sha256(self.read(name)).hexdigest()
        return self._digests[name]

    def forget(self, name: str) -> None:
        """Let go of a file's bytes that turned out not to be wanted."""
        self._n_bytes -= len(self._contents.pop(name, b""))
        self._digests.pop(name, None)

    def _walk(self, descriptor: int, prefix: str, depth: int) -> Iterator[str]:
        if depth > MAX_DEPTH:
            msg = f"has more than {MAX_DEPTH} folders within each other"
            raise ArtifactError(msg)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                self._n_entries += 1
                if self._n_entries > MAX_FILES:
                    msg = f"has more than {MAX_FILES} files: give the folder of one model"
                    raise ArtifactError(msg)
                if not entry.name.isprintable():  # surrogates of undecodable bytes and newlines are not
                    msg = f"has a file whose name is not printable: {entry.name!r}"
                    raise ArtifactError(msg)
                yield from self._entry(entry, descriptor, prefix, depth)

    def _entry(self, entry: os.DirEntry[str], descriptor: int, prefix: str, depth: int) -> Iterator[str]:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            below = os.open(entry.name, _FLAGS | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=descriptor)
            try:
                yield from self._walk(below, f"{name}/", depth + 1)
            finally:
                os.close(below)
        elif not entry.is_symlink() or self._is_file(name):
            yield name

    def _is_file(self, link: str) -> bool:
        try:
            target = self.open(link)
        except OSError as exc:
            msg = f"has a link {clip(link, 200)} that cannot be followed: {exc.strerror}"
            raise ArtifactError(msg) from exc
        try:
            return not stat.S_ISDIR(os.fstat(target).st_mode)
        finally:
            os.close(target)

    def open(self, name: str) -> int:
        """Open one of :attr:`files`, as :func:`open_below` does."""
        return open_below(self._descriptor, self._below + name)

    def _look(self, name: str, look: Callable[[int], bytes]) -> bytes:
        try:
            descriptor = self.open(name)
        except OSError as exc:
            msg = f"has a file {clip(name, 200)} that cannot be read: {exc.strerror}"
            raise ArtifactError(msg) from exc
        try:
            return look(descriptor)
        except ArtifactError as exc:
            msg = f"has a file {clip(name, 200)} that {exc}"
            raise ArtifactError(msg) from None
        finally:
            os.close(descriptor)


def open_below(descriptor: int, name: str) -> int:
    """Open a path below an open folder, walking it and every link on it one component at a time.

    Returns:
        A descriptor, to be closed by the caller.

    Raises:
        ArtifactError: a link leads out of the folder.
        OSError: it cannot be opened.
    """
    waiting = name.split("/")[::-1]
    opened = [descriptor]
    n_links = 0
    try:
        while waiting:
            part = waiting.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if len(opened) == 1:
                    raise _leads_out(name)
                os.close(opened.pop())
                continue
            try:
                opened.append(os.open(part, _FLAGS | os.O_NOFOLLOW, dir_fd=opened[-1]))
            except OSError as exc:
                if exc.errno not in {errno.ELOOP, errno.EMLINK}:  # EMLINK: FreeBSD's word for a link
                    raise
                n_links += 1
                target = os.readlink(part, dir_fd=opened[-1])
                if target.startswith("/") or n_links > MAX_LINKS:
                    raise _leads_out(name) from None
                waiting += target.split("/")[::-1]
        return os.dup(descriptor) if len(opened) == 1 else opened.pop()
    finally:
        for passed in opened[1:]:
            os.close(passed)


def open_path(path: Path, root: Path | None = None) -> bytes | Folder:
    """Open what the operator's path leads to: a file's bytes, or an open folder.

    Args:
        path: of either.
        root: the folder above it that the operator gave, if that was given: then no link below it leads out.

    Raises:
        ArtifactNotFoundError: there is nothing.
        ArtifactError: it is neither a regular file nor a folder, is too large, or cannot be read; a link leads out.
    """
    try:
        top = os.open(root or path, _FLAGS)
        name = "" if root is None else path.relative_to(root).as_posix()
        try:
            descriptor = open_below(top, name) if name else os.dup(top)
            try:
                if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    return _read(descriptor, MAX_FILE_BYTES)
                return Folder(os.dup(top), name)
            finally:
                os.close(descriptor)
        finally:
            os.close(top)
    except FileNotFoundError:
        msg = "does not exist"
        raise ArtifactNotFoundError(msg) from None
    except OSError as exc:
        msg = _NOT_REGULAR if exc.errno == errno.ENXIO else f"cannot be read: {exc.strerror}"  # ENXIO: a socket
        raise ArtifactError(msg) from exc


def _read(descriptor: int, most_bytes: int) -> bytes:
    """Read a regular file to its end; what it is is asked of the open descriptor."""
    size = _size(descriptor)
    if size > most_bytes:
        msg = f"has {size} bytes, more than the limit of {MAX_FILE_BYTES}"
        raise ArtifactError(msg)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(size + 1)
    if len(data) != size:
        raise ArtifactError(CHANGED)
    return data


def _ends(descriptor: int) -> bytes:
    size = _size(descriptor)
    head = os.pread(descriptor, HEAD_BYTES, 0)
    if len(head) >= size or not head.startswith(b"PK\x03\x04"):
        return head
    start = max(len(head), size - TAIL_BYTES)
    return head + os.pread(descriptor, size - start, start)


def _size(descriptor: int) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(_NOT_REGULAR)
    return status.st_size


def _leads_out(name: str) -> ArtifactError:
    return ArtifactError(
        f"has a link {clip(name, 200)} that leads out of the folder: links below it must be relative and stay inside"
    )


def write_folder(out: Path, files: Mapping[str, bytes], *, is_replacing: bool) -> None:
    """Write a folder beside its place and rename it into it, so that nobody ever reads half of one.

    Args:
        out: its place; empty, or there is nothing.
        files: the content of each file by its path below the folder.
        is_replacing: what is there is ours, and is removed.

    Raises:
        ArtifactError: it cannot be written, or something else is in its place. Nothing is left half-done; the text
            names ``out``.
    """
    beside = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        for name, data in files.items():
            _write(beside / "new" / name, data)
        if is_replacing:
            out.rename(beside / "old")
        (beside / "new").rename(out)  # fails on a folder that has something in it
    except OSError as exc:
        if beside is not None and (beside / "old").exists() and not out.exists():
            (beside / "old").rename(out)
        msg = f"{out} cannot be written: {exc.strerror}"
        raise ArtifactError(msg) from exc
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
