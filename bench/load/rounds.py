"""One round: wrk against one server, and what both of them used of their cores."""

import json
import os
import resource
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.load.servers import TICKS_PER_S, BenchError, Server, pinned

SCRIPT = Path(__file__).with_name("post.lua")

DRAIN_S = 30
"""How long the requests in flight may take after the end of a round."""


@dataclass(frozen=True)
class Round:
    """What one round measured."""

    requests: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_s: float
    load_cpu_s: float
    others_cpu_s: float

    @property
    def per_s(self) -> float:
        return self.requests / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        """CPU time of the server, a request."""
        return self.server_cpu_s / self.requests * 1e6

    @property
    def server_busy(self) -> float:
        return self.server_cpu_s / self.elapsed_s

    @property
    def load_busy(self) -> float:
        return self.load_cpu_s / self.elapsed_s

    @property
    def others_busy(self) -> float:
        """How many cores' worth of time everybody else took: much of it spoils the round."""
        return self.others_cpu_s / self.elapsed_s


def median(rounds: list[Round], figure: str) -> float:
    return statistics.median(getattr(one, figure) for one in rounds)


def run_round(server: Server, path: str, bodies: Path, connections: int, seconds: float, core: int | None) -> Round:
    """Load one server for some seconds and until all is answered.

    Raises:
        BenchError: a request failed, or was not answered.
    """
    arguments = [
        "wrk", "-t1", f"-c{connections}", f"-d{int(seconds) + DRAIN_S}", f"--timeout={DRAIN_S}",
        "-s", str(SCRIPT), server.url + path, "--", str(bodies), str(seconds), str(connections),
    ]  # fmt: skip
    load_before_s, server_before_s, all_before_s = _children_cpu_s(), server.cpu_s(), _cores_cpu_s()
    with pinned(core):
        run = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=seconds + 3 * DRAIN_S)
    server_cpu_s, load_cpu_s = server.cpu_s() - server_before_s, _children_cpu_s() - load_before_s
    others_cpu_s = max(0.0, _cores_cpu_s() - all_before_s - server_cpu_s - load_cpu_s)
    found = _figures(run.stdout)
    if not found or found["errors"] or found["idle"] != connections or not found["requests"]:
        msg = f"{server.name}: not every request to {path} was answered with 200\n{run.stdout}{run.stderr}"
        raise BenchError(msg)
    return Round(
        requests=found["requests"],
        elapsed_s=found["elapsed_s"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        server_cpu_s=server_cpu_s,
        load_cpu_s=load_cpu_s,
        others_cpu_s=others_cpu_s,
    )


def _figures(printed: str) -> dict:
    """The line that the script prints, among wrk's own."""
    return next((json.loads(line) for line in printed.splitlines() if line.startswith("{")), {})


def _children_cpu_s() -> float:
    """CPU time of the processes that have ended: of wrk, while the servers live."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _cores_cpu_s() -> float:
    """Time that the cores which we may use were busy, with whatever.

    Source: https://man7.org/linux/man-pages/man5/proc_stat.5.html
    """
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    # user, nice, system, (idle, iowait,) irq, softirq, steal
    ticks = sum(sum(map(int, [*fields[1:4], *fields[6:9]])) for fields in lines if fields[0] in ours)
    return ticks / TICKS_PER_S
