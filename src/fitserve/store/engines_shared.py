"""Workers that ask for engines in the memory that they share: by a line in a file that their supervisor looks at.

An engine that is too large for each worker alone serves in workers that are forked from a process that has loaded it.
Which engines are waited for stands in ``sharing`` of the runtime folder, the digest of a model on each line. A digest
is written once and stays: where sharing has failed, nobody asks again, and no worker is replaced for ever.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHARING = "sharing"
"""The file, in the runtime folder."""

MAX_BYTES = 2**16
"""What is read of it, and how large it grows: the digests of a thousand models."""


def ask_to_share(folder: Path, digest: str) -> None:
    """Ask the supervisor for workers that share the engines of a model. Any process, any thread; blocks shortly.

    Args:
        folder: the runtime folder. Where it is gone or full, nothing happens: what serves goes on as it is.
        digest: of the model.
    """
    if digest in asked_to_share(folder):
        return
    try:
        descriptor = _open(folder, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        return
    try:
        os.write(descriptor, f"{digest}\n".encode())  # one write: two processes may ask at the same time
    except OSError:
        return
    finally:
        os.close(descriptor)


def asked_to_share(folder: Path) -> frozenset[str]:
    """The digests that workers have asked for. A supervisor replaces its workers when there are more of them.

    What lies in the place of the file may be of a worker that does what it should not: it is no more than read.
    """
    try:
        descriptor = _open(folder, os.O_RDONLY)
    except OSError:
        return frozenset()
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        lines = os.read(descriptor, MAX_BYTES).decode("ascii", errors="replace").split("\n") if is_file else [""]
    except OSError:
        return frozenset()
    finally:
        os.close(descriptor)
    return frozenset(line for line in lines[:-1] if line)


def _open(folder: Path, flags: int) -> int:
    return os.open(folder / SHARING, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
