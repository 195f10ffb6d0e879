"""Does a loaded model answer a row, and what does a call of it cost?"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.store.cost import Cost

if TYPE_CHECKING:
    from fitserve.formats.base import Model

TRIAL_ROWS = 64
"""Rows of the second trial call: enough to tell the cost of a row from the cost of a call."""

SLOW_TRIAL_S = 0.05
"""A first call over this is not repeated to measure it: it will not run on the event loop anyway."""


_ALLOCATION = re.compile(r"bad.?alloc|(fail|unable|cannot|could not).{0,20}allocat", re.IGNORECASE)
"""How native libraries say that there is no memory: C++'s bad_alloc, ONNX Runtime's and NumPy's words for it."""


@dataclass(slots=True)
class Trial:
    """Whether this version has answered a row; ``failure`` is why the made-up one was not.

    A made-up row may be refused by a model that answers real ones, so a real answer counts too.
    ``is_out_of_memory``: it failed for want of memory, which it would take from a server that has no bound.
    """

    has_answered: bool = False
    failure: str | None = None
    is_out_of_memory: bool = False


def try_model(model: Model) -> tuple[Cost, Trial]:
    """Let a model answer a row that its signature makes, and measure what a call costs."""
    cost, trial = Cost(), Trial()
    signature = model.signature
    if signature.is_open:
        trial.failure = "it does not tell its features, so no test row could be made: name them in a manifest's example"
        return cost, trial
    row = list(signature.example_row())
    try:
        first = _timed(model, [row])
        if first > SLOW_TRIAL_S:
            cost = Cost(fixed_s=first)
        else:
            one = min(_timed(model, [row]) for _ in range(3))
            many = min(_timed(model, [row] * TRIAL_ROWS) for _ in range(2))
            per_row = max(0.0, (many - one) / (TRIAL_ROWS - 1))
            cost = Cost(fixed_s=max(0.0, one - per_row), per_row_s=per_row)
        trial.has_answered = True
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
        trial.failure = f"it raised {type(exc).__name__} on a test row"
        trial.is_out_of_memory = isinstance(exc, MemoryError) or _ALLOCATION.search(str(exc)) is not None
    return cost, trial


def _timed(model: Model, rows: list[list[Any]]) -> float:
    inputs = model.signature.check(rows)
    started = time.perf_counter()
    outputs = model.predict(inputs)
    elapsed = time.perf_counter() - started
    if len(np.atleast_1d(outputs.predictions)) != len(rows):
        msg = "predict returned another number of rows than it was given"
        raise ValueError(msg)
    return elapsed
