"""A process gives up, for good, all that it does not need."""

from __future__ import annotations

import ipaddress
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from fitserve.confine import landlock, seccomp
from fitserve.confine.kernel import PR_SET_NO_NEW_PRIVS, drop_capabilities, machine, prctl
from fitserve.confine.limits import set_limits


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a confined process may do besides computing and reading files.

    Attributes:
        writable: folders below which files may be made, changed and removed; or single files and
            devices, which may be changed. ``/dev/null`` always may. Modes, owners and times of
            files stay as they are made.
        connect: hosts and ports that it may connect to. The kernel compares ports only (Landlock
            cannot see addresses): a host stands here for the reader, and because a name, other
            than an address, needs UDP to be looked up, which is then open to every address.
        memory_bytes: address space beyond what it has at entry, or None for no bound. A thread
            takes about 8 MiB of it. If it is bounded, files in memory cannot be made.
        cpu_s: seconds of processor time from now on, of all threads together.
        file_bytes: how large a file may grow.
        open_files: how many files and sockets may be open at once.
        may_tighten: entering again may lower the limits, and nothing else: for a process that is confined
            before it knows how much memory its task may take.
        may_fork: it may make copies of itself, wait for them and send signals, until :func:`end_forking`: for a
            process that loads a model for others that will serve it. Landlock 6 keeps signals within the copies.
    """

    writable: tuple[Path, ...] = ()
    connect: tuple[tuple[str, int], ...] = ()
    memory_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    may_tighten: bool = False
    may_fork: bool = False


@dataclass(frozen=True, slots=True)
class Confinement:
    """What was reached.

    Attributes:
        landlock_abi: version of Landlock that is in force, or None.
        has_seccomp: system calls are filtered.
        missing: what this kernel cannot do, in words; empty if all was reached.
    """

    landlock_abi: int | None
    has_seccomp: bool
    missing: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a person: ``Landlock 7, seccomp``, or ``off: …``."""
        if self.landlock_abi is None and not self.has_seccomp:
            return f"off: missing {'; '.join(self.missing)}"
        reached = [] if self.landlock_abi is None else [f"Landlock {self.landlock_abi}"]
        reached += ["seccomp"] if self.has_seccomp else []
        lacks = f"; missing: {'; '.join(self.missing)}" if self.missing else ""
        return ", ".join(reached) + lacks


_SEMAPHORES = Path("/dev/shm")  # noqa: S108 - where libc keeps them
_entered: Sandbox | None = None
_reached: Confinement | None = None


def entered() -> Sandbox | None:
    """The sandbox that this process is in, if any."""
    return _entered


def enter(sandbox: Sandbox) -> Confinement:
    """Confine this process, irrevocably, to what ``sandbox`` says.

    It may compute besides, read files, and serve on sockets that it has. Refused are other
    programs and processes (``execve``, ``fork``, signals, ``ptrace``), every other change of the
    file system, new sockets, and the administration of the machine. Root keeps no capability but
    those to read files.

    Threads go on working, and new ones can be started. seccomp covers the threads that run
    already; Landlock does so since ABI 8 only, so enter before any are started: those that ran
    are counted in ``missing``. Enter before joblib is imported, too: the semaphores of its pools are
    files in ``/dev/shm``. Unless that is writable, ``JOBLIB_MULTIPROCESSING=0`` is put into the
    environment, by which a model with ``n_jobs`` does its work in one thread.
    Call once per process, or again where the first sandbox ``may_tighten``.

    Raises:
        RuntimeError: this process is in a sandbox already, which cannot be tightened or allows less.
        OSError: a path of ``writable`` does not exist. Nothing has been restricted then.
    """
    global _entered, _reached
    if _entered is not None:
        return _tighten(_entered, sandbox)
    abi, why_not = landlock.landlock_abi()
    ports = {port for _, port in sandbox.connect}
    rules = None if abi is None else landlock.make_ruleset(abi, sandbox.writable, ports)
    missing: list[str] = []
    try:
        missing += set_limits(
            memory_bytes=sandbox.memory_bytes,
            cpu_s=sandbox.cpu_s,
            file_bytes=sandbox.file_bytes,
            open_files=sandbox.open_files,
        )
        if abi is not None and rules is not None:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            abi, lacks = _landlock(rules, abi, sandbox)
            missing += lacks
        else:
            missing.append(why_not)
    finally:
        if rules is not None:
            os.close(rules)
    if _SEMAPHORES not in sandbox.writable:
        os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")
    has_seccomp, lacks = _seccomp(sandbox)
    _entered, _reached = sandbox, Confinement(abi, has_seccomp, (*missing, *lacks))
    return _reached


