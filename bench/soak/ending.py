"""Stops and rolling replacements under load: nothing in flight may be lost."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from bench.soak.counting import Figure, none, tally, told
from bench.soak.load import Load, Shape
from bench.soak.switching import serving_version

if TYPE_CHECKING:
    from bench.soak.service import Service


def stopped(service: Service, shape: Shape, within_s: float, first: str) -> list[Figure]:
    """SIGTERM under load. Who comes after the end is refused; who was let in is answered."""
    with Load(service.port, shape) as load:
        load.wait_for(20)
        began_s = time.monotonic()
        code = service.end(signal.SIGTERM, within_s)
        took_s = time.monotonic() - began_s
    let_in = [record for record in load.records if record.failure != "refused"]
    in_flight = [one for one in let_in if one.sent_s < began_s < one.ended_s]
    found = tally(let_in, first=first)
    return [
        told("requests in flight at SIGTERM", len(in_flight)),
        told("let in after it", sum(one.sent_s >= began_s for one in let_in)),
        told("refused after it", len(load.records) - len(let_in)),
        *found.figures(),
        none("exit code", code),
        told("it took, s", f"{took_s:.1f}"),
    ]


def replaced(service: Service, n: int, shape: Shape) -> list[Figure]:
    """SIGHUP under load, each time until all workers are others."""
    first = serving_version(service)
    took_s = []
    with Load(service.port, shape) as load:
        load.wait_for(50)
        for _ in range(n):
            before = service.wait_for_workers()
            began_s = time.monotonic()
            service.process.send_signal(signal.SIGHUP)
            service.wait_for_workers(without=before)
            took_s.append(time.monotonic() - began_s)
        load.wait_for(50)
    return [
        told("rolling replacements", n),
        told("longest, s", f"{max(took_s):.1f}"),
        *tally(load.records, first=first).figures(),
    ]


def interrupted_twice(service: Service) -> list[Figure]:
    """Ctrl-C twice: it ends at once, whatever is in flight."""
    asked = threading.Thread(target=_ask_slowly, args=(service,), daemon=True)
    asked.start()
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began_s = time.monotonic()
    code = service.end(signal.SIGINT)
    return [told("exit code", code), told("after the second, s", f"{time.monotonic() - began_s:.1f}")]


def _ask_slowly(service: Service) -> None:
    with_sleep = {"features": [1, 30, 0, 0]}
    try:
        service.ask("POST", "/predict", with_sleep)
    except Exception:  # noqa: BLE001 - it is cut off, one way or another
        return
