"""Has a URL fetched by a process that may do so, for those that may not connect to anything any more."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fitserve.confine.scratch import make_scratch
from fitserve.confine.wire import rebuild
from fitserve.errors import ArtifactError, SettingsError
from fitserve.shared_state.folder import is_private
from fitserve.store import fetcher_program
from fitserve.store.engine_cache import cache_root
from fitserve.store.fetch import Progress, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fitserve.settings import Settings
    from fitserve.urls import SourceUrl

FETCH_S = 3600.0
"""How long fetching may take: 16 GiB at 5 MB/s."""

CHECK_S = 60.0
"""How long it may take to look whether something has changed."""

END_S = 2.0
"""How long the process may take to end."""

_GONE = "the process that fetches models does not run any more: start the server again"


class Fetcher:
    """Asks the process that fetches. Thread-safe, and several processes may have it: each order has its own socket.

    A copy made by a fork works; another program gets ``fileno()`` passed on, and makes one of it with
    :meth:`of_descriptor`. The process ends when all of them have closed theirs, or have ended.
    """

    def __init__(self, control: socket.socket, url: SourceUrl, process: subprocess.Popen[bytes] | None = None) -> None:
        """Take the socket of a running process.

        Args:
            control: its other end is the process's.
            url: what is fetched. For errors: it need have no secrets.
            process: where this program has started it.
        """
        self._control = control
        self._process = process
        self.url = url
        self._end = weakref.finalize(self, _end, os.getpid(), control, process)

    @classmethod
    def start(cls, url: SourceUrl, settings: Settings) -> Self:
        """Start the process for a URL, with the environment that this process has.

        Before this process is confined: afterwards it may start none.

        Raises:
            SettingsError: others can reach where models are kept.
            ArtifactError: there is no place where they could be kept, or the process cannot be started.
        """
        folder, is_scratch = _place(settings)
        ours, theirs = socket.socketpair()
        options = {
            "control": theirs.fileno(),
            "url": url.url,
            "folder": str(folder),
            "removes": is_scratch,
            "path": [str(Path(place).absolute()) for place in sys.path],
        }
        with theirs:
            try:
                process = _launch(options, theirs)
            except OSError as exc:
                ours.close()
                msg = f"{url} cannot be fetched: the process that does it cannot be started: {exc.strerror}"
                raise ArtifactError(msg) from exc
        return cls(ours, url, process)

    @classmethod
    def of_descriptor(cls, descriptor: int, url: SourceUrl) -> Self:
        """The same in a program that has inherited the descriptor."""
        return cls(socket.socket(fileno=descriptor), url)

    def fileno(self) -> int:
        """The descriptor to pass on to another program."""
        return self._control.fileno()

    def close(self) -> None:
        """Let go of the process. Where this was the last that had it, it ends, and is waited for."""
        self._end()

    def fetch(
        self,
        *,
        or_kept: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
        timeout_s: float = FETCH_S,
    ) -> Snapshot:
        """Have here what lies at the URL now. Blocks.

        Args:
            or_kept: where the source cannot be reached, take what was fetched last.
            progress: called every now and then, in this thread. What it raises ends the fetching.
            timeout_s: after which it is given up; what has come stays for the next time.

        Raises:
            ArtifactError: as :func:`~fitserve.store.fetch.materialize`; or the process has ended, or takes too long.
        """
        for told in self._ask({"do": "fetch", "or_kept": or_kept}, timeout_s):
            if "progress" in told:
                progress(Progress(*told["progress"]))
            else:
                snapshot = told["snapshot"]
                return Snapshot(Path(snapshot.pop("path")), **snapshot)
        raise ArtifactError(_GONE)

    def fingerprint(self, *, timeout_s: float = CHECK_S) -> str:
        """What changes whenever something at the URL does, as a :class:`~fitserve.store.fetch.Snapshot` has it. Blocks.

        Raises:
            ArtifactError: it cannot be told; or the process has ended, or takes too long.
        """
        for told in self._ask({"do": "check"}, timeout_s):
            return str(told["fingerprint"])
        raise ArtifactError(_GONE)

    def _ask(self, order: dict[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
        """Give an order and yield what is told of it. Closing the iterator ends what was ordered."""
        end_s = time.monotonic() + timeout_s
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                ours.sendall(json.dumps(order).encode() + b"\n")
                try:
                    socket.send_fds(self._control, [b"\1"], [theirs.fileno()])
                except OSError as exc:
                    raise ArtifactError(_GONE) from exc
            for line in _lines(ours, end_s, str(self.url)):
                told = json.loads(line)
                if "error" in told:
                    raise rebuild(told["error"])
                yield told


def _end(owner: int, control: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
    control.close()
    if process is None:
        return
    if os.getpid() == owner:
        with contextlib.suppress(subprocess.TimeoutExpired):  # another process still has it
            process.wait(timeout=END_S)
    process.returncode = 0 if process.returncode is None else process.returncode  # not to be waited for any more


def _launch(options: dict[str, Any], theirs: socket.socket) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", fetcher_program.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,  # Ctrl-C is for those who serve: it ends when they have ended
    )
    assert process.stdin is not None  # a pipe
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(options).encode())
    return process


def _lines(sock: socket.socket, end_s: float, name: str) -> Iterator[bytes]:
    """The whole lines that come until the other end is closed, or the time is over."""
    pending = b""
    while True:
        left_s = end_s - time.monotonic()
        sock.settimeout(max(0.001, left_s))
        try:
            data = sock.recv(65_536)
        except TimeoutError as exc:
            msg = f"{name} was not fetched in time"
            raise ArtifactError(msg) from exc
        except OSError:
            return
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from lines


def _place(settings: Settings) -> tuple[Path, bool]:
    """Where models are kept, and whether only as long as the process lives: where there is no other place."""
    root = cache_root(settings)
    if root is not None:
        folder = root / "sources"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            pass
        else:
            if not is_private(folder):
                msg = f"cache_dir: others can reach {folder}, and what lies there is served: chmod go-rwx it"
                raise SettingsError(msg)
            if os.access(folder, os.W_OK):
                return folder, False
    scratch = make_scratch("fitserve-source-")
    if scratch is None:
        msg = "cannot be fetched: there is no folder in which it could be kept; cache_dir names one"
        raise ArtifactError(msg)
    return scratch, True