def _tighten(entered: Sandbox, sandbox: Sandbox) -> Confinement:
    """Lower the limits of a process that is confined; for good, unless it may tighten again."""
    global _entered  # noqa: PLW0603 - a property of the process
    is_inside = all(any(path.is_relative_to(outer) for outer in entered.writable) for path in sandbox.writable)
    if not (entered.may_tighten and is_inside and set(sandbox.connect) <= set(entered.connect)):
        msg = "this process has entered a sandbox already, which allows less"
        raise RuntimeError(msg)
    missing = set_limits(
        memory_bytes=sandbox.memory_bytes,
        cpu_s=sandbox.cpu_s,
        file_bytes=sandbox.file_bytes,
        open_files=sandbox.open_files,
    )
    assert _reached is not None  # with _entered
    _entered = sandbox
    return replace(_reached, missing=(*_reached.missing, *missing))


def end_forking() -> Confinement | None:
    """Give up for good what ``may_fork`` has left open; in a copy, or in the process itself. Covers all threads.

    Returns:
        What is in force now; None if this process has not been confined.

    Raises:
        RuntimeError: this process may not fork as it is.
    """
    global _entered, _reached  # noqa: PLW0603 - a property of the process
    if _entered is None or _reached is None:
        return None
    if not _entered.may_fork:
        msg = "this process may not fork as it is"
        raise RuntimeError(msg)
    _entered = replace(_entered, may_fork=False)
    if _reached.has_seccomp:
        has_second, lacks = _seccomp(_entered, drops=False)  # what either filter refuses is refused
        _reached = replace(_reached, has_seccomp=has_second, missing=(*_reached.missing, *lacks))
    return _reached


def _landlock(rules: int, abi: int, sandbox: Sandbox) -> tuple[int | None, list[str]]:
    try:
        landlock.restrict(rules, abi)
    except OSError as exc:
        return None, [f"Landlock ({exc.strerror})"]
    missing = []
    if abi < landlock.ABI_TRUNCATE:
        missing.append("refusal to truncate files (Landlock 3)")
    if abi < landlock.ABI_NET and sandbox.connect:
        missing.append("the choice of ports (Landlock 4)")
    before = 0 if abi >= landlock.ABI_ALL_THREADS else _older_threads()
    if before:
        missing.append(f"Landlock for {before} threads that ran before (Landlock 8)")
    return abi, missing


def _older_threads() -> int:
    """How many threads this process has besides the calling one."""
    try:
        return len(os.listdir("/proc/self/task")) - 1  # noqa: PTH208 - their number is enough
    except OSError:  # /proc is not mounted
        return threading.active_count() - 1


def _seccomp(sandbox: Sandbox, *, drops: bool = True) -> tuple[bool, list[str]]:
    processor = machine()
    if processor is None:
        return False, ["seccomp (it is known on 64-bit Linux for x86-64 and aarch64 only)"]
    code = seccomp.make_filter(
        processor,
        changes_folders=bool(sandbox.writable),
        tcp=bool(sandbox.connect),
        udp=any(not _is_address(host) for host, _ in sandbox.connect),
        memory_files=sandbox.memory_bytes is None and not sandbox.may_tighten,
        sets_limits=sandbox.may_tighten,
        forks=sandbox.may_fork,
    )
    try:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if drops:
            drop_capabilities(processor)
        seccomp.install(processor, code)
    except OSError as exc:
        return False, [f"seccomp ({exc.strerror})"]
    return True, []


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
