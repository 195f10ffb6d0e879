"""One call of a model for the jobs of a batch: their tables put together, its outputs divided. On any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fitserve.errors import FitserveError, InvalidInputError, ModelFailedError
from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from fitserve.engine.job import Job
    from fitserve.signature import Inputs
    from fitserve.store.forms import Form


class Computed(NamedTuple):
    """What became of a call.

    Attributes:
        outputs: those of each job; None where ``error`` is set.
        error: an :class:`InvalidInputError` of the model's, or a :class:`ModelFailedError` for whatever it raised.
        started_s: when it began,
        ended_s: and when it ended.
    """

    outputs: Sequence[Outputs] | None
    error: FitserveError | None
    started_s: float
    ended_s: float


def layout(inputs: Inputs) -> Hashable:
    """What must be equal of tables for their rows to be computed together.

    The width of a matrix; the type of each column. Of a column of objects, the types of its values: libraries
    make of the column what all of its values can be, so a row would be another one in other company.
    """
    if isinstance(inputs, np.ndarray):
        return int(inputs.shape[1])
    return tuple([
        frozenset(map(type, values.tolist())) if values.dtype == object else values.dtype for values in inputs.values()
    ])  # fmt: skip


def compute(form: Form, batch: Sequence[Job], clock: Callable[[], float]) -> Computed:
    """Call a form of a model once for jobs of one layout and the same extras. Never raises."""
    started_s = clock()
    try:
        outputs = _outputs(form, batch)
    except FitserveError as exc:
        return Computed(None, exc, started_s, clock())
    return Computed(outputs, None, started_s, clock())


def _outputs(form: Form, batch: Sequence[Job]) -> Sequence[Outputs]:
    """The one place where whatever a model raises becomes our own error."""
    job = batch[0]
    try:
        if len(batch) == 1:
            return (form.predict(job.inputs, job.extras),)
        return _divided(form.predict(_merged([job.inputs for job in batch]), job.extras), batch)
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


def _divided(outputs: Outputs, batch: Sequence[Job]) -> list[Outputs]:
    """The rows of each job.

    Raises:
        ValueError: there are not as many rows as the jobs have, so that it is not known whose is which.
    """
    predictions, probabilities, extras = outputs
    n_rows = sum([job.n_rows for job in batch])
    for array in (predictions, *(probabilities or ()), *extras.values()):
        if array.ndim == 0 or len(array) != n_rows:
            msg = f"the model returned an array of shape {array.shape} for {n_rows} rows"
            raise ValueError(msg)
    divided = []
    first = 0
    for job in batch:
        end = first + job.n_rows
        divided.append(
            Outputs(
                predictions[first:end],
                None if probabilities is None else tuple([part[first:end] for part in probabilities]),
                _rows(extras, first, end) if extras else extras,
            )
        )
        first = end
    return divided


def _rows(extras: Any, first: int, end: int) -> dict[str, NDArray[Any]]:
    return {name: array[first:end] for name, array in extras.items()}
