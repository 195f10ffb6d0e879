"""The parent of the workers: starts them, replaces them, stops them. Knows processes, not models."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from fitserve.confine.kernel import PR_SET_CHILD_SUBREAPER, machine, prctl
from fitserve.confine.scratch import remove_scratch
from fitserve.confine.wire import rebuild
from fitserve.errors import FitserveError
from fitserve.server.terminal import has_terminal
from fitserve.shared_state.board import Board
from fitserve.shared_state.folder import server_folder
from fitserve.store.engines_shared import asked_to_share
from fitserve.supervisor import KILLED, STOPPED, STOPPED_AT_ONCE
from fitserve.supervisor.facts import ask_for_reload, is_switching, private_bytes
from fitserve.supervisor.plan import Drain, EndNursery, Kill, Limits, Plan, Seen, StartNursery, StartWorker
from fitserve.supervisor.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.settings import Settings
    from fitserve.store.fetcher import Fetcher
    from fitserve.supervisor.notify import Notifier
    from fitserve.supervisor.plan import Action
    from fitserve.supervisor.processes import Process

logger = logging.getLogger(__name__)

TICK_S = 0.5
"""How often the board is looked at, if nothing happens meanwhile."""

WEIGH_S = 10.0
"""How often the memory of the workers is measured: the kernel walks through all of it."""

GRACE_S = 5.0
"""What a worker may take to end, beyond what the settings give it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Supervisor:
    """Keeps ``settings.workers`` processes serving one listening socket. Runs in the main thread.

    SIGTERM, SIGINT and the closing of the terminal stop all of them, letting each finish what is in flight; a second
    SIGINT ends them at once. SIGHUP replaces them one by one.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, notifier: Notifier, fetcher: Fetcher | None = None
    ) -> None:
        """Take over a listening socket.

        Args:
            settings: of the workers.
            listener: what they serve.
            notifier: tells a service manager.
            fetcher: fetches the models, if they lie at a URL.
        """
        self._settings = settings
        self._listener = listener
        self._notifier = notifier
        self._fetcher = fetcher
        self._leave_s = settings.lame_duck_s + settings.shutdown_timeout_s + GRACE_S
        self._plan = Plan(
            Limits(
                settings.workers,
                heartbeat_timeout_s=settings.heartbeat_timeout_s,
                recycle_age_s=settings.recycle_age_s,
                recycle_requests=settings.recycle_requests,
                recycle_memory_bytes=settings.recycle_memory_bytes,
                leave_s=self._leave_s,
                hold_s=settings.rollback_hold_s,
            )
        )
        self._on_ready: Callable[[dict[str, Any]], None] = lambda _: None
        self._facts: dict[str, Any] = {}
        self._had_terminal = has_terminal()
        self._weighed_s = 0.0
        self._is_told = self._is_renewing = self._reloads = False
        self._shared: frozenset[str] = frozenset()
        self._n_stops = self._n_ready = 0
        self._exit_code = STOPPED

    def run(self, on_ready: Callable[[dict[str, Any]], None]) -> int:
        """Serve until a signal stops it.

        Args:
            on_ready: called once, with the facts of the model, when all workers serve.

        Returns:
            The exit code: :data:`STOPPED`, :data:`KILLED` or :data:`STOPPED_AT_ONCE`.

        Raises:
            FitserveError: nothing could be served at all.
            OSError: there is no place for what the processes share.
        """
        self._on_ready = on_ready
        self._wake, sender = socket.socketpair()
        for end in (self._wake, sender):
            end.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        if machine() is not None:
            prctl(PR_SET_CHILD_SUBREAPER, 1)  # a worker is forked by a nursery, and becomes a child of this process
        self._runtime = server_folder(os.getpid())
        self._processes = Processes(self._settings, self._listener, self._runtime, self._fetcher)
        try:
            self._board = Board.open(self._runtime)
            while not self._n_stops:
                self._step()
            self._stop()
        finally:
            self._listener.close()
            self._processes.end_all()
            signal.set_wakeup_fd(-1)
            remove_scratch(self._runtime)
        return self._exit_code

    # ── one turn ────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        """Carry out what is due, wait for something to happen, and note it."""
        now_s = time.monotonic()
        self._notifier.watchdog(now_s)
        self._look(now_s)
        for action in self._plan.decide(now_s):
            self._carry_out(action)
        self._tell()
        self._wait(min(TICK_S, self._notifier.watchdog_s or TICK_S))

    def _look(self, now_s: float) -> None:
        """Let the plan know how the workers are, and what they serve."""
        pids = {process.pid: process for process in self._processes.workers}
        if self._settings.recycle_memory_bytes and now_s - self._weighed_s > WEIGH_S:
            self._weighed_s = now_s
            for process in pids.values():
                process.private_bytes = private_bytes(process.pid)
        seen = {process.number: Seen(private_bytes=process.private_bytes) for process in pids.values()}
        with contextlib.suppress(OSError):  # the files are theirs, too
            for member in self._board.members():
                if member.pid in pids:
                    process = pids[member.pid]
                    seen[process.number] = Seen(member.heartbeat_ns / 1e9, member.n_requests, process.private_bytes)
        asked = asked_to_share(self._runtime)
        if not asked <= self._shared and self._is_told and not self._plan.is_renewing:
            self._shared |= asked  # once for each: where sharing has failed, it is not tried for ever
            self._plan.renew("to share engines that are too large for each of them")
        busy = is_switching(self._runtime)
        self._plan.see(now_s, seen, self._board.generation, is_switching=busy)

    def _carry_out(self, action: Action) -> None:
        processes = self._processes
        match action:
            case StartNursery(number, why):
                pid = processes.start_nursery(number).pid
                logger.info("process %d loads the models%s", pid, f" {why}" if why else "")
            case EndNursery(number):
                processes.end_nursery(number)
            case StartWorker(number, nursery, replaces, why):
                if replaces is not None:
                    logger.info("another worker starts in place of %d: %s", processes[replaces].pid, why)
                processes.start_worker(number, processes[nursery])
            case Drain(number, why):
                logger.info("worker %d is replaced and ends: %s", processes[number].pid, why)
                processes[number].signal(signal.SIGTERM)
            case Kill(number, why):
                logger.error("worker %d is killed: %s", processes[number].pid, why)
                processes[number].signal(signal.SIGKILL)

    def _tell(self) -> None:
        """Tell the log and the service manager what has become of the whole."""
        n_ready, n_wanted = self._plan.n_ready, self._settings.workers
        if not self._is_told and n_ready >= n_wanted:
            self._is_told = True
            self._on_ready(self._facts)
            self._notifier.ready(f"{n_ready} workers serve")
        elif self._is_told and self._plan.is_renewing != self._is_renewing:
            self._is_renewing = self._plan.is_renewing
            if self._is_renewing:
                self._notifier.reloading("replacing the workers")
            else:
                self._notifier.ready(f"{n_ready} workers serve")
        elif self._is_told and n_ready != self._n_ready:
            self._notifier.status(f"{n_ready} of {n_wanted} workers serve")
        self._n_ready = n_ready
        if self._reloads and self._is_told and not self._plan.is_renewing:
            self._reloads = False
            ask_for_reload(self._runtime)

    # ── what processes say, and their ends ──────────────────────────────────────────

    def _wait(self, timeout_s: float) -> None:
        """Take signals, what processes say, and that they have ended."""
        is_signalled, speakers = self._processes.wait(self._wake, timeout_s)
        if is_signalled:
            self._take_signals(self._wake.recv(4096))
        for process in speakers:
            if process.channel is not None:  # else it has gone with one before it
                self._hear(process)
        for process, code in self._processes.reap():
            self._note_end(process, _end_in_words(code))

    def _hear(self, process: Process) -> None:
        """Take what a process has said. One that says what it should not is not listened to any more, and ended."""
        assert process.channel is not None
        try:
            for kind, content in process.channel.hear():
                self._take(process, kind, content)
        except EOFError:
            process.close()  # it has ended, or is about to
            if process.pid == 0:
                self._note_end(process, "it was not made")
            elif process.is_worker:
                process.signal(signal.SIGTERM)
        except (ValueError, TypeError, KeyError):
            process.close()
            process.signal(signal.SIGKILL)

    def _take(self, process: Process, kind: str, content: Any) -> None:
        if process.is_worker and kind == "ready":
            self._plan.worker_is_ready(process.number)
            logger.info("worker %d serves", process.pid)
        elif process.is_worker:
            raise ValueError(kind)
        elif kind == "ready":
            self._facts = dict(content["facts"])
            is_single = content["is_single"]
            logger.info("process %d has loaded the models%s", process.pid, f": {is_single}" if is_single else "")
            self._plan.nursery_is_ready(process.number, can_fork=not is_single, generation=content["generation"])
        elif kind == "failed":
            self._fail(rebuild(content))
        elif kind == "started":
            worker = self._processes.get(content["worker"])
            if worker is not None:  # else it has ended already
                self._processes.note_worker(process, worker, content["pid"])
                logger.info("worker %d starts", worker.pid)

    def _fail(self, error: FitserveError) -> None:
        """A nursery could not load the models; it ends by itself.

        Raises:
            FitserveError: nothing serves yet.
        """
        if not self._plan.has_served:
            raise error
        logger.error("%s", error)

    def _note_end(self, process: Process, why: str) -> None:
        """A process is gone.

        Raises:
            FitserveError: it was to be the first that serves.
        """
        if process.channel is not None and not process.is_worker:
            self._hear(process)  # what it has said last
        self._processes.remove(process)
        has_ended = self._plan.worker_has_ended if process.is_worker else self._plan.nursery_has_ended
        is_given_up = has_ended(process.number, time.monotonic())
        if self._n_stops or process.is_let_go:
            return
        what = f"{'worker' if process.is_worker else 'the process that loads the models,'} {process.pid or ''}".strip()
        if not self._plan.has_served:
            msg = f"{what} ended before it served: {why}"
            raise FitserveError(msg)
        if is_given_up:
            logger.error("the workers could not be replaced and go on: %s %s", what, why)
        else:
            pause_s = self._plan.pause_s
            then = f"; another starts in {pause_s:g} s" if pause_s else ""
            logger.log(logging.INFO if why == _WELL else logging.ERROR, "%s is gone: %s%s", what, why, then)

    # ── signals, and the end ────────────────────────────────────────────────────────

    def _take_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                continue
            if number == signal.SIGHUP and not (self._had_terminal and not has_terminal()):
                logger.info("SIGHUP: the workers are replaced one by one")
                self._plan.renew("as SIGHUP asks")
                self._reloads = True
            elif number == signal.SIGINT and self._n_stops:
                self._exit_code = STOPPED_AT_ONCE
            else:
                self._n_stops += 1

    def _stop(self) -> None:
        """Let every worker finish; kill those that have not in time."""
        self._notifier.stopping("stopping")
        for process in self._processes:
            if process.is_worker:
                process.signal(signal.SIGUSR1)  # not ready any more
            else:
                self._processes.end_nursery(process.number)
        self._wait_for_end(time.monotonic() + self._settings.shutdown_delay_s, are_to_end=False)
        self._listener.close()
        for process in self._processes.workers:
            process.signal(signal.SIGTERM)
        self._wait_for_end(time.monotonic() + self._leave_s, are_to_end=True)
        if self._exit_code != STOPPED_AT_ONCE:
            for process in self._processes.workers:
                self._exit_code = KILLED
                self._carry_out(Kill(process.number, "it did not end in time"))

    def _wait_for_end(self, until_s: float, *, are_to_end: bool) -> None:
        while self._exit_code != STOPPED_AT_ONCE and (self._processes.workers or not are_to_end):
            rest_s = until_s - time.monotonic()
            if rest_s <= 0:
                return
            self._notifier.watchdog(time.monotonic())
            self._wait(min(rest_s, TICK_S))


_WELL = "it has ended"


def _end_in_words(code: int) -> str:
    if code == 0:
        return _WELL
    return f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"
