"""The engines of one version as work to be done: what it needs, whether it is still wanted, how far it is."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fitserve.store.catalog import LoadedModel
    from fitserve.store.optimization import Optimization
    from fitserve.store.verify import Verifier
    from fitserve.types import Artifact


@dataclass(eq=False, slots=True)
class EngineJob:
    """Getting the engines of a version. It keeps neither the version nor its bytes in memory.

    Attributes:
        version: it is let go of when nothing else holds it, and then nothing is done for it.
        title: its name and version, for the log.
        state: of its optimization.
        size_bytes: of its files.
        read: gives the artifact.
        verifier: loads it in a child.
        is_switch: it is prepared to take the place of another version of its model.
        is_before_fork: the processes that serve will be forked from this one.
        is_kept: other processes find its engines, in the cache or in its package.
        is_cancelled: it does not serve after all.
        is_done: nothing more happens for it.
    """

    version: weakref.ref[LoadedModel]
    title: str
    state: Optimization
    size_bytes: int
    read: Callable[[], Artifact]
    verifier: Verifier
    is_switch: bool = False
    is_before_fork: bool = False
    is_kept: bool = False
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    is_done: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, loaded: LoadedModel, read: Callable[[], Artifact], verifier: Verifier) -> EngineJob:
        """The work for a version; it is told to be under way."""
        state = loaded.optimization
        state.state, state.reason = "running", None
        title = f"{loaded.name} {loaded.version}"
        return cls(weakref.ref(loaded), title, state, loaded.size_bytes, read, verifier)

    @property
    def is_wanted(self) -> bool:
        """Whether the version is there, and may serve."""
        return not self.is_cancelled.is_set() and self.version() is not None

    def cancel(self) -> None:
        """Want it no more. Whoever is at it stops soon."""
        self.is_cancelled.set()

    def finish(self) -> None:
        """Nothing more happens for it."""
        if self.state.state == "running":
            self.state.state, self.state.reason = "off", "it was given up before it was compiled"
        self.is_done.set()

    def in_copy(self) -> None:
        """Be that of a copy of the process, in which nobody is at it or waits for it."""
        self.is_cancelled, self.is_done = threading.Event(), threading.Event()
        self.is_before_fork = self.is_switch = False


def next_of(jobs: Sequence[EngineJob], preferred: LoadedModel | None) -> EngineJob | None:
    """The job to be done next: that of a version that is preferred, else the first that is wanted."""
    wanted = [job for job in jobs if job.is_wanted]
    return next((job for job in wanted if preferred is not None and job.version() is preferred), None) or next(
        iter(wanted), None
    )
