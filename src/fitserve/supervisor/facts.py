"""What a supervisor looks up about its workers. What they have written is taken for no more than it is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def private_bytes(pid: int) -> int | None:
    """Memory that a process shares with no other; None where that is not known. Blocks for some milliseconds a GiB.

    Source: https://docs.kernel.org/filesystems/proc.html (smaps_rollup)
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = (line.split() for line in lines if line.startswith("Private_"))
    return sum(int(field[1]) * 1024 for field in fields)


def is_switching(runtime: Path) -> bool:
    """Whether an operation is under way: each has a note in the folder ``running`` until it is over."""
    try:
        return any(not name.startswith(".") for name in os.listdir(runtime / "running"))  # noqa: PTH208 - names are enough
    except OSError:  # none has been yet
        return False


def ask_for_reload(runtime: Path) -> None:
    """Let the workers read the models again: an empty order, which one of them takes up. Never raises."""
    with contextlib.suppress(OSError):
        # Workers may write in this folder, which could lead elsewhere by now: nothing outside is touched.
        folder = os.open(runtime / "orders", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.close(os.open("reload", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
        finally:
            os.close(folder)
