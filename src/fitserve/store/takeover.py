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
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.estimators.onnx import OnnxModel
from fitserve.store.compile import no_engine, obtain, why_not_compiled
from fitserve.store.cost import Cost
from fitserve.store.forms import Form
from fitserve.store.loading import LARGE_BYTES, give_back_memory
from fitserve.store.made_rows import scattered_rows, self_made_rows
from fitserve.store.trial import measured_cost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fitserve.optimize.base import Compiled
    from fitserve.settings import Settings
    from fitserve.signature import Inputs
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.engines import Engines
    from fitserve.store.optimization import Source
    from fitserve.store.trial import Predict
    from fitserve.store.verify import Verifier
    from fitserve.types import Artifact, Outputs

logger = logging.getLogger(__name__)

CHECK_ROWS = 16
"""Rows of each kind on which an engine is compared once more in the serving process: it was proven on thousands."""

TOLERANCE = 1e-4
"""What numbers may differ by there: enough for any engine that was proven, and nothing that is damaged is within."""

COMPARED_ROWS = (1, 64, 1000)
"""Sizes of a call for which the fastest form is kept: an engine that is never the fastest only takes memory."""

WORTH = 0.9
"""An engine must take at most this part of the native time: less gain is within what measuring is off by."""

GAIN_S, GAIN_PER_ROW_S = 5e-6, 5e-7
"""And it must save at least so much of a call and of each row, a tenth to a half of what reading and answering them
takes: its runtime takes tens of MiB of memory. A logistic regression in its plain form has nothing to gain."""

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
        self._latest: LoadedModel | None = None
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
            self._latest = planned[0]
            threading.Thread(target=self._run_later, args=planned, name="fitserve-optimize", daemon=True).start()

    def drop(self) -> None:
        """Forget what is planned: the version does not serve after all."""
        self._planned = None

    def _require(self, loaded: LoadedModel) -> None:
        planned, self._planned = self._planned, None
        if planned is not None:
            self._latest = loaded
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
                if self._latest is not loaded:
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
            candidates = _Candidates(loaded, self._settings.optimize_memory_bytes)
            report = [dict(entry) for entry in engines.report]
            for compiled in engines.compiled:
                entry = next((entry for entry in report if entry.get("engine") == compiled.engine), None)
                if entry is None:
                    return False
                refusal = candidates.add(compiled, entry)
                if refusal is not None and source != "compiled":
                    return False
                if refusal is not None:
                    entry |= {"verdict": "refused", "reason": refusal}
        state = loaded.optimization
        state.source, state.report = source, report
        for form in candidates.chosen():
            loaded.forms.add(form)
            logger.info("%s %s is computed by %s", loaded.name, loaded.version, _gain(form, loaded.forms.native))
        if len(loaded.forms.all) == 1:
            state.reason = "no engine is both proven and faster than the library's own call"
        return True


class _Candidates:
    """The engines of one version in this process, measured on the same rows as the native call."""

    def __init__(self, loaded: LoadedModel, memory_bytes: int) -> None:
        self._loaded = loaded
        self._left_bytes = memory_bytes
        model = loaded.model
        rows = [*self_made_rows(model.signature)[:CHECK_ROWS], *scattered_rows(model, CHECK_ROWS)]
        self._inputs = model.signature.check(rows)
        self._expected = model.predict(self._inputs)
        # Of a row with a null an engine may leave the answer to the library: it would be measured instead.
        self._timed_rows = [row for row in rows if not _has_null(row)] or rows
        native = loaded.forms.native
        measured = measured_cost(native.predict, model.signature, self._timed_rows)
        # The event loop may learn meanwhile: then one call counts for more or less than it should.
        native.cost.fixed_s, native.cost.per_row_s = measured.fixed_s, measured.per_row_s
        self._forms: list[Form] = []

    def add(self, compiled: Compiled, entry: dict[str, Any]) -> str | None:
        """Take an engine into account; return why not, if it is not what was proven."""
        costs: list[Any] = [entry.get(name) for name in ("cost", "native_cost")]
        if all(costs) and not any(_is_worth(Cost(**costs[0]), Cost(**costs[1]), n) for n in COMPARED_ROWS):
            entry["reason"] = "it saves too little to be worth its memory"
            return None
        from fitserve.optimize.compile import load_compiled

        needs = int(entry.get("memory_bytes") or 0)
        if needs > self._left_bytes:
            entry["reason"] = f"needs {needs} bytes, of optimize_memory_bytes are {self._left_bytes} left"
            return None
        model = self._loaded.model
        assert isinstance(model, EstimatorModel)  # why_not_compiled has looked
        try:
            predict = load_compiled(compiled, model)
            if not is_same(self._expected, predict(self._inputs, ())):
                return "it answers otherwise in this process than the library does"
            cost = measured_cost(predict, model.signature, self._timed_rows)
        except Exception as exc:  # noqa: BLE001 - native code that reads a file may raise anything
            return f"it raised {type(exc).__name__} in this process"
        self._left_bytes -= needs
        self._forms.append(Form(compiled.engine, with_native_errors(predict, model.predict), cost))
        return None

    def chosen(self) -> list[Form]:
        """The forms that are the fastest for some number of rows, and clearly faster than the native one."""
        native, found = self._loaded.forms.native, []
        for n_rows in COMPARED_ROWS:
            best = min(self._forms, key=lambda form, n=n_rows: form.cost.expected_s(n), default=None)  # type: ignore[misc]
            if best and best not in found and _is_worth(best.cost, native.cost, n_rows):
                found.append(best)
        return found


def _is_worth(engine: Cost, native: Cost, n_rows: int) -> bool:
    took_s, natively_s = engine.expected_s(n_rows), native.expected_s(n_rows)
    return took_s < WORTH * natively_s and natively_s - took_s > GAIN_S + GAIN_PER_ROW_S * n_rows


def with_native_errors(engine: Predict, native: Predict) -> Predict:
    """An engine that asks the library where it fails itself: what is wrong with a row, the library tells."""

    def predict(inputs: Inputs, asked: Sequence[str]) -> Outputs:
        try:
            return engine(inputs, asked)
        except Exception:  # noqa: BLE001 - whatever it was, the answer or the error is the library's
            return native(inputs, asked)

    return predict


def is_same(expected: Outputs, came: Outputs) -> bool:
    """Whether two forms gave the same labels, and numbers within :data:`TOLERANCE`."""
    parts, others = expected.probabilities or (), came.probabilities or ()
    pairs = [(expected.predictions, came.predictions), *zip(parts, others, strict=False)]
    return len(parts) == len(others) and all(_is_same(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _is_same(a: Any, b: Any) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind == b.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    return bool(a.tolist() == b.tolist())


def _has_null(row: Any) -> bool:
    return None in (row.values() if isinstance(row, dict) else row)


def _gain(form: Form, native: Form) -> str:
    """For how many rows a form is faster than the native one, and by how much, in words."""
    n_rows = 1 if form.cost.expected_s(1) < native.cost.expected_s(1) else COMPARED_ROWS[-1]
    us = [round(1e6 * cost.expected_s(n_rows) / n_rows, 1) for cost in (form.cost, native.cost)]
    dearer, cheaper = form.cost.per_row_s - native.cost.per_row_s, native.cost.fixed_s - form.cost.fixed_s
    bound = ""
    if dearer > 0:
        bound = f" up to {int(cheaper / dearer)} rows"
    elif cheaper < 0:
        bound = f" from {int(cheaper / dearer) + 1} rows"
    return f"{form.name}{bound} ({us[0]:g} µs a row instead of {us[1]:g})"
