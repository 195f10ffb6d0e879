"""A trial whose child is waited for, so that the kernel tells what memory it took: whatever its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
from typing import Any

from fitserve.confine.task import run_task
from fitserve.confine.wire import LENGTH, pack


def try_artifact(request: dict[str, Any], blobs: list[memoryview]) -> dict[str, Any]:
    """Run the verifier's own task in one process more, and return its reply, end and peak memory."""
    order = {"task": "fitserve.store.verify:try_artifact", "request": request, "path": sys.path}
    payload = pack(order, blobs)
    reply, theirs = os.pipe()
    with tempfile.TemporaryFile() as stderr:
        pid = os.fork()
        if pid == 0:
            os.close(reply)
            os.dup2(stderr.fileno(), 2)
            run_task(payload, theirs, None)
            os._exit(0)
        os.close(theirs)
        os.close(payload)
        said, is_late = _listen(reply, pid, request["deadline_s"])
        _, status, usage = os.wait4(pid, 0)
        stderr.seek(0)
        whole = len(said) >= LENGTH.size and len(said) == LENGTH.size + LENGTH.unpack_from(said)[0]
        return {
            "reply": said[LENGTH.size :].decode() if whole else None,
            "exit_code": os.waitstatus_to_exitcode(status),
            "stderr": stderr.read()[-4096:].decode(errors="replace"),
            "is_late": is_late,
            "peak_bytes": usage.ru_maxrss * 1024,
        }


def _listen(reply: int, pid: int, deadline_s: float) -> tuple[bytes, bool]:
    """All that the child says until it ends; it is killed when its time is over."""
    said, end = bytearray(), time.monotonic() + deadline_s - 1  # before the template kills both
    with os.fdopen(reply, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            if not (part := pipe.read(1 << 18)):
                return bytes(said), False
            said += part
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return bytes(said), True
