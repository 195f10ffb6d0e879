"""Does a loaded model answer a row, and what does a call of it cost?"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.store.company import try_company
from fitserve.store.cost import Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from fitserve.formats.base import Model
    from fitserve.signature import Inputs, Signature
    from fitserve.types import Outputs

    Predict: TypeAlias = Callable[[Inputs, Sequence[str]], Outputs]

TRIAL_ROWS = 64
"""Rows of the second trial call: enough to tell the cost of a row from the cost of a call."""

SLOW_TRIAL_S = 0.05
"""A first call over this is not repeated to measure it: it will not run on the event loop anyway."""

LARGE_ROWS = 1000
"""Rows of a call that tells better what a row costs."""

LARGE_S = 0.2
"""Such a call is made where it will surely take less."""

MEASURED_S = 0.02
"""How long a call is repeated where it is measured: the fastest counts, since whatever else runs makes it slower."""

SLOWEST_S = 0.5
"""A model whose first call takes longer is not asked for more: it is not known to be row-wise."""

_ALLOCATION = re.compile(r"bad.?alloc|(fail|unable|cannot|could not).{0,20}allocat", re.IGNORECASE)
"""How native libraries say that there is no memory: C++'s bad_alloc, ONNX Runtime's and NumPy's words for it."""


@dataclass(slots=True)
class Trial:
    """Whether this version has answered a row; ``failure`` is why the made-up one was not.

    A made-up row may be refused by a model that answers real ones, so a real answer counts too.
    ``is_out_of_memory``: it failed for want of memory, which it would take from a server that has no bound.
    ``is_row_wise``: it was shown to answer rows in company as it does alone, but for the last digits of numbers, as far
    as a few rows show. ``keeps_labels``: and no label can hang on these digits, so that rows of several requests may
    share a call.
    """

    has_answered: bool = False
    failure: str | None = None
    is_out_of_memory: bool = False
    is_row_wise: bool = False
    keeps_labels: bool = False


def try_model(model: Model) -> tuple[Cost, Trial]:
    """Let a model answer a row that its signature makes, and measure what a call costs."""
    cost, trial = Cost(), Trial()
    signature = model.signature
    if signature.is_open:
        trial.failure = "it does not tell its features, so no test row could be made: name them in a manifest's example"
        return cost, trial
    row = list(signature.example_row())
    try:
        one_row = signature.check([row])
        first = _timed(model.predict, one_row, 1)
        if first > SLOW_TRIAL_S:
            cost = Cost(fixed_s=first)
        else:
            rows = signature.check([row] * TRIAL_ROWS)
            one = min(_timed(model.predict, one_row, 1) for _ in range(3))
            many = min(_timed(model.predict, rows, TRIAL_ROWS) for _ in range(2))
            per_row = max(0.0, (many - one) / (TRIAL_ROWS - 1))
            cost = Cost(fixed_s=max(0.0, one - per_row), per_row_s=per_row)
        trial.has_answered = True
        if first <= SLOWEST_S:
            company = try_company(model)
            trial.is_row_wise = company is not None
            if company is not None:
                trial.keeps_labels = company.keeps_labels
                if first > SLOW_TRIAL_S:
                    cost = company.cost
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
        trial.failure = f"it raised {type(exc).__name__} on a test row"
        trial.is_out_of_memory = isinstance(exc, MemoryError) or _ALLOCATION.search(str(exc)) is not None
    return cost, trial


def measured_cost(predict: Predict, signature: Signature, rows: Sequence[Any]) -> Cost:
    """Measure what a call of one form of a model costs; the same rows for each make the forms comparable.

    Args:
        predict: of the form. It may raise anything, which is passed on.
        signature: of the model.
        rows: valid ones; they are repeated where more are needed.
    """

    def fastest(n_rows: int) -> float:
        inputs = signature.check([rows[i % len(rows)] for i in range(n_rows)])
        best = spent = _timed(predict, inputs, n_rows)
        while spent < MEASURED_S:
            took = _timed(predict, inputs, n_rows)
            best, spent = min(best, took), spent + took
        return best

    one, many = fastest(1), fastest(TRIAL_ROWS)
    per_row = max(0.0, (many - one) / (TRIAL_ROWS - 1))
    if many * LARGE_ROWS / TRIAL_ROWS < LARGE_S:
        per_row = max(0.0, (fastest(LARGE_ROWS) - one) / (LARGE_ROWS - 1))
    return Cost(fixed_s=max(0.0, one - per_row), per_row_s=per_row)


def _timed(predict: Predict, inputs: Inputs, n_rows: int) -> float:
    started = time.perf_counter()
    outputs = predict(inputs, ())
    elapsed = time.perf_counter() - started
    if len(np.atleast_1d(outputs.predictions)) != n_rows:
        msg = "predict returned another number of rows than it was given"
        raise ValueError(msg)
    return elapsed
