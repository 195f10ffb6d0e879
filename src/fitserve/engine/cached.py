"""Jobs on their way past the cache: rows that have been answered are, and the others are computed once."""

from __future__ import annotations

import time
import weakref
from functools import partial
from typing import TYPE_CHECKING

from fitserve.cache.key import RowKeys
from fitserve.cache.rows import pack_rows, unpack_rows
from fitserve.engine.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.cache.base import RowCache
    from fitserve.engine.batcher import Batcher
    from fitserve.observe.metrics import Metrics
    from fitserve.signature import Inputs
    from fitserve.store.catalog import LoadedModel


class _Flight(Job):
    """Rows on their way through the model, for whoever waits for their keys.

    Attributes:
        keys: of its rows, in their order; no two are the same.
        waiters: as keys of a dict, the one that began it first. It is cancelled when the last one leaves.
        whole: the job whose very rows these are: what the model gives goes to it as it is.
    """

    __slots__ = ("keys", "waiters", "whole")

    keys: list[bytes]
    waiters: dict[_Waiter, None]
    whole: Job | None


class _Waiter:
    """A job whose rows are not all known.

    Attributes:
        job: that was submitted.
        keys: of its rows, in their order.
        known: rows by key, as far as they are.
        flights: that bring the others, as keys of a dict.
    """

    __slots__ = ("flights", "job", "keys", "known")

    def __init__(self, job: Job, keys: list[bytes], known: dict[bytes, bytes]) -> None:
        self.job = job
        self.keys = keys
        self.known = known
        self.flights: dict[_Flight, None] = {}


