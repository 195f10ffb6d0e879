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
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


def machine() -> Machine | None:
    """The processor whose system call numbers apply to this process, or None where they are not known."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:  # a 32-bit process has numbers of its own
        return None
    name = platform.machine()
    return name if name in ("x86_64", "aarch64") else None  # type: ignore[return-value]


KEPT_CAPABILITIES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root goes on reading the files that it could read."""

_CAPGET = {"x86_64": 125, "aarch64": 90}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWord(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


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


def set_name(name: str) -> None:
    """Name the calling thread, and with it its process in lists of processes; up to 15 bytes of it are kept.

    Raises:
        OSError: it failed.
    """
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def drop_capabilities(processor: Machine) -> None:
    """Give up what makes root more than a user, for the calling thread, except :data:`KEPT_CAPABILITIES`.

    With CAP_PERFMON, for one, the memory of other processes could be read in spite of Landlock.

    Raises:
        OSError: it failed.
    """
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    words = (_CapabilityWord * 2)()
    syscall(_CAPGET[processor], ctypes.pointer(header), ctypes.pointer(words[0]))
    kept = words[0].permitted & KEPT_CAPABILITIES
    words = (_CapabilityWord * 2)(_CapabilityWord(kept, kept, 0))
    syscall(_CAPSET[processor], ctypes.pointer(header), ctypes.pointer(words[0]))
