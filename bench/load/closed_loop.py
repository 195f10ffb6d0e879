"""Rounds of wrk over all scenarios of one model: each client asks again as soon as it is answered."""

import contextlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.load import commands, open_loop
from bench.load.figures import ASGI, FITSERVE, HAND_ROLLED, NGINX, PER_S, Result
from bench.load.open_loop import Latencies
from bench.load.rounds import Round, median, run_round
from bench.load.scenarios import Model, Scenario, save, write_bodies
from bench.load.servers import BenchError, Cores, Server, pinned, serving, wait_until_optimized

WARM_UP_S = 1.0

PROBABILITY_TOLERANCE = 1e-6
"""The servers may compute a probability in another precision; a label must be the same."""


@dataclass(frozen=True)
class Plan:
    """How long is measured, and where."""

    seconds: float
    rounds: int
    cores: Cores
    console: Console


@dataclass(frozen=True)
class Running:
    """The servers of one model, alive; ``form`` is what answers in fitserve."""

    servers: dict[str, Server]
    table: object
    folder: Path
    form: str


@contextlib.contextmanager
def running(model: Model, workers: int, folder: Path, cores: Cores, *, has_asgi: bool) -> Iterator[Running]:
    """Start the servers of one model, and wait until fitserve has compiled it.

    Raises:
        BenchError: one did not start.
    """
    model_path, table = save(model, folder)
    app = "mixed:app" if model.has_named_columns else "server:app"
    started = {
        HAND_ROLLED: commands.hand_rolled(model_path, app=app, workers=workers),
        FITSERVE: commands.fitserve(model_path, workers=workers),
    }
    if has_asgi and workers == 1:
        started[ASGI] = commands.fitserve_asgi(model_path)
    core = cores.server if workers == 1 else None
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, command, core)) for name, command in started.items()}
        form = wait_until_optimized(servers[FITSERVE])
        if ASGI in servers:
            wait_until_optimized(servers[ASGI])
        yield Running(servers, table, folder, form)


def measure(scenario: Scenario, live: Running, plan: Plan, also: frozenset[str]) -> Result:
    """Compare the replies, then load the servers in turn; of ASGI and nginx, those that ``also`` names.

    Raises:
        BenchError: a request was not answered, or the servers answer differently.
    """
    bodies = write_bodies(scenario, live.table, live.folder)
    compare(scenario, live.servers, bodies)
    core = plan.cores.load if scenario.workers == 1 else None
    seconds = max(plan.seconds, scenario.least_s)
    with contextlib.ExitStack() as stack:
        servers = {name: server for name, server in live.servers.items() if name != ASGI or ASGI in also}
        if NGINX in also and scenario.workers == 1:
            answer = json.dumps(servers[FITSERVE].post(scenario.path, _first(bodies)), separators=(",", ":"))
            servers[NGINX] = stack.enter_context(
                serving(NGINX, commands.nginx(answer.encode(), live.folder), plan.cores.server)
            )
        rounds: dict[str, list[Round]] = {name: [] for name in servers}
        progress = stack.enter_context(Progress(console=plan.console, transient=True))
        task = progress.add_task(scenario.name, total=len(servers) * (1 + plan.rounds))
        for number, server in itertools.product(range(1 + plan.rounds), servers.values()):
            lasts_s = seconds if number else WARM_UP_S
            measured = run_round(server, scenario.path, bodies, scenario.connections, lasts_s, core)
            if number:
                rounds[server.name].append(measured)
            progress.advance(task)
    return Result(scenario, rounds, live.form)


def compare(scenario: Scenario, servers: dict[str, Server], bodies: Path) -> None:
    """See that all servers answer every request alike: else their speeds are not to be compared.

    Raises:
        BenchError: they do not.
    """
    label, probability = ("predictions", "probabilities") if scenario.is_batch else ("prediction", "probability")
    for body in bodies.read_bytes().splitlines():
        theirs, *others = (server.post(scenario.path, body) for server in servers.values())
        for ours in others:
            if theirs[label] != ours[label] or not _near(theirs[probability], ours[probability]):
                shown = {key: (theirs[key], ours[key]) for key in (label, probability)}
                raise BenchError(f"{scenario.name}: the servers differ, hand-rolled first: {json.dumps(shown)[:500]}")


def _near(one: float | list[float], other: float | list[float]) -> bool:
    if not isinstance(one, list):
        one, other = [one], [other]
    return len(one) == len(other) and all(
        math.isclose(a, b, abs_tol=PROBABILITY_TOLERANCE) for a, b in zip(one, other, strict=True)
    )


def _first(bodies: Path) -> bytes:
    with bodies.open("rb") as lines:
        return next(lines).strip()


def open_loops(result: Result, live: Running, seconds: float, plan: Plan) -> list[Latencies]:
    """Ask at half the rate that the hand-rolled server can answer, and fitserve at half of its own too.

    Raises:
        BenchError: a server did not answer.
    """
    scenario = result.scenario
    bodies = (live.folder / f"{scenario.name}.jsonl").read_bytes().splitlines()
    requests = [open_loop.post(scenario.path, body) for body in bodies]
    half = {name: median(result.rounds[name], PER_S.figure) / 2 for name in (HAND_ROLLED, FITSERVE)}
    asked = ((HAND_ROLLED, half[HAND_ROLLED]), (FITSERVE, half[HAND_ROLLED]), (FITSERVE, half[FITSERVE]))
    with pinned(plan.cores.load):
        return [open_loop.run(name, live.servers[name].port, requests, per_s, seconds) for name, per_s in asked]
