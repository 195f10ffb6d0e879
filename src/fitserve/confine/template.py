"""The template: a process that has imported the libraries, and forks a child for each task.

It has one thread and never predicts, so that forking is safe: no lock is held by a thread that the
child does not have, and no library has started threads that the child would wait for. After a
time of idleness it executes itself anew, which gives its memory back, and imports again when the
next task comes.

It is started as a file, not as a module, because it must first be told where modules lie; and it
imports little, because an idle one is kept for a long time. It ends when its socket does.

For each task it receives one byte, by how much the child's priority is lower, and four descriptors:
where the child replies, where the template tells of the child, the payload, and what becomes the
child's stderr. It writes one byte when it has forked and four, the exit code, when the child has
ended; when the other end is shut down it kills the child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

IDLE_S = 10.0
"""How long a template keeps the libraries in memory without a task."""

STARTED = b"\1"
EXIT_CODE = struct.Struct("!i")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_ENVIRONMENT = dict.fromkeys(_ONE_THREAD, "1") | {"JOBLIB_MULTIPROCESSING": "0", "ORT_DISABLE_TELEMETRY": "1"}
"""A model whose ``n_jobs`` asks for processes works one after the other instead: confined, it could start none.
Nor could onnxruntime keep or send what it collects."""


class _Template:
    def __init__(self, control: socket.socket, options: dict[str, Any]) -> None:
        self._control = control
        self._options = options
        self._is_warm = False
        self._children: dict[int, int] = {}
        """Process id of each child, by the descriptor of its status socket."""
        self._wake, signalled = socket.socketpair()
        for end in (self._wake, signalled):
            end.setblocking(False)
        self._signalled = signalled
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)

    def warm_up(self) -> None:
        """Import the libraries. One that is not installed is left to the task, which knows what it needs."""
        if self._is_warm or self._options["executes"]:
            return
        gc.disable()  # what is imported stays: looking for cycles meanwhile takes a tenth of the time
        for module in ("fitserve.confine.task", "fitserve.confine.kernel", *self._options["preload"]):
            with contextlib.suppress(Exception):
                importlib.import_module(module)
            if _has_threads():
                # A fork would copy the locks that they hold. onnxruntime 1.32 starts one when it is imported.
                self._options["preload"] = [name for name in self._options["preload"] if name != module]
                self._execute("warm")
        gc.collect()
        gc.freeze()  # the children do not touch, and thereby copy, what lives here
        gc.enable()
        self._is_warm = True

    def serve(self) -> None:
        """Take tasks until the other end of the socket closes."""
        while True:
            may_cool = self._is_warm and not self._children
            ready = self._poll.poll(self._options["idle_s"] * 1000 if may_cool else None)
            if not ready:
                self._execute("cold")
            for descriptor, _ in ready:
                if descriptor == self._control.fileno():
                    if not self._take_task():
                        return
                elif descriptor == self._wake.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                    self._reap()
                elif descriptor in self._children:
                    # Nothing is ever sent here: this is the end of the stream.
                    self._poll.unregister(descriptor)
                    _kill_group(self._children[descriptor])

    def _execute(self, mode: str) -> NoReturn:
        """Begin anew, without what was imported. What waits in the socket goes on waiting there."""
        self._control.set_inheritable(True)
        os.execv(sys.executable, _command(str(self._control.fileno()), self._options, mode))  # noqa: S606 - itself

    def _take_task(self) -> bool:
        if not self._control.recv(1, socket.MSG_PEEK):
            return False
        self.warm_up()
        data, descriptors, _, _ = socket.recv_fds(self._control, 1, 4)
        if not data or len(descriptors) < 4:  # noqa: PLR2004 - reply, status, payload, stderr
            return False
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        reply, status, payload, stderr = descriptors
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_child(self._options, template, descriptors[:1] + descriptors[2:], niceness=data[0])
        with contextlib.suppress(OSError):  # the child may have done it, or have ended
            os.setpgid(pid, pid)
        for descriptor in (reply, payload, stderr):
            os.close(descriptor)
        self._children[status] = pid
        self._poll.register(status, select.POLLIN)
        _tell(status, STARTED)
        return True

    def _reap(self) -> None:
        while self._children:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _kill_group(pid)  # what it may have started before it was confined
            status = next((status for status, child in self._children.items() if child == pid), None)
            if status is None:
                continue
            del self._children[status]
            with contextlib.suppress(KeyError):
                self._poll.unregister(status)
            _tell(status, EXIT_CODE.pack(os.waitstatus_to_exitcode(code)))
            os.close(status)


def _has_threads() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208 - pathlib is not needed otherwise
    except OSError:
        return False


def _tell(status: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(status, data)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _be_child(options: dict[str, Any], template: int, descriptors: list[int], *, niceness: int) -> NoReturn:
    """Leave everything of the template behind but its modules, and carry the task out."""
    try:
        reply, payload, stderr = descriptors
        os.nice(niceness)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        _be_first_to_go()
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null), (1, null), (2, stderr)):
            os.dup2(source, target)
        first = 3
        for kept in sorted((reply, payload)):
            os.closerange(first, kept)
            first = kept + 1
        os.closerange(first, 65_536)
        if options["executes"]:
            for kept in (reply, payload):
                os.set_inheritable(kept, True)
            os.execv(sys.executable, _command(f"{reply},{payload}", options, "task"))  # noqa: S606 - itself
        _carry_out(reply, payload, template, options)
    finally:
        os._exit(70)  # not reached unless something above has raised


def _be_first_to_go() -> None:
    """Where memory runs out, let the kernel end this process, and not a server.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - as above
        file.write("1000")


def _carry_out(reply: int, payload: int, template: int, options: dict[str, Any]) -> None:
    if sys.platform == "linux":
        from fitserve.confine.kernel import PR_SET_PDEATHSIG, prctl

        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != template:  # it died before the line above
        return
    from fitserve.confine.task import run_task

    run_task(payload, reply, options["sandbox"])
    os._exit(0)  # the template's exit handlers are not the child's


def _command(descriptors: str, options: dict[str, Any], mode: str) -> list[str]:
    """The command line of a template. ``-P``: this folder is not a place of modules."""
    return [sys.executable, "-P", os.path.abspath(__file__), descriptors, json.dumps(options), mode]  # noqa: PTH100 - pathlib is not needed otherwise


def main() -> None:
    """``template.py DESCRIPTORS OPTIONS MODE``: MODE is ``warm`` (import at once), ``cold`` or ``task``."""
    descriptors, text, mode = sys.argv[1:]
    options = json.loads(text)
    sys.path[:] = options["path"]
    os.environ.update(_ENVIRONMENT)
    if mode == "task":
        reply, payload = map(int, descriptors.split(","))
        _carry_out(reply, payload, os.getppid(), options)
        return
    # The keys of a terminal are for the parent, whose end is ours too.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(descriptors))
    control.set_inheritable(False)
    template = _Template(control, options)
    if mode == "warm":
        template.warm_up()
    template.serve()
    for place in options["removes"]:
        _remove(place)


def _remove(place: str) -> None:
    """Remove a folder; a socket only if nobody listens there: another server may have taken the place."""
    import shutil
    import stat

    try:
        if stat.S_ISSOCK(os.lstat(place).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(place)
        else:
            shutil.rmtree(place, ignore_errors=True)
    except ConnectionRefusedError:
        os.unlink(place)  # noqa: PTH108 - it imports little
    except OSError:
        pass


if __name__ == "__main__":
    main()
    os._exit(0)  # its children, if any, die with it
