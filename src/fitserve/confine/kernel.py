"""System calls that Python has no name for, by ctypes. Linux on x86-64 and aarch64 only."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache
from typing import Literal, TypeAlias

Machine: TypeAlias = Literal["x86_64", "aarch64"]

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


def machine() -> Machine | None:
    """The processor whose system call numbers apply to this process, or None where they are not known."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:  # a 32-bit process has numbers of its own
        return None
    name = platform.machine()
    return name if name in ("x86_64", "aarch64") else None  # type: ignore[return-value]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | ctypes._Pointer[ctypes.Structure] | None) -> int:
    """Make a system call. Integers are passed as words of 64 bits, so that none is cut.

    Raises:
        OSError: it failed.
    """
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc().syscall(ctypes.c_long(number), *words)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def prctl(option: int, value: int) -> None:
    """Set a property of the calling process.

    Raises:
        OSError: it failed.
    """
    rest = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
    if _libc().prctl(ctypes.c_int(option), *rest) == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
