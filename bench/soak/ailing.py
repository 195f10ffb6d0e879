"""Workers that are blocked, leak, grow old, or crash at their start: replaced, recycled, backed off, and told."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from typing import TYPE_CHECKING

from bench.soak import models
from bench.soak.counting import Figure, none, tally, told
from bench.soak.load import Load, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from bench.soak.service import Service

BLOCK = {"features": [2, 0, 0, 0]}


def blocked(service: Service, shape: Shape, first: str) -> list[Figure]:
    """A request that keeps the interpreter's lock for ever; the heartbeat_timeout_s of the server must be short."""
    before = service.wait_for_workers()
    asked = threading.Thread(target=_ask, args=(service, BLOCK), daemon=True)
    began_s = time.monotonic()
    with Load(service.port, shape) as load:
        load.wait_for(20)
        asked.start()
        service.wait(lambda: "event loop has not moved" in service.said(), "the log to tell of a blocked worker", 90)
        took_s = time.monotonic() - began_s
        after = service.wait(lambda: len(now := service.serving()) == service.n_workers and now, "a new worker", 90)
        load.wait_for(50)
    gone = before - after
    fine = [record for record in load.records if not record.has_failed]
    lost = len(load.records) - len(fine)
    return [
        told("told in the log after, s", f"{took_s:.1f}"),
        none("workers that were not replaced", int(len(gone) != 1), f"{before} {after}"),
        told("requests lost with the blocked worker", lost),
        none("refused", sum(record.failure == "refused" for record in load.records)),
        *tally(fine, first=first).version_figures(),
    ]


def _ask(service: Service, body: object) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        service.ask("POST", "/predict", body)


def recycled(service: Service, shape: Shape, first: str, word: str, leak_mib: float = 0.0) -> list[Figure]:
    """Wait until every worker has been recycled, by what the settings of the server say; nothing is lost."""
    before = service.wait_for_workers()
    is_over = threading.Event()

    def leak() -> None:
        while not is_over.wait(0.01):
            _ask(service, {"features": [3, leak_mib, 0, 0]})

    leaking = threading.Thread(target=leak, daemon=True)
    with Load(service.port, shape) as load:
        if leak_mib:
            leaking.start()
        service.wait_for_workers(without=before, within_s=180)
        is_over.set()
        load.wait_for(50)
    if leak_mib:
        leaking.join()
    lines = [line for line in service.said().splitlines() if word in line]
    return [
        none("workers recycled without a word in the log", int(not lines)),
        told("said", _message(lines[0]) if lines else "nothing"),
        *tally(load.records, first=first).figures(),
    ]


def crashing(service: Service, folder: Path, kill: object, shape: Shape, n_crashes: int = 3) -> list[Figure]:
    """A worker dies, and those that should take its place crash at their start, until the fault is gone."""
    (folder / "crash").touch()
    killed = [kill()]  # type: ignore[operator]
    began = len(service.said())
    with Load(service.port, shape) as load:

        def n_told() -> int:
            return len(re.findall(r"exit code 9|exited with 9|status 9", service.said()[began:]))

        service.wait(lambda: n_told() >= n_crashes, f"{n_crashes} crashes in the log", 120)
        load.wait_for(50)
        (folder / "crash").unlink()
        service.wait_for_workers(within_s=120)
    lines = [line for line in service.said()[began:].splitlines() if "starts in" in line]
    pauses = [float(found[1]) for line in lines if (found := re.search(r"in ([\d.]+) s", line))]
    lost = sum(record.has_failed for record in load.records)
    return [
        told("crashes at start", n_told()),
        told("pauses before another is started, s", " ".join(f"{pause:g}" for pause in pauses)),
        none("back-off that does not grow", int(pauses != sorted(pauses) or len(set(pauses)) < 2)),
        none(
            "requests lost while the others served", lost, {record.why for record in load.records if record.has_failed}
        ),
        told("clients of the killed worker", len(killed[0][1])),
    ]


def _message(line: str) -> str:
    found = re.search(r'"message": ?"([^"]*)"', line)
    return (found[1] if found else line)[:160]


def make_crashing(folder: Path) -> Path:
    """A class of the operator's own in a folder of its own."""
    folder.mkdir()
    path = folder / "model.py"
    path.write_text(models.CRASHING)
    return path
