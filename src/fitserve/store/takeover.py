"""Compiled engines take over from the library's own call, once they are proven and where they are faster.

A version serves natively at once. Beside that, one thread gets the engines of one version after the other, from its
package, from the cache or from a confined child, sees that they answer alike in this process too, measures them, and
adds those that are the fastest for some number of rows. Nothing of it delays readiness or fails a request, unless
``optimize = require``. Two moments are earlier: before the fork of workers what is at hand is loaded for all of them,
and before a switch the new version gets its engines, so that it is as fast as the old one from the first request on.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING

from fitserve.confine.child import GivenUpError
from fitserve.errors import ArtifactError
from fitserve.estimators.onnx import OnnxModel
from fitserve.store.compile import Sought, no_engine, why_not_compiled
from fitserve.store.engines_job import EngineJob, next_of
from fitserve.store.engines_service import EngineService
from fitserve.store.loading import LARGE_BYTES, give_back_memory
from fitserve.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from fitserve.settings import Settings
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.verify import Verifier
    from fitserve.urls import SourceUrl

    Reader: TypeAlias = Callable[[], Artifact] | Artifact | None

logger = logging.getLogger(__name__)

AFTER_S = 0.5
"""How long a version serves before it is compiled: its first requests have the processor for themselves."""

_POLL_S = 0.1


class Optimizer:
    """Brings the engines of versions into service.

    :meth:`plan` and :meth:`begin` let a thread do it, one version at a time, those that serve by default first;
    :meth:`prepare` and :meth:`preload` do it at once. Any thread. No thread is started but by :meth:`begin` and
    :meth:`prepare`, so that an application may be built before a fork; a copy goes on with what was planned.

    Everywhere the bytes are given by a function that reads them, so that they need not be in memory while a version
    waits; or as they are, or None where there are none, for a live model that cannot be pickled.
    """

    def __init__(
        self,
        settings: Settings,
        verifier: Verifier,
        model_path: Path | SourceUrl | None,
        *,
        preferred: Callable[[], LoadedModel | None] = lambda: None,
        ask_to_share: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe what is wanted; nothing is read or started.

        Args:
            settings: ``optimize``, its bounds, ``workers`` and ``cache_dir``.
            verifier: loads models in a child.
            model_path: where models are read from; None for live ones.
            preferred: the version that is to come first.
            ask_to_share: told the digest of a model whose engines processes should share instead of each loading them.
        """
        self._settings = settings
        self._verifier = verifier
        self._model_path = model_path
        self._preferred = preferred
        self._service = EngineService(settings, ask_to_share)
        self._queue: list[EngineJob] = []
        self._running: list[EngineJob] = []
        self._renew()
        _optimizers.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        # A version that is prepared does not wait until others are compiled that nobody waits for.
        self._turns = {is_switch: threading.Lock() for is_switch in (False, True)}
        self._thread: threading.Thread | None = None

    def plan(self, loaded: LoadedModel, read: Reader, verifier: Verifier | None = None) -> None:
        """Let a version be compiled after the next :meth:`begin`, or now where that is required.

        Args:
            loaded: the version, which serves or is about to; of its record no copies must be made afterwards.
            read: gives its bytes.
            verifier: loads it in a child; by default as any other.

        Raises:
            ArtifactError: ``optimize = require``, and no engine was proven.
        """
        job = self._new_job(loaded, read, verifier)
        if self._is_required:
            if job is not None:
                self._run(job)
            self._require(loaded)
        elif job is not None:
            with self._lock:
                self._queue.append(job)

    def begin(self) -> None:
        """Start what is planned, in a thread of this process. Returns at once; may be called again."""
        with self._lock:
            if self._queue and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fitserve-optimize", daemon=True)
                self._thread.start()

    def preload(self, loaded: LoadedModel, read: Reader, verifier: Verifier | None = None) -> bool:
        """Load the engines of a version that are at hand, in a process from which those that serve will be forked.

        Blocks, and starts no thread. Engines that have to be compiled are planned, unless they are required.

        Returns:
            Whether nothing is left to be done for it.

        Raises:
            ArtifactError: ``optimize = require``, and no engine was proven.
        """
        job = self._new_job(loaded, read, verifier)
        if job is not None:
            job.is_before_fork = True
            self._run(job, is_compiling=self._is_required)
            if not job.is_done.is_set():
                job.is_before_fork = False
                with self._lock:
                    self._queue.append(job)
        if self._is_required:
            self._require(loaded)
        return job is None or job.is_done.is_set()

    def prepare(self, loaded: LoadedModel, read: Reader, within_s: float, verifier: Verifier | None = None) -> bool:
        """Get the engines of a version that is about to take the place of another one of its model. Blocks.

        Args:
            loaded: as :meth:`plan` has it.
            read: likewise.
            within_s: after so long it goes on in the background; where engines are required, it is waited for.
            verifier: as :meth:`plan` has it.

        Returns:
            Whether nothing is left to be done for it.

        Raises:
            ArtifactError: ``optimize = require``, and no engine was proven.
        """
        job, is_running = self._under_way(loaded)
        job = job or self._new_job(loaded, read, verifier)
        if job is not None:
            job.is_switch = True
            if not is_running:
                threading.Thread(target=self._run, args=(job,), name="fitserve-optimize", daemon=True).start()
            job.is_done.wait(None if self._is_required else within_s)
        if self._is_required:
            self._require(loaded)
        return job is None or job.is_done.is_set()

    def cancel(self, loaded: LoadedModel) -> None:
        """Stop what is under way for a version that does not serve after all. Returns at once."""
        with self._lock:
            jobs = [job for job in (*self._queue, *self._running) if job.version() is loaded]
            queued = [job for job in jobs if job in self._queue]
            self._queue = [job for job in self._queue if job not in queued]
        for job in jobs:
            job.cancel()
        for job in queued:
            job.finish()

    @property
    def _is_required(self) -> bool:
        return self._settings.optimize == "require"

    def _new_job(self, loaded: LoadedModel, read: Reader, verifier: Verifier | None) -> EngineJob | None:
        """The work for a version; None where there is none, or it is done or under way."""
        if loaded.optimization.state != "off":
            return None
        loaded.optimization.reason = self._why_not(loaded, read)
        if loaded.optimization.reason is not None or read is None:
            return None
        reader = (lambda: read) if isinstance(read, Artifact) else read
        return EngineJob.of(loaded, reader, verifier or self._verifier)

    def _why_not(self, loaded: LoadedModel, read: Reader) -> str | None:
        if self._settings.optimize == "off":
            return "optimize = off"
        if (reason := why_not_compiled(loaded.model)) is not None:
            return reason
        if read is None:
            return "the live model cannot be pickled, so that no other process can compile it"
        if loaded.size_bytes > self._settings.optimize_memory_bytes:
            return f"its {loaded.size_bytes} bytes are more than optimize_memory_bytes"
        return None

    def _under_way(self, loaded: LoadedModel) -> tuple[EngineJob | None, bool]:
        """The job of a version, and whether somebody is at it; one that is only planned is planned no more."""
        with self._lock:
            running = next((job for job in self._running if job.version() is loaded), None)
            planned = next((job for job in self._queue if job.version() is loaded), None)
            self._queue = [job for job in self._queue if job is not planned]
        return running or planned, running is not None

    def _require(self, loaded: LoadedModel) -> None:
        if len(loaded.forms.all) == 1 and not isinstance(loaded.model, OnnxModel):
            raise no_engine(loaded.optimization.report, loaded.optimization.reason)

    def _work(self) -> None:
        """Do what is planned, in the thread of :meth:`begin`, which ends when nothing is left."""
        time.sleep(AFTER_S)
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> EngineJob | None:
        preferred = self._preferred()
        with self._lock:
            job = next_of(self._queue, preferred)
            self._queue = [planned for planned in self._queue if planned is not job and planned.is_wanted]
            if job is None:
                self._thread = None
            else:
                self._running.append(job)  # at once, so that it is found whenever it is looked for
            return job

    def _run(self, job: EngineJob, *, is_compiling: bool = True) -> None:
        """Do a job; without ``is_compiling`` only if its engines are at hand."""
        with self._lock:
            if job not in self._running:
                self._running.append(job)
        state = job.state
        try:
            if self._bring(job, is_compiling=is_compiling):
                state.state = "done"
        except GivenUpError:
            logger.debug("%s is not compiled: it was given up", job.title)
        except ArtifactError as exc:
            state.state, state.reason = "failed", str(exc)
            logger.debug("%s is not compiled: %s", job.title, exc)
        except Exception as exc:
            # Whatever goes wrong with an engine, the library's own call serves.
            state.state, state.reason = "failed", f"it raised {type(exc).__name__}"
            logger.debug("%s is not compiled", job.title, exc_info=True)
        finally:
            with self._lock:
                self._running.remove(job)
            if is_compiling or state.state != "running":
                job.finish()
            if job.size_bytes >= LARGE_BYTES:
                give_back_memory()

    def _bring(self, job: EngineJob, *, is_compiling: bool) -> bool:
        sought = Sought.of(job.read, job.verifier, self._settings, self._model_path)
        job.is_kept = sought.is_packaged or sought.cache is not None
        take = partial(self._service.take, job)
        if sought.at_hand(take):
            return True
        if is_compiling:
            with self._turn(job):
                sought.make(take, lambda: self._gives_up(job))
        return is_compiling

    def _gives_up(self, job: EngineJob) -> bool:
        return self._service.is_stopping or not job.is_wanted

    @contextlib.contextmanager
    def _turn(self, job: EngineJob) -> Iterator[None]:
        """Compile one version at a time."""
        turn = self._turns[job.is_switch]
        while not turn.acquire(timeout=_POLL_S):
            if self._gives_up(job):
                msg = "was given up before it was compiled"
                raise GivenUpError(msg)
        try:
            yield
        finally:
            turn.release()

    def stop(self) -> None:
        """Give up what is under way: the process is about to end."""
        self._service.stop()

    def in_copy(self) -> None:
        """Be that of a copy of the process: no thread is at work, and what was under way is planned again."""
        self._renew()
        self._service.in_copy()
        self._queue, self._running = [*self._running, *self._queue], []
        for job in self._queue:
            job.in_copy()


_optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()


def _in_copy() -> None:
    for optimizer in list(_optimizers):
        optimizer.in_copy()


def _stop_all() -> None:
    for optimizer in list(_optimizers):
        optimizer.stop()


os.register_at_fork(after_in_child=_in_copy)
atexit.register(_stop_all)
