"""The load bench: fitserve beside a hand-rolled server.

    python -m bench.load [--seconds S] [--rounds N] [--only NAME ...] [--with asgi nginx] [--markdown FILE]

The servers run for real on the loopback interface, pinned to one core, with the load on another, and
take turns: what disturbs the machine disturbs both. Trust the ratios and the CPU time a request,
less the absolute rates. Run it from the root of the repository; ``make bench`` does.
"""

import argparse
import contextlib
import fcntl
import itertools
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.load import commands, report
from bench.load.closed_loop import Plan, measure, running
from bench.load.figures import ASGI, NGINX
from bench.load.rounds import SCRIPT
from bench.load.scenarios import SCENARIOS
from bench.load.servers import BenchError, choose_cores


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    if sys.platform != "linux" or not shutil.which("wrk"):
        raise SystemExit("the bench needs Linux and wrk: apt-get install wrk")
    console = Console() if sys.stdout.isatty() else Console(width=110)
    cores = choose_cores()
    if cores.server is None:
        console.print("one usable core: the servers and wrk share it, pinning was not possible", style="yellow")
    if NGINX in options.also and not commands.has_nginx():
        raise SystemExit("--with nginx needs nginx: apt-get install nginx-light")
    plan = Plan(options.seconds, options.rounds, cores, frozenset(options.also), console)
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    with _alone(console):
        for (model, workers), scenarios in itertools.groupby(chosen, lambda one: (one.model, one.workers)):
            with (
                tempfile.TemporaryDirectory(prefix="fitserve-bench-") as folder,
                running(model, workers, Path(folder), plan) as live,
            ):
                for scenario in scenarios:
                    report.show_result(console, measure(scenario, live, plan))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=_at_least(0.5), default=2.0, help="of one round (default: 2)")
    parser.add_argument("--rounds", type=_at_least(1, int), default=5, help="of each server (default: 5)")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in SCENARIOS], help="run these alone")
    named = {"asgi": ASGI, "nginx": NGINX}
    parser.add_argument("--with", nargs="+", choices=named, default=[], dest="also", help="more servers to compare")
    options = parser.parse_args()
    options.also = [named[name] for name in options.also]
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
    except BenchError as exc:
        raise SystemExit(str(exc)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
