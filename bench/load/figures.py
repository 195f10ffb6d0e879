"""The figures of rounds and their ratios: pairs of rounds compared, the median and the spread of the pairs."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.load.rounds import Round, median
from bench.load.scenarios import Scenario

HAND_ROLLED, FITSERVE, ASGI, NGINX = "hand-rolled", "fitserve", "asgi", "nginx"

QUIET = 0.1
"""The part of a core that other processes may take before the figures are called spoiled."""

TIMES = "×"  # noqa: RUF001 - the sign, no letter


@dataclass(frozen=True)
class Column:
    """One figure of a round: how to write it, and whether less of it is better; None if it is no merit."""

    title: str
    figure: str
    write: Callable[[float], str]
    is_less_better: bool | None = None


PER_S = Column("req/s", "per_s", "{:,.0f}".format, is_less_better=False)
P50 = Column("p50 ms", "p50_ms", "{:.2f}".format, is_less_better=True)
P99 = Column("p99 ms", "p99_ms", "{:.2f}".format, is_less_better=True)
CPU = Column("CPU µs/req", "cpu_us", "{:,.1f}".format, is_less_better=True)

COLUMNS = (
    PER_S,
    P50,
    P99,
    CPU,
    Column("server", "server_busy", "{:.0%}".format),
    Column("wrk", "load_busy", "{:.0%}".format),
    Column("others", "others_busy", "{:.0%}".format),
)


@dataclass(frozen=True)
class Ratio:
    """The ratios of all pairs of rounds."""

    pairs: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.pairs)

    @property
    def spread(self) -> str:
        return f"{times(min(self.pairs))}-{times(max(self.pairs))}"


@dataclass(frozen=True)
class Result:
    """The rounds of one scenario by server; round i of each server ran just before round i of the next."""

    scenario: Scenario
    rounds: dict[str, list[Round]]
    form: str
    """What answered in fitserve."""

    def better(self, column: Column, ours: str = FITSERVE, theirs: str = HAND_ROLLED) -> Ratio:
        """How many times better one server was than the other, in each pair of rounds."""
        pairs = [
            (getattr(one, column.figure), getattr(other, column.figure))
            for one, other in zip(self.rounds[ours], self.rounds[theirs], strict=True)
        ]
        return Ratio([other / one if column.is_less_better else one / other for one, other in pairs])

    def rows(self) -> list[list[str]]:
        """The lines of the table: each server's medians, then fitserve's ratios."""
        lines = [
            [name, *(column.write(median(rounds, column.figure)) for column in COLUMNS)]
            for name, rounds in self.rounds.items()
        ]
        ratios = [None if column.is_less_better is None else self.better(column) for column in COLUMNS]
        lines.append(["better by", *("" if ratio is None else f"{times(ratio.median)}{TIMES}" for ratio in ratios)])
        lines.append(["min-max", *("" if ratio is None else ratio.spread for ratio in ratios)])
        return lines

    def notes(self) -> list[str]:
        """What else is worth a line below the table."""
        lines = [f"fitserve answers by: {self.form}"]
        others = max(median(rounds, "others_busy") for rounds in self.rounds.values())
        if others > QUIET:
            lines.append(f"not to be trusted: other processes took {others:.0%} of a core meanwhile")
        if NGINX in self.rounds:
            for name in (FITSERVE, ASGI):
                if name in self.rounds:
                    ratio = self.better(CPU, ours=NGINX, theirs=name)
                    lines.append(f"{name} takes {times(ratio.median)}{TIMES} nginx's CPU a request ({ratio.spread})")
        if ASGI in self.rounds:
            ratio = self.better(PER_S, ours=FITSERVE, theirs=ASGI)
            lines.append(
                f"fitserve run answers {times(ratio.median)}{TIMES} what it does under uvicorn ({ratio.spread})"
            )
        return lines


def times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
