"""What the project has set itself, and whether this run reached it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.load.cold_start import Starts
from bench.load.figures import ASGI, CPU, FITSERVE, NGINX, P99, PER_S, TIMES, Ratio, Result, times
from bench.load.open_loop import Latencies


@dataclass(frozen=True)
class Target:
    """Of one scenario: how many times the hand-rolled server's rate, and which part of its p99."""

    scenario: str
    per_s: float
    p99: float


TARGETS = (
    Target("iris", 40, 20),
    Target("forest", 300, 50),
    Target("gb", 40, 15),
    Target("mixed", 150, 50),
    Target("forest-1000rows", 3, 2),
    Target("forest-100rows-8", 8, 4),
    Target("iris-128", 50, 10),
    Target("forest-8", 150, 30),
    Target("iris-1", 6, 5),
)

FLOOR_SCENARIO = "iris"
FLOOR_TARGETS = ((FITSERVE, "synchronous path", 3.5), (ASGI, "ASGI path", 6.0))
HEALTH_P99_MS = 20.0
COLD_START = 1.15


@dataclass
class Findings:
    """All that one run has measured; what could not be measured is told in ``failures``."""

    results: list[Result] = field(default_factory=list)
    open_loops: list[tuple[str, list[Latencies]]] = field(default_factory=list)
    health: list[Latencies] = field(default_factory=list)
    starts: list[Starts] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """One line of the table; ``is_reached`` is None where it was not measured."""

    what: str
    measure: str
    target: str
    figure: str
    is_reached: bool | None

    @property
    def word(self) -> str:
        return {None: "not measured", True: "reached", False: "missed"}[self.is_reached]

    def row(self) -> list[str]:
        return [self.what, self.measure, self.target, self.figure, self.word]


HEADER = ["", "measure", "target", "figure", "verdict"]


def verdicts(findings: Findings) -> list[Verdict]:
    """A line for each target of a part that ran, whether it is reached or missed."""
    results = {result.scenario.name: result for result in findings.results}
    found: list[Verdict] = []
    for target in TARGETS:
        if target.scenario in results:
            found += _against_hand_rolled(target, results[target.scenario])
    if FLOOR_SCENARIO in results:
        found += _against_nginx(results[FLOOR_SCENARIO])
    for latencies in findings.health:
        if latencies.name == FITSERVE:
            p99_ms = latencies.percentile(0.99)
            title = "/health while a model of 50 ms saturates a worker"
            found.append(Verdict(title, "p99", f"< {HEALTH_P99_MS:.0f} ms", f"{p99_ms:.1f} ms", p99_ms < HEALTH_P99_MS))
    for starts in findings.starts[:1]:  # the first has all cores, as a server that starts has
        found.append(_at_most("From exec to the first correct prediction", "time", COLD_START, starts.ratio))
    return found


def _against_hand_rolled(target: Target, result: Result) -> Iterator[Verdict]:
    title = result.scenario.title
    rate = result.better(PER_S)
    figure = f"{times(rate.median)}{TIMES} ({rate.spread})"
    yield Verdict(title, "req/s", f"≥ {target.per_s:g}{TIMES}", figure, rate.median >= target.per_s)
    p99 = result.better(P99)
    figure = f"1/{times(p99.median)} (1/{times(min(p99.pairs))}-1/{times(max(p99.pairs))})"
    yield Verdict(title, "p99", f"≤ 1/{target.p99:g}", figure, p99.median >= target.p99)


def _against_nginx(result: Result) -> Iterator[Verdict]:
    for name, path, most in FLOOR_TARGETS:
        title = f"{result.scenario.title}, {path}"
        if name in result.rounds and NGINX in result.rounds:
            yield _at_most(title, "CPU, of nginx's", most, result.better(CPU, ours=NGINX, theirs=name))


def _at_most(title: str, measure: str, most: float, ratio: Ratio) -> Verdict:
    figure = f"{times(ratio.median)}{TIMES} ({ratio.spread})"
    return Verdict(title, measure, f"≤ {most:g}{TIMES}", figure, ratio.median <= most)
