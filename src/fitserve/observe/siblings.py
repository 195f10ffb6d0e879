"""The folder in which the processes of one server leave their numbers, and how they become one sum.

Whoever reads holds the lock of the folder. It puts the counters of processes that have ended into the
file ``NAME.ended`` and removes theirs, so that what was counted stays and files do not pile up. The file
says whose counters it has: if its writer is killed before it has removed them, they do not count twice.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson

from fitserve.observe.definitions import BY_NAME
from fitserve.shared_state.folder import server_folder as server_folder  # noqa: PLC0414 - it was here once
from fitserve.shared_state.locks import is_held, locked
from fitserve.shared_state.process import ProcessFacts, process_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CPU_SECONDS = "fitserve_process_cpu_seconds_total"
"""Written by whoever reads, so that it stays when the process has ended."""

WAIT_S = 1.0
"""How long to wait for the lock of the folder; it is held for a few milliseconds."""

Totals: TypeAlias = dict[tuple[str, tuple[str, ...]], list[float]]
"""The numbers of each series, by the metric's name and the values of its labels."""


class Snapshot(NamedTuple):
    """The numbers of one process.

    Attributes:
        totals: its series.
        is_alive: whether it goes on counting; its gauges count only then.
        facts: what the kernel tells of it, if it is alive.
    """

    totals: Totals
    is_alive: bool
    facts: ProcessFacts | None = None


def read_siblings(folder: Path, group: str, own: str, *, wait_s: float = WAIT_S) -> list[Snapshot]:
    """The numbers of all processes of a folder but one, also of those that have ended. Blocks.

    Args:
        folder: private to one server.
        group: how the names of the files begin.
        own: the name of the files that are left out.
        wait_s: how long to wait for others that read.

    Raises:
        OSError: the folder is not there or cannot be read; TimeoutError if another process holds its lock.
    """
    with locked(folder / "lock", wait_s):
        ended_file = folder / f"{group}.ended"
        ended, names = _read_ended(ended_file)
        found = [Snapshot(ended, is_alive=False)]
        done = []
        for cells in sorted(folder.glob(f"{group}-*.cells")):
            if cells.stem == own:
                continue
            snapshot = _read_process(cells)
            if not snapshot.is_alive:
                done.append(cells)
            if cells.stem not in names:
                found.append(snapshot)
        if done:
            kept = merge([snapshot for snapshot in found if not snapshot.is_alive])
            with contextlib.suppress(OSError):  # a full disk: they stay, and count from where they are
                _write_ended(ended_file, kept, [cells.stem for cells in done])
                for cells in done:
                    cells.unlink()
                    cells.with_suffix(".names").unlink(missing_ok=True)
    return found


def _read_process(path: Path) -> Snapshot:
    lines = path.with_suffix(".names").read_bytes().split(b"\n")[:-1]  # the last may be half a line
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        is_alive = is_held(file)
        with mmap.mmap(file, 0) as mapped, memoryview(mapped) as raw, raw.cast("d") as values:
            totals: Totals = {}
            places = [orjson.loads(line) for line in lines]
            facts = _facts_of(path.stem) if is_alive else None
            for metric, labels, first, n_cells in places:
                if metric == CPU_SECONDS and facts:
                    values[first] = max(values[first], facts.cpu_s)
                add_series(totals, metric, labels, values[first : first + n_cells].tolist())
            return Snapshot(totals, is_alive, facts)
    finally:
        os.close(file)


def _facts_of(name: str) -> ProcessFacts | None:
    """Of the process whose files have this name, as :func:`process_name` makes it."""
    pid, started = name.split("-")[-2:]
    facts = process_facts(int(pid))
    return facts if facts and str(facts.started_ticks) == started else None


def process_name(group: str) -> str:
    """A name for the files of this process, which no other has had."""
    facts = process_facts(os.getpid())
    return f"{group}-{os.getpid()}-{facts.started_ticks if facts else time.time_ns()}"


def add_series(totals: Totals, metric: str, labels: Sequence[str], values: Sequence[float]) -> None:
    """Add numbers to those of a series that are there. What another release has written otherwise is passed over."""
    definition = BY_NAME.get(metric)
    if definition is None or len(values) != definition.n_cells or len(labels) != len(definition.labels):
        return
    key = (metric, tuple(labels))
    before = totals.get(key)
    totals[key] = list(values) if before is None else [a + b for a, b in zip(before, values, strict=True)]


def merge(snapshots: Iterable[Snapshot]) -> Totals:
    """One sum of all processes: counters of all, gauges of those that are alive."""
    totals: Totals = {}
    for snapshot in snapshots:
        for key, values in snapshot.totals.items():
            definition = BY_NAME[key[0]]
            if definition.is_kept or (snapshot.is_alive and definition.merge == "sum"):
                add_series(totals, *key, values)
            elif snapshot.is_alive:
                choose = min if definition.merge == "min" else max
                totals[key] = [choose([*values, *totals.get(key, ())])]
    return totals


def _read_ended(path: Path) -> tuple[Totals, frozenset[str]]:
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, frozenset()
    totals: Totals = {}
    for metric, labels, values in document["series"]:
        add_series(totals, metric, labels, values)
    return totals, frozenset(document["processes"])


def _write_ended(path: Path, totals: Totals, names: list[str]) -> None:
    document = {"processes": names, "series": [[*key, values] for key, values in totals.items()]}
    new = path.with_suffix(".new-ended")
    new.write_bytes(orjson.dumps(document))
    new.replace(path)
