"""Jobs on their way to the model: at once on the event loop where that is quick, else on a thread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np

from fitserve.errors import InvalidInputError, ModelFailedError
from fitserve.types import Outputs

if TYPE_CHECKING:
    from fitserve.engine.executor import Executor
    from fitserve.engine.job import Job
    from fitserve.signature import Inputs
    from fitserve.store.forms import Form

INLINE_S = 0.0003
"""A call expected to be shorter runs on the event loop: a hop to a thread costs 34 to 48 µs of CPU
and twice that in waiting, and a loop held for 0.3 ms is not noticed."""


class Batcher:
    """Runs jobs. Used from one event loop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._waiting: list[Job] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, job: Job) -> None:
        """Run a job; it is told when it is done, later on the event loop."""
        job.submitted_s = time.perf_counter()
        lease = job.lease
        form = lease.forms.native if job.extras else lease.forms.cheapest(job.n_rows)
        # What is not known to cost the same on every row may sleep on this one.
        is_known = lease.model.is_library_code and lease.trial.has_answered and not job.extras
        loop = asyncio.get_running_loop()
        if is_known and form.cost.expected_s(job.n_rows) < INLINE_S:
            if not self._waiting:
                loop.call_soon(self._run_waiting)
            self._waiting.append(job)
        else:
            self._tasks.add(task := loop.create_task(self._run_on_thread(job, form)))
            task.add_done_callback(self._tasks.discard)

    async def _run_on_thread(self, job: Job, form: Form) -> None:
        try:
            job.outputs, seconds = await self._executor.run(lambda: _run(form, job.inputs, job.extras))
            if not job.extras:  # else it cost more than the next call will
                form.cost.learn(job.n_rows, seconds)
        except (InvalidInputError, ModelFailedError) as exc:
            job.error = exc
        if not job.is_cancelled:
            job.on_done(job)

    def _run_waiting(self) -> None:
        jobs, self._waiting = [job for job in self._waiting if not job.is_cancelled], []
        if len(jobs) > 1 and all(job.lease is jobs[0].lease and isinstance(job.inputs, np.ndarray) for job in jobs):
            self._run_together(jobs)
            return
        for job in jobs:
            self._run_alone(job)

    def _run_together(self, jobs: list[Job]) -> None:
        X = np.concatenate([job.inputs for job in jobs])
        form = jobs[0].lease.forms.cheapest(len(X))
        try:
            outputs, seconds = _run(form, X, ())
        except (InvalidInputError, ModelFailedError):
            for job in jobs:
                self._run_alone(job)
            return
        form.cost.learn(len(X), seconds)
        first = 0
        for job in jobs:
            end = first + job.n_rows
            parts = outputs.probabilities
            job.outputs = Outputs(
                outputs.predictions[first:end], None if parts is None else tuple([part[first:end] for part in parts])
            )
            first = end
            job.on_done(job)

    def _run_alone(self, job: Job) -> None:
        form = job.lease.forms.cheapest(job.n_rows)
        try:
            job.outputs, seconds = _run(form, job.inputs, ())
            form.cost.learn(job.n_rows, seconds)
        except (InvalidInputError, ModelFailedError) as exc:
            job.error = exc
        job.on_done(job)


def _run(form: Form, inputs: Inputs, extras: tuple[str, ...]) -> tuple[Outputs, float]:
    """Call the model; the one place where whatever it raises becomes our own error."""
    started = time.perf_counter()
    try:
        outputs = form.predict(inputs, extras)
    except InvalidInputError:
        raise
    except BaseException as exc:
        # Also SystemExit and KeyboardInterrupt: a model does not end the server.
        msg = f"the model raised {type(exc).__name__}"
        raise ModelFailedError(msg) from exc
    return outputs, time.perf_counter() - started
