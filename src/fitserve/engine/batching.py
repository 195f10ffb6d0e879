"""Which waiting jobs are computed together, and when: the rules. Pure: no clock, no event loop, no threads."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Sequence

    from fitserve.engine.job import Job
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.cost import Cost
    from fitserve.store.forms import Form

FULL = 10.0
"""A call whose rows cost ten times as much as the call itself is full: more of them would save less than a
tenth of its time, and all would wait for the last one."""


class Lane:
    """Jobs that wait, of one version and one kind: any two of them may be computed in one call.

    Attributes:
        key: of the lane among others.
        lease: their version.
        may_merge: False where each has to be computed alone.
        may_wait: their model is the operator's own, and may wait for something, on some rows longer than on others.
        n_rows: that wait.
        n_calls: that are under way.
        pause: the timer of a lane that waits for company; None where it does not.
    """

    def __init__(self, key: object, lease: LoadedModel, *, may_merge: bool, may_wait: bool = False) -> None:
        self.key = key
        self.lease = lease
        self.may_merge = may_merge
        self.may_wait = may_wait
        self.n_rows = 0
        self.n_calls = 0
        self.pause: TimerHandle | None = None
        self._jobs: deque[Job] = deque()
        self._halves: deque[list[Job]] = deque()
        self._was_large = False

    def __len__(self) -> int:
        """The number of jobs that wait."""
        return len(self._jobs) + sum(map(len, self._halves))

    @property
    def jobs(self) -> list[Job]:
        """Those that wait."""
        return [*(job for half in self._halves for job in half), *self._jobs]

    def put(self, job: Job) -> None:
        """Let a job wait."""
        self._jobs.append(job)
        self.n_rows += job.n_rows

    def put_halves(self, batch: list[Job]) -> None:
        """Let the halves of a batch that failed go next, each in a call of its own, to find the job at fault.

        Of ``k`` jobs that makes at most ``2k - 1`` calls, and each row is computed at most ``1 + log2(k)`` times,
        rounded up.
        """
        middle = len(batch) // 2
        self._halves += [batch[:middle], batch[middle:]]
        self.n_rows += sum(job.n_rows for job in batch)

    def drop(self, now_s: float) -> list[Job]:
        """Take out the jobs that nobody waits for any more, and those whose deadline has passed; return them."""
        dropped = [
            job
            for job in (self.jobs if self._halves else self._jobs)
            if job.is_cancelled
            or (job.deadline_s is not None and job.deadline_s <= now_s)  # is_over, in a third of the time
        ]
        if dropped:
            self._jobs = deque(job for job in self._jobs if not is_over(job, now_s))
            halves = ([job for job in half if not is_over(job, now_s)] for half in self._halves)
            self._halves = deque(half for half in halves if half)
            self.n_rows -= sum(job.n_rows for job in dropped)
        return dropped

    def take(self, full_rows: int) -> list[Job]:
        """Take out the jobs of the next call: those of at most ``full_rows`` rows together, or one alone.

        The one that has waited longest, but after a job larger than a full call one that is smaller, if any
        waits; and those behind it for which there is room.
        """
        if self._halves:
            batch = self._halves.popleft()
        else:
            first = self._jobs[0]
            if self._was_large:
                first = next((job for job in self._jobs if job.n_rows <= full_rows), first)
            self._was_large = first.n_rows > full_rows
            batch = self._with_company(first, full_rows - first.n_rows if self.may_merge else 0)
        self.n_rows -= sum(job.n_rows for job in batch)
        return batch

    def _with_company(self, first: Job, room: int) -> list[Job]:
        batch = [first]
        left: deque[Job] = deque()
        for job in self._jobs:
            if job is first:
                continue
            if job.n_rows <= room:
                room -= job.n_rows
                batch.append(job)
            else:
                left.append(job)
        self._jobs = left
        return batch


def may_share(lease: LoadedModel, extras: tuple[str, ...] = ()) -> bool:
    """Whether rows of several requests may be computed in one call of some form of a version."""
    return lease.trial.keeps_labels or (not extras and len(lease.forms.all) > 1)


def form_for(batch: Sequence[Job], n_rows: int) -> Form:
    """The cheapest form for a batch, of those in which no label hangs on the company of its row."""
    job = batch[0]
    forms = job.lease.forms
    if job.extras:
        return forms.native
    is_shared = len(batch) > 1 or job.n_requests > 1
    return forms.cheapest(n_rows) if job.lease.trial.keeps_labels or not is_shared else forms.cheapest_engine(n_rows)


def is_over(job: Job, now_s: float) -> bool:
    """Whether nobody waits for a job any more, or its deadline has passed."""
    return job.is_cancelled or (job.deadline_s is not None and job.deadline_s <= now_s)


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How large calls may be, and how many of them are made at once.

    Attributes:
        max_rows: the most rows of a call of several jobs.
        n_threads: the most calls at once.
    """

    max_rows: int
    n_threads: int

    def full_rows(self, cost: Cost) -> int:
        """The rows of a full call: :data:`FULL` times as dear as the call itself, at most ``max_rows``."""
        if cost.per_row_s * self.max_rows <= FULL * cost.fixed_s:
            return self.max_rows
        return max(1, int(FULL * cost.fixed_s / cost.per_row_s))

    def rows_of_call(self, lane: Lane, cost: Cost, n_free: int) -> int:
        """The rows that the next call of a lane may take, where ``n_free`` threads are free.

        Those that wait are divided among the free threads, as long as the rows of each call cost as much as the call.
        """
        full_rows = self.full_rows(cost)
        if n_free < 2 or cost.per_row_s * lane.n_rows < cost.fixed_s:  # noqa: PLR2004 - the choice begins with two
            return full_rows
        least = math.ceil(cost.fixed_s / cost.per_row_s) if cost.per_row_s else 1
        return min(full_rows, max(math.ceil(lane.n_rows / n_free), least))

    def may_begin(self, lane: Lane, cost: Cost) -> bool:
        """Whether a lane may begin a call now.

        One is always under way while there are jobs. Beside it another one begins only where jobs save little by
        waiting for a call together: where their rows cost more than the call, where one call cannot take more,
        where they must not be merged, and where a model may wait for something: the next ones shall not wait for that.
        """
        if lane.n_calls == 0:
            return True
        if lane.n_calls >= self.n_threads:
            return False
        if lane.may_wait:
            return True
        is_by_row = cost.per_row_s * lane.n_rows >= cost.fixed_s
        return is_by_row or not lane.may_merge or lane.n_rows >= self.full_rows(cost)

    def rows_within(self, seconds: float, cost: Cost) -> int:
        """The rows of a call that is expected to take so long; at least one."""
        left_s = seconds - cost.fixed_s
        if cost.per_row_s * self.max_rows <= left_s:
            return self.max_rows
        return max(1, int(left_s / cost.per_row_s)) if cost.per_row_s else 1
