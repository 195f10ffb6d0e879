"""Engines that have been proven elsewhere begin to serve in this process: compared once more, measured, chosen."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from fitserve.store.candidates import Candidates, gain_in_words
from fitserve.store.engines_memory import SHARED_FROM_BYTES, EngineMemory, Room

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.settings import Settings
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.engines import Engines
    from fitserve.store.engines_job import EngineJob
    from fitserve.store.optimization import Source

logger = logging.getLogger(__name__)

SHARING = "it waits for workers that share its engine in memory"

_END_S = 30.0


class EngineService:
    """Takes the engines of versions into service, within the memory that there is. Thread-safe; blocks."""

    def __init__(self, settings: Settings, ask_to_share: Callable[[str], None]) -> None:
        """Begin with nothing; the arguments are those of the optimizer."""
        self._is_one_of_several = settings.workers > 1
        self._is_required = settings.optimize == "require"
        self._ask_to_share = ask_to_share
        self._memory = EngineMemory(settings.optimize_memory_bytes, settings.workers)
        self._lock = threading.Lock()
        self.is_stopping = False

    def take(self, job: EngineJob, engines: Engines, source: Source) -> bool:
        """Load engines, compare and measure them, and let the fastest serve, if their version is still wanted.

        Returns:
            False if one could not be loaded or answers otherwise here, where it may be damaged: then none serves.
        """
        with self._lock:  # two at a time would measure each other
            loaded = job.version()
            if self.is_stopping or not job.is_wanted or loaded is None:
                return True
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing it starts a thread that calls home
            report = [dict(entry) for entry in engines.report]
            candidates = Candidates(loaded, self._room(job, loaded)) if engines.compiled else None
            for compiled in engines.compiled:
                entry = next((entry for entry in report if entry.get("engine") == compiled.engine), None)
                if entry is None:
                    return False
                assert candidates is not None  # there is one to add
                refusal = candidates.add(compiled, entry)
                if refusal is not None and source != "compiled":
                    return False
                if refusal is not None:
                    entry |= {"verdict": "refused", "reason": refusal}
            state = job.state
            state.source, state.report = source, report
            self._let_serve(job, loaded, candidates)
        if state.wants_sharing and not job.is_switch:  # after a switch, the workers are replaced anyway
            self._ask_to_share(loaded.digest)
        return True

    def _let_serve(self, job: EngineJob, loaded: LoadedModel, candidates: Candidates | None) -> None:
        chosen = candidates.chosen() if candidates else []
        n_bytes = sum(form.memory_bytes for form in chosen)
        self._memory.take(loaded, n_bytes, is_before_fork=job.is_before_fork)
        for form in chosen:
            loaded.forms.add(form)
            logger.info("%s is computed by %s", job.title, gain_in_words(form, loaded.forms.native))
        is_large = n_bytes >= SHARED_FROM_BYTES or (candidates is not None and candidates.wants_sharing)
        is_shareable = self._is_one_of_several and job.is_kept and not job.is_before_fork
        job.state.wants_sharing = is_large and is_shareable
        if not chosen:
            job.state.reason = (
                SHARING
                if job.state.wants_sharing
                else "no engine is both proven and faster than the library's own call"
            )

    def _room(self, job: EngineJob, loaded: LoadedModel) -> Room:
        replaced = loaded.name if job.is_switch else None
        room = self._memory.room(is_before_fork=job.is_before_fork, instead_of=replaced)
        # Who requires an engine would rather have it in each process than not at all.
        return Room(room.shared_bytes, room.shared_bytes) if self._is_required else room

    def stop(self) -> None:
        """Take nothing more. A process that ends in the middle of an import may crash: that is waited for."""
        self.is_stopping = True
        if self._lock.acquire(timeout=_END_S):
            self._lock.release()

    def in_copy(self) -> None:
        """Be that of a copy of the process, in which no thread is at work."""
        self._lock = threading.Lock()
        self._memory.in_copy()
