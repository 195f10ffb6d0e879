"""seccomp: which system calls a process may make, as a filter that the kernel runs before each.

An allow-list: docs/decisions/0009-confinement.md says why. A refused call answers EPERM and kills
nothing, so that a library that could do without goes on.

Source: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fitserve.confine import calls
from fitserve.confine.kernel import syscall

if TYPE_CHECKING:
    from fitserve.confine.kernel import Machine

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_SET_FILTER, _ALL_THREADS = 1, 1

# Instructions of classic BPF. Source: linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_GREATER, _IF_NOT_LESS = 0x15, 0x25, 0x35
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

# Offsets in struct seccomp_data; both machines are little-endian.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x10000
_CLONE_OTHERWISE = 0x7E022000  # namespaces of its own, and to be traced
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_TYPE = 1, 2, 0xF
_MSG_FASTOPEN = 0x20000000  # connects within sendmsg, which Landlock has not always seen
_TERMINAL_IOCTLS = (0x5401, 0x802C542A, 0x5413)  # TCGETS, TCGETS2, TIOCGWINSZ: is it one, and how wide
_FILE_IOCTLS = (0x541B, 0x5421, 0x5450, 0x5451)  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 36, 37, 38, 1030, 1031, 1032, 1033, 1034)
"""Copies, flags, locks, pipe sizes and seals; not F_SETOWN and F_SETSIG, which have signals sent to others."""
_PRCTLS = (2, 3, 15, 16, 21, 23, 30, 38, 39, 41, 42, 51, 64, 0x53564D41)
"""Names, reading of what is set, THP, vector lengths; not the death signal, by which a child ends with its template."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction)))


Code = list[tuple[int, int, int, int]]
"""Instructions: what, how many to skip if yes, how many if no, constant."""


@dataclass(frozen=True, slots=True)
class _Test:
    """A word of an argument, after ``& mask``, must be one of ``values``. Arguments that the kernel takes as int."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    is_upper: bool = False

    def code(self) -> Code:
        offset = _ARGUMENTS + 8 * self.argument + 4 * self.is_upper
        skips = range(len(self.values), 0, -1)
        jumps = [(_IF_EQUAL, skip, 0, value) for skip, value in zip(skips, self.values, strict=True)]
        return [(_LOAD, 0, 0, offset), (_AND, 0, 0, self.mask), *jumps, _refuse(errno.EPERM)]


_READS_LIMITS = (_Test(2, (0,)), _Test(2, (0,), is_upper=True))


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)


def _tests(*, tcp: bool, udp: bool, memory_files: bool, sets_limits: bool, forks: bool) -> dict[str, tuple[_Test, ...]]:
    """What the arguments of a call must be. A call that is not here is refused."""
    own = (os.getpid(),)
    tests = {
        "clone": (_Test(0, (_CLONE_THREAD,), mask=_CLONE_THREAD),),
        "kill": (_Test(0, own),),
        "tgkill": (_Test(0, own),),
        # Its own, and read, unless they may still be lowered; without capabilities nobody raises one.
        "prlimit64": (_Test(0, (0, *own)), *(() if sets_limits else _READS_LIMITS)),
        "prctl": (_Test(0, _PRCTLS),),
        "ioctl": (_Test(1, _TERMINAL_IOCTLS + _FILE_IOCTLS),),
        "fcntl": (_Test(1, _FCNTLS),),
        "sendto": (_Test(3, (0,), mask=_MSG_FASTOPEN),),
        "sendmsg": (_Test(2, (0,), mask=_MSG_FASTOPEN),),
        "sendmmsg": (_Test(3, (0,), mask=_MSG_FASTOPEN),),
        # No datagram pair: its ends can be sent from to any socket in the file system.
        "socketpair": (_Test(0, (_AF_UNIX,)), _Test(1, (_SOCK_STREAM,), mask=_SOCK_TYPE)),
    }
    if tcp:
        kinds, protocols = ((_SOCK_STREAM, _SOCK_DGRAM), (0, 6, 17)) if udp else ((_SOCK_STREAM,), (0, 6))
        family = _Test(0, (_AF_INET, _AF_INET6))
        tests["socket"] = (family, _Test(1, kinds, mask=_SOCK_TYPE), _Test(2, protocols))
        tests["connect"] = ()
    if memory_files:
        tests["memfd_create"] = ()
    if forks:
        # A copy is under this filter too, and must be able to send itself signals, by a number not known yet; and to
        # take a filter in addition, by which nothing is won.
        fork = (_Test(0, (0,), mask=_CLONE_OTHERWISE),)
        tests |= {"clone": fork, "fork": (), "kill": (), "tgkill": (), "seccomp": ()}
    return tests


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """The numbers as runs of neighbours, (first, last)."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def make_filter(
    machine: Machine,
    *,
    changes_folders: bool,
    tcp: bool = False,
    udp: bool = False,
    memory_files: bool = True,
    sets_limits: bool = False,
    forks: bool = False,
) -> Code:
    """The filter for the calling process, whose id it holds.

    Args:
        machine: the processor.
        changes_folders: files may be made, renamed and removed, where Landlock lets them.
        tcp: sockets may be made and connected, where Landlock lets them.
        udp: of datagrams too; needed to look names up.
        memory_files: files in memory may be made. They do not count as address space.
        sets_limits: the process may still lower its limits.
        forks: it may make copies of itself, and send signals.
    """
    numbers = calls.conditional(machine)
    tests = _tests(tcp=tcp, udp=udp, memory_files=memory_files, sets_limits=sets_limits, forks=forks)
    code: Code = [
        (_LOAD, 0, 0, _MACHINE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        _refuse(errno.EPERM),  # the calls of another architecture, such as i386's on x86-64
        (_LOAD, 0, 0, _NUMBER),
    ]
    for name in ("clone3", "io_uring_setup"):  # libc and libuv take the older ways
        code += [(_IF_EQUAL, 0, 1, numbers[name]), _refuse(errno.ENOSYS)]
    for name, conditions in tests.items():
        if name not in numbers:  # this machine has no such call
            continue
        block = [step for test in conditions for step in test.code()] + [(_RETURN, 0, 0, _ALLOW)]
        code += [(_IF_EQUAL, 0, len(block), numbers[name]), *block]
    for first, last in _ranges(set(calls.allowed(machine, changes_folders=changes_folders).values())):
        code += [(_IF_NOT_LESS, 0, 2, first), (_IF_GREATER, 1, 0, last), (_RETURN, 0, 0, _ALLOW)]
    # Also the calls of x32, whose numbers have bit 30 set.
    code += [(_IF_GREATER, 1, 0, calls.NEWEST), _refuse(errno.EPERM), _refuse(errno.ENOSYS)]
    return code


def install(machine: Machine, code: Code) -> None:
    """Put every thread of this process under the filter, for good. ``no_new_privs`` must be set.

    Raises:
        OSError: the kernel has no seccomp, or a thread has a filter that the others lack.
    """
    instructions = (_Instruction * len(code))(*(_Instruction(*step) for step in code))
    program = _Program(len(code), instructions)
    stranger = syscall(_SECCOMP[machine], _SET_FILTER, _ALL_THREADS, ctypes.pointer(program))
    if stranger:
        raise OSError(errno.EBUSY, f"thread {stranger} has a seccomp filter of its own")
