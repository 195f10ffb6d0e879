"""What the kernel tells of a server's processes, from outside. Linux only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

NOT_SERVING = re.compile(r"resource_tracker|confine/template")

ESTABLISHED = "01"


@dataclass(frozen=True)
class Facts:
    """What one process holds."""

    n_fds: int
    n_threads: int
    rss_bytes: int
    pss_bytes: int


def tree(pid: int) -> list[int]:
    """A process and all below it, whoever their parents were."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(entry)[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return [one for one in found if one in parents and _stat(Path(f"/proc/{one}"), "Z")[0] != "Z"]


def _stat(entry: Path, without: str = "") -> list[str]:
    """State, parent, …; Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        if without:
            return [without]
        raise


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def facts(pid: int) -> Facts | None:
    """What a process holds; None if it has gone."""
    folder = Path(f"/proc/{pid}")
    try:
        rollup = (folder / "smaps_rollup").read_text()
        return Facts(
            len(list((folder / "fd").iterdir())),
            len(list((folder / "task").iterdir())),
            _kib(rollup, "Rss") * 1024,
            _kib(rollup, "Pss") * 1024,
        )
    except OSError:
        return None


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}: *(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def pss_bytes(pid: int) -> int:
    """The proportional memory of a whole tree: what is shared counts once."""
    return sum(found.pss_bytes for found in map(facts, tree(pid)) if found)


def clients_of(port: int, pids: list[int]) -> dict[int, set[int]]:
    """For each process, the ports of the clients that it is connected to on a listening port.

    The inode of a socket is in the link of its descriptor. Source: https://docs.kernel.org/networking/proc_net_tcp.html
    """
    by_inode = _client_ports(port)
    return {pid: {by_inode[inode] for inode in _sockets(pid) if inode in by_inode} for pid in pids}


def _client_ports(port: int) -> dict[str, int]:
    """By the inode of a connection on a listening port, the port of its client."""
    by_inode = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port and fields[3] != "0A":
            by_inode[fields[9]] = int(fields[2].partition(":")[2], 16)
    return by_inode


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def spread(port: int, pids: list[int]) -> Counter[int]:
    """How many connections each process has."""
    return Counter({pid: len(clients) for pid, clients in clients_of(port, pids).items()})


def freeze_and_kill(pid: int, port: int) -> frozenset[int]:
    """Kill a process as the kernel would; tell which clients it was connected to at its last moment.

    It is stopped first, so that no connection comes in between. Reading the kernel's table takes tens of milliseconds,
    so that is done before if possible.
    """
    before = _sockets(pid)
    known = _client_ports(port)
    os.kill(pid, signal.SIGSTOP)
    try:
        held = _sockets(pid)
        if held - before - known.keys():  # came since
            known = _client_ports(port)
        return frozenset(known[inode] for inode in held if inode in known)
    finally:
        os.kill(pid, signal.SIGKILL)
