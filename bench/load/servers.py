"""The servers as processes: started on a core of their own, measured, always ended. Linux only."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load.commands import Command

START_S = 60.0
STOP_S = 10.0
SETTLE_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Something cannot be measured; the text says what and why. What else was asked for goes on."""


@dataclass(frozen=True)
class Cores:
    """Where the servers run and where the load; None where there is one core for all."""

    server: int | None = None
    load: int | None = None


def choose_cores() -> Cores:
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1]) if len(usable) > 1 else Cores()


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this thread, and so what it starts: numerical libraries count their cores when they load."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    process: subprocess.Popen
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """User and system time so far, of the process and all that it started."""
        return _cpu_s(self.process.pid)

    def get(self, path: str) -> dict:
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: bytes) -> dict:
        return self._ask(urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"}))

    def _ask(self, request: urllib.request.Request) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as exc:
            raise BenchError(f"{self.name}: {exc} at {request.full_url}: {exc.read(500)!r}") from exc
        except OSError as exc:
            raise BenchError(f"{self.name} did not answer {request.full_url}: {exc}") from exc


@contextlib.contextmanager
def serving(name: str, command: Command, core: int | None) -> Iterator[Server]:
    """Run a server for as long as the context lasts, on a free port of the loopback interface.

    Raises:
        BenchError: it did not start.
    """
    port = free_port()
    process = start(command, port, core)
    try:
        server = Server(name, process, port)
        _wait_until_healthy(server, command)
        yield server
    finally:
        end(process)


def start(command: Command, port: int, core: int | None) -> subprocess.Popen:
    with pinned(core):
        return subprocess.Popen(
            command.arguments(port),
            cwd=command.folder,  # so that no .env or fitserve.toml is read
            env=_environ(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )


def _environ(command: Command) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(command.folder), **command.environ}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_healthy(server: Server, command: Command) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=1):
            return
        time.sleep(0.05)
    raise BenchError(f"{server.name} did not start:\n{_why(command, server.process.args)}")


def _why(command: Command, arguments: list[str]) -> str:
    """What the server says when it is started again; it was silent the first time, as it is when measured."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        again = subprocess.run(
            arguments,
            cwd=command.folder,
            env=_environ(command),
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        return "\n".join((again.stdout + again.stderr).splitlines()[-5:])
    return "it starts, but /health is not answered"


def wait_until_optimized(server: Server) -> str:
    """Wait for the engines of a fitserve that compiles its model after it has begun to serve; say which it has.

    Raises:
        BenchError: it still compiles after a minute.
    """
    deadline = time.monotonic() + SETTLE_S
    found: dict = {}
    n_settled = 0
    while n_settled < 5:  # each of several workers must say so
        found = server.get("/model/info").get("optimization") or {}
        n_settled = 0 if found.get("state") == "running" else n_settled + 1
        if time.monotonic() > deadline:
            raise BenchError(f"{server.name} still compiles its model after {SETTLE_S:.0f} s: {found}")
        time.sleep(0.1 if n_settled == 0 else 0.02)
    if not found:
        return "the library's own call"
    forms = [form if isinstance(form, str) else form.get("name", "?") for form in found.get("forms", [])]
    reason = f" ({found['reason']})" if found.get("reason") else ""
    return f"optimization {found.get('state')}{reason}: {', '.join(forms) or 'native'}"


def end(process: subprocess.Popen) -> None:
    """End a server and all that it has started."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the session of its own that it was started in


def _cpu_s(pid: int) -> float:
    """Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (utime, stime, cutime, cstime)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own_s = sum(map(int, after_name[11:15])) / TICKS_PER_S
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return own_s + sum(_cpu_s(int(child)) for child in children)
