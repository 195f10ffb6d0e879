"""The side of the child: take an order, run the function that it names, reply, end."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from fitserve.confine.sandbox import entered
from fitserve.confine.wire import LENGTH, describe, one_line, unpack
from fitserve.errors import FitserveError


def run_task(payload: int, reply: int) -> None:
    """Carry out the order that lies in file ``payload``, and write the reply to ``reply``. Raises nothing."""
    told = _carry_out(payload)
    try:
        text = json.dumps(told).encode()
    except (TypeError, ValueError, RecursionError, MemoryError) as exc:
        text = json.dumps({"failed": type(exc).__name__, "text": one_line(str(exc))}).encode()
    rest = memoryview(LENGTH.pack(len(text)) + text)
    while rest:
        rest = rest[os.write(reply, rest) :]


def _carry_out(payload: int) -> dict[str, Any]:
    try:
        order, blobs = unpack(payload)
        os.close(payload)
        sys.path[:] = order["path"]
        module, _, name = order["task"].partition(":")
        function = getattr(importlib.import_module(module), name)
        return {"result": function(order["request"], blobs)}
    except FitserveError as exc:
        return {"error": describe(exc)}
    except MemoryError:
        sandbox = entered()
        return {"memory_bytes": sandbox.memory_bytes if sandbox else None}
    except BaseException as exc:  # noqa: BLE001 - whatever the file under trial raises, SystemExit too, is an answer
        return {"failed": type(exc).__name__, "text": one_line(str(exc))}
