"""The load bench: fitserve beside a hand-rolled server, under wrk.

    python -m bench.load [--seconds S] [--rounds N] [--only SCENARIO] [--markdown FILE]

Both servers run for real on the loopback interface, pinned to one core, with wrk on another, and
take turns: what disturbs the machine disturbs both. Trust the ratios and the CPU time a request,
less the absolute rates. Run it from the root of the repository; ``make bench`` does.
"""

import argparse
import contextlib
import fcntl
import itertools
import json
import math
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.load import report
from bench.load.rounds import SCRIPT, Round, run_round
from bench.load.scenarios import SCENARIOS, Scenario, prepare
from bench.load.servers import Cores, Server, baseline_command, choose_cores, fitserve_command, serving

WARM_UP_S = 2.0

PROBABILITY_TOLERANCE = 1e-6
"""The servers may compute a probability in another precision; a label must be the same."""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended
    if sys.platform != "linux" or not shutil.which("wrk"):
        raise SystemExit("the bench needs Linux and wrk: apt-get install wrk")
    console = Console()
    cores = choose_cores()
    if cores.server is None:
        console.print("one usable core: the servers and wrk share it, pinning was not possible", style="yellow")
    chosen = [scenario for scenario in SCENARIOS if options.only in {None, scenario.name}]
    results = []
    with _alone(console), tempfile.TemporaryDirectory(prefix="fitserve-bench-") as folder:
        for scenario in chosen:
            results.append(_run(scenario, Path(folder), options, cores, console))
            console.print(report.table(results[-1]))
    if (verdict := report.verdict(results)) is not None:
        console.print(verdict, style="bold", highlight=False, soft_wrap=True)
    if options.markdown:
        page = report.markdown(
            results, seconds=options.seconds, rounds=options.rounds, is_pinned=cores.server is not None
        )
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=_at_least(0.5), default=3.0, help="of one round (default: 3)")
    parser.add_argument("--rounds", type=_at_least(1, int), default=5, help="of each server (default: 5)")
    parser.add_argument("--only", choices=[scenario.name for scenario in SCENARIOS], help="run one scenario")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the figures to a page")
    return parser.parse_args()


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


def _run(scenario: Scenario, folder: Path, options: argparse.Namespace, cores: Cores, console: Console):
    """Serve one model twice, compare the replies, then load the servers in turn."""
    model_path, bodies = prepare(scenario, folder)
    with (
        Progress(console=console, transient=True) as progress,
        serving("hand-rolled", baseline_command, model_path, cores.server) as baseline,
        serving("fitserve", fitserve_command, model_path, cores.server) as fitserve,
    ):
        _compare(scenario, baseline, fitserve, bodies)
        task = progress.add_task(scenario.name, total=2 * (1 + options.rounds))
        rounds: dict[str, list[Round]] = {baseline.name: [], fitserve.name: []}
        for number, server in itertools.product(range(1 + options.rounds), (baseline, fitserve)):
            seconds = options.seconds if number else WARM_UP_S
            measured = run_round(server, scenario, bodies, seconds, cores.load)
            if number:
                rounds[server.name].append(measured)
            progress.advance(task)
    return report.Result(scenario, rounds[baseline.name], rounds[fitserve.name])


def _compare(scenario: Scenario, baseline: Server, fitserve: Server, bodies: Path) -> None:
    """Stop unless both servers answer every request alike: else their speeds are not to be compared."""
    label, probability = ("predictions", "probabilities") if scenario.is_batch else ("prediction", "probability")
    for body in bodies.read_bytes().splitlines():
        theirs, ours = (server.post(scenario.path, body) for server in (baseline, fitserve))
        if theirs[label] != ours[label] or not _near(theirs[probability], ours[probability]):
            shown = {key: (theirs[key], ours[key]) for key in (label, probability)}
            raise SystemExit(f"the servers differ, hand-rolled first: {json.dumps(shown)}")


def _near(one: float | list[float], other: float | list[float]) -> bool:
    if not isinstance(one, list):
        one, other = [one], [other]
    return len(one) == len(other) and all(
        math.isclose(a, b, abs_tol=PROBABILITY_TOLERANCE) for a, b in zip(one, other, strict=True)
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
