"""Each hostile file at each trust level: what becomes of it, after how long, and at what peak memory of the child."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hostile_corpus

from fitserve.confine.outcome import Outcome, answer
from fitserve.errors import ArtifactError
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier
from fitserve.trust.judge import require_pinned
from fitserve.trust.policy import TrustPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = ("data", "allowlist", "pinned", "any")
DEADLINE_S = 5.0
MOST_S, MOST_BYTES = 2.0, 512 * 2**20

ENDLESS = {"onnx-endless", "pickle-shared tuples as key.pkl", "pickle-shared tuples in a set.pkl"}
"""Files that only the deadline ends where they are loaded: a loop, and hashes that take 2^60 steps."""


@dataclass(frozen=True)
class Verdict:
    """What became of a file at a level.

    ``refusal`` is empty where it would be served. ``peak_bytes`` is 0 where no child was made: it was refused when it
    was read.
    """

    name: str
    level: str
    seconds: float
    peak_bytes: int
    refusal: str

    @property
    def is_too_much(self) -> bool:
        """A refusal has bounds; what somebody vouched for and was loaded has those of its trial."""
        is_slow = self.seconds > (DEADLINE_S + MOST_S if self.is_ended_by_deadline else MOST_S)
        return bool(self.refusal) and (is_slow or self.peak_bytes > MOST_BYTES)

    @property
    def is_ended_by_deadline(self) -> bool:
        return self.name in ENDLESS and "did not answer within" in self.refusal


def verdicts(paths: dict[str, Path]) -> Iterator[Verdict]:
    """Try each file at each level. ``pinned`` vouches for each file that can be read."""
    verdict("the template starts with it", paths["skops-call"], "data")
    for level in LEVELS:
        for name, path in paths.items():
            yield verdict(name, path, level)


def verdict(name: str, path: Path, level: str) -> Verdict:
    peak, refusal, started = 0, "", time.perf_counter()
    try:
        artifact = read_artifact(path)
        policy = TrustPolicy(level=level, pins=frozenset({artifact.digest} if level == "pinned" else ()))
        require_pinned(artifact.digest, policy)
        told = Verifier(policy, deadline_s=DEADLINE_S + 1).run("bench.qa.measured:try_artifact", artifact)
        peak = told.pop("peak_bytes")
        told["reply"] = None if told["reply"] is None else told["reply"].encode()
        report = answer(Outcome(**told), DEADLINE_S, 1 << 28)
        if report["failure"]:  # a server keeps the version before, or does not become ready
            refusal = f"is not put into service: {report['failure']}"
    except ArtifactError as exc:
        refusal = str(exc)
    return Verdict(name, level, time.perf_counter() - started, peak, refusal)


def corpus() -> tuple[tempfile.TemporaryDirectory, dict[str, Path], Path]:
    """The folder that holds the hostile files, these, and the marker that none may touch."""
    folder = tempfile.TemporaryDirectory(prefix="fitserve-qa-")
    marker = Path(folder.name) / "marker"
    return folder, hostile_corpus.build(Path(folder.name), marker), marker
