"""The filter itself, run by a small interpreter: so also for the processor that the tests do not run on."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from fitserve.confine import calls
from fitserve.confine.seccomp import make_filter

ALLOWED = "allowed"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EXECVE = {"x86_64": 59, "aarch64": 221}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decide(code: list, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> str:
    """What the kernel does when it runs the filter: ``allowed``, or the name of the error."""
    words = {0: number, 4: architecture}
    for i in range(6):
        value = (arguments[i] if i < len(arguments) else 0) & (1 << 64) - 1
        words |= {16 + 8 * i: value & 0xFFFFFFFF, 20 + 8 * i: value >> 32}
    register, place = 0, 0
    while True:
        what, yes, no, k = code[place]
        place += 1
        if what == 0x20:
            register = words[k]
        elif what == 0x54:
            register &= k
        elif what == 0x06:
            return ALLOWED if k == 0x7FFF0000 else errno.errorcode[k & 0xFFFF]
        else:
            is_so = {0x15: register == k, 0x25: register > k, 0x35: register >= k}[what]
            place += yes if is_so else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request) -> str:
    return request.param


@pytest.fixture
def judge(machine):
    """Ask a filter about a call by name."""

    def ask(name: str, *arguments: int, **options: bool) -> str:
        code = make_filter(machine, **{"changes_folders": False} | options)
        number = (calls.conditional(machine) | calls.allowed(machine, changes_folders=True))[name]
        return decide(code, number, ARCHITECTURES[machine], arguments)

    return ask


def test_the_numbers_are_those_of_the_kernel(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed: nothing to compare with")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", HEADERS[machine].read_text())
    kernel = {{"fstatat": "newfstatat"}.get(name, name): int(number) for name, number in defined}

    ours = calls.conditional(machine) | calls.allowed(machine, changes_folders=True)

    assert ours == {name: kernel.get(name) for name in ours}


def test_every_other_call_is_refused(machine):
    code = make_filter(machine, changes_folders=True, tcp=True, udp=True)
    known = calls.conditional(machine) | calls.allowed(machine, changes_folders=True)
    others = set(range(calls.NEWEST + 1)) - set(known.values())

    decisions = {decide(code, number, ARCHITECTURES[machine]) for number in others}

    assert decisions == {"EPERM"}
    assert EXECVE[machine] in others


@pytest.mark.parametrize("number", [calls.NEWEST + 1, 0x40000000, 0x40000000 + 520, 0xFFFFFFFF])
def test_calls_newer_than_the_list_and_those_of_x32_seem_not_to_exist(machine, number):
    assert decide(make_filter(machine, changes_folders=True), number, ARCHITECTURES[machine]) == "ENOSYS"


@pytest.mark.parametrize("architecture", [0x40000003, 0x40000028, 0])
def test_calls_of_another_architecture_are_refused(machine, architecture):
    code = make_filter(machine, changes_folders=True)

    assert {decide(code, number, architecture) for number in range(500)} == {"EPERM"}


def test_what_a_server_needs_is_allowed(judge):
    for name in ("read", "openat", "mmap", "futex", "epoll_ctl", "accept4", "recvfrom", "setsockopt", "exit_group"):
        assert judge(name) == ALLOWED


def test_folders_change_only_where_something_is_writable(judge):
    for name in ("mkdirat", "unlinkat", "renameat2", "linkat", "symlinkat", "truncate"):
        assert judge(name) == "EPERM"
        assert judge(name, changes_folders=True) == ALLOWED


def test_threads_are_started_and_processes_are_not(judge):
    assert judge("clone", 0x3D0F00) == ALLOWED
    assert judge("clone", 17) == "EPERM"
    assert judge("clone", 0x4111) == "EPERM"
    assert judge("clone3", 1, 88) == "ENOSYS"


def test_signals_go_to_this_process(judge):
    for name in ("kill", "tgkill"):
        assert judge(name, os.getpid(), 1) == ALLOWED
        assert {judge(name, pid, 1) for pid in (0, 1, -1, -os.getpid(), os.getpid() + 1)} == {"EPERM"}


def test_limits_are_read_and_not_set(judge):
    assert judge("prlimit64", 0, 7, 0, 0x7FFF0000) == ALLOWED
    assert judge("prlimit64", 1, 7, 0, 0x7FFF0000) == "EPERM"
    assert judge("prlimit64", 0, 7, 0x7FFF0000, 0) == "EPERM"
    assert judge("prlimit64", 0, 7, 0x7FFF << 32, 0) == "EPERM"


def test_sockets_are_made_only_to_connect(judge):
    stream, datagram = 1 | 0x80000, 2 | 0x800
    assert judge("socket", 2, stream, 0) == judge("connect", 3) == "EPERM"
    assert judge("socket", 2, stream, 0, tcp=True) == judge("socket", 10, stream, 6, tcp=True) == ALLOWED
    assert judge("connect", 3, tcp=True) == ALLOWED
    assert judge("socket", 2, datagram, 17, tcp=True) == "EPERM"
    assert judge("socket", 2, datagram, 17, tcp=True, udp=True) == ALLOWED
    for family, kind, protocol in ((1, 1, 0), (16, 3, 0), (17, 3, 0), (2, 3, 1), (2, 1, 262), (2, 1, 132), (40, 1, 0)):
        assert judge("socket", family, kind, protocol, tcp=True, udp=True) == "EPERM"


def test_pairs_are_streams(judge):
    assert judge("socketpair", 1, 1 | 0x80000) == ALLOWED
    assert judge("socketpair", 1, 2) == judge("socketpair", 1, 5) == judge("socketpair", 2, 1) == "EPERM"


def test_sending_does_not_connect(judge):
    assert judge("sendto", 3, 0, 0, 0x4000) == judge("sendmsg", 3, 0, 0x4000) == ALLOWED
    assert judge("sendto", 3, 0, 0, 0x20000000) == judge("sendmsg", 3, 0, 0x20004000) == "EPERM"
    assert judge("sendmmsg", 3, 0, 1, 0x20000000) == "EPERM"


def test_the_death_signal_stays(judge):
    assert judge("prctl", 15, 0) == ALLOWED
    assert judge("prctl", 1, 0) == judge("prctl", 22, 1) == "EPERM"


def test_terminals_are_not_typed_into(judge):
    assert judge("ioctl", 1, 0x5401) == judge("ioctl", 3, 0x5421) == ALLOWED
    assert judge("ioctl", 1, 0x5412) == judge("ioctl", 1, 0x541C) == judge("ioctl", 1, 0x8901) == "EPERM"
