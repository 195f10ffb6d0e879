"""Workers that ask for engines in the memory that they share: by a line in a file that their supervisor looks at.

An engine that is too large for each worker alone serves in workers that are forked from a process that has loaded it.
Which engines are waited for stands in ``orders/share`` of the runtime folder, the digest of a model on each line. A
digest is written once and stays: where sharing has failed, nobody asks again, and no worker is replaced for ever.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHARE = "orders/share"
"""The file, below the runtime folder."""

MAX_BYTES = 2**16
"""What is read of it: the digests of some nine hundred models."""


def ask_to_share(folder: Path, digest: str) -> None:
    """Ask the supervisor for workers that share the engines of a model. Any process, any thread; blocks shortly.

    Args:
        folder: the runtime folder. Where it is gone or full, nothing happens: the library's own call goes on.
        digest: of the model.
    """
    if digest in asked_to_share(folder):
        return
    path = folder / SHARE
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, f"{digest}\n".encode())  # one write: two processes may ask at the same time
    except OSError:
        return
    finally:
        os.close(descriptor)


def asked_to_share(folder: Path) -> frozenset[str]:
    """The digests that workers have asked for. A supervisor replaces its workers when there are more of them."""
    try:
        with (folder / SHARE).open("rb") as file:
            lines = file.read(MAX_BYTES).decode("ascii", errors="replace").split("\n")
    except OSError:
        return frozenset()
    return frozenset(line for line in lines[:-1] if line)
