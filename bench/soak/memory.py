"""What N workers take together, beside what one takes: before, during and after switches."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.soak import models, processes
from bench.soak.counting import Figure, at_most, tally, told
from bench.soak.load import Load, Shape
from bench.soak.service import Service, serving
from bench.soak.switching import other, promote, serving_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2.0**20
HOLD_S = 3.0
QUIET_S = 10.0
"""Memory that has not fallen for so long is what is taken once settled."""


class Peak:
    """The largest total seen while it watches."""

    def __init__(self, service: Service) -> None:
        self.bytes = 0
        self._service = service
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._is_over.wait(0.25):
            self.bytes = max(self.bytes, processes.pss_bytes(self._service.pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def settled_bytes(service: Service, within_s: float = 300.0) -> int:
    """The total once it has stopped falling."""
    lowest, since_s = processes.pss_bytes(service.pid), time.monotonic()
    deadline_s = since_s + within_s
    while time.monotonic() - since_s < QUIET_S and time.monotonic() < deadline_s:
        time.sleep(1.0)
        now = processes.pss_bytes(service.pid)
        if now < lowest * 0.99:
            lowest, since_s = now, time.monotonic()
    return processes.pss_bytes(service.pid)


@contextmanager
def _serving(path: Path, folder: Path, workers: int, **more: object) -> Iterator[Service]:
    settings = {"rollback_hold_s": HOLD_S, "keep_loaded": "latest:1", "load_timeout_s": 300, **more}
    with serving(path, folder, workers=workers, **settings) as service:
        yield service


def measure(folder: Path, n_bytes: int, n_switches: int, **more: object) -> list[Figure]:
    """4 workers and 1 that serve a forest, before and after switches to another of the same size."""
    path = models.repository(folder / "models", lambda at, value: models.large_forest(at, value, n_bytes=n_bytes))
    size = (path / models.NAME / models.SECOND / "model.joblib").stat().st_size
    shape = Shape(40.0)
    found: dict[int, tuple[int, int]] = {}
    peak = 0
    figures: list[Figure] = []
    for workers in (1, 4):
        with _serving(path, folder, workers, **more) as service:
            with Load(service.port, shape) as load:
                load.wait_for(200)  # all workers have predicted
            before = settled_bytes(service)
            first = version = serving_version(service)
            done = []
            with Peak(service) as highest, Load(service.port, shape) as load:
                for _ in range(n_switches):
                    version = other(version)
                    done.append(promote(service, version, 600))
            found[workers] = before, settled_bytes(service)
            if workers > 1:
                peak = highest.bytes
                figures = tally(load.records, done, first=first).figures()
    return [
        told("file, MiB", round(size / MIB)),
        told("1 worker, before and after, MiB", _pair(found[1])),
        told("4 workers, before and after, MiB", _pair(found[4])),
        at_most("4 workers to 1, before", found[4][0] / found[1][0], 1.4, "{:.2f}"),
        at_most(f"4 workers to 1, after {n_switches} switches", found[4][1] / found[1][0], 1.4, "{:.2f}"),
        told("highest during the switches of 4 workers, MiB", round(peak / MIB)),
        *figures,
    ]


def _pair(pair: tuple[int, int]) -> str:
    return " and ".join(f"{one / MIB:,.0f}" for one in pair)
