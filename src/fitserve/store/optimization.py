"""How far the compiling of a version has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Source: TypeAlias = Literal["compiled", "cache", "package"]


@dataclass(slots=True)
class Optimization:
    """What became of the engines of one version. Changed by one thread at a time, read by any.

    Attributes:
        state: ``off``: there is nothing to compile, or it is not wanted.
        reason: why it is off or has failed, or why the library's own call serves all the same.
        source: where the engines came from.
        wants_sharing: an engine waits for processes that are forked with it in memory, since each by itself may not
            take so much, or should not.
        report: an entry for each engine that was tried, as :func:`fitserve.optimize.compile.compile_model` has it.
    """

    state: Literal["off", "running", "done", "failed"] = "off"
    reason: str | None = None
    source: Source | None = None
    wants_sharing: bool = False
    report: list[dict[str, Any]] = field(default_factory=list)
