"""The numbers of one process: in memory, or in files that its siblings read.

``NAME.cells`` holds float64 numbers, mapped into memory, so that counting is an addition. Line i of
``NAME.names`` says which series is where, as JSON ``[metric, labels, first cell, number of cells]``; it
is written before the cells are used. The process holds a lock on its cells until it ends, however it
ends: whoever can get the lock knows that nobody counts there any more.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import weakref
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from pathlib import Path

N_SINK_CELLS = 32
"""Cells at the start that belong to no series: what cannot be kept is counted there. More than any series has."""

N_FIRST_CELLS = 2048

_OLD = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = _OLD | os.O_CREAT | os.O_EXCL


class Place(NamedTuple):
    """Where the numbers of one series are."""

    metric: str
    labels: tuple[str, ...]
    first: int
    n_cells: int


class Cells:
    """Numbers in memory.

    Series are added by one thread; another may read ``places``, then ``values``, at any time.

    Attributes:
        values: the numbers. Another object after :meth:`add`.
        places: of all series, only ever longer.
    """

    def __init__(self) -> None:
        self.values: list[float] | memoryview[float] = [0.0] * N_SINK_CELLS
        self.places: list[Place] = []
        self._n_used = N_SINK_CELLS

    def add(self, metric: str, labels: tuple[str, ...], n_cells: int) -> int:
        """Make room for a series of zeros and return its first cell.

        Raises:
            OSError: there is no room. Nothing has changed.
        """
        place = Place(metric, labels, self._n_used, n_cells)
        self._reserve(place)
        self._n_used += n_cells
        self.places.append(place)
        return place.first

    def _reserve(self, place: Place) -> None:
        assert isinstance(self.values, list)
        self.values.extend([0.0] * place.n_cells)

    def close(self) -> None:
        """Let go of files, if there are any."""


class FileCells(Cells):
    """Numbers in files. A copy of the process closes them and makes files of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make the files.

        Raises:
            OSError: there is no room, or a file of this name is there.
        """
        super().__init__()
        new, names, cells = (folder / f"{name}.{kind}" for kind in ("new", "names", "cells"))
        self._n_reserved = 0
        self._is_full = False
        self._descriptors: list[int] = []
        self._finalizer = weakref.finalize(self, _close_all, self._descriptors)
        try:
            # The third is for the lock alone: a map keeps a copy of its descriptor, and with it a lock.
            for path, flags in ((new, _NEW), (names, _NEW | os.O_APPEND), (new, _OLD)):
                self._descriptors.append(os.open(path, flags, 0o600))
            self._map(N_FIRST_CELLS)
            fcntl.flock(self._descriptors[2], fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked before it can be found: a file that is found without a lock is one of a process that has ended.
            new.rename(cells)
        except OSError:
            self.close()
            for path in (new, names):
                path.unlink(missing_ok=True)
            raise

    def _map(self, n_cells: int) -> None:
        """Map at least this many cells, which are on the disk: else a full one would end the process."""
        file = self._descriptors[0]
        _write(file, bytes(8 * (n_cells - self._n_reserved)), at=8 * self._n_reserved)
        # The map that was there goes when nobody reads it any more.
        self.values = memoryview(mmap.mmap(file, 8 * n_cells)).cast("d")
        self._n_reserved = n_cells

    def _reserve(self, place: Place) -> None:
        if self._is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        line = orjson.dumps([place.metric, place.labels, place.first, place.n_cells]) + b"\n"
        try:
            if place.first + place.n_cells > self._n_reserved:
                self._map(2 * self._n_reserved)
            _write(self._descriptors[1], line)
        except OSError:
            self._is_full = True  # a line that was written by half must stay the last
            raise

    def close(self) -> None:
        """Close the files and so give up the lock; the values can still be read and written."""
        self._finalizer()


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _write(file: int, data: bytes, at: int | None = None) -> None:
    """Write all, or raise as a full disk does."""
    n_written = os.write(file, data) if at is None else os.pwrite(file, data, at)
    if n_written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
