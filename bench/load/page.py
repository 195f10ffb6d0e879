"""The figures as a page of the documentation."""

import importlib.metadata
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.load import cold_start, commands, open_loop, verdicts
from bench.load.closed_loop import Plan
from bench.load.figures import COLUMNS
from bench.load.verdicts import Findings

PACKAGES = (
    "fitserve", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "numpy", "pandas", "scikit-learn",
    "onnxruntime", "skl2onnx", "treelite",
)  # fmt: skip


def markdown(findings: Findings, plan: Plan, command: str) -> str:
    """The page; ``command`` is the line that made it."""
    results = [
        _section(result.scenario.title, ["", *(column.title for column in COLUMNS)], result.rows())
        + "".join(f"- {note}\n" for note in result.notes())
        for result in findings.results
    ]
    latencies = [
        _table(open_loop.HEADER, [one.row() for one in found], f"{title}\n\n") for title, found in findings.open_loops
    ]
    health = _table(open_loop.HEADER, [one.row() for one in findings.health])
    starts = [_table(cold_start.HEADER, one.rows(), f"{one.title}\n\n") for one in findings.starts]
    failures = "".join(f"- not measured: {failure.splitlines()[0]}\n" for failure in findings.failures)
    return PAGE.format(
        verdicts=_table(verdicts.HEADER, [one.row() for one in verdicts.verdicts(findings)]),
        failures=f"{failures}\n" if failures else "",
        results="\n".join(results),
        latencies="\n".join(latencies),
        health=health,
        starts="\n".join(starts),
        place="pinned to one core, the load to another" if plan.cores.server is not None else NOT_PINNED,
        rounds=plan.rounds,
        seconds=plan.seconds,
        command=command,
        **_machine(),
    )


def _section(title: str, header: list[str], rows: list[list[str]]) -> str:
    return _table(header, rows, f"### {title}\n\n") + "\n"


def _table(header: list[str], rows: list[list[str]], title: str = "") -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return title + "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows)) if rows else ""


def _machine() -> dict[str, str]:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": found[1] if found else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": ", ".join([*versions, *_nginx_version()]),
    }


def _nginx_version() -> list[str]:
    if (program := commands.nginx_program()) is None:
        return []
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    return [told.strip().rpartition(" ")[2].replace("/", " ")]


NOT_PINNED = "on the one core that the load ran on too"

PAGE = """\
<!-- Written by python -m bench.load --markdown; run it again rather than edit this. -->
# Benchmarks

fitserve beside the server that people write by hand with FastAPI, on the same machine, at the same time,
with the same model and the same requests.

Absolute figures belong to one machine on one day; the ratios carry over. A figure is the median over {rounds}
pairs of rounds; the smallest and the largest of them stand in brackets or as *min-max*.

## Targets

{verdicts}
{failures}## Rates

{results}
## Latency at a constant rate

Requests leave on time, whether or not the ones before have been answered, and each latency counts from the
moment at which the request was due: a stall is counted for everybody who would have met it. Both servers at
half of what the hand-rolled one can answer, then fitserve at half of what it can answer itself. *sent late*
is the client's own part: more than a fraction of a millisecond means that it did not have its core for itself,
or that all of its 128 connections waited.

{latencies}
## /health under load

A model of 50 ms, which leaves the interpreter to others meanwhile, has 16 clients; /health is asked 100 times
a second, at a constant rate as above.

{health}
## Cold start

From the start of the process to its first correct prediction over HTTP, for a joblib file with a logistic
regression; fitserve tries the file in a confined child first. The starts alternate, after one of each that
does not count. The target is judged on all cores; on one core, the server and that child take turns.

{starts}
## How it was measured

- *hand-rolled* is `bench/baseline/server.py`: a pydantic body whose numbers are checked one by one, `predict`
  and then `predict_proba` in an `async def` route, a response model, one `@app.middleware("http")` that logs,
  CORS for every origin. It runs on `uvicorn` with uvloop, httptools and the access log that uvicorn writes by
  default. For the pipeline of named columns it is `mixed.py` beside it, which makes a DataFrame of each row.
- *fitserve* is `fitserve run model.joblib --quiet --cors-origins '*'`, access log on; *asgi* the same as
  `uvicorn fitserve.asgi:app`. All servers write their log to `/dev/null`.
- *nginx* gives a constant, as long as fitserve's reply, to whatever comes, with no log: what HTTP alone costs.
- All servers live through all rounds, {place}. With two workers,
  the servers and the load share all cores, so these figures are for information only. Rounds of {seconds:g} s or
  more take turns after a warm-up. It is waited until fitserve has compiled its model. Before the first round,
  the servers' replies to every request are compared: labels equal, probabilities within 10⁻⁶.
- Each request is one of 50 different ones, in turn, over kept connections. Every reply must be a 200. A round
  ends when the last request in flight has been answered.
- *CPU µs/req* is the user and system time of the server's processes over the round, divided by the requests
  of the round. *server* and *wrk* say how busy their cores were: a load generator near 100 % is the limit
  itself, and with a single client each waits for the other. *others* is what every other process took.
- p50 and p99 of the rates are wrk's. Under 32 clients they follow from the rate: whoever saturates waits in
  line.

{date}, CPU {cpu}, Linux {kernel}, Python {python}, {versions}.

```console
$ {command}
```
"""
