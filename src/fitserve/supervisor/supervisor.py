"""The parent of the workers: starts them, replaces them, stops them. Knows processes, not models."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitserve.confine.kernel import PR_SET_CHILD_SUBREAPER, machine, prctl
from fitserve.confine.scratch import make_scratch, remove_scratch
from fitserve.confine.wire import rebuild
from fitserve.errors import FitserveError
from fitserve.server.terminal import has_terminal
from fitserve.shared_state.board import Board
from fitserve.shared_state.folder import server_folder
from fitserve.supervisor.channel import Channel
from fitserve.supervisor.facts import ask_for_reload, is_switching, private_bytes
from fitserve.supervisor.launch import launch
from fitserve.supervisor.plan import Drain, EndNursery, Kill, Limits, Plan, Seen, StartNursery, StartWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.supervisor.notify import Notifier
    from fitserve.supervisor.plan import Action

logger = logging.getLogger(__name__)

TICK_S = 0.5
"""How often the board is looked at, if nothing happens meanwhile."""

WEIGH_S = 10.0
"""How often the memory of the workers is measured: the kernel walks through all of it."""

GRACE_S = 5.0
"""What a worker may take to end, beyond what the settings give it."""

STOPPED, KILLED, STOPPED_AT_ONCE = 0, 3, 130
"""Exit codes: stopped and everything answered; a worker had to be killed; Ctrl-C was pressed twice."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class _Process:
    """A nursery or a worker.

    Attributes:
        number: by which the plan knows it.
        is_worker: or a nursery.
        pid: 0 until the nursery has told that of a worker.
        channel: None once nothing more is to be heard.
        scratch: the folder of its nursery, in which it writes.
    """

    number: int
    is_worker: bool
    pid: int
    channel: Channel | None
    scratch: Path | None
    private_bytes: int | None = None


