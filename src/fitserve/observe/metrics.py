"""Metrics: what a server has done and is doing, counted where it happens and added up when it is asked.

Each process counts in cells of its own (:mod:`fitserve.observe.cells`); whichever is asked reads those of
all (:mod:`fitserve.observe.siblings`).
"""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import os
import platform
import time
import weakref
from bisect import bisect_left
from typing import TYPE_CHECKING

from fitserve.observe.cells import Cells, FileCells
from fitserve.observe.definitions import BY_NAME, ROWS, SECONDS
from fitserve.observe.siblings import (
    CPU_SECONDS,
    Snapshot,
    Totals,
    add_series,
    merge,
    process_name,
    read_siblings,
)
from fitserve.shared_state.process import process_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

_SECONDS_SUM = len(SECONDS) + 1
_ROWS_SUM = len(ROWS) + 1
_PHASES = ("decode", "queue", "predict", "encode")

_numbers = itertools.count()


class Metrics:
    """Counts what one application does. Counting never raises for lack of room: it then goes on without.

    Called from the thread of the event loop, but for :meth:`exposition`. The values of labels are few,
    whatever callers send: whoever counts sees to that. A copy of the process begins at zero.
    """

    def __init__(self, find_folder: Callable[[], Path | None] = lambda: None) -> None:
        """Describe where to count; nothing is made before the first count.

        Args:
            find_folder: gives the private folder that the processes of this server share, or None where it
                has one process; raises OSError where there is no such folder. Called once in each process.
        """
        self._find_folder = find_folder
        # The n-th application of a process shares with the n-th of its siblings.
        self._group = str(next(_numbers))
        self._forget()
        _all_metrics.add(self)

    def _forget(self) -> None:
        self._store: Cells | None = None
        self._folder: Path | None = None
        self._name = ""
        self._is_alone_noted = False
        self._cells: list[float] | memoryview[float] = []
        self._firsts: dict[tuple[str, ...], int] = {}
        self._requests: dict[tuple[str, int, str, str], tuple[int, int]] = {}
        self._phases: dict[tuple[str, str], tuple[int, int, int, int]] = {}
        self._batches: dict[tuple[str, str, str], tuple[int, int, int, int]] = {}
        self._models: frozenset[tuple[str, ...]] = frozenset()
        self._in_flight = self._queue = self._cache_bytes = 0

    def open(self) -> None:
        """Make the cells of this process, unless they are there. The first count does so if nobody has before."""
        if self._store is not None:
            return
        self._store = self._make_cells()
        self._in_flight = self._first("fitserve_in_flight")
        self._queue = self._first("fitserve_queue_rows")
        self._cache_bytes = self._first("fitserve_cache_bytes")
        self._first(CPU_SECONDS)
        self._cells[self._first("fitserve_start_time_seconds")] = time.time()
        if self._folder is not None:
            try:  # by the way, or processes that nobody asks would leave their files
                read_siblings(self._folder, self._group, self._name, wait_s=0.0)
            except (OSError, ValueError) as exc:
                logger.debug("the metrics of other processes were not read: %s", exc)

    def _make_cells(self) -> Cells:
        try:
            folder = self._find_folder()
            if folder is None:
                return Cells()
            name = process_name(self._group)
            cells = FileCells(folder, name)
        except OSError as exc:
            self._note_alone(str(exc))
            return Cells()
        self._folder, self._name = folder, name
        return cells

    def _note_alone(self, why: str) -> None:
        if not self._is_alone_noted:
            self._is_alone_noted = True
            logger.warning("the metrics of process %d are its own, without its siblings': %s", os.getpid(), why)

    def _first(self, metric: str, *labels: str) -> int:
        """The first cell of a series, which is made if it is not there."""
        known = self._firsts.get((metric, *labels))
        if known is not None:
            return known
        self.open()
        assert self._store is not None  # it is open
        # A name read from a file system may hold what is no text.
        clean = tuple([label.encode("utf-8", "replace").decode() for label in labels])
        try:
            first = self._store.add(metric, clean, BY_NAME[metric].n_cells)
        except OSError as exc:
            first = 0
            self._note_alone(f"no more series can be kept: {exc}")
        self._cells = self._store.values
        self._firsts[(metric, *labels)] = first
        return first

    def in_flight(self, change: int) -> None:
        """A request has come (1) or gone (-1)."""
        if self._store is None:
            self.open()
        self._cells[self._in_flight] += change

    def request(self, route: str, status: int, model: str, version: str, seconds: float) -> None:
        """A request was answered.

        Args:
            route: the path of a route of ours, or ``other``.
            status: of the reply.
            model: name of the model that served, if one did.
            version: of the same.
            seconds: from its arrival to the end of the reply.
        """
        found = self._requests.get((route, status, model, version))
        if found is None:
            found = (
                self._first("fitserve_requests_total", route, str(status), model, version),
                self._first("fitserve_request_seconds", route, model, version),
            )
            self._requests[(route, status, model, version)] = found
        counter, first = found
        cells = self._cells
        cells[counter] += 1
        cells[first + bisect_left(SECONDS, seconds)] += 1
        cells[first + _SECONDS_SUM] += seconds

    def phases(
        self, model: str, version: str, decode_s: float, queue_s: float, predict_s: float, encode_s: float
    ) -> None:
        """What a prediction spent its time on."""
        found = self._phases.get((model, version))
        if found is None:
            decode, queue, predict, encode = (
                self._first("fitserve_phase_seconds", phase, model, version) for phase in _PHASES
            )
            self._phases[(model, version)] = found = (decode, queue, predict, encode)
        decode, queue, predict, encode = found
        # Written out: a loop costs half as much again.
        cells = self._cells
        cells[decode + bisect_left(SECONDS, decode_s)] += 1
        cells[decode + _SECONDS_SUM] += decode_s
        cells[queue + bisect_left(SECONDS, queue_s)] += 1
        cells[queue + _SECONDS_SUM] += queue_s
        cells[predict + bisect_left(SECONDS, predict_s)] += 1
        cells[predict + _SECONDS_SUM] += predict_s
        cells[encode + bisect_left(SECONDS, encode_s)] += 1
        cells[encode + _SECONDS_SUM] += encode_s

    def batch(self, model: str, version: str, form: str, n_jobs: int, n_rows: int, seconds: float) -> None:
        """A model was called, for ``n_jobs`` requests together."""
        found = self._batches.get((model, version, form))
        if found is None:
            found = (
                self._first("fitserve_rows_total", model, version),
                self._first("fitserve_batch_rows", model, version),
                self._first("fitserve_batch_jobs", model, version),
                self._first("fitserve_inference_seconds", model, version, form),
            )
            self._batches[(model, version, form)] = found
        counter, rows, jobs, inference = found
        cells = self._cells
        cells[counter] += n_rows
        cells[rows + bisect_left(ROWS, n_rows)] += 1
        cells[rows + _ROWS_SUM] += n_rows
        cells[jobs + bisect_left(ROWS, n_jobs)] += 1
        cells[jobs + _ROWS_SUM] += n_jobs
        cells[inference + bisect_left(SECONDS, seconds)] += 1
        cells[inference + _SECONDS_SUM] += seconds

    def queued(self, n_rows: int) -> None:
        """So many rows wait now."""
        if self._store is None:
            self.open()
        self._cells[self._queue] = n_rows

    def cache(self, event: str, n: int = 1) -> None:
        """It happened to ``n`` rows that the response cache had them (hit), had not (miss), …."""
        first = self._first("fitserve_cache_events_total", event)
        self._cells[first] += n

    def cache_bytes(self, n_bytes: int) -> None:
        """The response cache of this process holds so many bytes now."""
        if self._store is None:
            self.open()
        self._cells[self._cache_bytes] = n_bytes

    def rejected(self, reason: str) -> None:
        """A request was refused; ``reason`` is the last part of its problem's type."""
        first = self._first("fitserve_rejections_total", reason)
        self._cells[first] += 1

    def models(self, loaded: Iterable[Mapping[str, str]]) -> None:
        """These versions are loaded now, and no others.

        Args:
            loaded: values of the labels of ``fitserve_model_info``; one that is not there is empty.
        """
        self.open()
        names = BY_NAME["fitserve_model_info"].labels
        now = frozenset(tuple([labels.get(name, "") for name in names]) for labels in loaded)
        for labels in self._models | now:
            first = self._first("fitserve_model_info", *labels)
            self._cells[first] = float(labels in now)
        self._models = now

    def exposition(self, *, is_openmetrics: bool) -> bytes:
        """The numbers of all processes as text, of the type that the constants of this module name.

        Blocks for some milliseconds; :meth:`open` must have been called. From one thread at a time.

        Raises:
            TimeoutError: another process does not stop reading.
        """
        from fitserve.observe.exposition import render

        return render(self.totals(), is_openmetrics=is_openmetrics)

    def totals(self) -> Totals:
        """The numbers of all series, of all processes. Raises as :meth:`exposition`."""
        snapshots = [self._snapshot()]
        if self._folder is not None:
            try:
                snapshots += read_siblings(self._folder, self._group, self._name)
            except TimeoutError:
                raise
            except (OSError, ValueError) as exc:
                self._note_alone(str(exc))
        totals = merge(snapshots)
        alive = [snapshot for snapshot in snapshots if snapshot.is_alive]
        memory = sum(snapshot.facts.resident_bytes for snapshot in alive if snapshot.facts)
        add_series(totals, "fitserve_workers", (), [len(alive)])
        add_series(totals, "fitserve_process_resident_memory_bytes", (), [memory])
        build = (importlib.metadata.version("fitserve"), platform.python_version())
        add_series(totals, "fitserve_build_info", build, [1.0])
        return totals

    def _snapshot(self) -> Snapshot:
        """What this process has counted. Its places are read before its cells, which have room for all of them."""
        assert self._store is not None  # it is open
        facts = process_facts(os.getpid())
        places = list(self._store.places)
        cells = self._store.values
        totals: Totals = {}
        for metric, labels, first, n_cells in places:
            if metric == CPU_SECONDS and facts:
                cells[first] = facts.cpu_s
            add_series(totals, metric, labels, list(cells[first : first + n_cells]))
        return Snapshot(totals, is_alive=True, facts=facts)


_all_metrics: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _forget_all() -> None:
    """In a copy of this process: the cells belong to the original."""
    for metrics in list(_all_metrics):
        if metrics._store is not None:  # noqa: SLF001 - of this module
            metrics._store.close()  # noqa: SLF001
        metrics._forget()  # noqa: SLF001


os.register_at_fork(after_in_child=_forget_all)
