"""Switches between two versions under load: nobody may notice but by the version that answers."""

from __future__ import annotations

import time
from dataclasses import replace

from bench.soak import models, processes
from bench.soak.counting import Figure, Switch, at_most, busiest, none, percentile, tally, told
from bench.soak.load import Load, Shape, capacity_per_s
from bench.soak.service import Service, SoakError

PATH = f"/models/{models.NAME}"


def half_of_capacity(service: Service, shape: Shape, seconds: float = 5.0) -> Shape:
    """The same load at half the rate that this machine manages, the load included."""
    return replace(shape, per_s=capacity_per_s(service.port, shape, seconds) / 2)


def promote(service: Service, version: str, timeout_s: float = 120.0) -> Switch:
    """Let a version serve, and wait until it does.

    Raises:
        SoakError: it does not.
    """
    began_s = time.monotonic()
    body = {"version": version, "reason": "soak"}
    answer = service.ask("POST", f"{PATH}/promote?wait=true", body, timeout_s)
    done_s = time.monotonic()
    if answer.status != 200:
        raise SoakError(f"version {version} was not promoted: {answer.why}\n{service.told()}")
    return Switch(version, began_s, done_s)


def roll_back(service: Service, version: str) -> Switch:
    """Go back to the version before, which is ``version``.

    Raises:
        SoakError: it does not.
    """
    began_s = time.monotonic()
    answer = service.ask("POST", f"{PATH}/rollback?wait=true", {"reason": "soak"})
    if answer.status != 200:
        raise SoakError(f"not rolled back: {answer.why}")
    return Switch(version, began_s, time.monotonic())


def other(version: str) -> str:
    return models.FIRST if version == models.SECOND else models.SECOND


def serving_version(service: Service) -> str:
    return str(service.ask("GET", "/model/info").body["version"])


def switches(service: Service, n: int, shape: Shape, every_s: float = 0.0) -> list[Figure]:
    """Switch ``n`` times under load, every tenth time by a roll back, and count what came of the requests."""
    first = version = serving_version(service)
    done: list[Switch] = []
    back: list[Switch] = []
    with Load(service.port, shape) as load:
        load.wait_for(50)
        for i in range(n):
            began_s = time.monotonic()
            version = other(version)
            if i % 10 == 9:
                back.append(roll_back(service, version))
                done.append(back[-1])
            else:
                done.append(promote(service, version))
            time.sleep(max(0.0, began_s + every_s - time.monotonic()))
        load.wait_for(50)
    took = _took_ms(done)
    found = tally(load.records, done, first=first)
    return [
        told("switches", len(done)),
        told("requests a second", round(shape.per_s)),
        *found.figures(),
        told("a switch, median and longest", f"{percentile(took, 0.5):.0f} and {max(took):.0f} ms"),
        *([at_most("roll back, median ms", percentile(_took_ms(back), 0.5), 100, is_speed=True)] if back else []),
        told("p50 and p99 of the replies", _latencies(found.latencies_ms)),
    ]


def repeated(service: Service, shape: Shape) -> list[Figure]:
    """Promote what serves: done at once, and nothing changes."""
    version = serving_version(service)
    before = service.ask("GET", f"{PATH}/history").body
    with Load(service.port, shape) as load:
        load.wait_for(20)
        promote(service, version)
        load.wait_for(20)
    is_same = service.ask("GET", f"{PATH}/history").body == before
    return [none("changes by promoting what serves", int(not is_same)), *tally(load.records, first=version).figures()]


def calm_and_switching(service: Service, shape: Shape, n_rounds: int, seconds: float) -> list[Figure]:
    """p99 with a switch each second beside p99 without, in rounds that take turns."""
    first = version = serving_version(service)
    calm: list[float] = []
    busy: list[float] = []
    figures: list[Figure] = []
    for i in range(2 * n_rounds):
        done = []
        with Load(service.port, shape) as load:
            load.wait_for(50)
            until_s = time.monotonic() + seconds
            while i % 2 and time.monotonic() < until_s:
                began_s = time.monotonic()
                version = other(version)
                done.append(promote(service, version))
                time.sleep(max(0.0, began_s + 1.0 - time.monotonic()))
            time.sleep(max(0.0, until_s - time.monotonic()))
        found = tally(load.records, done, first=first)
        first = version
        (busy if i % 2 else calm).append(percentile(found.latencies_ms, 0.99))
        figures.append(none(f"round {i + 1}: failed, mixed or stale", found.n_failed + found.n_mixed + found.n_stale))
    ratios = [one / another for one, another in zip(busy, calm, strict=True)]
    return [
        *[figure for figure in figures if not figure.is_met],
        told("requests a second", round(shape.per_s)),
        told("p99 without switches, ms", ", ".join(f"{one:.1f}" for one in calm)),
        told("p99 with a switch each second, ms", ", ".join(f"{one:.1f}" for one in busy)),
        at_most("p99 with to p99 without, median of the rounds", percentile(ratios, 0.5), 3.0, "{:.2f}", is_speed=True),
    ]


def spread(service: Service, n_connections: int = 64) -> list[Figure]:
    """How evenly connections lie on the workers when many are opened at once."""
    shape = Shape(max(200.0, 4.0 * n_connections), n_kept=n_connections, fresh=0.0)
    with Load(service.port, shape) as load:
        load.wait_for(4 * n_connections)
        found = processes.spread(service.port, processes.tree(service.pid))
    counts = sorted(found.values(), reverse=True)[: service.n_workers]
    return [
        told("connections of each worker", " ".join(map(str, counts))),
        at_most("busiest worker to a fair share", busiest(counts, service.n_workers), 1.5, "{:.2f}"),
    ]


def _took_ms(done: list[Switch]) -> list[float]:
    return [switch.took_ms for switch in done]


def _latencies(latencies_ms: list[float]) -> str:
    return f"{percentile(latencies_ms, 0.5):.1f} and {percentile(latencies_ms, 0.99):.1f} ms"
