"""Real server processes on free ports of the loopback interface."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 90.0

COMMANDS = {
    "fitserve": lambda path, port: [BIN / "fitserve", "run", path, "--port", port],
    "fitserve, 2 workers": lambda path, port: [BIN / "fitserve", "run", path, "--port", port, "--workers", "2"],
    "uvicorn": lambda _, port: [BIN / "uvicorn", "fitserve.asgi:app", "--port", port],
    "uvicorn, 2 workers": lambda _, port: [BIN / "uvicorn", "fitserve.asgi:app", "--port", port, "--workers", "2"],
    "gunicorn": lambda _, port: [
        BIN / "gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port}", "fitserve.asgi:app",
    ],
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(kind: str, path: Path, folder: Path, **environ: str) -> tuple[subprocess.Popen, str, Path]:
    """Start a server of some kind; return the process, its URL and the file that its output goes to."""
    port = free_port()
    log = folder / f"log-{port}"
    command = [str(part) for part in COMMANDS[kind](path, port)]
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "MODEL_PATH": str(path), "FITSERVE_CACHE_DIR": str(folder / "cache"), **environ},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, f"http://127.0.0.1:{port}", log


@contextmanager
def running(kind: str, path: Path, folder: Path, **environ: str):
    """A server that is ready; yields a client, the process and the log, and stops it."""
    process, url, log = start(kind, path, folder, **environ)
    try:
        with httpx2.Client(base_url=url, timeout=30) as client:
            wait_until(lambda: is_ready(client, process, log), START_TIMEOUT_S, log)
            yield client, process, log
    finally:
        stop(process)


def is_ready(client: httpx2.Client, process: subprocess.Popen, log: Path) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text()}"
    try:
        return client.get("/ready").status_code == 200
    except httpx2.TransportError:
        return False


def wait_until(condition, timeout_s: float, log: Path | None = None) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, log.read_text() if log else "timed out"
        time.sleep(0.05)


def stop(process: subprocess.Popen) -> int:
    """SIGTERM, as a process manager does; kill the whole group if it does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()  # or a test that has nothing to do with it fails when the object goes
            raise
    return process.wait()


def children(pid: int) -> list[int]:
    """The worker processes of a supervisor: its children but for those that load or try models, and track resources."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_text() + (entry / "comm").read_text()
            except OSError:
                continue
            if parent == pid and not re.search(r"resource_tracker|confine/template\.py|fitserve-nurser", command):
                found.append(int(entry.name))
    return sorted(found)
