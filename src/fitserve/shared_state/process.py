"""What the kernel tells of a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process, now.

    Attributes:
        started_ticks: when it started, in clock ticks since the machine did. With the pid it names a
            process for good, which the pid alone does not.
        cpu_s: processor time, its own and the kernel's for it.
        resident_bytes: memory in use.
    """

    started_ticks: int
    cpu_s: float
    resident_bytes: int


def process_facts(pid: int) -> ProcessFacts | None:
    """Look at a process; None if there is none, or on a system without ``/proc``.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything; the next is the third field
    user, system, started, pages = (int(fields[number - 3]) for number in (14, 15, 22, 24))
    return ProcessFacts(started, (user + system) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGESIZE"))
