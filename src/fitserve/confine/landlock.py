"""Landlock: which files a process may write, and where it may connect to. Linux 5.13 and later.

Reading is left alone; execution, and every change of the file system, is handled and thereby
refused except where a rule allows it. Execution means ``execve``: shared libraries are mapped
as before.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

from fitserve.confine.kernel import machine, syscall

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The same numbers on every machine that Linux added after 2019.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_RULE_PATH, _RULE_PORT = 1, 2
_ALL_THREADS = 1 << 3  # LANDLOCK_RESTRICT_SELF_TSYNC

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR = 1 << 4, 1 << 5, 1 << 6, 1 << 7
_MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK = 1 << 8, 1 << 9, 1 << 10, 1 << 11
_MAKE_SYM, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

_READ = _READ_FILE | _READ_DIR
_CHANGE_FILE = _WRITE_FILE | _TRUNCATE
_CHANGE_FOLDER = _CHANGE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER

ABI_REFER, ABI_TRUNCATE, ABI_NET, ABI_IOCTL, ABI_SCOPE, ABI_ALL_THREADS = 2, 3, 4, 5, 6, 8
"""The version of the interface since which each thing can be refused."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def landlock_abi() -> tuple[int | None, str]:
    """The version of the kernel's interface; or None, and why there is none."""
    if machine() is None:
        return None, "Landlock (it is known on 64-bit Linux for x86-64 and aarch64 only)"
    try:
        return syscall(_CREATE_RULESET, None, 0, _ASK_VERSION), ""
    except OSError as exc:
        off = exc.errno == errno.EOPNOTSUPP
        return None, "Landlock (the kernel has it, but it was not switched on: lsm=landlock)" if off else "Landlock"


def _handled(abi: int) -> _Ruleset:
    files = (_IOCTL_DEV << 1) - 1
    if abi < ABI_IOCTL:
        files &= ~_IOCTL_DEV
    if abi < ABI_TRUNCATE:
        files &= ~_TRUNCATE
    if abi < ABI_REFER:  # moving between folders is then always refused
        files &= ~_REFER
    ports = _BIND_TCP | _CONNECT_TCP if abi >= ABI_NET else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= ABI_SCOPE else 0
    return _Ruleset(files, ports, scoped)


def _size(abi: int) -> int:
    """Bytes of the ruleset that a kernel of this version knows; it refuses a longer one whose rest is not zero."""
    members = 1 + (abi >= ABI_NET) + (abi >= ABI_SCOPE)
    return members * ctypes.sizeof(ctypes.c_uint64)


def make_ruleset(abi: int, writable: Iterable[Path], ports: Iterable[int]) -> int:
    """Prepare rules and return their file descriptor, which the caller closes. Nothing is restricted yet.

    Raises:
        OSError: a writable path does not exist, or the kernel refuses a rule.
    """
    handled = _handled(abi)
    rules = syscall(_CREATE_RULESET, ctypes.pointer(handled), _size(abi), 0)
    try:
        _allow(rules, "/", handled.fs & _READ)
        _allow(rules, os.devnull, handled.fs & _CHANGE_FILE)
        for path in writable:
            right = _CHANGE_FOLDER if stat.S_ISDIR(path.stat().st_mode) else _CHANGE_FILE
            _allow(rules, os.fspath(path), handled.fs & right)
        if abi >= ABI_NET:
            for port in ports:
                syscall(_ADD_RULE, rules, _RULE_PORT, ctypes.pointer(_PortRule(_CONNECT_TCP, port)), 0)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _allow(rules: int, path: str, right: int) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscall(_ADD_RULE, rules, _RULE_PATH, ctypes.pointer(_PathRule(right, folder)), 0)
    finally:
        os.close(folder)


def restrict(rules: int, abi: int) -> None:
    """Put the calling thread, and those it starts from now on, under the rules; since ABI 8, every thread.

    ``no_new_privs`` must be set.

    Raises:
        OSError: the kernel refuses, for example because 16 rulesets are in force already.
    """
    syscall(_RESTRICT_SELF, rules, _ALL_THREADS if abi >= ABI_ALL_THREADS else 0)
