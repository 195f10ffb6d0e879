"""The processes of a supervisor: started, spoken to, sent signals, waited for. Decides nothing.

A process is trusted with no more than what it says of itself: it is confined and the supervisor is not.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitserve.confine.scratch import make_scratch, remove_scratch
from fitserve.supervisor.channel import Channel
from fitserve.supervisor.launch import launch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.store.fetcher import Fetcher


@dataclass(slots=True)
class Process:
    """A nursery or a worker.

    Attributes:
        number: by which the plan knows it.
        is_worker: or a nursery.
        pid: 0 until the nursery has told that of a worker.
        channel: None once nothing more is to be heard.
        scratch: the folder of its nursery, in which it writes.
        private_bytes: its memory when it was weighed last.
        is_let_go: it was ended because it is needed no more.
    """

    number: int
    is_worker: bool
    pid: int
    channel: Channel | None
    scratch: Path | None
    private_bytes: int | None = None
    is_let_go: bool = False

    def close(self) -> None:
        """Listen to it no more."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def signal(self, number: int) -> None:
        """Send a signal, if it is there. One that is on its way hears the end of its channel."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Processes:
    """All of them, by number."""

    def __init__(self, settings: Settings, listener: socket.socket, runtime: Path, fetcher: Fetcher | None) -> None:
        """Have none yet.

        Args:
            settings: of the server.
            listener: what the workers serve.
            runtime: the folder that all of them share.
            fetcher: fetches the models, if they lie at a URL.
        """
        self._settings = settings
        self._listener = listener
        self._runtime = runtime
        self._fetcher = fetcher
        self._all: dict[int, Process] = {}

    def __getitem__(self, number: int) -> Process:
        return self._all[number]

    def get(self, number: int) -> Process | None:
        """The process of a number, if it is there."""
        return self._all.get(number)

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._all.values()))

    @property
    def workers(self) -> list[Process]:
        """Those that are made."""
        return [process for process in self if process.is_worker and process.pid]

    def start_nursery(self, number: int) -> Process:
        """Start a process that loads the models."""
        scratch = make_scratch("fitserve-")
        pid, channel = launch(self._settings, self._runtime, scratch, self._fetcher)
        self._all[number] = Process(number, is_worker=False, pid=pid, channel=channel, scratch=scratch)
        return self._all[number]

    def end_nursery(self, number: int) -> None:
        """Let a nursery go, wherever it is in its work: what its workers need of it, they have."""
        nursery = self._all[number]
        nursery.is_let_go = True
        nursery.close()
        nursery.signal(signal.SIGKILL)

    def start_worker(self, number: int, nursery: Process) -> None:
        """Let a nursery make a worker, or become one: it tells."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._all[number] = Process(number, is_worker=True, pid=0, channel=Channel(ours), scratch=nursery.scratch)
        with theirs, contextlib.suppress(OSError):  # it has ended: so does the new channel, which is heard
            if nursery.channel is None:
                nursery.signal(signal.SIGKILL)  # it listens to nobody
            else:
                nursery.channel.say("start", {"worker": number}, (self._listener.fileno(), theirs.fileno()))

    def note_worker(self, nursery: Process, worker: Process, pid: int) -> None:
        """A nursery has made a worker, or has become one.

        Raises:
            ValueError: it is no process of ours.
        """
        if pid == nursery.pid:
            nursery.close()
            del self._all[nursery.number]
        elif not _is_child(pid):  # it would be sent signals
            raise ValueError(pid)
        worker.pid = pid

    def wait(self, also: socket.socket, timeout_s: float) -> tuple[bool, list[Process]]:
        """Wait until something is to be heard: whether from ``also``, and from which processes."""
        poll = select.poll()
        poll.register(also, select.POLLIN)
        speakers = {process.channel.fileno(): process for process in self if process.channel is not None}
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(timeout_s * 1000)]
        return also.fileno() in ready, [speakers[descriptor] for descriptor in ready if descriptor in speakers]

    def reap(self) -> Iterator[tuple[Process, int]]:
        """Those that have ended, and their exit codes. Also takes the remains of those whose parents had ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = next((one for one in self if one.pid == pid), None)
            if process is not None:
                yield process, os.waitstatus_to_exitcode(status)

    def remove(self, process: Process) -> None:
        """Forget a process that has ended, and remove what it has left behind."""
        process.close()
        self._all.pop(process.number, None)
        if process.scratch is None:
            return
        if process.is_worker:
            # It may have put a link there: this way follows none.
            shutil.rmtree(process.scratch / f"worker-{process.number}", ignore_errors=True)
        if not any(other.scratch == process.scratch for other in self):
            remove_scratch(process.scratch)

    def end_all(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for process in self:
            process.close()
            process.signal(signal.SIGKILL)
        for process in self:
            if process.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, 0)
            self.remove(process)


def _is_child(pid: Any) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, OverflowError):
        return False
    return True
