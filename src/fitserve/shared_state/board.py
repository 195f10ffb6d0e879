"""The board: what the members of a fleet tell each other, in one file that all of them map.

============  ==========================================================================================
header        the generation, the number of the last order
states        what each slot is: free, or the state of the member that has it
rows          the numbers of each slot, written by the member that has it, read by all
two areas     the assignment of generation g is in area g % 2, behind its generation, length and checksum
============  ==========================================================================================

**No torn numbers.** A cell is 8 bytes at an address that 8 divides. CPython reads and writes one of a
``memoryview`` of format ``Q`` by a ``memcpy`` of 8 bytes, which is one instruction, and the processors of
fitserve (x86-64, aarch64) do such a one whole: a reader sees the old number or the new one. (``struct`` with
``<`` or ``>`` goes byte by byte; here it is never used so.)

**No torn assignment.** A commit of g + 1 writes the area that generation g does not use, then the
generation: one store, which is the commit. Whoever is killed before has changed nothing. A reader that is
overtaken twice, or sees the stores in another order (aarch64), finds another generation in the area, or a
checksum that does not fit, and reads again.

**Who is alive.** A member holds a lock on ``members/<slot>`` (``flock``), which the kernel lets go when it
ends, however it ends. A copy of the process by ``fork`` closes its descriptor, and its slot writes nowhere.

Sources: "Guaranteed Atomic Operations" in volume 3 of the manuals at
https://www.intel.com/content/www/us/en/developer/articles/technical/intel-sdm.html; "Requirements for single-copy
atomicity" in https://developer.arm.com/documentation/ddi0487/latest
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple, Self

from fitserve.shared_state.locks import is_locked, locked, try_lock
from fitserve.shared_state.slot import CELL_BYTES, N_CELLS, N_SLOTS, Member, Slot, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["COMMIT_LOCK", "Board", "Member", "Slot", "State", "Sums", "locked"]

AREA_BYTES = 512 * 1024
"""How long an assignment may be: that of some thousand versions."""

FOLDERS = ("members", "locks", "orders", "answers", "operations")
"""What lies beside the board."""

COMMIT_LOCK = "locks/commit.lock"
"""Held by whoever commits or gives an order, and by a member while it becomes ready."""

_GENERATION, _ORDER_SEQ = 0, 1
_STATES = 64
_ROWS = _STATES + N_SLOTS
_AREAS_BYTES = (_ROWS + N_SLOTS * N_CELLS) * CELL_BYTES
_AREA_HEAD = 8
_SIZE = _AREAS_BYTES + 2 * (_AREA_HEAD * CELL_BYTES + AREA_BYTES)

_N_TRIES = 1000
_MAKING_S = 10.0
_READY = int(State.READY)
_LIVES = struct.Struct(f"QQ{(N_CELLS - 2) * CELL_BYTES}x")
"""Heartbeat and connections of a row. Native order and size: each is read by one ``memcpy``."""


class Sums(NamedTuple):
    """Of the members that take connections.

    Attributes:
        n_ready: how many there are.
        n_connections: that they have open together.
    """

    n_ready: int
    n_connections: int


class Board:
    """See the module. Reads are of mapped memory only and block nobody, unless said otherwise.

    Attributes:
        cells: all numbers; ``cells[0]`` is the generation, to be compared by each request.
        folder: in which the board is, or None for one of one process.
    """

    def __init__(self, mapped: mmap.mmap, folder: Path | None) -> None:
        self.folder = folder
        self._raw = memoryview(mapped)
        self.cells: memoryview[int] = self._raw[:_AREAS_BYTES].cast("Q")
        self._states = self.cells[_STATES:_ROWS]
        self._raw_states = self._raw[_STATES * CELL_BYTES : _ROWS * CELL_BYTES]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The board of a runtime folder, made by whichever process opens it first. Blocks.

        Raises:
            OSError: there is no room, or the folder cannot be written; TimeoutError if another process has been
                making the board for a long time.
        """
        for name in FOLDERS:
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        file = os.open(folder / "board", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with locked(folder / "locks" / "board.lock", _MAKING_S):
                if os.fstat(file).st_size < _SIZE:
                    _reserve(file)
            return cls(mmap.mmap(file, _SIZE), folder)
        finally:
            os.close(file)  # the map has a copy, without a lock

    @classmethod
    def in_memory(cls) -> Self:
        """A board of this process alone; a copy of the process has a copy of it. Takes as much as is written to it."""
        return cls(mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), None)

    @property
    def generation(self) -> int:
        """Of the assignment; 0 before the first. Never goes back."""
        return self.cells[_GENERATION]

    @property
    def order_seq(self) -> int:
        """The number of the last order; 0 before the first."""
        return self.cells[_ORDER_SEQ]

    def assignment(self) -> tuple[int, bytes]:
        """The generation and its document, which belong together; ``(0, b"")`` before the first commit.

        Raises:
            OSError: the board is damaged: nothing of the kind is in it.
        """
        for _ in range(_N_TRIES):
            generation = self.cells[_GENERATION]
            if not generation:
                return 0, b""
            head, body = self._area(generation)
            written, length, checksum = head[0], head[1], head[2]
            if written == generation and length <= AREA_BYTES:
                document = bytes(body[:length])
                if _checksum(generation, document) == checksum:
                    return generation, document
        msg = f"the board in {self.folder} is damaged: generation {generation} has no assignment"
        raise OSError(msg)

    def commit(self, document: bytes) -> int:
        """Put another assignment into force, and return its generation. The caller holds ``COMMIT_LOCK``.

        Raises:
            ValueError: it is too long. Nothing has changed.
        """
        if len(document) > AREA_BYTES:
            msg = f"an assignment has {len(document)} bytes, and may have {AREA_BYTES}: keep fewer models or versions"
            raise ValueError(msg)
        generation = self.cells[_GENERATION] + 1
        head, body = self._area(generation)
        head[0] = 0
        body[: len(document)] = document
        head[1] = len(document)
        head[2] = _checksum(generation, document)
        head[0] = generation
        self.cells[_GENERATION] = generation  # the commit: all before is of no consequence
        return generation

    def next_order(self) -> int:
        """Count an order, and return its number. The caller holds ``COMMIT_LOCK`` and has written the order."""
        self.cells[_ORDER_SEQ] += 1
        return self.cells[_ORDER_SEQ]

    def join(self) -> Slot:
        """Take a free slot for this process, in state ``JOINING``. Blocks for some microseconds.

        Keep it: a slot that nothing refers to is given back.

        Raises:
            OSError: all slots are taken, or the folder cannot be written.
        """
        for number in range(N_SLOTS):
            if self.folder is None:
                is_free, lock = self._states[number] == State.FREE, None
            else:
                lock = try_lock(self.folder / "members" / str(number))
                is_free = lock is not None
            if is_free:
                first = _ROWS + number * N_CELLS
                return Slot(number, self.cells[first : first + N_CELLS], self._states, lock)
        msg = f"all {N_SLOTS} places of this server's processes are taken"
        raise OSError(msg)

    def members(self) -> list[Member]:
        """The members that are alive, in order of their slots; this process is one of them if it has joined.

        Blocks for some microseconds for each. One that has just ended may be among them, as in any list of processes.
        """
        alive = [self._member(number) for number in self._taken() if self._is_alive(number)]
        return [member for member in alive if member.state != State.FREE]  # it may have left meanwhile

    def sums(self, *, fresh_s: float = 1.0) -> Sums:
        """How many members take connections, and how many they have. Makes no system call.

        Args:
            fresh_s: how old the heartbeat of one may be that counts. Those that have ended stop beating.
        """
        oldest_ns = time.monotonic_ns() - int(fresh_s * 1e9)
        states = bytes(self._raw_states)[::CELL_BYTES].rstrip(b"\0")  # little-endian: the first byte of each
        rows = self._raw[_ROWS * CELL_BYTES : (_ROWS + len(states) * N_CELLS) * CELL_BYTES]
        n_ready = n_connections = 0
        for state, (heartbeat_ns, n_open) in zip(states, _LIVES.iter_unpack(rows), strict=True):
            if state == _READY and heartbeat_ns > oldest_ns:
                n_ready += 1
                n_connections += n_open
        return Sums(n_ready, n_connections)

    def _taken(self) -> Iterator[int]:
        return (number for number, state in enumerate(self._states.tolist()) if state != State.FREE)

    def _is_alive(self, number: int) -> bool:
        return self.folder is None or is_locked(self.folder / "members" / str(number))

    def _member(self, number: int) -> Member:
        first = _ROWS + number * N_CELLS
        beat, n_open, n_requests, generation, answered, n_old, pid, ticks = self.cells[first : first + 8].tolist()
        state = State(self._states[number])
        return Member(number, pid, ticks, state, generation, answered, beat, n_open, n_requests, n_old)

    def _area(self, generation: int) -> tuple[memoryview[int], memoryview[int]]:
        """The head of an area, as cells, and its bytes."""
        first = _AREAS_BYTES + generation % 2 * (_AREA_HEAD * CELL_BYTES + AREA_BYTES)
        body = first + _AREA_HEAD * CELL_BYTES
        return self._raw[first:body].cast("Q"), self._raw[body : body + AREA_BYTES]


def _checksum(generation: int, document: bytes) -> int:
    return zlib.crc32(document, generation & 0xFFFFFFFF)


def _reserve(file: int) -> None:
    """Make the file as long as it will be, of zeros that are on the disk: else a full one would end a writer."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, _SIZE)
    else:
        os.pwrite(file, bytes(_SIZE), 0)
