"""Locks that the kernel lets go when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_POLL_S = 0.002
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be. Blocks: not for an event loop.

    Processes exclude each other, and so do the threads of one. A process that is killed lets go.

    Args:
        path: of the file; nothing is written into it.
        wait_s: how long to wait for whoever holds it.

    Raises:
        TimeoutError: it was held all that time.
        OSError: the file cannot be opened.
    """
    file = try_lock(path, wait_s=wait_s)
    if file is None:
        msg = f"another process has held the lock {path} for {wait_s:g} s"
        raise TimeoutError(msg)
    try:
        yield
    finally:
        unlock(file)


def try_lock(path: Path, *, wait_s: float = 0.0) -> int | None:
    """The descriptor of a file that is now locked by it; None if it was held for so long. :func:`unlock` ends it.

    Raises:
        OSError: the file cannot be opened.
    """
    file = os.open(path, _FLAGS, 0o600)
    end = time.monotonic() + wait_s
    try:
        while not _has_locked(file, fcntl.LOCK_EX):
            if time.monotonic() >= end:
                os.close(file)
                return None
            time.sleep(_POLL_S)
    except BaseException:
        os.close(file)
        raise
    return file


def unlock(file: int) -> None:
    """Let go of a lock of :func:`try_lock`, also where a copy of the process still has the descriptor."""
    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def is_held(file: int) -> bool:
    """Whether somebody else has locked an open file. The shared lock that asks does not hinder others that ask.

    It is kept until the descriptor is closed: for a moment, nobody else can lock the file.
    """
    return not _has_locked(file, fcntl.LOCK_SH)


def is_locked(path: Path) -> bool:
    """Whether somebody has locked the file at a path.

    Raises:
        OSError: there is none, or it cannot be opened.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return is_held(file)
    finally:
        os.close(file)


def _has_locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
