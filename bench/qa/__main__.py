"""Serve and try what nobody should: `python -m bench.qa [--markdown FILE] [--mutations N]`.

Each hostile file of the tests at each trust level, with the time to the verdict and the peak memory of
the child that tried it; then damaged files of each format against a real server. Ends with 1 when a payload
had an effect, a refusal took more than it may, a server died, or a damaged file passed a pin.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench.qa import damaged, hostile
from bench.qa.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(description="Try hostile and damaged model files, and tell what came of them.")
    parser.add_argument("--markdown", type=Path, help="the page whose generated part is renewed")
    parser.add_argument("--mutations", type=int, default=300, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # what libraries warn of while the files are made
    console = Console(stderr=True)

    with console.status("making the hostile files"):
        folder, paths, marker = hostile.corpus()
    with folder:
        n = len(paths) * len(hostile.LEVELS)
        found = list(track(hostile.verdicts(paths), "hostile files", n, console=console))
        touched = marker.exists()
    counts = damaged.served(chosen.mutations, chosen.seed, console)
    passed = damaged.passed_a_pin(chosen.mutations, chosen.seed, console)
    report = Report(found, counts, passed, chosen.mutations, touched, os.getloadavg()[0])
    print(report.markdown())
    if chosen.markdown is not None:
        report.write(chosen.markdown)
    for problem in report.problems():
        console.print(f"[red]{problem}")
    return 1 if report.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
