"""Run a function in a child process, which may be killed, crash or lie without harm to this one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fitserve.confine import template as template_program
from fitserve.confine.outcome import TEMPLATE_ENDED, Outcome, answer
from fitserve.confine.template import EXIT_CODE, IDLE_S, STARTED
from fitserve.confine.wire import LENGTH, pack
from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fitserve.confine.sandbox import Sandbox

START_S = 120.0
"""How long a template may take to import the libraries, on a cold disk, and to fork."""

END_S = 5.0
"""How long a template may take to end when it is told to: it may be in the middle of an import."""

LONGEST_REPLY_BYTES = 1 << 28
"""What a child may answer: a model that was converted to another format travels in a reply."""

KEPT_STDERR_BYTES = 4_096
"""How much of a child's last words is kept."""

GIVE_UP_S = 0.1
"""How often it is asked whether an answer is still wanted."""

_CHUNK = 1 << 18


class GivenUpError(ArtifactError):
    """Nobody wants the answer of a child any more, which was killed."""


class Template:
    """A process that has imported the libraries and forks a child for each task; it has one thread and never predicts.

    Thread-safe. After a fork of this process the copy starts a template of its own when it needs one, unless
    ``is_shared``.
    """

    def __init__(
        self,
        preload: tuple[str, ...] = (),
        *,
        sandbox: Sandbox | None = None,
        removes: tuple[Path, ...] = (),
        idle_s: float = IDLE_S,
        longest_reply_bytes: int = LONGEST_REPLY_BYTES,
        executes: bool = sys.platform == "darwin",
        is_shared: bool = False,
    ) -> None:
        """Describe a template; nothing is started.

        Args:
            preload: modules that it imports; one that cannot be imported is passed over.
            sandbox: what every task may do at the most, entered before the order is read; for a process that will
                be confined itself, and must not reach more through its children. Its limits do not count.
            removes: folders that go when the template ends, as it does when this process does, however it ends:
                a confined process cannot remove the folder in which it writes.
            idle_s: after how long without a task it gives its memory back.
            longest_reply_bytes: a reply that is longer is an error.
            executes: each child is a new program instead of a fork, which costs the imports each
                time. So on macOS, whose system libraries do not bear a fork.
            is_shared: copies of this process go on with the same process, which ends when the last of them has.
        """
        bounds = sandbox and {"writable": [str(folder) for folder in sandbox.writable], "connect": sandbox.connect}
        self._options = {
            "preload": list(preload),
            "sandbox": bounds,
            "removes": [str(folder) for folder in removes],
            "idle_s": idle_s,
            "executes": executes,
        }
        self._longest_reply_bytes = longest_reply_bytes
        self._is_shared = is_shared
        self._forget()
        _templates.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()  # the old one may be held by a thread that is not in the copy
        self._control: socket.socket | None = None
        self._end: weakref.finalize[Any, Template] | None = None

    def in_copy(self) -> None:
        """Be that of a copy of the process, which has just been made."""
        if self._is_shared:
            # A task is one message, so that several may send theirs into the same socket.
            self._lock = threading.Lock()
            return
        if self._end is not None:
            self._end()
        self._forget()

    def start(self) -> None:
        """Start the process, unless it runs. Returns at once: the imports go on beside the caller.

        Raises:
            ArtifactError: this process may not start another, because it is confined.
        """
        with self._lock:
            if self._control is None:
                self._launch()

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        options = self._options | {"path": _search_path()}
        with theirs:
            descriptor = str(theirs.fileno())
            command = [sys.executable, "-P", template_program.__file__, descriptor, json.dumps(options), "warm"]
            quiet = subprocess.DEVNULL
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    command,
                    stdin=quiet,
                    stdout=quiet,
                    stderr=quiet,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as exc:
                ours.close()
                raise ArtifactError(
                    "cannot be tried: the process that tries models does not run, and this process may not start it "
                    f"({exc.strerror}); start it before this process is confined"
                ) from exc
        self._control = ours
        self._end = weakref.finalize(self, _end_template, os.getpid(), ours, process)

    def run(
        self,
        task: str,
        request: Mapping[str, Any],
        blobs: Sequence[bytes | memoryview] = (),
        *,
        deadline_s: float,
        niceness: int = 0,
        gives_up: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Call a function in a child and return what it returned. Blocks.

        Args:
            task: ``package.module:function``. It is called with ``request`` as a dict and with the
                blobs as read-only memoryviews, and returns what JSON can hold. It confines itself
                (:func:`fitserve.confine.sandbox.enter`) before it looks at what it does not trust.
            request: what JSON can hold.
            blobs: bytes that are handed over without being copied into the child.
            deadline_s: how long the child may take; the start of the template does not count.
            niceness: by how much its priority is lower than ours, up to 19.
            gives_up: asked every :data:`GIVE_UP_S` whether the answer is wanted no more.

        Raises:
            GivenUpError: ``gives_up`` said so; the child is killed.
            FitserveError: the function raised it; of the same class, if that is one of
                :mod:`fitserve.errors`, and with the same text.
            ArtifactError: the function raised something else, the child crashed or was killed, or it
                did not answer in time.
        """
        payload = pack({"task": task, "request": dict(request), "path": _search_path()}, blobs)
        try:
            for _ in range(2):  # a template may have died, long ago or now
                outcome = self._try(payload, deadline_s, niceness, gives_up)
                if outcome != TEMPLATE_ENDED:
                    return answer(outcome, deadline_s, self._longest_reply_bytes)
        finally:
            os.close(payload)
        raise ArtifactError("cannot be tried: the process that tries models ended twice; is there enough memory?")

    def _try(self, payload: int, deadline_s: float, niceness: int, gives_up: Callable[[], bool] | None) -> Outcome:
        with contextlib.ExitStack() as ours:
            reply, their_reply = os.pipe()
            ours.callback(os.close, reply)
            stderr, their_stderr = os.pipe()
            ours.callback(os.close, stderr)
            status, their_status = socket.socketpair()
            ours.callback(status.close)
            # Not only closed: a process that was forked meanwhile may hold a copy.
            ours.callback(_shut_down, status)
            with their_status:
                try:
                    control = self._send([their_reply, their_status.fileno(), payload, their_stderr], niceness)
                finally:
                    os.close(their_reply)
                    os.close(their_stderr)
            if control is None:
                return TEMPLATE_ENDED
            watch = _Watch(reply, status, stderr, self._longest_reply_bytes)
            outcome = watch.until_answer(deadline_s, gives_up)
        if outcome == TEMPLATE_ENDED:
            self._drop(control)
        return outcome

    def _send(self, descriptors: list[int], niceness: int) -> socket.socket | None:
        self.start()
        with self._lock:
            control = self._control
            if control is not None:
                try:
                    socket.send_fds(control, [bytes([niceness])], descriptors)
                except OSError:
                    control = None
        if control is None:
            self._drop(self._control)
        return control

    def _drop(self, control: socket.socket | None) -> None:
        """End the template that ``control`` leads to, if it is still the one in use."""
        with self._lock:
            if self._control is not control:
                return
            end, self._control, self._end = self._end, None, None
        if end is not None:
            end()

    def close(self) -> None:
        """End the template and the children that it has. A later task starts it again."""
        self._drop(self._control)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """What one child says on its three lines, until it has answered, ended, or had its time."""

    def __init__(self, reply: int, status: socket.socket, stderr: int, longest_reply_bytes: int) -> None:
        self._status = status
        self._longest_bytes = longest_reply_bytes + LENGTH.size
        self._said: dict[int, bytearray] = {reply: bytearray(), status.fileno(): bytearray(), stderr: bytearray()}
        self._reply, self._told, self._stderr = self._said.values()
        self._poll = select.poll()
        for descriptor in self._said:
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)

    def until_answer(self, deadline_s: float, gives_up: Callable[[], bool] | None = None) -> Outcome:
        end = time.monotonic() + START_S
        is_started = is_late = False
        longest_s = math.inf if gives_up is None else GIVE_UP_S
        while not self._is_complete():
            if gives_up is not None and gives_up():
                raise GivenUpError("was given up while it was tried")
            ready = self._poll.poll(min(longest_s, max(0.0, end - time.monotonic())) * 1000)
            for descriptor, _ in ready:
                self._read(descriptor)
            if self._told and not is_started:
                is_started, end = True, time.monotonic() + deadline_s
            if time.monotonic() >= end:
                if not is_started:
                    raise ArtifactError(
                        f"cannot be tried: the process that tries models did not come up in {START_S:g} s"
                    )
                is_late = True
                break
        return self._outcome(is_late=is_late)

    def _is_complete(self) -> bool:
        if self._status.fileno() not in self._said or len(self._told) > len(STARTED):
            for descriptor in list(self._said):  # the child has ended: what it said is there
                while self._read(descriptor):
                    pass
            return True
        size = self._reply_size()
        return len(self._reply) > self._longest_bytes or (size is not None and len(self._reply) >= size)

    def _reply_size(self) -> int | None:
        return LENGTH.size + LENGTH.unpack_from(self._reply)[0] if len(self._reply) >= LENGTH.size else None

    def _read(self, descriptor: int) -> bool:
        """Read what is there; False if nothing more is to be read now."""
        said = self._said.get(descriptor)
        if said is None or len(self._reply) > self._longest_bytes:
            return False
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(descriptor)
            del self._said[descriptor]
            return False
        said += data
        if said is self._stderr:
            del said[:-KEPT_STDERR_BYTES]
        return True

    def _outcome(self, *, is_late: bool) -> Outcome:
        size = self._reply_size()
        # What follows is not looked at: a child that says more has still answered, and its template has not ended.
        is_whole = size is not None and size <= min(len(self._reply), self._longest_bytes)
        is_long = len(self._reply) > self._longest_bytes or (size is not None and size > self._longest_bytes)
        told = bytes(self._told[len(STARTED) :])
        # Without an exit code it is equal to TEMPLATE_ENDED, unless it is late or has replied.
        return Outcome(
            reply=bytes(self._reply[LENGTH.size : size]) if is_whole else None,
            exit_code=EXIT_CODE.unpack(told)[0] if len(told) == EXIT_CODE.size else None,
            stderr=self._stderr.decode(errors="replace"),
            is_late=is_late,
            is_long=is_long,
        )


def _shut_down(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _search_path() -> list[str]:
    """Where this process finds modules, as absolute paths: the other may be in another folder."""
    return [str(Path(place).absolute()) for place in sys.path]


def _end_template(owner: int, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """End a template, and its children with it. In a copy of its owner it is let go of."""
    if os.getpid() != owner:
        process.returncode = 0  # not ours to wait for
        control.close()
        return
    _shut_down(control)
    control.close()
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):  # a confined process sends no signals
            process.kill()


_templates: weakref.WeakSet[Template] = weakref.WeakSet()
_shared: Template | None = None
_shared_lock = threading.Lock()


def shared_template(
    preload: tuple[str, ...] = (),
    *,
    sandbox: Sandbox | None = None,
    removes: tuple[Path, ...] = (),
    is_shared: bool = False,
) -> Template:
    """The one template of this process. The arguments count when it is made, by the first call.

    It ends with this process. After a fork, the copy has one of its own, unless ``is_shared``.
    """
    global _shared  # noqa: PLW0603 - one for each process
    with _shared_lock:
        if _shared is None:
            _shared = Template(preload, sandbox=sandbox, removes=removes, is_shared=is_shared)
        return _shared


def _forget_all() -> None:
    """In a copy of this process: the sockets lead to the template of the original."""
    global _shared_lock  # noqa: PLW0603 - a thread that is not in the copy may have held it
    _shared_lock = threading.Lock()
    for template in list(_templates):
        template.in_copy()


os.register_at_fork(after_in_child=_forget_all)
