"""Compiled engines take over from the library's own call, once they are proven and where they are faster.

A version serves natively at once. Beside that, one thread gets its engines, from its package, from the cache or from
a confined child, sees that they answer alike in this process too, measures them, and adds those that are the fastest
for some number of rows. Nothing of it delays readiness or fails a request, unless ``optimize = require``.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.estimators.onnx import OnnxModel
from fitserve.store.candidates import Candidates, gain_in_words
from fitserve.store.compile import no_engine, obtain, why_not_compiled
from fitserve.store.loading import LARGE_BYTES, give_back_memory

if TYPE_CHECKING:
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.engines import Engines
    from fitserve.store.optimization import Source
    from fitserve.store.verify import Verifier
    from fitserve.types import Artifact

logger = logging.getLogger(__name__)

AFTER_S = 0.5
"""How long a version serves before it is compiled: its first requests have the processor for themselves."""

_END_S = 30.0


class Optimizer:
    """Brings the engines of versions into service, one version at a time.

    :meth:`plan` and :meth:`begin` are called by the owner of the life cycle, in any thread; a thread is started by
    :meth:`begin` only, so that an application may be built before a fork.
    """

    def __init__(self, settings: Settings, verifier: Verifier, model_path: Path | None) -> None:
        """Describe what is wanted; nothing is read or started.

        Args:
            settings: ``optimize``, its bounds, and ``cache_dir``.
            verifier: loads the model in a child.
            model_path: where models are read from; None for live ones.
        """
        self._settings = settings
        self._verifier = verifier
        self._model_path = model_path
        self._planned: tuple[LoadedModel, Artifact, Verifier] | None = None
        self._latest: weakref.ref[LoadedModel] | None = None
        self._one_at_a_time = threading.Lock()
        self._importing = threading.Lock()
        self._is_stopping = False

    def plan(self, loaded: LoadedModel, artifact: Artifact | None, verifier: Verifier | None = None) -> None:
        """Let a version be compiled by the next :meth:`begin`, or now where that is required.

        Args:
            loaded: the version, which serves or is about to.
            artifact: its bytes; None where there are none, for a live model that cannot be pickled.
            verifier: loads it in a child; by default as any other.

        Raises:
            ArtifactError: ``optimize = require``, and no engine was proven.
        """
        state, wanted = loaded.optimization, self._settings.optimize
        if wanted == "off":
            state.reason = "optimize = off"
            return
        state.reason = why_not_compiled(loaded.model)
        if state.reason is None and artifact is None:
            state.reason = "the live model cannot be pickled, so that no other process can compile it"
        if state.reason is None and loaded.size_bytes > self._settings.optimize_memory_bytes:
            state.reason = f"its {loaded.size_bytes} bytes are more than optimize_memory_bytes"
        if state.reason is None and artifact is not None:
            state.state = "running"
            self._planned = (loaded, artifact, verifier or self._verifier)
        if wanted == "require":
            self._require(loaded)

    def begin(self) -> None:
        """Start what is planned, in a thread of this process. Returns at once; may be called again."""
        planned, self._planned = self._planned, None
        if planned is not None:
            self._latest = weakref.ref(planned[0])
            threading.Thread(target=self._run_later, args=planned, name="fitserve-optimize", daemon=True).start()

    def drop(self) -> None:
        """Forget what is planned: the version does not serve after all."""
        self._planned = None

    def _require(self, loaded: LoadedModel) -> None:
        planned, self._planned = self._planned, None
        if planned is not None:
            self._latest = weakref.ref(loaded)
            self._run(*planned)
        if len(loaded.forms.all) > 1 or isinstance(loaded.model, OnnxModel):
            return
        raise no_engine(loaded.optimization.report, loaded.optimization.reason)

    def _run_later(self, loaded: LoadedModel, artifact: Artifact, verifier: Verifier) -> None:
        time.sleep(AFTER_S)
        self._run(loaded, artifact, verifier)

    def _run(self, loaded: LoadedModel, artifact: Artifact, verifier: Verifier) -> None:
        state = loaded.optimization
        atexit.register(self._wait_for_imports)
        try:
            with self._one_at_a_time:
                if self._latest is None or self._latest() is not loaded:
                    state.state, state.reason = "off", "another version came before it was compiled"
                    return
                obtain(
                    artifact,
                    verifier,
                    self._settings,
                    self._model_path,
                    lambda engines, source: self._serve(loaded, engines, source),
                    lambda: self._is_stopping,
                )
            state.state = "done"
        except ArtifactError as exc:
            state.state, state.reason = "failed", str(exc)
            logger.debug("%s %s is not compiled: %s", loaded.name, loaded.version, exc)
        except Exception as exc:
            # Whatever goes wrong with an engine, the library's own call serves.
            state.state, state.reason = "failed", f"it raised {type(exc).__name__}"
            logger.debug("%s %s is not compiled", loaded.name, loaded.version, exc_info=True)
        finally:
            atexit.unregister(self._wait_for_imports)
            del artifact
            if loaded.size_bytes >= LARGE_BYTES:
                give_back_memory()

    def _wait_for_imports(self) -> None:
        """A process that ends in the middle of an import may crash."""
        self._is_stopping = True
        if self._importing.acquire(timeout=_END_S):
            self._importing.release()

    def _serve(self, loaded: LoadedModel, engines: Engines, source: Source) -> bool:
        """Load engines, compare and measure them, and let the fastest serve.

        Returns:
            False if one could not be loaded or answers otherwise here, where it may be damaged: then none serves.
        """
        with self._importing:
            if self._is_stopping:
                return True
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing it starts a thread that calls home
            report = [dict(entry) for entry in engines.report]
            candidates = Candidates(loaded, self._settings.optimize_memory_bytes) if engines.compiled else None
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
        state = loaded.optimization
        state.source, state.report = source, report
        for form in candidates.chosen() if candidates else ():
            loaded.forms.add(form)
            logger.info(
                "%s %s is computed by %s", loaded.name, loaded.version, gain_in_words(form, loaded.forms.native)
            )
        if len(loaded.forms.all) == 1:
            state.reason = "no engine is both proven and faster than the library's own call"
        return True
