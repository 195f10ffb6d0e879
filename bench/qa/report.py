"""The verdicts as a page, and what is wrong with them."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from bench.qa.hostile import DEADLINE_S, LEVELS, MOST_BYTES, MOST_S, Verdict

if TYPE_CHECKING:
    import collections
    from pathlib import Path

BEGIN, END = "<!-- made by `make qa`: begin -->", "<!-- made by `make qa`: end -->"
OUTCOMES = ("refused", "same", "other", "raised", "died")
MIB = 2**20
TOLD = 5
"""How many of the slowest and of the largest are named."""


@dataclass(frozen=True)
class Report:
    verdicts: list[Verdict]
    damaged: dict[str, collections.Counter[str]]
    n_passed_a_pin: int
    n_mutations: int
    is_marker_touched: bool
    load: float

    def problems(self) -> list[str]:
        found = [f"{_at(v)}: {v.seconds:.2f} s, {v.peak_bytes // MIB} MiB" for v in self.verdicts if v.is_too_much]
        found += [f"{v.name} was accepted at {v.level}" for v in self.verdicts if self._is_wrongly_accepted(v)]
        found += [f"{kind}: the server died" for kind, counts in self.damaged.items() if counts["died"]]
        if self.is_marker_touched:
            found.append("a payload touched the marker")
        if self.n_passed_a_pin:
            found.append(f"{self.n_passed_a_pin} damaged files passed a pin")
        return found

    @staticmethod
    def _is_wrongly_accepted(verdict: Verdict) -> bool:
        return not verdict.refusal and verdict.level not in {"pinned", "any"}

    def markdown(self) -> str:
        return f"{self._hostile()}\n\n{self._extremes()}\n\n{self._damaged()}\n\n{self._where()}\n"

    def _hostile(self) -> str:
        n_files = len({v.name for v in self.verdicts})
        n_effects = "one payload or more" if self.is_marker_touched else "no payload"
        late = [v for v in self.verdicts if v.is_ended_by_deadline]
        return f"""**{n_files} hostile files, each at the four trust levels: {n_effects} had an effect.**

| trust level | refused | before a child was made | put into service | median | slowest | largest |
|---|---|---|---|---|---|---|
{chr(10).join(map(self._level, LEVELS))}

The last three columns are of the refusals: the time to the answer, and the peak memory of the child, which holds
Python and the libraries too. The bounds are {MOST_S:g} s and {MOST_BYTES // MIB} MiB. Left out of the times is
what only the deadline ends, `load_timeout_s`, here {DEADLINE_S:g} s: {_listed(late)}."""

    def _damaged(self) -> str:
        n_died = sum(counts["died"] for counts in self.damaged.values())
        rows = [f"| {kind} | {' | '.join(str(c[word]) for word in OUTCOMES)} |" for kind, c in self.damaged.items()]
        n = self.n_mutations * len(self.damaged)
        return f"""**{n} damaged files, {self.n_mutations} of each format, served in the place of a good one: \
the server died {n_died} times.**

| format | {" | ".join(OUTCOMES)} |
|---|{"---|" * len(OUTCOMES)}
{chr(10).join(rows)}

With the digest of the good file pinned, {self.n_passed_a_pin} of the same {n} files were accepted."""

    def _level(self, level: str) -> str:
        at = [v for v in self.verdicts if v.level == level]
        refused = [v for v in at if v.refusal]
        times = [v.seconds for v in refused if not v.is_ended_by_deadline]
        cells = [
            f"`{level}`",
            len(refused),
            sum(not v.peak_bytes for v in refused),
            len(at) - len(refused),
            f"{statistics.median(times) * 1000:.0f} ms",
            f"{max(times):.2f} s",
            f"{max(v.peak_bytes for v in refused) // MIB} MiB",
        ]
        return f"| {' | '.join(map(str, cells))} |"

    def _extremes(self) -> str:
        refused = [v for v in self.verdicts if v.refusal and not v.is_ended_by_deadline]
        slowest = sorted(refused, key=lambda v: -v.seconds)[:TOLD]
        largest = sorted(refused, key=lambda v: -v.peak_bytes)[:TOLD]
        lines = ["| slowest | s | largest | MiB |", "|---|---|---|---|"]
        for s, m in zip(slowest, largest, strict=True):
            lines.append(f"| {_at(s)} | {s.seconds:.2f} | {_at(m)} | {m.peak_bytes // MIB} |")
        return "\n".join(lines)

    def _where(self) -> str:
        names = ("scikit-learn", "skops", "onnxruntime", "xgboost-cpu", "lightgbm", "catboost", "joblib", "numpy")
        libraries = ", ".join(f"{name} {version(name)}" for name in names)
        return (
            f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} processors shared with other work "
            f"(load {self.load:.1f} at the end), Python {platform.python_version()}, {libraries}."
        )

    def write(self, page: Path) -> None:
        """Renew what stands between the two marks of a page."""
        before, _, rest = page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{self.markdown()}\n\n{END}{after}")


def _listed(verdicts: list[Verdict]) -> str:
    """Which files, at which levels, and the longest that one took."""
    levels: dict[str, list[str]] = {}
    for verdict in verdicts:
        levels.setdefault(verdict.name, []).append(f"`{verdict.level}`")
    longest = max((v.seconds for v in verdicts), default=0.0)
    return "; ".join(f"{name} ({', '.join(at)})" for name, at in levels.items()) + f"; the longest took {longest:.1f} s"


def _at(verdict: Verdict) -> str:
    return f"{verdict.name} (`{verdict.level}`)"
