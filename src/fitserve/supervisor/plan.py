"""What a supervisor does next: what has happened in, what is to be done out. Pure: no clock, no process, no file.

::

    nursery   LOADING ──ready──> READY ──> gone: it has become a worker, was superseded, or has ended
    worker    STARTING ──ready──> READY ──told to, or killed──> LEAVING ──> gone

A *nursery* has loaded the models; workers are forked from it. One that cannot be copied becomes a worker itself, and
each worker needs one of its own. An *epoch* is a wish for new processes: every worker of an older epoch is replaced,
one by one, once a nursery of the new one is ready. Whatever fails, the workers that serve go on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_PAUSE_S = 30.0
"""The longest pause before another process is started in place of those that die before they serve."""

START_S = 600.0
"""How long a worker may take from the fork until it serves; it may have to load models that were switched to since."""

_GOLDEN = 0.6180339887498949


class Phase(enum.Enum):
    """Of a worker or a nursery."""

    LOADING = "loading"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


class StartNursery(NamedTuple):
    """Start a process that loads the models."""

    nursery: int
    why: str


class EndNursery(NamedTuple):
    """End a nursery that is not needed any more."""

    nursery: int


class StartWorker(NamedTuple):
    """Let a nursery make a worker, or become one."""

    worker: int
    nursery: int
    replaces: int | None
    why: str


class Drain(NamedTuple):
    """Tell a worker to take no more connections, to finish, and to end."""

    worker: int
    why: str


class Kill(NamedTuple):
    """End a worker at once."""

    worker: int
    why: str


Action: TypeAlias = StartNursery | EndNursery | StartWorker | Drain | Kill


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say.

    Attributes:
        n_workers: how many are to serve.
        heartbeat_timeout_s: an event loop that has not turned for so long is stuck.
        recycle_age_s, recycle_requests, recycle_memory_bytes: a worker is replaced after so much; 0 never. Each worker
            has bounds of its own, up to a tenth more or less, so that they do not all go at once.
        leave_s: how long a worker may take to end once it was told to.
        hold_s: how long nothing must have been switched before workers are replaced to share memory again.
    """

    n_workers: int
    heartbeat_timeout_s: float = 30.0
    recycle_age_s: float = 0.0
    recycle_requests: int = 0
    recycle_memory_bytes: int = 0
    leave_s: float = 40.0
    hold_s: float = 60.0


class Seen(NamedTuple):
    """What is known of a worker from outside; None where it is not.

    Attributes:
        heartbeat_s: when its event loop turned last, by the monotonic clock.
        n_requests: that it has answered.
        private_bytes: memory that it shares with nobody.
    """

    heartbeat_s: float | None = None
    n_requests: int | None = None
    private_bytes: int | None = None


@dataclass(slots=True)
class _Nursery:
    epoch: int
    phase: Phase = Phase.LOADING
    can_fork: bool = False
    generation: int = 0


@dataclass(slots=True)
class _Worker:
    epoch: int
    started_s: float
    phase: Phase = Phase.STARTING
    replaces: int | None = None
    why: str = ""  # it is to be replaced
    told_s: float | None = None
    has_served: bool = False


