"""How a nursery is started: a program of its own, which has nothing of the supervisor's but what it is told."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.supervisor.channel import Channel

if TYPE_CHECKING:
    from fitserve.settings import Settings
    from fitserve.store.fetcher import Fetcher

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from fitserve.supervisor.nursery import main; main()"
)
"""``-P`` and this: modules are found where this process finds them, and nowhere else."""


def launch(
    settings: Settings, runtime: Path, scratch: Path | None, fetcher: Fetcher | None = None
) -> tuple[int, Channel]:
    """Start a nursery; it begins to load the models at once.

    Args:
        settings: of the workers.
        runtime: the folder that all of them share.
        scratch: the folder in which this nursery and its workers write.
        fetcher: fetches the models, if they lie at a URL.

    Returns:
        Its process id, and what it is spoken to through. The caller waits for the process.
    """
    ours, theirs = socket.socketpair()
    path = [str(Path(place).absolute()) for place in sys.path]
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), json.dumps(path)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *([] if fetcher is None else [fetcher.fileno()])),
            env=os.environ,
        )
    process.returncode = 0  # the supervisor waits for all of its children, not for this object
    channel = Channel(ours)
    told = {
        "settings": settings.model_dump(mode="json"),
        "runtime": str(runtime),
        "scratch": scratch and str(scratch),
        "fetcher": fetcher and fetcher.fileno(),
    }
    with contextlib.suppress(OSError):  # it has ended already, and that is heard
        channel.say("load", told)
    ours.setblocking(False)
    return process.pid, channel
