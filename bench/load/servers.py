"""The two servers as processes: started on a core of their own, measured, always ended. Linux only."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BASELINE_FOLDER = Path(__file__).parents[1] / "baseline"
START_S = 60.0
STOP_S = 10.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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
    """Pin this process, and so what it starts: numerical libraries count their cores when they load."""
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
    url: str

    def cpu_s(self) -> float:
        """User and system time so far, of the process and all that it started."""
        return _cpu_s(self.process.pid)

    def post(self, path: str, body: bytes) -> dict:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


def baseline_command(model_path: Path, port: int) -> list[str]:
    del model_path  # in the environment
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--log-level", "info", "--access-log"]
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(BASELINE_FOLDER), "server:app", *options]


def fitserve_command(model_path: Path, port: int) -> list[str]:
    options = ["--quiet", "--host", "127.0.0.1", "--port", str(port), "--cors-origins", "*"]
    return [sys.executable, "-m", "fitserve", "run", str(model_path), *options]


@contextlib.contextmanager
def serving(name: str, command, model_path: Path, core: int | None) -> Iterator[Server]:
    """Run a server for as long as the context lasts, on a free port of the loopback interface."""
    port = _free_port()
    arguments = command(model_path, port)
    with pinned(core):
        process = subprocess.Popen(
            arguments,
            cwd=model_path.parent,  # so that no .env or fitserve.toml is read
            env={"PATH": os.defpath, "MODEL_PATH": str(model_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    try:
        server = Server(name, process, f"http://127.0.0.1:{port}")
        _wait_until_healthy(server)
        yield server
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=1):
            return
        time.sleep(0.05)
    command = " ".join(map(str, server.process.args))
    raise SystemExit(f"{server.name} did not start; to see why, run it with a model of yours: {command}")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpu_s(pid: int) -> float:
    """Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (utime, stime, cutime, cstime)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own_s = sum(map(int, after_name[11:15])) / TICKS_PER_S
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return own_s + sum(_cpu_s(int(child)) for child in children)
