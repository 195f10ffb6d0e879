"""The figures as tables, for the terminal and for the documentation."""

import importlib.metadata
import platform
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.table import Table

from bench.load.rounds import Round, median
from bench.load.scenarios import Scenario

PACKAGES = ("fitserve", "fastapi", "starlette", "uvicorn", "uvloop", "pydantic", "numpy", "scikit-learn")

TARGET_SCENARIO = "iris"
TARGET_RATIO = 4.0

TIMES = "×"  # noqa: RUF001 - the sign, no letter


@dataclass(frozen=True)
class Column:
    """One figure of a round: how to write it, and whether less of it is better; None if it is no merit."""

    title: str
    figure: str
    write: Callable[[float], str]
    is_less_better: bool | None = None


COLUMNS = (
    Column("req/s", "per_s", "{:,.0f}".format, is_less_better=False),
    Column("p50 ms", "p50_ms", "{:.2f}".format, is_less_better=True),
    Column("p99 ms", "p99_ms", "{:.2f}".format, is_less_better=True),
    Column("CPU µs/req", "cpu_us", "{:,.0f}".format, is_less_better=True),
    Column("server", "server_busy", "{:.0%}".format),
    Column("wrk", "load_busy", "{:.0%}".format),
    Column("others", "others_busy", "{:.0%}".format),
)


@dataclass(frozen=True)
class Result:
    """The rounds of one scenario; round i of one server ran just before round i of the other."""

    scenario: Scenario
    baseline: list[Round]
    fitserve: list[Round]

    def ratios(self, column: Column) -> list[float]:
        """How many times better fitserve was, in each pair of rounds."""
        pairs = [
            (getattr(ours, column.figure), getattr(theirs, column.figure))
            for ours, theirs in zip(self.fitserve, self.baseline, strict=True)
        ]
        return [theirs / ours if column.is_less_better else ours / theirs for ours, theirs in pairs]

    def rows(self) -> list[list[str]]:
        named = (("hand-rolled", self.baseline), ("fitserve", self.fitserve))
        written = [[name, *(c.write(median(rounds, c.figure)) for c in COLUMNS)] for name, rounds in named]
        ratios = [self.ratios(c) if c.is_less_better is not None else None for c in COLUMNS]
        better = [f"{_times(statistics.median(found))}{TIMES}" if found else "" for found in ratios]
        spread = [f"{_times(min(found))}-{_times(max(found))}" if found else "" for found in ratios]
        return [*written, ["better by", *better], ["min-max", *spread]]


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def verdict(results: list[Result]) -> str | None:
    """Whether the first target of the project is reached; None if its scenario did not run."""
    for result in results:
        if result.scenario.name == TARGET_SCENARIO:
            column = next(column for column in COLUMNS if column.figure == "cpu_us")
            ratio = statistics.median(result.ratios(column))
            reached = "reached" if ratio >= TARGET_RATIO else "missed"
            return (
                f"iris logistic regression, 32 connections: CPU per request {ratio:.1f}{TIMES} "
                f"(target ≥ {TARGET_RATIO:.0f}{TIMES}): {reached}"
            )
    return None


def table(result: Result) -> Table:
    found = Table(
        title=result.scenario.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    found.add_column("", no_wrap=True)
    for column in COLUMNS:
        found.add_column(column.title, justify="right", no_wrap=True)
    for row in result.rows():
        found.add_row(*row)
    return found


def markdown(results: list[Result], *, seconds: float, rounds: int, is_pinned: bool) -> str:
    """The page of the documentation."""
    place = "pinned to one core, `wrk` to another" if is_pinned else "on the one core that `wrk` ran on too"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    header = ["", *(column.title for column in COLUMNS)]
    tables = [
        "\n".join([f"## {result.scenario.title}", "", *map(_line, [header, _rule(header), *result.rows()]), ""])
        for result in results
    ]
    return PAGE.format(
        tables="\n".join(tables),
        place=place,
        seconds=seconds,
        rounds=rounds,
        date=datetime.now(UTC).date().isoformat(),
        python=platform.python_version(),
        versions=versions,
        cpu=_cpu_model(),
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(header: list[str]) -> list[str]:
    return ["---", *["---:"] * (len(header) - 1)]


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


PAGE = """\
<!-- Written by python -m bench.load --markdown; run it again rather than edit this. -->
# Benchmarks

fitserve beside the server that people write by hand with FastAPI, on the same machine, at the same time,
with the same model and the same requests.

Absolute figures belong to one machine on one day; the ratios carry over. *better by* is the median over
{rounds} pairs of rounds, *min-max* the smallest and the largest of them.

{tables}
## How it was measured

- *hand-rolled* is `bench/baseline/server.py`: a pydantic body whose numbers are checked one by one, `predict`
  and then `predict_proba` in an `async def` route, a response model, one `@app.middleware("http")` that logs,
  CORS for every origin. It runs on `uvicorn` with one worker, uvloop, httptools and the access log that
  uvicorn writes by default.
- *fitserve* is `fitserve run model.joblib --quiet --cors-origins '*'`, access log on. Both write their log to
  `/dev/null`.
- Both servers live through all rounds, {place}. Rounds of {seconds:g} s alternate between them after a
  warm-up. Before the first, the replies of both to every request are compared.
- Each request is one of 50 different ones, in turn. Every reply must be a 200. A round ends when the last
  request in flight has been answered.
- *CPU µs/req* is the user and system time of the server's process over the round, divided by the requests of
  the round. *server* and *wrk* say how busy their cores were: a load generator near 100 % would be the
  limit itself, and with a single client each waits for the other. *others* is what every other process took.
- p50 and p99 are wrk's. Under 32 clients they follow from the rate: whoever saturates waits in line.

{date}, CPU {cpu}, Python {python}, {versions}.

```console
$ make bench  # or: python -m bench.load --seconds {seconds:g} --rounds {rounds}
```
"""
