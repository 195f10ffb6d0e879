"""Engine: the straight line of one request, below the protocols."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from fitserve.engine.cached import CachedBatcher
from fitserve.engine.gather import Gather, RowJob, check_alone
from fitserve.engine.job import Job
from fitserve.errors import ModelFailedError
from fitserve.signature import count_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fitserve.cache.base import RowCache
    from fitserve.engine.batcher import Batcher
    from fitserve.observe.metrics import Metrics
    from fitserve.signature import OutputName, Table
    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.types import Outputs


class Engine:
    """Runs models. Used from one event loop.

    Attributes:
        lease: returns the version to ask, to be held until its reply is written; see :meth:`Catalog.lease`.
    """

    def __init__(
        self,
        catalog: Catalog,
        batcher: Batcher,
        cache: RowCache | None = None,
        metrics: Metrics | None = None,
        *,
        is_nonfinite_error: bool = False,
    ) -> None:
        self.lease = catalog.lease
        self._batcher = batcher if cache is None else CachedBatcher(batcher, cache, metrics)
        self._has_cache = cache is not None
        self._metrics = metrics
        self._is_nonfinite_error = is_nonfinite_error
        self._gather = Gather(batcher, self.outputs)

    def begin(
        self,
        lease: LoadedModel,
        table: Table,
        asked: Sequence[OutputName],
        first_row: int | None,
        on_done: Callable[[Job], None],
    ) -> Job:
        """Check a table against the signature and submit it to the model.

        Args:
            lease: the version to ask.
            table: at least one row, in any form.
            asked: names out of the signature's outputs. What is not a prediction or a probability of them
                is in the ``extras``.
            first_row: the number that errors give the first row, None to leave rows unnamed.
            on_done: takes the job with its outcome, for :meth:`outputs`: before this returns, or later on
                the event loop.

        Raises:
            InvalidInputError: a row does not fit.
        """
        signature = lease.model.signature
        inputs = signature.check(table, first_row=first_row)
        extras = tuple(name for name in asked if name not in {signature.outputs[0], "predict_proba"}) if asked else ()
        job = Job(lease, inputs, count_rows(table), extras, None, on_done)
        self._batcher.submit(job)
        return job

    def begin_row(self, lease: LoadedModel, row: object, on_done: Callable[[RowJob], None]) -> RowJob:
        """Submit one row, to be checked and computed with what else comes in this turn of the event loop.

        Never raises: what is wrong with the row is told by :meth:`outputs`. Where the job was computed in
        a table, these are the outputs of the whole table.
        """
        job = RowJob(lease, row, on_done)
        if self._has_cache:  # which has each row by itself
            if check_alone(job):
                self._batcher.submit(job)
        else:
            self._gather.add(job)
        return job

    def again(self, job: RowJob) -> None:
        """Have a row computed alone whose table became no reply, which may be a neighbour's fault."""
        self._gather.again(job)

    def outputs(self, job: Job) -> Outputs:
        """Return what the model gave for a job that is done, checked.

        Raises:
            ModelFailedError: the model raised, whatever it raised, or returned what is no prediction.
            InvalidInputError: the model refused a row.
            DeadlineExceededError: there was no time left to compute it.
        """
        if job.error is not None:
            raise job.error
        outputs = job.outputs
        assert outputs is not None  # it is done
        if isinstance(job, RowJob) and job.table is not None:  # the table has been looked at
            return outputs
        self._check(outputs, job.n_rows, job.extras)
        job.lease.trial.has_answered = True
        return outputs

    def note_phases(self, job: Job, arrived_s: float) -> None:
        """Tell what a request spent its time on, whose outputs have just been made a reply.

        ``arrived_s`` is by ``time.perf_counter``.
        """
        if self._metrics is not None:
            lease, started_s, ended_s = job.lease, job.started_s, job.ended_s
            self._metrics.phases(
                lease.name,
                lease.version,
                job.submitted_s - arrived_s,
                started_s - job.submitted_s,
                ended_s - started_s,
                time.perf_counter() - ended_s,
            )

    def _check(self, outputs: Outputs, n_rows: int, extras: Sequence[str]) -> None:
        for name in extras:
            if name not in outputs.extras:
                msg = f"the model offers {name} and did not return it"
                raise ModelFailedError(msg)
        arrays = [outputs.predictions, *(outputs.probabilities or ()), *(outputs.extras[name] for name in extras)]
        for array in arrays:
            if array.ndim == 0 or len(array) != n_rows:
                msg = f"the model returned an array of shape {array.shape} for {n_rows} rows"
                raise ModelFailedError(msg)
            if self._is_nonfinite_error and array.dtype.kind == "f" and not np.isfinite(array).all():
                msg = "the model returned NaN or infinity (nonfinite = error)"
                raise ModelFailedError(msg)
