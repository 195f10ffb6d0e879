"""Engine: the straight line of one request, below the protocols."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

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


class _Line(NamedTuple):
    """What one event loop computes with."""

    batcher: Batcher | CachedBatcher
    gather: Gather


class Engine:
    """Runs models. A server calls it from one event loop; tests and notebooks do so from several, also at once.

    Attributes:
        lease: returns the version to ask, to be held until its reply is written; see :meth:`Catalog.lease`.

    Args:
        catalog: has the versions.
        make_batcher: makes the batcher of one event loop.
        cache: of rows, for all loops; None where there is none.
        metrics: are told of phases and of the cache.
        is_nonfinite_error: whether a model may not return NaN or infinity.
    """

    def __init__(
        self,
        catalog: Catalog,
        make_batcher: Callable[[], Batcher],
        cache: RowCache | None = None,
        metrics: Metrics | None = None,
        *,
        is_nonfinite_error: bool = False,
    ) -> None:
        self.lease = catalog.lease
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._make_batcher = make_batcher
        self._cache = cache
        self._metrics = metrics
        self._is_nonfinite_error = is_nonfinite_error

    def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            for one in list(self._lines):
                if one.is_closed():
                    self._lines.pop(one, None)  # another thread may have done so
            batcher = self._make_batcher()
            cached = batcher if self._cache is None else CachedBatcher(batcher, self._cache, self._metrics)
            line = self._lines[loop] = _Line(cached, Gather(batcher, self.outputs))
        return line

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
        self._line().batcher.submit(job)
        return job

    def begin_row(self, lease: LoadedModel, row: object, on_done: Callable[[RowJob], None]) -> RowJob:
        """Submit one row, to be checked and computed with what else comes in this turn of the event loop.

        Never raises: what is wrong with the row is told by :meth:`outputs`. Where the job was computed in
        a table, these are the outputs of the whole table.
        """
        job = RowJob(lease, row, on_done)
        line = self._line()
        if self._cache is None:
            line.gather.add(job)
        elif check_alone(job):  # the cache has each row by itself
            line.batcher.submit(job)
        return job

    def again(self, job: RowJob) -> None:
        """Have a row computed alone whose table became no reply, which may be a neighbour's fault."""
        self._line().gather.again(job)

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
