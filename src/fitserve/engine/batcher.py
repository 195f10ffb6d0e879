"""Jobs on their way to the model: together where they came together, on the event loop where that is quick.

Continuous batching, without a timer: what comes while the model is idle is computed at once; what comes while it
is busy waits and is computed together. :mod:`fitserve.engine.batching` has the rules.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from fitserve.engine.batching import BatchPolicy, Lane, form_for, is_over, may_share
from fitserve.engine.compute import compute, layout, note_times
from fitserve.errors import DeadlineExceededError, ModelFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fitserve.engine.executor import Executor
    from fitserve.engine.job import Job
    from fitserve.errors import FitserveError
    from fitserve.observe.metrics import Metrics
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.cost import Cost
    from fitserve.store.forms import Form

INLINE_S = 0.0003
"""A call expected to be shorter runs on the event loop: a hop to a thread costs 34 to 48 µs of CPU
and twice that in waiting, and a loop held for 0.3 ms is not noticed."""

TIMER_S = 0.001
"""What the clock of an event loop may be behind: its timers count milliseconds."""


class Batcher:
    """Runs jobs. Used from one event loop.

    Only jobs of one version, layout and choice of extras share a call, and only those of models that are shown to
    answer each row alone as in company. Where a call of several jobs fails, its halves are tried again, until the
    job at fault is alone: nobody gets another one's error.

    Args:
        executor: runs the calls that are too long for the event loop.
        wait_s: how long a job that meets an idle model waits for company before a call on a thread.
        max_rows: the most rows of a call of several jobs.
        metrics: are told of each call.
        clock: tells the seconds of deadlines and durations.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        wait_s: float = 0.0,
        max_rows: int = 1000,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._executor = executor
        self._policy = BatchPolicy(max_rows, executor.n_threads)
        self._wait_s = wait_s
        self._metrics = metrics
        self._clock = clock
        self._n_calls = self._n_jobs = self._n_rows = self._n_merged = 0
        self._n_cancelled = self._n_expired = self._n_bisections = 0
        self._versions: WeakValueDictionary[int, LoadedModel] = WeakValueDictionary()
        self._latest = 0
        self._is_turn_due = False
        self._arrived: list[Job] = []
        self._inline: dict[object, Lane] = {}
        self._lanes: dict[object, Lane] = {}
        self._n_running = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_s = 0.0

    def submit(self, job: Job, *, ends_turn: bool = False) -> None:
        """Run a job; it is told when it is done, on the event loop. Never raises for what the model does.

        ``ends_turn``: whatever came in this turn of the loop has been submitted, so that nothing is waited for.
        """
        job.submitted_s = self._clock()
        lease = job.lease
        if id(lease) != self._latest:
            self._latest = id(lease)
            self._versions[id(lease)] = lease
        # What is not known to cost the same on every row may sleep on this one.
        if lease.model.is_library_code and lease.trial.has_answered and not job.extras:
            cost = lease.forms.cheapest(job.n_rows).cost
            if cost.fixed_s + cost.per_row_s * job.n_rows < INLINE_S:
                if ends_turn and not self._arrived and not self._inline:
                    self._run_lone(job)
                    return
                self._arrived.append(job)
                if not self._is_turn_due:
                    self._is_turn_due = True
                    asyncio.get_running_loop().call_soon(self._turn)
                return
        self._enqueue(job, asyncio.get_running_loop())

    def statistics(self) -> dict[str, Any]:
        """What has been computed since the start, what waits, and what calls cost, by version and form.

        ``calls``, ``jobs`` (requests) and ``rows`` are those that were answered, ``merged_jobs`` of them in company;
        ``cancelled_jobs`` and ``expired_jobs`` those dropped before they began; ``bisections`` calls of
        several jobs that failed.
        """
        lanes = [*self._inline.values(), *self._lanes.values()]
        return {
            "calls": self._n_calls,
            "jobs": self._n_jobs,
            "rows": self._n_rows,
            "mean_rows": self._n_rows / self._n_calls if self._n_calls else 0.0,
            "merged_jobs": self._n_merged,
            "cancelled_jobs": self._n_cancelled,
            "expired_jobs": self._n_expired,
            "bisections": self._n_bisections,
            "queued_jobs": sum(map(len, lanes)) + len(self._arrived),
            "queued_rows": sum(lane.n_rows for lane in lanes) + sum(job.n_rows for job in self._arrived),
            "calls_in_flight": self._n_running,
            "versions": [
                {
                    "name": lease.name,
                    "version": lease.version,
                    "may_merge": may_share(lease),
                    "forms": {
                        form.name: {"fixed_s": form.cost.fixed_s, "per_row_s": form.cost.per_row_s}
                        for form in lease.forms.all
                    },
                }
                for lease in self._versions.values()
            ],
        }

    # ── on the event loop ───────────────────────────────────────────────────────────

    def _turn(self) -> None:
        """Compute what came in this turn of the loop, for about as long as a call on it may take."""
        self._is_turn_due = False
        arrived, self._arrived = self._arrived, []
        if len(arrived) == 1 and not self._inline:
            self._run_lone(arrived[0])
            return
        for job in arrived:
            _lane_of(self._inline, job).put(job)
        left_s = INLINE_S
        while self._inline and left_s > 0:
            lane = self._inline.pop(next(iter(self._inline)))
            dropped = lane.drop(self._clock())
            if lane:
                rows = self._policy.rows_within(INLINE_S, _cost_of(lane))
                left_s -= self._run_here(lane, lane.take(rows))
            if lane:
                self._inline[lane.key] = lane  # behind the others: each lane has its turn
            self._dismiss(dropped)
        if (self._inline or self._arrived) and not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _run_lone(self, job: Job) -> None:
        if is_over(job, job.submitted_s):
            self._dismiss([job])
        else:
            self._run_here(None, [job])

    def _run_here(self, lane: Lane | None, batch: list[Job]) -> float:
        job = batch[0]
        form = form_for(batch, _n_rows(batch))
        fault = compute(form, batch, self._clock)
        seconds = job.ended_s - job.started_s
        # Learning costs half as much as all the rest here: one call in four is enough, and what held the loop.
        self._end(lane, form, batch, fault, learns=seconds >= INLINE_S or not self._n_calls & 3)
        return seconds

    # ── on threads ──────────────────────────────────────────────────────────────────

    def _enqueue(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        lane = _lane_of(self._lanes, job)
        if self._wait_s and lane.may_merge and not lane and not lane.n_calls and lane.pause is None:
            lane.pause = loop.call_later(self._wait_s, self._end_pause, lane)
        lane.put(job)
        if lane.pause is not None and self._is_urgent(lane, job):
            lane.pause.cancel()
            lane.pause = None
        if job.deadline_s is not None:
            self._expire_by(job.deadline_s, loop)
        self._dispatch()

    def _is_urgent(self, lane: Lane, job: Job) -> bool:
        """Whether a lane need not, or must not, wait any longer for company."""
        is_full = lane.n_rows >= self._policy.full_rows(_cost_of(lane))
        return is_full or (job.deadline_s is not None and job.deadline_s <= self._clock() + self._wait_s)

    def _end_pause(self, lane: Lane) -> None:
        lane.pause = None
        self._let_go(lane)
        self._dispatch()

    def _expire_by(self, deadline_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that a job that waits is told at its deadline, not when its turn comes."""
        if self._expiry is not None:
            if self._expiry_s <= deadline_s:
                return
            self._expiry.cancel()
        self._expiry_s = deadline_s
        self._expiry = loop.call_later(max(0.0, deadline_s - self._clock()) + TIMER_S, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        dropped: list[Job] = []
        for lane in list(self._lanes.values()):
            dropped += lane.drop(self._clock())
            self._let_go(lane)
        left = [job.deadline_s for lane in self._lanes.values() for job in lane.jobs if job.deadline_s is not None]
        if left:
            self._expire_by(min(left), asyncio.get_running_loop())
        self._dismiss(dropped)

    def _dispatch(self) -> None:
        """Begin calls as long as there are threads and lanes that may; each lane in turn."""
        dropped: list[Job] = []
        while self._n_running < self._executor.n_threads:
            lane = next(filter(self._may_begin, self._lanes.values()), None)
            if lane is None:
                break
            self._lanes[lane.key] = self._lanes.pop(lane.key)  # behind the others
            dropped += lane.drop(self._clock())
            if lane:
                self._begin(lane)
            self._let_go(lane)
        if self._metrics is not None:
            self._metrics.queued(sum(lane.n_rows for lane in self._lanes.values()))
        self._dismiss(dropped)

    def _may_begin(self, lane: Lane) -> bool:
        return bool(lane) and lane.pause is None and self._policy.may_begin(lane, _cost_of(lane))

    def _let_go(self, lane: Lane) -> None:
        """Forget a lane in which nothing waits or runs, and with it the version."""
        if not lane and not lane.n_calls and lane.pause is None and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def _begin(self, lane: Lane) -> None:
        n_free = self._executor.n_threads - self._n_running
        batch = lane.take(self._policy.rows_of_call(lane, _cost_of(lane), n_free))
        form = form_for(batch, _n_rows(batch))
        lane.n_calls += 1
        self._n_running += 1
        returned = partial(self._returned, lane, form, batch)
        try:
            self._executor.submit(partial(compute, form, batch, self._clock), returned)
        except RuntimeError as exc:  # no thread could be started
            asyncio.get_running_loop().call_soon(returned, None, exc)

    def _returned(
        self, lane: Lane, form: Form, batch: list[Job], fault: FitserveError | None, error: BaseException | None
    ) -> None:
        try:
            if error is None:
                # What was asked for besides cost more than the next call will.
                self._end(lane, form, batch, fault, learns=not batch[0].extras)
            else:  # ours, not the model's
                note_times(batch, self._clock(), self._clock())
                for job in batch:
                    job.error = ModelFailedError(f"the call could not be made: {type(error).__name__}")
                    job.error.__cause__ = error
                    job.tell()
        finally:
            # After all were told, so that those who come back at once share a call.
            lane.n_calls -= 1
            self._n_running -= 1
            self._let_go(lane)
            self._dispatch()

    # ── the end ─────────────────────────────────────────────────────────────────────

    def _end(
        self, lane: Lane | None, form: Form, batch: list[Job], fault: FitserveError | None, *, learns: bool
    ) -> None:
        """Tell the jobs of a call, or have its halves tried again."""
        job = batch[0]
        n_jobs = len(batch)
        if fault is None:
            n_rows, seconds = _n_rows(batch), job.ended_s - job.started_s
            self._n_calls += 1
            self._n_rows += n_rows
            n_requests = job.n_requests if n_jobs == 1 else sum([one.n_requests for one in batch])
            self._n_jobs += n_requests
            if n_requests > 1:
                self._n_merged += n_requests
            if learns:
                form.cost.learn(n_rows, seconds)
            if self._metrics is not None:
                self._metrics.batch(job.lease.name, job.lease.version, form.name, n_requests, n_rows, seconds)
        elif n_jobs > 1:
            assert lane is not None  # only a job that came alone has none
            self._n_bisections += 1
            lane.put_halves(batch)
            return
        else:
            job.error = fault
        for job in batch:
            job.tell()

    def _dismiss(self, jobs: Sequence[Job]) -> None:
        """Tell jobs that were taken out before they began."""
        for job in jobs:
            if job.is_cancelled:
                self._n_cancelled += 1
                continue
            self._n_expired += 1
            note_times([job], self._clock(), self._clock())
            job.error = DeadlineExceededError("the deadline passed before the model could be called")
            job.tell()


def _lane_of(lanes: dict[object, Lane], job: Job) -> Lane:
    lease = job.lease
    may_merge = may_share(lease, job.extras)
    key = (id(lease), job.extras, layout(job.inputs) if may_merge else None)
    lane = lanes.get(key)
    if lane is None:
        lane = lanes[key] = Lane(key, lease, may_merge=may_merge, may_wait=not lease.model.is_library_code)
    return lane


def _cost_of(lane: Lane) -> Cost:
    return lane.lease.forms.cheapest(lane.n_rows).cost


def _n_rows(batch: Sequence[Job]) -> int:
    return batch[0].n_rows if len(batch) == 1 else sum([job.n_rows for job in batch])
