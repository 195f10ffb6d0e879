"""What a form costs: time by the number of rows, and memory."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fitserve.optimize.answers import take

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.optimize.answers import Predict
    from fitserve.optimize.base import Engine
    from fitserve.signature import Inputs

    T = TypeVar("T")

MANY: Final = 64
MEASURED_S: Final = 0.02
"""How long a call is repeated; the fastest counts, since whatever else runs only makes it slower."""

SESSION_BYTES: Final = 2**16

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = 4096


def cost_of(predict: Predict, inputs: Inputs) -> dict[str, float]:
    """``fixed_s`` and ``per_row_s``, from calls with one row and with up to :data:`MANY`."""
    n_rows = min(MANY, len(inputs if not isinstance(inputs, dict) else next(iter(inputs.values()))))
    one = _fastest_s(predict, take(inputs, slice(0, 1)))
    many = _fastest_s(predict, take(inputs, slice(0, n_rows)))
    per_row = max(0.0, (many - one) / (n_rows - 1)) if n_rows > 1 else 0.0
    return {"fixed_s": max(0.0, one - per_row), "per_row_s": per_row}


def _fastest_s(predict: Predict, inputs: Inputs) -> float:
    predict(inputs, ())
    best, spent = float("inf"), 0.0
    while spent < MEASURED_S:
        started = time.perf_counter()
        predict(inputs, ())
        took = time.perf_counter() - started
        best, spent = min(best, took), spent + took
    return best


def estimated_bytes(engine: Engine, n_bytes: int) -> int:
    """What a loaded engine takes, by the size of its data.

    Measured: a session of ONNX Runtime 60 KB, and of a forest of 100 or 500 trees 2.5 to 3.4 times its graph;
    treelite's models as much as their bytes.
    """
    return SESSION_BYTES + int(n_bytes * (1.2 if engine == "treelite" else 3.5))


def memory_of(load: Callable[[], T], *, least_bytes: int) -> tuple[T, int]:
    """What it loads, and by how much this process has grown; at least so much, for it may use memory freed before."""
    gc.collect()
    before = _resident_bytes()
    found = load()
    return found, max(least_bytes, _resident_bytes() - before)


def _resident_bytes() -> int:
    """Zero where the system does not tell.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
    """
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
