"""How much memory compiled engines may take: in one process, and in the processes of a server together.

What was loaded before a fork lies in pages that all processes share, and counts once. What a process loads by itself
counts once for each of them: with four processes, it may take a quarter.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fitserve.store.catalog import LoadedModel

SHARED_FROM_BYTES = 32 * 2**20
"""An engine of which each process should not have a copy: the replacement of the workers is the smaller cost."""


class Room(NamedTuple):
    """What the engines of a version may take.

    Attributes:
        here_bytes: where they are loaded now.
        shared_bytes: where they were loaded before the fork of the processes.
    """

    here_bytes: int
    shared_bytes: int

    def less(self, n_bytes: int) -> Room:
        """What is left when so much is taken."""
        return Room(max(0, self.here_bytes - n_bytes), max(0, self.shared_bytes - n_bytes))


@dataclass(frozen=True, slots=True)
class _Held:
    version: weakref.ref[LoadedModel]
    model: str
    n_bytes: int
    is_shared: bool


class EngineMemory:
    """An account of the engines in this process. They leave it with their version. Thread-safe."""

    def __init__(self, total_bytes: int, n_processes: int) -> None:
        """Begin with nothing.

        Args:
            total_bytes: for all engines of a server.
            n_processes: how many processes load the same.
        """
        self._total_bytes = total_bytes
        self._n_processes = n_processes
        self._held: list[_Held] = []
        self._lock = threading.Lock()

    def room(self, *, is_before_fork: bool = False, instead_of: str | None = None) -> Room:
        """What is left for a version.

        Args:
            is_before_fork: the processes will be forked from this one.
            instead_of: the model whose other versions do not count, because this one takes their place.
        """
        with self._lock:
            self._held = [held for held in self._held if held.version() is not None]
            counted = [held for held in self._held if held.model != instead_of]
        own_bytes = sum(held.n_bytes for held in counted if not held.is_shared)
        left_bytes = self._total_bytes - sum(held.n_bytes for held in counted if held.is_shared)
        shared_bytes = max(0, left_bytes - own_bytes)  # what this process has by itself would be shared then, too
        here_bytes = shared_bytes if is_before_fork else max(0, left_bytes // self._n_processes - own_bytes)
        return Room(here_bytes, shared_bytes)

    def take(self, loaded: LoadedModel, n_bytes: int, *, is_before_fork: bool = False) -> None:
        """Enter the engines of a version."""
        with self._lock:
            self._held.append(_Held(weakref.ref(loaded), loaded.name, n_bytes, is_before_fork))

    def in_copy(self) -> None:
        """Be that of a copy of the process: all that it has is shared."""
        self._lock = threading.Lock()  # the old one may be held by a thread that is not in the copy
        self._held = [replace(held, is_shared=True) for held in self._held]
