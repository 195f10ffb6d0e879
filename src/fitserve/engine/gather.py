"""Single rows that came in one turn of the event loop, checked and computed as one table.

What a request of one row costs is mostly what a call costs, whatever it is a call of: of the check, of NumPy, of
the model. Thirty rows in one table cost little more than one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fitserve.engine.batching import may_share
from fitserve.engine.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.engine.batcher import Batcher
    from fitserve.signature import Inputs
    from fitserve.store.catalog import LoadedModel

MOST_ROWS = 64
"""A table of more is divided: all of its requests wait for its last row."""


_UNCHECKED: Inputs = {}


class RowJob(Job):
    """A job of one row, which may be computed in a table with others.

    Attributes:
        row: as it came.
        index: which row of ``table`` is its own,
        table: the job of the whole table, whose outputs it shares; None where it was computed alone.
    """

    __slots__ = ("index", "row", "table")

    def __init__(self, lease: LoadedModel, row: object, on_done: Callable[[Any], None]) -> None:
        super().__init__(lease, _UNCHECKED, 1, (), None, on_done)
        self.row = row
        self.index = 0
        self.table: TableJob | None = None


class TableJob(Job):
    """The rows of several requests; ``jobs`` are theirs, until they have been told.

    A job and its table do not refer to each other at the same time, or each request would leave work to the
    collector of cycles.
    """

    __slots__ = ("jobs",)

    def __init__(self, lease: LoadedModel, inputs: Inputs, jobs: list[RowJob], on_done: Callable[[Any], None]) -> None:
        super().__init__(lease, inputs, len(jobs), (), None, on_done)
        self.n_requests = len(jobs)
        self.jobs = jobs


class Gather:
    """Makes tables of rows, for a batcher. Used from one event loop.

    Args:
        batcher: computes them.
        accept: is told of a table that was computed; raises where its outputs are no answer.
    """

    def __init__(self, batcher: Batcher, accept: Callable[[Job], object]) -> None:
        self._batcher = batcher
        self._accept = accept
        self._waiting: list[RowJob] = []

    def add(self, job: RowJob) -> None:
        """Take a row, to be submitted at the end of this turn of the loop. Never raises."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._submit)
        self._waiting.append(job)

    def _submit(self) -> None:
        jobs, self._waiting = self._waiting, []
        while jobs:
            lease = jobs[0].lease
            mine: list[RowJob] = []
            others: list[RowJob] = []
            for job in jobs:
                (mine if job.lease is lease else others).append(job)
            for first in range(0, len(mine), MOST_ROWS):
                self._submit_table(lease, mine[first : first + MOST_ROWS])
            jobs = others

    def _submit_table(self, lease: LoadedModel, jobs: list[RowJob]) -> None:
        jobs = [job for job in jobs if not job.is_cancelled]
        inputs = _checked(lease, [job.row for job in jobs]) if len(jobs) > 1 and may_share(lease) else None
        if inputs is None:
            for job in jobs:
                self._submit_alone(job, ends_turn=len(jobs) == 1)
        else:
            self._batcher.submit(TableJob(lease, inputs, jobs, self._divide), ends_turn=True)

    def again(self, job: RowJob) -> None:
        """Check and compute a row by itself, of whose table it is not known whose fault it has."""
        job.index, job.table, job.outputs = 0, None, None
        self._submit_alone(job, ends_turn=False)

    def _submit_alone(self, job: RowJob, *, ends_turn: bool) -> None:
        if check_alone(job):
            self._batcher.submit(job, ends_turn=ends_turn)

    def _divide(self, table: TableJob) -> None:
        """Give each row its part; where the table failed, let the batcher find the row at fault."""
        jobs, table.jobs = table.jobs, []
        try:
            self._accept(table)
        except Exception:  # noqa: BLE001 - a job that is at fault itself meets it again
            for job in jobs:
                if not job.is_cancelled:
                    self.again(job)
            return
        for index, job in enumerate(jobs):
            job.index, job.table = index, table
            job.outputs = table.outputs
            job.tell()


def check_alone(job: RowJob) -> bool:
    """Check a row by itself; where that fails, the job is told so, and is done."""
    try:
        job.inputs = job.lease.model.signature.check([job.row], first_row=None)
    except Exception as exc:  # noqa: BLE001 - the row's fault or ours: it must not wait for ever
        job.error = exc
        job.tell()
        return False
    return True


def _checked(lease: LoadedModel, rows: list[object]) -> Inputs | None:
    """The rows as one table; None where one of them fails the check, or would be another row in company.

    Libraries make of a column of objects what all of its values can be.
    """
    try:
        inputs = lease.model.signature.check(rows)
    except Exception:  # noqa: BLE001 - each is told by itself what is wrong
        return None
    if isinstance(inputs, dict):
        for column in inputs.values():
            if column.dtype == object and len(set(map(type, column.tolist()))) > 1:
                return None
    return inputs
