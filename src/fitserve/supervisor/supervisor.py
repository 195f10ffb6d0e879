"""The parent of the workers: starts them, replaces them, stops them. Knows processes, not models."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.confine.scratch import remove_scratch
from fitserve.errors import FitserveError
from fitserve.observe.siblings import server_folder
from fitserve.server.terminal import has_terminal
from fitserve.supervisor.worker import Orders, Reports, run_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from fitserve.settings import Settings

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
"""The longest pause before a worker that keeps dying is started again."""

STABLE_AFTER_S = 60.0
"""A worker that lived longer than this is started again at once."""

LONGEST_MESSAGE_BYTES = 64 * 2**20

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    started_s: float
    is_ready: bool = False
    is_stopping: bool = False
    replaces: _Worker | None = None


class Supervisor:
    """Keeps ``settings.workers`` processes serving one listening socket.

    SIGTERM, SIGINT and the closing of the terminal stop all of them, letting each finish what is in
    flight. SIGHUP replaces them one by one: a new one has loaded the model before an old one stops.
    Runs in the main thread.
    """

    def __init__(self, settings: Settings, listener: socket.socket, passed: Reports) -> None:
        """Take over a listening socket.

        Args:
            settings: of the workers.
            listener: what they serve.
            passed: reports of model files that have been tried already; the workers need not do it again.
        """
        self._settings = settings
        self._listener = listener
        self._passed = passed
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")
        self._n_deaths = 0
        self._start_after_s = 0.0
        self._to_replace: list[_Worker] = []
        self._facts: dict[str, Any] = {}
        self._has_started = False
        self._is_stopping = False
        self._had_terminal = has_terminal()
        self._metrics_folder: Path | None = None

    def run(self, on_ready: Callable[[dict[str, Any]], None]) -> None:
        """Serve until a signal stops it.

        Args:
            on_ready: called once, with the facts of the model, when all workers serve.

        Raises:
            FitserveError: a worker could not start at all.
        """
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        receiver.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(sender.fileno())
        with contextlib.suppress(OSError):  # there is no place for it: each worker says so
            self._metrics_folder = server_folder(os.getpid())
        try:
            for _ in range(self._settings.workers):
                self._start()
            while not self._is_stopping:
                self._step(receiver)
                if not self._has_started and sum(worker.is_ready for worker in self._workers) == self._settings.workers:
                    self._has_started = True
                    on_ready(self._facts)
        finally:
            self._stop_all()
            signal.set_wakeup_fd(-1)
            if self._metrics_folder is not None:
                remove_scratch(self._metrics_folder)

    def _step(self, receiver: socket.socket) -> None:
        """Wait for something to happen and set it right."""
        for worker, (state, facts) in self._wait(receiver):
            if state == "ready":
                worker.is_ready, self._facts = True, facts
                if worker.replaces is not None:
                    self._stop(worker.replaces)
                    worker.replaces = None
                continue
            if not worker.is_stopping:
                self._note_failure(worker, facts)
                worker.is_stopping = True
            if state == "ended":
                self._workers.remove(worker)
                worker.pipe.close()
                for other in self._workers:
                    if other.replaces is worker:  # nothing is left to stop: it is one like the others
                        other.replaces = None
        n_missing = self._settings.workers - sum(not w.is_stopping and w.replaces is None for w in self._workers)
        if n_missing > 0 and time.monotonic() >= self._start_after_s:
            self._start()
        if self._has_started:
            self._replace_next()

    def _note_failure(self, worker: _Worker, why: str) -> None:
        """A worker could not start, or ended without being told to.

        Raises:
            FitserveError: the first ones could not start: then others could not either.
        """
        if not self._has_started and not worker.is_ready:
            raise FitserveError(why)
        if worker.replaces is not None:
            self._to_replace.clear()
            logger.error("worker %d could not replace another, which goes on: %s", worker.process.pid, why)
            return
        is_stable = time.monotonic() - worker.started_s > STABLE_AFTER_S
        self._n_deaths = 0 if is_stable else self._n_deaths + 1
        pause_s = 0.0 if self._n_deaths <= 1 else min(LONGEST_PAUSE_S, 2.0 ** (self._n_deaths - 2))
        self._start_after_s = time.monotonic() + pause_s
        logger.error("worker %d is gone (%s); another starts in %g s", worker.process.pid, why, pause_s)

    def _replace_next(self) -> None:
        """Go on with a rolling replacement: one at a time."""
        is_busy = any(worker.replaces is not None or worker.is_stopping for worker in self._workers)
        while self._to_replace and not is_busy:
            old = self._to_replace.pop(0)
            if old in self._workers and not old.is_stopping:
                self._start(replaces=old)
                return

    def _wait(self, receiver: socket.socket) -> list[tuple[_Worker, tuple[str, Any]]]:
        """What workers said, or that they ended, since the last call; also takes signals."""
        by_source: dict[Any, _Worker] = {}
        for worker in self._workers:
            by_source[worker.pipe] = by_source[worker.process.sentinel] = worker
        news: dict[int, tuple[_Worker, tuple[str, Any]]] = {}
        for source in wait([receiver, *by_source], timeout=0.5):
            if source is receiver:
                self._take_signals(receiver.recv(64))
                continue
            worker = by_source[source]
            try:
                # The sentinel says that the process has ended, and so does the end of its pipe.
                said = _message(source) if isinstance(source, Connection) else _end(worker)
            except (EOFError, OSError, ValueError):
                said = _end(worker)
            news.setdefault(id(worker), (worker, said))
        return list(news.values())

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP and not (self._had_terminal and not has_terminal()):
                self._to_replace = [worker for worker in self._workers if not worker.is_stopping]
                logger.info("SIGHUP: replacing %d workers one by one", len(self._to_replace))
            else:
                self._is_stopping = True

    def _start(self, replaces: _Worker | None = None) -> None:
        ours, theirs = self._context.Pipe()
        must_answer = replaces is not None and self._facts["is_ready"]
        orders = Orders(self._passed, must_answer=must_answer, metrics_folder=self._metrics_folder)
        process = self._context.Process(target=run_worker, args=(self._settings, self._listener, theirs, orders))
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic(), replaces=replaces))

    def _stop(self, worker: _Worker) -> None:
        worker.is_stopping = True
        if worker.process.pid is not None and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)

    def _stop_all(self) -> None:
        """Let every worker finish; kill those that have not after ``shutdown_timeout_s``."""
        self._listener.close()
        for worker in self._workers:
            self._stop(worker)
        deadline = time.monotonic() + self._settings.shutdown_timeout_s + 2.0
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                logger.warning("worker %d did not stop in time and is killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()


def _message(pipe: Connection) -> tuple[str, Any]:
    """What a worker said, as JSON: a worker is confined and this process is not, so it is taken no pickle from.

    Raises:
        ValueError: it is no message.
    """
    state, facts = orjson.loads(pipe.recv_bytes(LONGEST_MESSAGE_BYTES))
    return str(state), facts


def _end(worker: _Worker) -> tuple[str, str]:
    worker.process.join()
    return "ended", f"a worker ended with exit code {worker.process.exitcode}"
