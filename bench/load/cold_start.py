"""From the start of a process to its first correct prediction."""

import compileall
import contextlib
import importlib.util
import json
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import commands, open_loop
from bench.load.commands import Command
from bench.load.figures import FITSERVE, HAND_ROLLED, Ratio, times
from bench.load.scenarios import IRIS, save
from bench.load.servers import BenchError, end, free_port, start

POLL_S = 0.005
LIMIT_S = 60.0

EXPECTED = 0
"""The class of the first row of Iris."""


@dataclass(frozen=True)
class Starts:
    """Seconds of each start by server; start i of one just before start i of the other."""

    title: str
    seconds: dict[str, list[float]]

    @property
    def ratio(self) -> Ratio:
        """How many times as long fitserve took."""
        return Ratio([b / a for a, b in zip(self.seconds[HAND_ROLLED], self.seconds[FITSERVE], strict=True)])

    def rows(self) -> list[list[str]]:
        rows = [
            [name, *(f"{of(found):.2f}" for of in (statistics.median, min, max))]
            for name, found in self.seconds.items()
        ]
        return [*rows, ["fitserve takes", times(self.ratio.median), *self.ratio.spread.split("-")]]


HEADER = ["", "median s", "min", "max"]


def measure(n_starts: int, core: int | None, title: str) -> Starts:
    """Start both servers of a logistic regression in turn, after one start of each that does not count.

    Raises:
        BenchError: a server gave a wrong prediction, or none.
    """
    _compile_code()
    with tempfile.TemporaryDirectory(prefix="fitserve-bench-") as name:
        model_path, table = save(IRIS, Path(name))
        row = table[0].tolist()
        started = {HAND_ROLLED: commands.hand_rolled(model_path), FITSERVE: commands.fitserve(model_path)}
        seconds: dict[str, list[float]] = {name: [] for name in started}
        for number in range(1 + n_starts):
            for server, command in started.items():
                took_s = _start(server, command, core, row)
                if number:
                    seconds[server].append(took_s)
    return Starts(title, seconds)


def _start(name: str, command: Command, core: int | None, row: list[float]) -> float:
    port = free_port()
    request = open_loop.post("/predict", json.dumps({"features": row}).encode())
    started_s = time.perf_counter()
    process = start(command, port, core)
    try:
        while (took_s := time.perf_counter() - started_s) < LIMIT_S:
            answer = _ask(port, request)
            if answer is not None:
                if answer.get("prediction") != EXPECTED:
                    raise BenchError(f"{name}: wanted the prediction {EXPECTED}, came {answer}")
                return time.perf_counter() - started_s
            time.sleep(POLL_S)
    finally:
        end(process)
    raise BenchError(f"{name}: no prediction {took_s:.0f} s after its start")


def _ask(port: int, request: bytes) -> dict | None:
    """The body of a 200; None if there is no answer yet, or another one."""
    reply = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        connection.sendall(request)
        while data := connection.recv(65536):
            reply += data
            head, _, body = reply.partition(b"\r\n\r\n")
            length = open_loop.CONTENT_LENGTH.search(head + b"\r\n")
            if length and len(body) >= int(length[1]):
                return json.loads(body) if head.startswith(b"HTTP/1.1 200 ") else None
    return None


def _compile_code() -> None:
    """Compile both servers' own modules, as installing a package does: a confined process may not write there."""
    fitserve = importlib.util.find_spec("fitserve")
    for folder in (*fitserve.submodule_search_locations, commands.BASELINE_FOLDER):
        compileall.compile_dir(str(folder), quiet=2)