class Supervisor:
    """Keeps ``settings.workers`` processes serving one listening socket. Runs in the main thread.

    SIGTERM, SIGINT and the closing of the terminal stop all of them, letting each finish what is in flight; a second
    SIGINT ends them at once. SIGHUP replaces them one by one.
    """

    def __init__(self, settings: Settings, listener: socket.socket, notifier: Notifier) -> None:
        """Take over a listening socket.

        Args:
            settings: of the workers.
            listener: what they serve.
            notifier: tells a service manager.
        """
        self._settings = settings
        self._listener = listener
        self._notifier = notifier
        leave_s = settings.lame_duck_s + settings.shutdown_timeout_s + GRACE_S
        self._plan = Plan(
            Limits(
                settings.workers,
                heartbeat_timeout_s=settings.heartbeat_timeout_s,
                recycle_age_s=settings.recycle_age_s,
                recycle_requests=settings.recycle_requests,
                recycle_memory_bytes=settings.recycle_memory_bytes,
                leave_s=leave_s,
                hold_s=settings.rollback_hold_s,
            )
        )
        self._processes: dict[int, _Process] = {}
        self._on_ready: Callable[[dict[str, Any]], None] = lambda _: None
        self._facts: dict[str, Any] = {}
        self._had_terminal = has_terminal()
        self._weighed_s = 0.0
        self._is_told = self._is_renewing = self._reloads = False
        self._n_stops = 0
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
        try:
            self._board = Board.open(self._runtime)
            while not self._n_stops:
                self._step()
            self._stop()
        finally:
            self._end_all()
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
        self._reap()

    def _look(self, now_s: float) -> None:
        """Let the plan know how the workers are, and what they serve."""
        pids = {process.pid: process for process in self._workers()}
        if self._settings.recycle_memory_bytes and now_s - self._weighed_s > WEIGH_S:
            self._weighed_s = now_s
            for process in pids.values():
                process.private_bytes = private_bytes(process.pid)
        seen = {process.number: Seen(private_bytes=process.private_bytes) for process in pids.values()}
        for member in self._board.members():
            if member.pid in pids:
                process = pids[member.pid]
                seen[process.number] = Seen(member.heartbeat_ns / 1e9, member.n_requests, process.private_bytes)
        busy = is_switching(self._runtime)
        self._plan.see(now_s, seen, self._board.generation, is_switching=busy)

    def _carry_out(self, action: Action) -> None:
        match action:
            case StartNursery(number, why):
                self._start_nursery(number, why)
            case EndNursery(number):
                self._end_nursery(number)
            case StartWorker():
                self._start_worker(action)
            case Drain(number, why):
                logger.info("worker %d is replaced and ends: %s", self._processes[number].pid, why)
                self._signal(number, signal.SIGTERM)
            case Kill(number, why):
                logger.error("worker %d is killed: %s", self._processes[number].pid, why)
                self._exit_code = KILLED if self._n_stops else self._exit_code
                self._signal(number, signal.SIGKILL)

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
        if self._reloads and self._is_told and not self._plan.is_renewing:
            self._reloads = False
            ask_for_reload(self._runtime)

    # ── processes ───────────────────────────────────────────────────────────────────

    def _workers(self) -> list[_Process]:
        return [process for process in self._processes.values() if process.is_worker and process.pid]

    def _start_nursery(self, number: int, why: str) -> None:
        scratch = make_scratch("fitserve-")
        pid, channel = launch(self._settings, self._runtime, scratch)
        self._processes[number] = _Process(number, is_worker=False, pid=pid, channel=channel, scratch=scratch)
        logger.info("process %d loads the models%s", pid, f" {why}" if why else "")

    def _end_nursery(self, number: int) -> None:
        """Let a nursery go, wherever it is in its work: what its workers need of it, they have."""
        self._close(self._processes[number])
        self._signal(number, signal.SIGKILL)

    def _close(self, process: _Process) -> None:
        if process.channel is not None:
            process.channel.close()
            process.channel = None

    def _start_worker(self, action: StartWorker) -> None:
        nursery = self._processes[action.nursery]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._processes[action.worker] = _Process(
            action.worker, is_worker=True, pid=0, channel=Channel(ours), scratch=nursery.scratch
        )
        with theirs, contextlib.suppress(OSError):  # it has ended: so does the new channel, which is heard
            assert nursery.channel is not None  # the plan uses those that are ready
            nursery.channel.say("start", {"worker": action.worker}, (self._listener.fileno(), theirs.fileno()))
        if action.replaces is not None:
            old = self._processes[action.replaces].pid
            logger.info("another worker starts in place of %d: %s", old, action.why)

    def _signal(self, number: int, signal_number: int) -> None:
        pid = self._processes[number].pid
        if pid:  # else it has not been told yet, and the channel ends what is on its way
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _wait(self, timeout_s: float) -> None:
        """Take signals, and what processes say."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        speakers = {
            process.channel.fileno(): process for process in self._processes.values() if process.channel is not None
        }
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(timeout_s * 1000):
            if descriptor == self._wake.fileno():
                self._take_signals(self._wake.recv(4096))
            else:
                self._hear(speakers[descriptor])

    def _hear(self, process: _Process) -> None:
        assert process.channel is not None
        try:
            messages = process.channel.hear()
        except (EOFError, ValueError):
            self._close(process)
            self._lose(process)
            return
        for kind, content in messages:
            if process.is_worker and kind == "ready":
                self._plan.worker_is_ready(process.number)
                logger.info("worker %d serves", process.pid)
            elif not process.is_worker:
                self._hear_nursery(process, kind, content)

    def _hear_nursery(self, nursery: _Process, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "ready":
            self._facts = dict(content["facts"])
            is_single = content["is_single"]
            logger.info("process %d has loaded the models%s", nursery.pid, f"; {is_single}" if is_single else "")
            self._plan.nursery_is_ready(nursery.number, can_fork=not is_single, generation=content["generation"])
        elif kind == "failed":
            self._fail(rebuild(content))
        elif kind == "started" and content["worker"] in self._processes:
            worker = self._processes[content["worker"]]
            worker.pid = content["pid"]
            if worker.pid == nursery.pid:  # it has become the worker
                self._close(nursery)
                del self._processes[nursery.number]
            logger.info("worker %d starts", worker.pid)

    def _fail(self, error: FitserveError) -> None:
        """A nursery could not load the models; it ends by itself.

        Raises:
            FitserveError: nothing serves yet.
        """
        if not self._plan.has_served:
            raise error
        logger.error("%s", error)

    def _lose(self, process: _Process) -> None:
        """A process has closed its channel. It has ended, or does so now; one without a pid was never made."""
        if process.pid == 0:
            self._note_end(process, "it was not made")
        elif not process.is_worker:
            pass  # its exit code tells more
        else:
            self._signal(process.number, signal.SIGTERM)

    def _reap(self) -> None:
        """Take the remains of all processes that have ended; also of those whose parents had ended before."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = next((one for one in self._processes.values() if one.pid == pid), None)
            if process is not None:
                self._note_end(process, _end_in_words(os.waitstatus_to_exitcode(status)))

    def _note_end(self, process: _Process, why: str) -> None:
        """A process is gone.

        Raises:
            FitserveError: it was to be the first that serves.
        """
        is_wanted = process.channel is not None
        if process.channel is not None and not process.is_worker:
            self._hear(process)  # what it has said last
        self._close(process)
        del self._processes[process.number]
        self._remove_scratch(process)
        now_s = time.monotonic()
        if not process.is_worker:
            is_given_up = self._plan.nursery_has_ended(process.number, now_s)
        else:
            is_given_up = self._plan.worker_has_ended(process.number, now_s)
        if self._n_stops or not (is_wanted or process.is_worker):
            return
        what = f"{'worker' if process.is_worker else 'the process that loads the models,'} {process.pid or ''}".strip()
        if not self._plan.has_served:
            msg = f"{what} ended before it served: {why}"
            raise FitserveError(msg)
        if is_given_up:
            logger.error("the workers could not be replaced and go on: %s %s", what, why)
        else:
            logger.log(logging.INFO if why == _WELL else logging.ERROR, "%s is gone: %s", what, why)

    def _remove_scratch(self, process: _Process) -> None:
        if process.scratch is None:
            return
        if process.is_worker:
            # It may have put a link there: this way follows none.
            shutil.rmtree(process.scratch / f"worker-{process.number}", ignore_errors=True)
        if not any(other.scratch == process.scratch for other in self._processes.values()):
            remove_scratch(process.scratch)

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
        for process in list(self._processes.values()):
            if not process.is_worker:
                self._end_nursery(process.number)
            else:
                self._signal(process.number, signal.SIGUSR1)  # not ready any more
        self._wait_for_end(time.monotonic() + self._settings.shutdown_delay_s, are_to_end=False)
        self._listener.close()
        for process in self._workers():
            self._signal(process.number, signal.SIGTERM)
        leave_s = self._settings.lame_duck_s + self._settings.shutdown_timeout_s + GRACE_S
        self._wait_for_end(time.monotonic() + leave_s, are_to_end=True)
        for process in self._workers():
            if self._exit_code != STOPPED_AT_ONCE:
                self._carry_out(Kill(process.number, "it did not end in time"))

    def _wait_for_end(self, until_s: float, *, are_to_end: bool) -> None:
        while self._exit_code != STOPPED_AT_ONCE and (self._workers() or not are_to_end):
            rest_s = until_s - time.monotonic()
            if rest_s <= 0:
                return
            self._notifier.watchdog(time.monotonic())
            self._wait(min(rest_s, TICK_S))
            self._reap()

    def _end_all(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self._n_stops += 1
        self._listener.close()
        for process in list(self._processes.values()):
            self._close(process)
            self._signal(process.number, signal.SIGKILL)
        for process in list(self._processes.values()):
            if process.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, 0)
            del self._processes[process.number]
            self._remove_scratch(process)


_WELL = "it has ended"


def _end_in_words(code: int) -> str:
    if code == 0:
        return _WELL
    return f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"