class CachedBatcher:
    """A :class:`Batcher` behind a cache of rows. Used from one event loop.

    A row that is in the cache is not computed; one that another job is having computed is waited for,
    also where one job has it twice. Where that fails, whatever the reason, each job that waited is
    computed whole, as without a cache: nobody gets another one's error.

    Only what hangs on the version and the row alone is looked up and kept: answers of models that run library
    code only and are shown to be row-wise. Errors are not kept.
    """

    def __init__(self, batcher: Batcher, cache: RowCache, metrics: Metrics | None = None) -> None:
        self._batcher = batcher
        self._cache = cache
        self._metrics = metrics
        self._flights: dict[bytes, _Flight] = {}
        self._keys: dict[int, tuple[weakref.ref[LoadedModel], dict[tuple[str, ...], RowKeys]]] = {}
        held = cache.statistics()  # another loop may have used it before
        self._counts = {"hit": 0, "miss": 0, "shared": 0, "evicted": held["evicted"], "expired": held["expired"]}

    def submit(self, job: Job) -> None:
        """Answer a job from the cache, or have its missing rows computed; it is told at once or later on the loop."""
        job.is_cached = False
        if not (job.lease.model.is_library_code and job.lease.trial.is_row_wise):
            self._batcher.submit(job)
            return
        job.submitted_s = time.perf_counter()
        keys = self._row_keys(job)(job.inputs)
        self._cache.get_many(keys, partial(self._looked_up, job, keys))

    def statistics(self) -> dict[str, int]:
        """Rows by what became of them (``hit``, ``miss``, ``shared``: together those looked up), and what is held.

        ``miss`` was computed, ``shared`` waited for another one of the same.
        """
        return {**self._counts, **self._cache.statistics()}

    def _row_keys(self, job: Job) -> RowKeys:
        """The maker of keys for a version and the extras that are asked for, made once."""
        lease, number = job.lease, id(job.lease)
        if number not in self._keys:
            keys = self._keys
            # They go with the version, before another one can have its id.
            keys[number] = (weakref.ref(lease, lambda _: keys.pop(number)), {})
        _, makers = self._keys[number]
        maker = makers.get(job.extras)
        if maker is None:
            maker = makers[job.extras] = RowKeys(
                _context(lease, job.extras),
                has_missing=any(field.is_nullable for field in lease.model.signature.inputs),
            )
        return maker

    def _looked_up(self, job: Job, keys: list[bytes], found: list[bytes | None]) -> None:
        if job.is_cancelled:
            return
        rows = [row for row in found if row is not None]
        if len(rows) == len(keys):
            self._count("hit", len(rows))
            job.is_cached = True
            job.started_s = job.submitted_s
            self._complete(job, rows)
            return
        waiter = _Waiter(job, keys, {key: row for key, row in zip(keys, found, strict=True) if row is not None})
        own: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key in waiter.known:
                continue
            flight = self._flights.get(key)
            if flight is None:
                own[key] = place
            else:
                flight.waiters[waiter] = waiter.flights[flight] = None
        self._count("hit", len(rows))
        self._count("miss", len(own))
        self._count("shared", len(keys) - len(rows) - len(own))
        job.on_cancel = partial(self._leave, waiter)
        if own:
            self._begin(waiter, own)

    def _begin(self, waiter: _Waiter, own: dict[bytes, int]) -> None:
        """Have rows computed that nobody computes; ``own`` has a place of each in the job, by key."""
        job = waiter.job
        is_whole = len(own) == job.n_rows
        inputs = job.inputs if is_whole else _rows_of(job.inputs, list(own.values()))
        flight = _Flight(job.lease, inputs, len(own), job.extras, job.deadline_s, self._landed)
        flight.keys = list(own)
        flight.waiters = {waiter: None}
        flight.whole = job if is_whole else None
        waiter.flights[flight] = None
        self._flights.update(dict.fromkeys(flight.keys, flight))
        self._batcher.submit(flight)

    def _landed(self, flight: Job) -> None:
        assert isinstance(flight, _Flight)
        self._forget(flight)
        rows = None if flight.outputs is None else pack_rows(flight.outputs, flight.n_rows, flight.extras)
        by_key = {} if rows is None else dict(zip(flight.keys, rows, strict=True))
        if by_key:
            self._cache.set_many(by_key)
            self._count_dropped()
        for waiter in list(flight.waiters):
            if waiter not in flight.waiters:  # it left when another one was told
                continue
            del waiter.flights[flight]
            job = waiter.job
            job.started_s = flight.started_s
            if flight.whole is job:
                job.outputs, job.error = flight.outputs, flight.error
                _finish(job)
            elif not by_key:
                self._leave(waiter)
                self._compute_whole(job)
            else:
                waiter.known.update((key, by_key[key]) for key in waiter.keys if key in by_key)
                if not waiter.flights:
                    self._complete(job, [waiter.known[key] for key in waiter.keys])

    def _complete(self, job: Job, rows: list[bytes]) -> None:
        """Answer a job, all of whose rows are known."""
        job.outputs = unpack_rows(rows, job.extras)
        if job.outputs is None:  # rows of several calls that differ in type
            self._compute_whole(job)
        else:
            _finish(job)

    def _compute_whole(self, job: Job) -> None:
        """Compute a job as without a cache."""
        job.is_cached = False
        job.on_cancel = None
        self._batcher.submit(job)

    def _leave(self, waiter: _Waiter) -> None:
        """Let a job wait for nothing any more; what nobody else waits for is not computed."""
        for flight in waiter.flights:
            del flight.waiters[waiter]
            if not flight.waiters:
                self._forget(flight)
                flight.cancel()
        waiter.flights.clear()

    def _forget(self, flight: _Flight) -> None:
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _count(self, event: str, n_rows: int) -> None:
        if n_rows:
            self._counts[event] += n_rows
            if self._metrics is not None:
                self._metrics.cache(event, n_rows)

    def _count_dropped(self) -> None:
        held = self._cache.statistics()
        for event in ("evicted", "expired"):
            self._count(event, held[event] - self._counts[event])
        if self._metrics is not None:
            self._metrics.cache_bytes(held["bytes"])


def _finish(job: Job) -> None:
    job.ended_s = time.perf_counter()
    job.on_cancel = None
    job.tell()


def _context(lease: LoadedModel, extras: Sequence[str]) -> list[object]:
    """What an answer hangs on besides the row.

    The digest is of the model's file alone, to which a manifest may give other classes: they are in the signature.
    """
    return [
        lease.format,
        lease.name,
        lease.version,
        lease.digest,
        lease.model.signature,
        sorted((library, now) for library, (_, now) in lease.model.facts.libraries.items()),
        extras,
    ]


def _rows_of(inputs: Inputs, places: list[int]) -> Inputs:
    if isinstance(inputs, dict):
        return {name: column[places] for name, column in inputs.items()}
    return inputs[places]
