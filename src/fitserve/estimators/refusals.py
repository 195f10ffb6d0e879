"""Whose mistake is it when a library raises? What a model refuses of its input is the caller's, the rest is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fitserve.errors import InputIssue, InvalidInputError
from fitserve.estimators.facts import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.estimators.model import EstimatorModel
    from fitserve.signature import Inputs, Signature

IMPLAUSIBLE = 1e15
"""A number this large is named when a model overflows; with smaller ones any column may be the cause."""

VALIDATION = "sklearn.utils.validation"


def refusal(
    exc: ValueError, model: EstimatorModel, inputs: Inputs, still_answers: Callable[[], bool]
) -> InvalidInputError | None:
    """The caller's mistake that an error of a model stands for, or None if it is the model's.

    It is the caller's if a library raised it, in a model without code of its user's, or if scikit-learn's own
    validation did, in any model; and if the model still answers the row that it answered when it was loaded. What
    the library says is not passed on: it may hold values.

    Args:
        exc: what a call raised.
        model: whose call it was.
        inputs: that it was called with.
        still_answers: whether the model answers its own row.
    """
    if str(exc).startswith("Found unknown categories"):
        return InvalidInputError([InputIssue("categories that were seen at fitting", "an unknown one")])
    module = _module_of(exc)
    is_of_library = module == VALIDATION or (model.is_library_code and module.partition(".")[0] in LIBRARIES)
    if not is_of_library or model.signature.is_open or not still_answers():
        return None
    if module == VALIDATION:
        column = _largest_column(model.signature, inputs)
        return InvalidInputError(
            [
                InputIssue(
                    "numbers that the model can compute with", "one that becomes NaN or infinite inside", None, column
                )
            ]
        )
    return InvalidInputError([InputIssue("values that the model can compute with", f"some that {module} refuses")])


def _module_of(exc: ValueError) -> str:
    """The module of the innermost frame in Python: compiled code has none."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", ""))


def _largest_column(signature: Signature, inputs: Inputs) -> str | None:
    """The column of the largest number, if that is so large that it must be the one."""
    columns = inputs.values() if isinstance(inputs, dict) else inputs.T
    sizes = [float(np.nanmax(np.abs(column), initial=0.0)) if column.dtype.kind == "f" else 0.0 for column in columns]
    largest = int(np.argmax(sizes))
    return signature.names[largest] if sizes[largest] > IMPLAUSIBLE else None
