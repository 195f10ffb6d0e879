"""Does a model answer a row in company as it does alone? Only then may rows of several callers share a call."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fitserve.store.cost import Cost
from fitserve.store.made_rows import scatter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.signature import Signature
    from fitserve.types import Outputs

COMPANY_ROWS = 4
"""Rows that are compared alone and together, at least;"""

MOST_ROWS = 32
"""and at most, where a call is quick: on few rows two ways to add may give the same bits by chance."""

BUDGET_S = 0.05
"""How long rows beyond the first few may take."""

TOLERANCE = {2: 1e-2, 4: 1e-5}
"""What a number of so many bytes may differ by in company, as a part of the largest number there; 1e-9 if it has
eight. A matrix product adds in another order for more rows, which changes the last few digits."""


class Company(NamedTuple):
    """How a model answers rows in company.

    Attributes:
        cost: of a call, by those that were made.
        keeps_labels: it gives no labels, or its numbers (probabilities, decision functions) have the same bits as
            alone. A row between two labels to within the last digit would get another one otherwise.
    """

    cost: Cost
    keeps_labels: bool


def try_company(model: Model) -> Company | None:
    """Let a model answer a few rows alone and together.

    None if the answers differ, if it raises for rows together, or if no two different rows could be made:
    a model that compares its rows with each other, as one that scales them by their own mean, must not get
    rows of several callers at once.
    """
    signature = model.signature
    asked = signature.outputs[1:]
    rows, answers = [], []
    alone_s, began = float("inf"), time.perf_counter()
    for row in _different_rows(signature):
        started = time.perf_counter()
        with contextlib.suppress(Exception, SystemExit):  # a made row may be refused, and a model may raise anything
            answers.append(_arrays(model.predict(signature.check([row]), asked)))
            alone_s = min(alone_s, time.perf_counter() - started)
            rows.append(row)
        if len(rows) == MOST_ROWS or (len(rows) >= COMPANY_ROWS and time.perf_counter() - began > BUDGET_S):
            break
    if len(rows) < 2:  # noqa: PLR2004 - there is no company
        return None
    try:
        started = time.perf_counter()
        table = [rows[i % len(rows)] for i in range(MOST_ROWS)]
        outputs = model.predict(signature.check(table), asked)
        together_s = time.perf_counter() - started
        together = _arrays(outputs)
        if not all(_is_alike(alone, together, place, len(table)) for place, alone in enumerate(answers)):
            return None
        few = _arrays(model.predict(signature.check(rows[:7]), asked))
    except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
        return None
    per_row = max(0.0, (together_s - alone_s) / (len(table) - 1))
    has_labels = signature.classes is not None or together[0].dtype.kind != "f"
    # Where there are probabilities they decide; else a decision function, among what else is offered.
    n = 1 + len(outputs.probabilities) if outputs.probabilities else len(together)
    shows_bits = any(array.dtype.kind == "f" for array in together[:n])
    keeps_labels = not has_labels or (
        shows_bits
        and all(_has_same_bits(alone[:n], together[:n], place) for place, alone in enumerate(answers))
        and all(_has_same_bits(alone[:n], few[:n], place) for place, alone in enumerate(answers[:7]))
    )
    return Company(Cost(fixed_s=max(0.0, alone_s - per_row), per_row_s=per_row), keeps_labels)


def _different_rows(signature: Signature) -> list[Any]:
    """The example and rows around it; where only texts could differ, with other texts."""
    base = list(signature.example_row())
    first = dict(zip(signature.names, base, strict=True)) if signature.is_named else base
    rows: list[Any] = [first]
    rows += [row for row in scatter(signature, 2 * MOST_ROWS) if row != first]
    if len(rows) > 1:
        return rows
    is_text = [column.kind in {"string", "any"} and not column.categories for column in signature.inputs]
    for i in range(1, COMPANY_ROWS):
        row = [f"{v} {i}" if text and isinstance(v, str) else v for v, text in zip(base, is_text, strict=True)]
        rows.append(dict(zip(signature.names, row, strict=True)) if signature.is_named else row)
    return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _arrays(outputs: Outputs) -> list[NDArray[Any]]:
    return [outputs.predictions, *(outputs.probabilities or ()), *outputs.extras.values()]


def _has_same_bits(alone: list[NDArray[Any]], together: list[NDArray[Any]], place: int) -> bool:
    return all(
        np.array_equal(one[0], many[place], equal_nan=many.dtype.kind == "f")
        for one, many in zip(alone, together, strict=True)
    )


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
