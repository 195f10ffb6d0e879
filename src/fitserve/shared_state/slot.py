"""The place of one process on the board of its fleet."""

from __future__ import annotations

import enum
import os
import time
import weakref
from typing import NamedTuple

from fitserve.shared_state.locks import unlock
from fitserve.shared_state.process import process_facts

N_SLOTS = 512
"""Members that a fleet may have, those that are leaving among them."""

N_CELLS = 16
"""Cells of a slot: 128 bytes, two lines of the cache, so that no two members write into the same."""

CELL_BYTES = 8


class State(enum.IntEnum):
    """What a slot is."""

    FREE = 0
    JOINING = 1
    READY = 2
    LEAVING = 3


class Member(NamedTuple):
    """What stood in a slot whose member was alive.

    Attributes:
        number: of the slot.
        pid: of its process,
        started_ticks: and when that started, in clock ticks since the machine did; 0 where that is not known.
        state: never ``FREE``.
        generation: that it has applied.
        answered: the number of the last order that it has answered.
        heartbeat_ns: when its event loop last turned, by CLOCK_MONOTONIC.
        n_connections: that it has open.
        n_requests: that it has answered.
        n_old_leases: requests that it still computes with versions which an earlier generation served.
    """

    number: int
    pid: int
    started_ticks: int
    state: State
    generation: int
    answered: int
    heartbeat_ns: int
    n_connections: int
    n_requests: int
    n_old_leases: int


class _Cell:
    """A number in the row of a slot; reading it is a load, writing it a store."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def __get__(self, slot: Slot, _: type) -> int:
        return slot.row[self._offset]

    def __set__(self, slot: Slot, value: int) -> None:
        slot.row[self._offset] = value


class Slot:
    """The place of this process in a fleet, from :meth:`Board.join` to :meth:`leave` or its end.

    Each number may be written by one thread, and read by anybody.

    Attributes:
        number: of the slot.
        row: its cells.
        heartbeat_ns, n_connections, n_requests, generation, answered, n_old_leases: as :class:`Member` has them.
    """

    heartbeat_ns = _Cell(0)
    n_connections = _Cell(1)
    n_requests = _Cell(2)
    generation = _Cell(3)
    answered = _Cell(4)
    n_old_leases = _Cell(5)
    pid = _Cell(6)
    started_ticks = _Cell(7)

    def __init__(self, number: int, row: memoryview[int], states: memoryview[int], lock: int | None) -> None:
        """Take a slot that is locked: clear what its last member has left in it."""
        self.number = number
        self.row = row
        self._states = states
        self._locks = [] if lock is None else [lock]
        self._finalizer = weakref.finalize(self, _unlock_all, self._locks)
        _all_slots.add(self)
        states[number] = State.FREE
        for cell in range(N_CELLS):
            row[cell] = 0
        self.pid = os.getpid()
        self.started_ticks = 0 if lock is None else _started_ticks()  # nobody else reads that of one in memory
        self.beat()
        states[number] = State.JOINING  # last: a slot that is not free has the numbers of its member

    @property
    def state(self) -> State:
        """What this member is. One store."""
        return State(self._states[self.number])

    @state.setter
    def state(self, state: State) -> None:
        self._states[self.number] = state

    def beat(self, now_ns: int | None = None) -> None:
        """Say that the event loop turns.

        Args:
            now_ns: CLOCK_MONOTONIC, which on Linux is the same for all processes; by default it is asked.
        """
        self.row[0] = time.monotonic_ns() if now_ns is None else now_ns

    def leave(self) -> None:
        """Give the slot back. Again, it does nothing."""
        if self._finalizer.alive:
            self.state = State.FREE
            self._finalizer()
            self._write_nowhere()

    def _write_nowhere(self) -> None:
        """The slot is another's from now on: what is written here must not reach it."""
        self.row = memoryview(bytearray(N_CELLS * CELL_BYTES)).cast("Q")
        self._states = memoryview(bytearray(N_SLOTS * CELL_BYTES)).cast("Q")


def _started_ticks() -> int:
    facts = process_facts(os.getpid())
    return facts.started_ticks if facts else 0


def _unlock_all(locks: list[int]) -> None:
    while locks:
        unlock(locks.pop())


_all_slots: weakref.WeakSet[Slot] = weakref.WeakSet()


def _forget_all() -> None:
    """In a copy of this process: the slots are the original's. Closing does not let go of its locks."""
    for slot in list(_all_slots):
        while slot._locks:  # noqa: SLF001 - of this module
            os.close(slot._locks.pop())  # noqa: SLF001
        slot._write_nowhere()  # noqa: SLF001


os.register_at_fork(after_in_child=_forget_all)
