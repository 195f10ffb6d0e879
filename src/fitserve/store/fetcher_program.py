"""The process that fetches: it may connect and write where models are kept, and parses none.

It is started before the processes that serve give up such rights, and does for them what they ask: fetch what lies at
the one URL that it was started for, or tell whether it has changed. They cannot name another: a model that has taken
one of them over reaches nothing through it.

It receives one byte and one descriptor for each order: a socket on which a line of JSON says what to do, and on which
lines of JSON tell how far it is and how it has ended. It ends when nobody has the other end of its own socket any more.
It is started as a file, with its options on standard input: everybody sees arguments, and a URL may hold secrets.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fitserve.store.fetching import Progress
    from fitserve.urls import SourceUrl

TELLS_EACH_S = 0.2
"""How often progress is told."""

LONGEST_ORDER_BYTES = 4096
LISTENS_S = 10.0
"""How long the order may take to come once its socket has: and how long nobody may take what is told."""

MAX_ORDERS = 64
"""At the same time. More is not what servers ask for."""


class _AskerGoneError(BaseException):
    """Nobody waits for the answer any more. No fault of the source or the disk, so none of their handlers takes it."""


class _Order:
    """One order, answered on its own socket by its own thread."""

    def __init__(self, asker: socket.socket, url: SourceUrl, folder: Path) -> None:
        self._asker = asker
        self._url = url
        self._folder = folder
        self._told_s = 0.0

    def answer(self) -> None:
        with self._asker, contextlib.suppress(_AskerGoneError):
            self._asker.settimeout(LISTENS_S)
            try:
                order = json.loads(self._asker.makefile("rb").readline(LONGEST_ORDER_BYTES))
                is_fetch, or_kept = order["do"] == "fetch", order.get("or_kept") is True
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                return
            self._say(self._carry_out(or_kept=or_kept) if is_fetch else self._look())

    def _carry_out(self, *, or_kept: bool) -> dict[str, Any]:
        from dataclasses import asdict

        from fitserve.store.fetch import materialize

        def work() -> dict[str, Any]:
            found = materialize(self._url, self._folder, progress=self._progress, or_kept=or_kept)
            return {"snapshot": {**asdict(found), "path": str(found.path)}}

        return self._guarded(work)

    def _look(self) -> dict[str, Any]:
        from fitserve.store.fetch import fingerprint

        return self._guarded(lambda: {"fingerprint": fingerprint(self._url)})

    def _guarded(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from fitserve.confine.wire import describe
        from fitserve.errors import ArtifactError, FitserveError

        try:
            return work()
        except FitserveError as exc:
            return {"error": describe(exc)}
        except Exception as exc:  # noqa: BLE001 - whatever a library raises; its text may hold secrets
            error = ArtifactError(f"{self._url} cannot be fetched: {type(exc).__name__}")
            return {"error": describe(error)}

    def _progress(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= TELLS_EACH_S:
            self._told_s = now_s
            self._say({"progress": [progress.n_bytes, progress.n_done_bytes, progress.n_files, progress.n_done_files]})

    def _say(self, told: dict[str, Any]) -> None:
        try:
            self._asker.sendall(json.dumps(told).encode() + b"\n")
        except OSError as exc:
            raise _AskerGoneError from exc


def _serve(control: socket.socket, url: SourceUrl, folder: Path) -> None:
    """Take orders until nobody is left who could give one."""
    slots = threading.BoundedSemaphore(MAX_ORDERS)

    def answer(asker: socket.socket) -> None:
        try:
            _Order(asker, url, folder).answer()
        finally:
            slots.release()

    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        for descriptor in descriptors:
            asker = socket.socket(fileno=descriptor)
            if slots.acquire(blocking=False):
                threading.Thread(target=answer, args=(asker,), daemon=True).start()
            else:
                asker.close()


def main() -> NoReturn:
    """Read the options, and serve."""
    options = json.load(sys.stdin)
    sys.path[:] = options["path"]
    import shutil
    from pathlib import Path

    from fitserve.urls import SourceUrl

    control = socket.socket(fileno=options["control"])
    control.set_inheritable(False)
    _serve(control, SourceUrl(options["url"]), Path(options["folder"]))
    if options["removes"]:
        shutil.rmtree(options["folder"], ignore_errors=True)
    os._exit(0)  # threads may be in the middle of a download: what they have goes on next time


if __name__ == "__main__":
    main()
