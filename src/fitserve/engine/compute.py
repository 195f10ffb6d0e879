"""One call of a model for the jobs of a batch: their tables put together, its outputs divided. On any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import FitserveError, InvalidInputError, ModelFailedError
from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from fitserve.engine.job import Job
    from fitserve.signature import Inputs
    from fitserve.store.forms import Form


def layout(inputs: Inputs) -> Hashable:
    """What must be equal of tables for their rows to be computed together.

    The width of a matrix; the type of each column. Of a column of objects, the types of its values: libraries
    make of the column what all of its values can be, so a row would be another one in other company.
    """
    if isinstance(inputs, np.ndarray):
        width: int = inputs.shape[1]
        return width
    return tuple([
        frozenset(map(type, values.tolist())) if values.dtype == object else values.dtype for values in inputs.values()
    ])  # fmt: skip


def compute(form: Form, batch: Sequence[Job], clock: Callable[[], float]) -> FitserveError | None:
    """Call a form of a model once for jobs of one layout and the same extras, and give them their outputs and times.

    Never raises. Returns why there are no outputs: an :class:`InvalidInputError` of the model's, or a
    :class:`ModelFailedError` for whatever else it raised.
    """
    started_s = clock()
    try:
        _compute(form, batch)
    except FitserveError as exc:
        note_times(batch, started_s, clock())
        return exc
    note_times(batch, started_s, clock())
    return None


def note_times(batch: Sequence[Job], started_s: float, ended_s: float) -> None:
    """Tell jobs when their call began and ended."""
    for job in batch:
        job.started_s, job.ended_s = started_s, ended_s


def _compute(form: Form, batch: Sequence[Job]) -> None:
    """The one place where whatever a model raises becomes our own error."""
    job = batch[0]
    try:
        if len(batch) == 1:
            job.outputs = form.predict(job.inputs, job.extras)
        else:
            _divide(form.predict(_merged([job.inputs for job in batch]), job.extras), batch)
    except InvalidInputError:
        raise
    except BaseException as exc:
        # Also SystemExit and KeyboardInterrupt: a model does not end the server.
        msg = f"the model raised {type(exc).__name__}"
        raise ModelFailedError(msg) from exc


def _merged(tables: list[Any]) -> Inputs:
    first = tables[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(tables)
    return {name: np.concatenate([table[name] for table in tables]) for name in first}


def _divide(outputs: Outputs, batch: Sequence[Job]) -> None:
    """Give each job its rows.

    Raises:
        ValueError: there are not as many rows as the jobs have, so that it is not known whose is which.
    """
    predictions, probabilities, extras = outputs
    n_rows = sum([job.n_rows for job in batch])
    for array in (predictions, *(probabilities or ()), *extras.values()):
        if array.ndim == 0 or len(array) != n_rows:
            msg = f"the model returned an array of shape {array.shape} for {n_rows} rows"
            raise ValueError(msg)
    first = 0
    for job in batch:
        end = first + job.n_rows
        job.outputs = Outputs(
            predictions[first:end],
            None if probabilities is None else tuple([part[first:end] for part in probabilities]),
            _rows(extras, first, end) if extras else extras,
        )
        first = end


def _rows(extras: Any, first: int, end: int) -> dict[str, NDArray[Any]]:
    return {name: array[first:end] for name, array in extras.items()}
