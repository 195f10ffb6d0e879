"""The runtime folder: where the processes of one server keep what they share while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from fitserve.shared_state.locks import is_locked
from fitserve.shared_state.process import process_facts

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder that is made in it is private
"""Preferred: where a file lies on a disk, the kernel may let a process that writes into its map wait for the disk."""

PREFIX = "fitserve-run-"

STALE_AFTER_S = 3600.0
"""A folder in which nothing was made for so long, and whose processes have all ended, is removed by the next server."""

_HELD = ("*.cells", "members/*")
"""Files that a process of the server locks as long as it lives."""


def server_folder(pid: int) -> Path:
    """The private folder of the processes that one parent starts, made if need be.

    In shared memory if there is any. Folders of servers that are gone are removed.

    Args:
        pid: of the parent.

    Raises:
        OSError: there is no place where one is safe.
    """
    facts = process_facts(pid)
    if facts is None:
        msg = f"when process {pid} started is not known"
        raise OSError(msg)
    for place in (SHARED_MEMORY, tempfile.gettempdir()):
        folder = Path(place, f"{PREFIX}{os.geteuid()}-{pid}-{facts.started_ticks}")
        try:
            if not folder.exists():
                _sweep(Path(place))
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_private(folder):
                return folder
        except OSError:
            continue
    msg = f"neither in {SHARED_MEMORY} nor in {tempfile.gettempdir()} is there a safe place for a folder of theirs"
    raise OSError(msg)


def is_private(folder: Path) -> bool:
    """Whether nobody else can look into it, or put another in its place.

    Raises:
        OSError: it is not there.
    """
    own, place = folder.lstat(), folder.parent.stat()
    is_ours = stat.S_ISDIR(own.st_mode) and own.st_uid == os.geteuid() and not own.st_mode & 0o077
    is_fixed = not place.st_mode & 0o022 or place.st_mode & stat.S_ISVTX
    return is_ours and bool(is_fixed) and place.st_uid in {0, os.geteuid()}


def _sweep(place: Path) -> None:
    """Remove the folders of servers that have ended."""
    for folder in place.glob(f"{PREFIX}{os.geteuid()}-*"):
        with contextlib.suppress(OSError):
            is_stale = time.time() - folder.lstat().st_mtime > STALE_AFTER_S and is_private(folder)
            if is_stale and not _is_in_use(folder):
                shutil.rmtree(folder)


def _is_in_use(folder: Path) -> bool:
    """Whether its parent runs, or one of its processes: locks tell that, whichever container they run in."""
    pid, _, started = folder.name.removeprefix(f"{PREFIX}{os.geteuid()}-").partition("-")
    facts = process_facts(int(pid)) if pid.isdecimal() else None
    if facts is not None and str(facts.started_ticks) == started:
        return True
    return any(is_locked(file) for pattern in _HELD for file in folder.glob(pattern))
