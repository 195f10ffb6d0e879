"""Compiled engines kept from one start to the next, and shared by the workers of one machine.

``cache_dir/engines/<place>/<key>/`` is a folder as :mod:`fitserve.store.engines` has it. The place is one for each
path of a model: a confined server may write there and nowhere else, so that no model reaches what another will
be computed by. Nothing here raises where the disk is full, read-only or gone: then nothing is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.store.files import Folder, open_path, write_folder
from fitserve.urls import SourceUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fitserve.settings import Settings

logger = logging.getLogger(__name__)

MAX_CACHE_BYTES = 2 * 2**30
"""What all engines of a cache may hold: those used longest ago go first."""

ABANDONED_S = 3600.0
"""A half-written folder older than this was left by a process that has died."""

_POLL_S = 0.2
_USED = ".used"


@dataclass(frozen=True, slots=True)
class EngineCache:
    """The engines of the models that were at one path. Any process, any thread.

    Attributes:
        folder: of this path.
    """

    folder: Path

    def get(self, key: str) -> dict[str, bytes] | None:
        """The files of an entry, by name; None if there is none that can be read."""
        entry = self.folder / key
        try:
            opened = open_path(entry)
            if not isinstance(opened, Folder):
                return None
            with opened as folder:
                files = {name: folder.read(name) for name in folder.files}
        except (ArtifactError, OSError):
            return None
        with contextlib.suppress(OSError):
            (entry / _USED).write_bytes(b"\n")  # its time tells when: a confined process cannot set times
        return files

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keep an entry, whole or not at all, and make room for it."""
        self.remove(key)
        try:
            write_folder(self.folder / key, files, is_replacing=False)
        except ArtifactError as exc:
            logger.debug("compiled engines are not kept: %s", exc)
            return
        prune(self.folder.parent, keep=self.folder / key)

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        _remove(self.folder / key)

    @contextlib.contextmanager
    def locked(self, key: str, timeout_s: float, gives_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the lock of a key, so that one process compiles and the others take what it has made.

        It is freed however its holder ends. After ``timeout_s``, where ``gives_up`` says so, and where no lock can
        be made, the caller goes on without.
        """
        try:
            # 256 files serve all keys, so that two models hardly ever wait for each other: a lock file could not be
            # removed without a race.
            descriptor = os.open(self.folder / f".lock-{key[:2]}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            end = time.monotonic() + timeout_s
            while not _has_locked(descriptor) and time.monotonic() < end and not gives_up():
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def cache_of(settings: Settings, model_path: Path | SourceUrl | None) -> EngineCache | None:
    """The cache for the model at a path, or for those that have none; its folder is made.

    None where there is no place that only this user can write to: what lies there becomes code, in effect.
    """
    root = _root(settings)
    if root is None:
        logger.debug("compiled engines are not kept: there is no home folder; cache_dir names another")
        return None
    folder = root / _place(model_path)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        if not folder.is_dir():
            logger.debug("compiled engines are not kept: the cache folder cannot be made: %s", exc.strerror)
            return None
    if not (_is_ours(root) and _is_ours(folder)):
        logger.debug("compiled engines are not kept: others can write to the cache folder")
        return None
    return EngineCache(folder)


def _place(model_path: Path | SourceUrl | None) -> str:
    if isinstance(model_path, SourceUrl):
        return model_path.key
    return "live" if model_path is None else hashlib.sha256(os.fsencode(model_path.absolute())).hexdigest()[:16]


def _root(settings: Settings) -> Path | None:
    root = cache_root(settings)
    return None if root is None else root / "engines"


def cache_root(settings: Settings) -> Path | None:
    """``cache_dir``, or what stands for it; None where there is no home folder. Nothing is made."""
    if settings.cache_dir is not None:
        return settings.cache_dir.absolute()
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "fitserve"
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        if home.is_dir() and home != Path("/"):
            return home / ".cache" / "fitserve"
    return None


def _is_ours(folder: Path) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid in {os.geteuid(), 0} and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def prune(root: Path, *, limit_bytes: int = MAX_CACHE_BYTES, keep: Path | None = None) -> None:
    """Remove the entries that were used longest ago, until all of a cache are within a limit; and what was left behind.

    Args:
        root: of the cache; entries that this process may not remove stay.
        limit_bytes: what the entries may hold together.
        keep: an entry that stays whatever its size.
    """
    found = []
    for entry in _entries(root):
        used_s, size = _used_and_size(entry)
        if not entry.name.startswith("."):
            found.append((entry == keep, used_s, size, entry))
        elif entry.is_dir() and time.time() - used_s > ABANDONED_S:
            shutil.rmtree(entry, ignore_errors=True)
    total = 0
    for _, _, size, entry in sorted(found, reverse=True):
        total += size
        if total > limit_bytes and entry != keep:
            _remove(entry)


def _entries(root: Path) -> Iterator[Path]:
    try:
        places = list(root.iterdir())
    except OSError:
        return
    for place in places:
        with contextlib.suppress(OSError):
            yield from list(place.iterdir())


def _used_and_size(entry: Path) -> tuple[float, int]:
    used_s, size = 0.0, 0
    with contextlib.suppress(OSError):
        used_s = entry.stat().st_mtime
        for file in entry.iterdir():
            status = file.stat()
            size += status.st_size
            used_s = max(used_s, status.st_mtime)
    return used_s, size


def _remove(entry: Path) -> None:
    """Take an entry out of sight at once, then remove its files."""
    gone = entry.with_name(f".gone-{os.getpid()}-{entry.name}")
    with contextlib.suppress(OSError):
        entry.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        gone.unlink()  # something else than an entry was in its place
