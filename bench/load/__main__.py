"""The load bench: fitserve beside a hand-rolled server.

    python -m bench.load [--quick] [--only NAME ...] [--with asgi nginx] [--open-loop] [--markdown FILE]

The servers run for real on the loopback interface, pinned to one core, with the load on another, and
take turns: what disturbs the machine disturbs both. Trust the ratios and the CPU time a request,
less the absolute rates. Run it from the root of the repository; ``make bench`` does.
"""

import argparse
import contextlib
import fcntl
import itertools
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.load import closed_loop, cold_start, commands, health, page, report
from bench.load.closed_loop import Plan
from bench.load.figures import ASGI, NGINX
from bench.load.rounds import SCRIPT
from bench.load.scenarios import SCENARIOS, Scenario
from bench.load.servers import BenchError, choose_cores
from bench.load.verdicts import FLOOR_SCENARIO, TARGETS, Findings

HEALTH, COLD_START = "health", "cold-start"
PARTS = (*(scenario.name for scenario in SCENARIOS), HEALTH, COLD_START)
QUICK = (*(target.scenario for target in TARGETS), HEALTH, COLD_START)
ALSO = {"asgi": ASGI, "nginx": NGINX}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    if sys.platform != "linux" or not shutil.which("wrk"):
        raise SystemExit("the bench needs Linux and wrk: apt-get install wrk")
    if any(NGINX in _also(scenario, options) for scenario in SCENARIOS) and not commands.nginx_program():
        raise SystemExit("wanted nginx beside the servers, found none: apt-get install nginx-light")
    console = Console() if sys.stdout.isatty() else Console(width=130)
    cores = choose_cores()
    if cores.server is None:
        console.print("one usable core: the servers and the load share it, pinning was not possible", style="yellow")
    plan = Plan(options.seconds, options.rounds, cores, console)
    findings = Findings()
    with _alone(console):
        _run(options, plan, findings)
    report.show_verdicts(console, findings)
    if options.markdown:
        command = shlex.join(["python", "-m", "bench.load", *sys.argv[1:]])
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page.markdown(findings, plan, command), encoding="utf-8")
    if findings.failures:
        raise SystemExit(1)


def _run(options: argparse.Namespace, plan: Plan, findings: Findings) -> None:
    """Run the chosen parts; one that cannot be measured is noted, and the others go on."""
    chosen = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    for _, neighbours in itertools.groupby(chosen, lambda one: (one.model, one.workers)):
        with _noting(findings):
            _run_neighbours(list(neighbours), options, plan, findings)
    if HEALTH in options.only:
        with _noting(findings):
            findings.health = health.measure(3.0 if options.quick else 10.0, plan.cores)
            report.show_latencies(plan.console, "/health while a slow model is busy", findings.health)
    if COLD_START in options.only:
        for title, core in (("Cold start, all cores", None), ("Cold start, one core", plan.cores.server)):
            with _noting(findings):
                findings.starts.append(cold_start.measure(3 if options.quick else 7, core, title))
                report.show_starts(plan.console, findings.starts[-1])


def _run_neighbours(scenarios: list[Scenario], options: argparse.Namespace, plan: Plan, findings: Findings) -> None:
    """Run scenarios of one model and number of workers against the same servers."""
    first = scenarios[0]
    also = {scenario.name: _also(scenario, options) for scenario in scenarios}
    has_asgi = any(ASGI in names for names in also.values())
    with (
        tempfile.TemporaryDirectory(prefix="fitserve-bench-") as name,
        closed_loop.running(first.model, first.workers, Path(name), plan.cores, has_asgi=has_asgi) as live,
    ):
        for scenario in scenarios:
            with _noting(findings):
                result = closed_loop.measure(scenario, live, plan, also[scenario.name])
                findings.results.append(result)
                report.show_result(plan.console, result)
                if options.open_loop and scenario.has_open_loop:
                    found = closed_loop.open_loops(result, live, 2.0 if options.quick else 6.0, plan)
                    findings.open_loops.append((scenario.title.rpartition(",")[0], found))
                    report.show_latencies(plan.console, "at a constant rate", found)


def _also(scenario: Scenario, options: argparse.Namespace) -> frozenset[str]:
    is_whole = set(options.only) >= set(QUICK)
    return frozenset(ALSO.values() if is_whole and scenario.name == FLOOR_SCENARIO else options.also)


@contextlib.contextmanager
def _noting(findings: Findings):
    try:
        yield
    except BenchError as exc:
        findings.failures.append(str(exc))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=_at_least(0.5), help="of one round, at least (default: 2; quick: 1)")
    parser.add_argument("--rounds", type=_at_least(1, int), help="of each server (default: 5; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="what has a target, for about 3 minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"run these: {', '.join(PARTS)}")
    parser.add_argument("--with", nargs="+", choices=ALSO, default=[], dest="also", help="more servers to compare")
    parser.add_argument("--open-loop", action="store_true", help="with --only: also at a constant rate")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the figures to a page")
    options = parser.parse_args()
    options.also = [ALSO[name] for name in options.also]
    options.open_loop = options.open_loop or not options.only
    options.only = options.only or (QUICK if options.quick else PARTS)
    options.seconds = options.seconds or (1.0 if options.quick else 2.0)
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


@contextlib.contextmanager
def _alone(console: Console):
    """Wait until no other bench runs: two would spoil each other's figures."""
    with SCRIPT.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another bench is running: waiting for its end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _at_least(least: float, kind: type = float):
    def number(text: str):
        value = kind(text)
        if not least <= value <= 600:
            raise argparse.ArgumentTypeError(f"wanted {least} to 600, came {text}")
        return value

    return number


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
