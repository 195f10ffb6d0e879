"""Resource limits (setrlimit), counted from what the process has used when they are set."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    _, ceiling = resource.getrlimit(kind)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def address_space_bytes() -> int:
    """The address space of this process; 0 where the kernel does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def set_limits(
    *, memory_bytes: int | None, cpu_s: int | None, file_bytes: int | None, open_files: int | None
) -> tuple[str, ...]:
    """Lower the limits of this process, and let it write no core file.

    A limit of processor time answers with SIGXCPU, and with SIGKILL a second later.

    Returns:
        What could not be set on this system.
    """
    used_s = math.ceil(time.process_time())
    wanted = {
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_CPU": None if cpu_s is None else (used_s + cpu_s, used_s + cpu_s + 1),
        "RLIMIT_FSIZE": None if file_bytes is None else (file_bytes, file_bytes),
        "RLIMIT_NOFILE": None if open_files is None else (open_files, open_files),
        "RLIMIT_AS": None if memory_bytes is None else (address_space_bytes() + memory_bytes,) * 2,
    }
    missing = []
    for name, pair in wanted.items():
        if pair is None:
            continue
        try:
            _lower(getattr(resource, name), *pair)
        except (AttributeError, ValueError, OSError):  # macOS does not bound address space
            missing.append(name)
    return tuple(missing)