class Plan:
    """The table of processes, by numbers that are given once, and the rules."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nurseries: dict[int, _Nursery] = {}
        self._workers: dict[int, _Worker] = {}
        self._n_given = 0
        self._epoch = 1
        self._reached = 0
        """The epoch of the last nursery that became ready."""
        self._why_renewed = ""
        self._can_fork = True
        self._n_deaths = 0
        self._start_after_s = float("-inf")
        self._generation, self._generation_since_s, self._given_up = 0, 0.0, -1
        self._is_switching = False
        self._seen: Mapping[int, Seen] = {}
        self.has_served = False

    # ── what has happened ───────────────────────────────────────────────────────────

    def nursery_is_ready(self, number: int, *, can_fork: bool, generation: int) -> None:
        """A nursery has loaded the models, of this generation."""
        nursery = self._nurseries[number]
        nursery.phase, nursery.can_fork, nursery.generation = Phase.READY, can_fork, generation
        self._n_deaths = 0
        if nursery.epoch == self._epoch:
            self._reached, self._can_fork = nursery.epoch, can_fork
            for worker in self._workers.values():
                if worker.epoch < self._reached:
                    worker.why = worker.why or self._why_renewed

    def nursery_has_ended(self, number: int, now_s: float) -> bool:
        """A nursery is gone.

        Returns:
            Whether that was the end of an attempt to replace workers, which go on.
        """
        nursery = self._nurseries.pop(number, None)
        if nursery is None or nursery.epoch != self._epoch:
            return False  # superseded
        self._note_death(now_s)
        return nursery.phase is Phase.LOADING and self._give_up()

    def worker_is_ready(self, number: int) -> None:
        """A worker takes connections."""
        if self._workers[number].phase is Phase.STARTING:
            self._workers[number].phase, self._workers[number].has_served = Phase.READY, True
        self._n_deaths = 0
        self.has_served = True

    def worker_has_ended(self, number: int, now_s: float) -> bool:
        """A worker is gone.

        Returns:
            Whether that was the end of an attempt to replace others, which go on.
        """
        worker = self._workers.pop(number)
        for other in self._workers.values():
            if other.replaces == number:  # nothing is left to be replaced: it is one like the others
                other.replaces = None
        if worker.has_served or worker.told_s is not None:
            return False  # another takes its place at once
        self._note_death(now_s)
        return worker.replaces is not None and self._give_up()

    def renew(self, why: str) -> None:
        """Replace all workers by ones of a new nursery."""
        self._epoch += 1
        self._why_renewed = why

    def see(self, now_s: float, workers: Mapping[int, Seen], generation: int, *, is_switching: bool) -> None:
        """What is known of the workers now, and of what they serve."""
        self._seen, self._is_switching = workers, is_switching
        if generation != self._generation or is_switching:
            self._generation, self._generation_since_s = generation, now_s

    # ── what follows ────────────────────────────────────────────────────────────────

    def decide(self, now_s: float) -> list[Action]:
        """What is to be done now. The table says already that it has been done."""
        actions: list[Action] = [*self._kill_stuck(now_s)]
        self._find_worn_out(now_s)
        self._share_again(now_s)
        actions += self._end_superseded()
        if now_s >= self._start_after_s:
            actions += self._start_workers(now_s)
            actions += self._start_nurseries()
        return [*actions, *self._drain_replaced(now_s)]

    @property
    def pause_s(self) -> float:
        """How long nothing is started after the last process that died before it was of use."""
        return 0.0 if self._n_deaths <= 1 else min(LONGEST_PAUSE_S, 2.0 ** (self._n_deaths - 2))

    @property
    def n_ready(self) -> int:
        """How many workers take connections."""
        return sum(worker.phase is Phase.READY for worker in self._workers.values())

    @property
    def is_renewing(self) -> bool:
        """Whether workers of an earlier epoch are still to be replaced, or on their way out."""
        return self._epoch != self._reached or any(
            worker.why or worker.replaces is not None or worker.phase is Phase.LEAVING
            for worker in self._workers.values()
        )

    def _kill_stuck(self, now_s: float) -> Iterable[Kill]:
        for number, worker in self._workers.items():
            why = self._why_stuck(worker, self._seen.get(number, Seen()), now_s)
            if why:
                is_told = worker.phase is Phase.LEAVING
                worker.phase, worker.told_s = Phase.LEAVING, float("inf") if is_told else None
                yield Kill(number, why)

    def _why_stuck(self, worker: _Worker, seen: Seen, now_s: float) -> str:
        if worker.phase is Phase.LEAVING:
            is_late = worker.told_s is not None and now_s - worker.told_s > self._limits.leave_s
            return f"it did not end within {self._limits.leave_s:g} s" if is_late else ""
        if worker.phase is Phase.STARTING:
            return f"it did not begin to serve within {START_S:g} s" if now_s - worker.started_s > START_S else ""
        silent_s = 0.0 if seen.heartbeat_s is None else now_s - seen.heartbeat_s
        return (
            f"its event loop has not moved for {silent_s:.0f} s" if silent_s > self._limits.heartbeat_timeout_s else ""
        )

    def _find_worn_out(self, now_s: float) -> None:
        """Mark workers that have served enough."""
        limits = self._limits
        for number, worker in self._workers.items():
            seen = self._seen.get(number, Seen())
            share = 0.9 + 0.2 * (number * _GOLDEN % 1.0)  # spread evenly, whichever numbers there are
            if worker.phase is not Phase.READY or worker.why:
                continue
            if 0 < limits.recycle_age_s * share < now_s - worker.started_s:
                worker.why = f"it is {now_s - worker.started_s:.0f} s old"
            elif 0 < limits.recycle_requests * share <= (seen.n_requests or 0):
                worker.why = f"it has answered {seen.n_requests} requests"
            elif 0 < limits.recycle_memory_bytes * share <= (seen.private_bytes or 0):
                worker.why = f"it has {seen.private_bytes} bytes of memory for itself"

    def _share_again(self, now_s: float) -> None:
        """Renew the workers once a switch is old enough: until then each has a copy of the version for itself."""
        nursery = next((one for one in self._nurseries.values() if one.phase is Phase.READY and one.can_fork), None)
        is_settled = not self._is_switching and now_s - self._generation_since_s >= self._limits.hold_s
        if (
            nursery is not None
            and is_settled
            and self._epoch == self._reached
            and self._generation not in {nursery.generation, self._given_up}
        ):
            self.renew("to share the memory of what was switched to")

    def _end_superseded(self) -> list[Action]:
        gone = [
            number
            for number, nursery in self._nurseries.items()
            if nursery.epoch < (self._reached if nursery.phase is Phase.READY else self._epoch)
        ]
        for number in gone:
            del self._nurseries[number]
        return [EndNursery(number) for number in gone]

    def _start_workers(self, now_s: float) -> list[Action]:
        actions: list[Action] = []
        for _ in range(self._n_missing):
            if not self._start_worker(now_s, None, "", actions):
                return actions
        number = self._next_to_replace()
        if number is not None:
            self._start_worker(now_s, number, self._workers[number].why, actions)
        return actions

    def _start_worker(self, now_s: float, replaces: int | None, why: str, actions: list[Action]) -> bool:
        source = next((number for number, one in self._nurseries.items() if one.phase is Phase.READY), None)
        if source is None:
            return False
        number, nursery = self._give_number(), self._nurseries[source]
        if not nursery.can_fork:
            del self._nurseries[source]  # it becomes the worker
        self._workers[number] = _Worker(nursery.epoch, now_s, replaces=replaces)
        actions.append(StartWorker(number, source, replaces, why))
        return True

    def _start_nurseries(self) -> list[Action]:
        """Load where something waits for it; one that can be copied is kept in reserve."""
        n_loading = sum(one.phase is Phase.LOADING for one in self._nurseries.values())
        has_ready = any(one.phase is Phase.READY and one.epoch == self._epoch for one in self._nurseries.values())
        if has_ready:
            n_wanted = 0
        elif self._can_fork or self._epoch != self._reached:
            n_wanted = 1
        else:
            n_wanted = self._n_missing or int(self._next_to_replace() is not None)
        why = self._why_renewed if self._epoch != self._reached else ""
        started = [self._give_number() for _ in range(n_wanted - n_loading)]
        for number in started:
            self._nurseries[number] = _Nursery(self._epoch)
        return [StartNursery(number, why) for number in started]

    def _drain_replaced(self, now_s: float) -> Iterable[Drain]:
        for worker in list(self._workers.values()):
            if worker.phase is Phase.READY and worker.replaces is not None:
                old = self._workers[worker.replaces]
                number, worker.replaces = worker.replaces, None
                if old.phase is not Phase.LEAVING:
                    old.phase, old.told_s = Phase.LEAVING, now_s
                    yield Drain(number, old.why)

    @property
    def _n_missing(self) -> int:
        n_here = sum(one.phase is not Phase.LEAVING and one.replaces is None for one in self._workers.values())
        return max(0, self._limits.n_workers - n_here)

    def _next_to_replace(self) -> int | None:
        """The next to be replaced: one at a time, while enough of the others serve."""
        workers = self._workers
        n_leaving = sum(one.phase is Phase.LEAVING for one in workers.values())
        if any(one.replaces is not None for one in workers.values()) or n_leaving >= max(
            1, self._limits.n_workers // 2
        ):
            return None
        return next((number for number, one in workers.items() if one.why and one.phase is Phase.READY), None)

    def _note_death(self, now_s: float) -> None:
        """A process has died before it was of use: if that goes on, the pauses grow."""
        self._n_deaths += 1
        self._start_after_s = now_s + self.pause_s

    def _give_up(self) -> bool:
        """Let the workers of an earlier epoch go on: those that were to replace them do not start."""
        if self._epoch == self._reached and not any(worker.why for worker in self._workers.values()):
            return False
        self._epoch = self._reached = max(1, self._reached)
        self._given_up = self._generation
        for worker in self._workers.values():
            worker.why, worker.epoch = "", self._reached
        return True

    def _give_number(self) -> int:
        self._n_given += 1
        return self._n_given
