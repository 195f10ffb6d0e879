"""Workers killed at random, also in the middle of a switch."""

from __future__ import annotations

import contextlib
import http.client
import random
import time

from bench.soak import processes
from bench.soak.counting import Figure, Switch, lost_elsewhere, none, tally, told
from bench.soak.load import Load, Shape
from bench.soak.service import Service, SoakError
from bench.soak.switching import PATH, other, promote, serving_version

Killed = list[tuple[float, frozenset[int]]]


def kills(service: Service, n: int, shape: Shape, every_s: float = 1.0, seed: int = 0) -> list[Figure]:
    """Kill a random worker ``n`` times under load, and switch versions meanwhile."""
    chance = random.Random(seed)
    first = version = serving_version(service)
    killed: Killed = []
    done: list[Switch] = []
    n_unreported = 0
    with Load(service.port, shape) as load:
        load.wait_for(50)
        for _ in range(n):
            began_s = time.monotonic()
            killed.append(kill_one(service, chance))
            version = other(version)
            switch, was_reported = _promote_surely(service, version)
            n_unreported += not was_reported
            done.append(switch)
            time.sleep(max(0.0, began_s + every_s - time.monotonic()))
        service.wait_for_workers()
        load.wait_for(50)
    return [
        told("workers killed", len(killed)),
        told("switches meanwhile", len(done)),
        told("switches whose report was lost with a worker", n_unreported),
        *lost(load, killed),
        *tally(load.records, done, first=first).version_figures(),
    ]


def lost(load: Load, killed: Killed) -> list[Figure]:
    """The figures of lost requests; those of the killed processes are told."""
    elsewhere = lost_elsewhere(load.records, killed)
    return [
        told("requests", len(load.records)),
        told("lost with the killed processes", sum(one.has_failed for one in load.records) - len(elsewhere)),
        none("lost otherwise", len(elsewhere), ", ".join(sorted({one.why for one in elsewhere}))),
        none("connections refused", sum(one.failure == "refused" for one in load.records)),
    ]


def kill_one(service: Service, chance: random.Random) -> tuple[float, frozenset[int]]:
    """Kill a worker that serves; tell when, and whom it was connected to.

    Raises:
        SoakError: nobody serves.
    """
    pids = service.wait(service.serving, "a worker to kill", 30)
    at_s = time.monotonic()
    return at_s, processes.freeze_and_kill(chance.choice(sorted(pids)), service.port)


def _promote_surely(service: Service, version: str) -> tuple[Switch, bool]:
    """Promote, and again if the worker that was asked is gone before it has answered.

    Raises:
        SoakError: it was refused for another reason, or goes on failing.
    """
    began_s = time.monotonic()
    was_reported = True
    deadline_s = began_s + 120
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            answer = service.ask("POST", f"{PATH}/promote?wait=true", {"version": version, "reason": "soak"})
            if answer.status == 200:
                return Switch(version, began_s, time.monotonic()), was_reported
            if answer.status not in {409, 422, 503} or time.monotonic() > deadline_s:
                raise SoakError(f"version {version} was not promoted: {answer.why}\n{service.told()}")
        was_reported = False
        if time.monotonic() > deadline_s:
            raise SoakError(f"no reply of the promotion of {version}\n{service.told()}")
        time.sleep(0.1)


def killed_in_a_switch(service: Service, n: int, shape: Shape, seed: int = 1) -> list[Figure]:
    """Begin a switch, kill a worker while it goes on; the switch ends, and all workers serve one version."""
    chance = random.Random(seed)
    first = version = serving_version(service)
    killed: Killed = []
    done: list[Switch] = []
    ends: list[str] = []
    with Load(service.port, shape) as load:
        load.wait_for(50)
        for _ in range(n):
            began_s = time.monotonic()
            version = other(version)
            answer = service.ask("POST", f"{PATH}/promote", {"version": version, "reason": "soak"})
            if answer.status not in {200, 202}:
                raise SoakError(f"the switch did not begin: {answer.why}")
            time.sleep(chance.uniform(0, 0.05))
            killed.append(kill_one(service, chance))
            ends.append(_wait_until_over(service, str(answer.operation["id"])))
            if ends[-1] == "done":
                done.append(Switch(version, began_s, time.monotonic()))
            else:  # nothing has changed; the next round begins from there
                version = other(version)
            service.wait_for_workers()
        done.append(promote(service, other(version)))
        load.wait_for(100)
    return [
        told("switches in which a worker was killed", n),
        told("of which were done", ends.count("done")),
        *lost(load, killed),
        *tally(load.records, done, first=first).version_figures(),
    ]


def _wait_until_over(service: Service, id_: str) -> str:
    def state() -> str:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            found = str(service.ask("GET", f"/operations/{id_}").operation.get("state"))
            return found if found in {"done", "failed"} else ""
        return ""

    return service.wait(state, f"operation {id_} to end", 120)
