"""Processes that a test forks, and that end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator

PATIENCE_S = 60.0


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """A copy of this process that does something and ends; it is killed at the end if it has not."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # the copies use none of our threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - all of it is told
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    try:
        yield pid
    finally:
        with contextlib.suppress(ChildProcessError):  # it has been waited for
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                kill(pid)


def kill(pid: int) -> None:
    """Kill a child, and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def ended(pid: int) -> int:
    """Wait for the end of a child, and return how it exited: 0 is well, -9 by SIGKILL."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.001)
