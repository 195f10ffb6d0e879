"""Notes that the processes of a fleet leave each other: small JSON documents by kind and name, and locks.

Two kinds of place: files in the runtime folder that the processes of one server share, and the memory of one process
that has no siblings. Both are thread-safe; the first blocks for as long as a small file takes.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from fitserve.shared_state.locks import try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Release = Callable[[], None]


class Notes(Protocol):
    """A place for notes."""

    def put(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Write a note, whole or not at all, in the place of the one before."""

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Read a note; None if there is none."""

    def names(self, kind: str) -> list[str]:
        """The names of a kind, sorted."""

    def remove(self, kind: str, name: str) -> None:
        """Remove a note, if it is there."""

    def try_lock(self, name: str) -> Release | None:
        """Take a lock and return what lets it go; None if somebody has it. A process that ends lets go of it."""


class MemoryNotes:
    """Notes of one process to itself."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], bytes] = {}
        self._locks: set[str] = set()
        self._lock = threading.Lock()

    def put(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """See :class:`Notes`."""
        self._notes[kind, name] = orjson.dumps(document)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """See :class:`Notes`."""
        data = self._notes.get((kind, name))
        return None if data is None else orjson.loads(data)

    def names(self, kind: str) -> list[str]:
        """See :class:`Notes`."""
        return sorted(name for one, name in list(self._notes) if one == kind)

    def remove(self, kind: str, name: str) -> None:
        """See :class:`Notes`."""
        self._notes.pop((kind, name), None)

    def try_lock(self, name: str) -> Release | None:
        """See :class:`Notes`."""
        with self._lock:
            if name in self._locks:
                return None
            self._locks.add(name)
        return lambda: self._locks.discard(name)


class FileNotes:
    """Notes as files below a private folder that several processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for kind in ("orders", "answers", "operations", "running", "locks"):
            (folder / kind).mkdir(mode=0o700, exist_ok=True)

    def put(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """See :class:`Notes`."""
        path = self._folder / kind / name
        new = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        new.write_bytes(orjson.dumps(document))
        new.replace(path)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """See :class:`Notes`."""
        try:
            data = (self._folder / kind / name).read_bytes()
        except FileNotFoundError:
            return None
        return orjson.loads(data) if data else {}

    def names(self, kind: str) -> list[str]:
        """See :class:`Notes`."""
        return sorted(path.name for path in (self._folder / kind).iterdir() if path.name[0] != ".")

    def remove(self, kind: str, name: str) -> None:
        """See :class:`Notes`."""
        (self._folder / kind / name).unlink(missing_ok=True)

    def try_lock(self, name: str) -> Release | None:
        """See :class:`Notes`."""
        file = try_lock(self._folder / "locks" / name)
        return None if file is None else partial(unlock, file)
