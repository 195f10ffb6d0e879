"""What the records of a load say: lost requests, replies of the wrong version, latencies."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.soak.load import Record


@dataclass(frozen=True)
class Figure:
    """One figure of a trial, and what was wanted of it.

    Attributes:
        name: what was counted or measured.
        value: what came.
        wanted: empty where nothing was.
        is_met: None where nothing was wanted.
        is_speed: it depends on the machine and on what else runs there; no test asserts it.
    """

    name: str
    value: str
    wanted: str = ""
    is_met: bool | None = None
    is_speed: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.value}" + (f" (wanted {self.wanted})" if self.wanted else "")


def none(name: str, count: int, detail: object = "") -> Figure:
    """A figure that has to be 0."""
    return Figure(name, f"{count:,}" + (f": {detail}" if count and detail else ""), "0", count == 0)


def at_most(name: str, value: float, bound: float, write: str = "{:,.1f}", *, is_speed: bool = False) -> Figure:
    return Figure(name, write.format(value), f"≤ {write.format(bound)}", value <= bound, is_speed)


def told(name: str, value: object) -> Figure:
    return Figure(name, f"{value:,}" if isinstance(value, int) else str(value))


def missed(figures: Iterable[Figure]) -> list[str]:
    """What was wanted and did not come, but for speeds."""
    return [str(figure) for figure in figures if figure.is_met is False and not figure.is_speed]


@dataclass(frozen=True)
class Switch:
    """A switch that was done; times are monotonic seconds.

    Attributes:
        version: that serves since.
        began_s: before it was asked for.
        done_s: after the reply that reported it done.
    """

    version: str
    began_s: float
    done_s: float

    @property
    def took_ms(self) -> float:
        return (self.done_s - self.began_s) * 1000


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        failures: how many had no good reply, by reason.
        n_mixed: replies whose value is not of the version that they name.
        n_mislabelled: replies whose header names another version than their body.
        n_stale: replies of an earlier version to requests sent after a switch had been reported done.
        n_late: replies of an earlier version that came after that, to requests sent before it.
    """

    n_requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    n_mixed: int = 0
    n_mislabelled: int = 0
    n_stale: int = 0
    n_late: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def n_failed(self) -> int:
        return self.failures.total()

    def figures(self) -> list[Figure]:
        reasons = ", ".join(f"{n} {why}" for why, n in self.failures.most_common())
        return [
            told("requests", self.n_requests),
            none("failed requests", self.n_failed, reasons),
            *self.version_figures(),
        ]

    def version_figures(self) -> list[Figure]:
        return [
            none("replies whose value is not of the version they name", self.n_mixed),
            none("replies whose header names another version than their body", self.n_mislabelled),
            none("replies of an earlier version, sent for after a switch was done", self.n_stale),
            told("the same, sent for before", self.n_late),
        ]


def by_whole_part(value: float | None, version: str) -> bool:
    """Whether a value is of a version: those of 2.0.0 lie between 2 and 3."""
    return value is not None and version.split(".", 1)[0] == str(math.floor(value + 1e-6))


def tally(
    records: Sequence[Record],
    switches: Sequence[Switch] = (),
    *,
    first: str,
    is_of: Callable[[float | None, str], bool] = by_whole_part,
) -> Tally:
    """Count what became of the requests.

    Args:
        records: of requests that have ended.
        switches: those that were done, in their order; none overlaps another.
        first: the version that served before the first of them.
        is_of: whether a value is one of a version's.
    """
    found = Tally(len(records))
    for record in records:
        if record.has_failed:
            found.failures[record.why] += 1
            continue
        found.latencies_ms.append(record.latency_ms)
        found.n_mixed += not is_of(record.value, record.version)
        found.n_mislabelled += record.labelled != record.version
        if record.version not in allowed(switches, record.sent_s, record.ended_s, first):
            found.n_stale += 1
        elif record.version not in allowed(switches, record.ended_s, record.ended_s, first):
            found.n_late += 1
    return found


def allowed(switches: Sequence[Switch], sent_s: float, ended_s: float, first: str) -> set[str]:
    """The versions that may answer a request: what served when it was sent, and what was switched to since.

    A switch happens at an unknown moment between its beginning and its report.
    """
    found = {first}
    for switch in switches:
        if switch.done_s <= sent_s:
            found = {switch.version}
        elif switch.began_s <= ended_s:
            found.add(switch.version)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; 0.5 is the median. NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if share else ordered[0]


def lost_elsewhere(records: Iterable[Record], killed: Sequence[tuple[float, frozenset[int]]]) -> list[Record]:
    """The failed requests whose connection no killed process had.

    Args:
        records: all of them.
        killed: for each process the moment at which it was stopped for good, and the clients' ports it was
            connected to then.
    """
    return [
        record
        for record in records
        if record.has_failed and not any(record.port in ports and record.ended_s >= at_s for at_s, ports in killed)
    ]


def busiest(shares: Iterable[int], n: int) -> float:
    """How much more than a fair share the busiest of ``n`` has; NaN where there is nothing to share."""
    counts = list(shares)
    return max(counts) * n / sum(counts) if sum(counts) else math.nan
