"""Does a model answer a row in company as it does alone? Only then may rows of several callers share a call."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.store.cost import Cost
from fitserve.store.made_rows import scatter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.signature import Signature
    from fitserve.types import Outputs

COMPANY_ROWS = 4
"""Rows that are compared alone and together."""

TOLERANCE = {2: 1e-2, 4: 1e-5}
"""What a number of so many bytes may differ by in company, as a part of the largest number there; 1e-9 if it has
eight. A matrix product adds in another order for more rows, which changes the last few digits."""


def try_company(model: Model) -> Cost | None:
    """Let a model answer a few rows alone and together, and tell what a call costs by these calls.

    None if the answers differ, if it raises for rows together, or if no two different rows could be made:
    a model that compares its rows with each other, as one that scales them by their own mean, must not get
    rows of several callers at once.
    """
    signature = model.signature
    asked = signature.outputs[1:]
    rows, answers = [], []
    alone_s = float("inf")
    for row in _different_rows(signature):
        started = time.perf_counter()
        with contextlib.suppress(Exception, SystemExit):  # a made row may be refused, and a model may raise anything
            answers.append(_arrays(model.predict(signature.check([row]), asked)))
            alone_s = min(alone_s, time.perf_counter() - started)
            rows.append(row)
        if len(rows) == COMPANY_ROWS:
            break
    if len(rows) < 2:  # noqa: PLR2004 - there is no company
        return None
    try:
        started = time.perf_counter()
        together = _arrays(model.predict(signature.check(rows), asked))
        together_s = time.perf_counter() - started
        if not all(_is_alike(alone, together, place, len(rows)) for place, alone in enumerate(answers)):
            return None
    except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
        return None
    per_row = max(0.0, (together_s - alone_s) / (len(rows) - 1))
    return Cost(fixed_s=max(0.0, alone_s - per_row), per_row_s=per_row)


def _different_rows(signature: Signature) -> list[Any]:
    """The example and rows around it; where only texts could differ, with other texts."""
    base = list(signature.example_row())
    first = dict(zip(signature.names, base, strict=True)) if signature.is_named else base
    rows: list[Any] = [first]
    rows += [row for row in scatter(signature, 2 * COMPANY_ROWS) if row != first]
    if len(rows) > 1:
        return rows
    is_text = [column.kind in {"string", "any"} and not column.categories for column in signature.inputs]
    for i in range(1, COMPANY_ROWS):
        row = [f"{v} {i}" if text and isinstance(v, str) else v for v, text in zip(base, is_text, strict=True)]
        rows.append(dict(zip(signature.names, row, strict=True)) if signature.is_named else row)
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _arrays(outputs: Outputs) -> list[NDArray[Any]]:
    return [outputs.predictions, *(outputs.probabilities or ()), *outputs.extras.values()]


def _is_alike(alone: list[NDArray[Any]], together: list[NDArray[Any]], place: int, n_rows: int) -> bool:
    """Whether what a row got alone is what it got together with others, at its place."""
    for one, many in zip(alone, together, strict=True):
        if len(one) != 1 or len(many) != n_rows or one.dtype.kind != many.dtype.kind:
            return False
        mine, its = one[0], many[place]
        if many.dtype.kind != "f":
            if np.asarray(mine).tolist() != np.asarray(its).tolist():
                return False
            continue
        size = np.abs(many[np.isfinite(many)]).max(initial=0.0)
        if not np.allclose(mine, its, rtol=0.0, atol=TOLERANCE.get(many.dtype.itemsize, 1e-9) * size, equal_nan=True):
            return False
    return True
