"""The side of the child: take an order, run the function that it names, reply, end."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from fitserve.confine.sandbox import Sandbox, enter, entered
from fitserve.confine.wire import LENGTH, describe, one_line, unpack
from fitserve.errors import FitserveError


def run_task(payload: int, reply: int, sandbox: dict[str, Any] | None) -> None:
    """Carry out the order that lies in file ``payload``, and write the reply to ``reply``. Raises nothing.

    Args:
        payload: a file.
        reply: a pipe.
        sandbox: what the process that started the template lets every task do at the most, as JSON. It is entered
            before the order is read: who gives the order may be confined, and must not get out by it.
    """
    told = _carry_out(payload, sandbox)
    try:
        text = json.dumps(told).encode()
    except (TypeError, ValueError, RecursionError, MemoryError) as exc:
        text = json.dumps({"failed": type(exc).__name__, "text": one_line(str(exc))}).encode()
    rest = memoryview(LENGTH.pack(len(text)) + text)
    while rest:
        rest = rest[os.write(reply, rest) :]


def _carry_out(payload: int, sandbox: dict[str, Any] | None) -> dict[str, Any]:
    try:
        if sandbox is not None:
            enter(
                Sandbox(
                    writable=tuple(map(Path, sandbox["writable"])),
                    connect=tuple((host, port) for host, port in sandbox["connect"]),
                    may_tighten=True,
                )
            )
        order, blobs = unpack(payload)
        os.close(payload)
        sys.path[:] = order["path"]
        module, _, name = order["task"].partition(":")
        function = getattr(importlib.import_module(module), name)
        return {"result": function(order["request"], blobs)}
    except FitserveError as exc:
        return {"error": describe(exc)}
    except MemoryError:
        inside = entered()
        return {"memory_bytes": inside.memory_bytes if inside else None}
    except BaseException as exc:  # noqa: BLE001 - whatever the file under trial raises, SystemExit too, is an answer
        return {"failed": type(exc).__name__, "text": one_line(str(exc))}
