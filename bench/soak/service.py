"""A server as its operator has it: processes, a port, a log."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.soak import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent
START_S = 120.0
STOP_S = 60.0

KINDS = {
    "fitserve": lambda path, port, n: [BIN / "fitserve", "run", path, "--port", port, "--workers", n],
    "uvicorn": lambda _, port, n: [BIN / "uvicorn", "fitserve.asgi:app", "--port", port, "--workers", n],
    "gunicorn": lambda _, port, n: [
        BIN / "gunicorn", "-w", n, "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "fitserve.asgi:app",
    ],
}  # fmt: skip


class SoakError(Exception):
    """The service did not do what a trial needs to go on; the text says what."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def operation(self) -> dict[str, Any]:
        """The operation that the answer tells of."""
        return self.body.get("operation") or self.body

    @property
    def why(self) -> str:
        return f"{self.status} {self.operation.get('error') or self.body.get('detail') or self.body}"


@dataclass
class Service:
    """A server that has been started."""

    process: subprocess.Popen
    port: int
    log: Path
    n_workers: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, method: str, path: str, body: object = None, timeout_s: float = 120.0) -> Answer:
        """One request over a connection of its own.

        Raises:
            OSError, http.client.HTTPException: there was no reply.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            data = None if body is None else json.dumps(body)
            headers = {"Connection": "close", **({} if body is None else {"Content-Type": "application/json"})}
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            raw = reply.read()
            found = json.loads(raw) if raw else {}
            return Answer(reply.status, found if isinstance(found, dict) else {"items": found}, dict(reply.headers))
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/ready", timeout_s=10).status == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def told(self) -> str:
        """The end of the log, without the lines of requests."""
        return "\n".join([line for line in self.said().splitlines() if "fitserve.access" not in line][-40:])

    def wait(self, condition: Callable[[], Any], what: str, within_s: float = 90.0) -> Any:
        """Wait for what a condition gives; the log goes into the error.

        Raises:
            SoakError: it did not come.
        """
        deadline_s = time.monotonic() + within_s
        while not (found := condition()):
            if time.monotonic() > deadline_s:
                raise SoakError(f"wanted {what} within {within_s:g} s; the log ends:\n{self.told()}")
            time.sleep(0.05)
        return found

    def serving(self) -> set[int]:
        """The processes that accept connections now: those that have the other ends of many opened at once."""
        connections = [
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=30) for _ in range(8 * self.n_workers)
        ]
        try:
            for connection in connections:
                connection.request("GET", "/health")
            for connection in connections:
                connection.getresponse().read()
            ours = {connection.sock.getsockname()[1] for connection in connections if connection.sock}
            holders = processes.clients_of(self.port, processes.tree(self.pid))
            return {pid for pid, ports in holders.items() if ports & ours}
        except (OSError, http.client.HTTPException):
            return set()
        finally:
            for connection in connections:
                connection.close()

    def wait_for_workers(self, *, without: set[int] = frozenset(), within_s: float = 120.0) -> set[int]:
        """Wait until all workers serve, none of them one of ``without``."""

        samples: deque[set[int]] = deque(maxlen=6)  # not every server spreads its connections

        def all_serve() -> set[int]:
            samples.append(self.serving())
            pids = {pid for sample in samples for pid in sample if processes.command(pid)}
            return pids if len(pids) == self.n_workers and not pids & without else set()

        return self.wait(all_serve, f"{self.n_workers} workers that serve, none of {sorted(without)}", within_s)

    def end(self, number: int = signal.SIGTERM, within_s: float = STOP_S) -> int:
        """Send a signal and wait for the end.

        Raises:
            SoakError: it goes on.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise SoakError(f"still there {within_s:g} s after signal {number}:\n{self.told()}") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(
    path: Path, folder: Path, *, kind: str = "fitserve", workers: int = 4, **settings: object
) -> Iterator[Service]:
    """A server that is ready; ended, and with it all that it started.

    Args:
        path: what it serves.
        folder: of the trial: its log, state and caches go there.
        kind: one of ``KINDS``.
        workers: how many.
        settings: by their names, as in ``fitserve config show``.
    """
    service = start(path, folder, kind=kind, workers=workers, **settings)
    try:
        service.wait(lambda: service.process.poll() is not None or service.is_ready(), "it to be ready", START_S)
        if service.process.poll() is not None:
            raise SoakError(f"it ended with {service.process.returncode}:\n{service.said()}")
        service.wait_for_workers(within_s=START_S)
        yield service
    finally:
        finish(service.process)


def start(path: Path, folder: Path, *, kind: str = "fitserve", workers: int = 4, **settings: object) -> Service:
    port = free_port()
    log = folder / f"log-{kind}-{port}"
    environ = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    given = {"cache_dir": folder / "cache", "state_dir": folder / "state", "optimize": "off", **settings}
    environ |= {"MODEL_PATH": str(path)} | {f"FITSERVE_{name.upper()}": str(value) for name, value in given.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in KINDS[kind](path, port, workers)],
            cwd=folder,  # so that no .env and no fitserve.toml is read
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(process, port, log, workers)


def finish(process: subprocess.Popen) -> None:
    """End a server whatever state it is in, and whatever it has started."""
    started = processes.tree(process.pid) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in started[1:]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if processes.command(pid):
                os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
