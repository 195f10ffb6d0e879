"""Compile a model to the engines at hand, prove each, and load what was proven.

Compiling belongs into a child process: it imports converters, takes seconds, and what it runs is native code on data
from a file. Loading is cheap and belongs into the process that serves.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.errors import clip
from fitserve.optimize.answers import Answers
from fitserve.optimize.base import NEAR, TOLERANCE, Compiled, NotCompiledError, finite
from fitserve.optimize.measure import cost_of, estimated_bytes, memory_of
from fitserve.optimize.onnx import PADDINGS, onnx_run
from fitserve.optimize.proof import Evidence, gather, is_free_of_company, judge
from fitserve.optimize.treelite import treelite_run
from fitserve.optimize.trees import n_nodes
from fitserve.optimize.ways import ways_of, why_unsuitable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.answers import Predict
    from fitserve.optimize.base import Engine, Run
    from fitserve.optimize.proof import Table, Verdict
    from fitserve.optimize.ways import Way
    from fitserve.signature import Inputs

COMPILE_S: Final = 120.0
"""How long it may take where nobody says so."""

NODES_PER_S: Final = {"onnx": 40_000, "treelite": 400_000}
"""Nodes of trees that are converted and loaded in a second on a slow core: skl2onnx handles each in Python.

Measured on forests of 57 000 and 286 000 nodes: 106 000 to 121 000 a second, and above two million."""

VERSIONED: Final = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "treelite", "xgboost", "lightgbm")

RUNS: Final[dict[str, Callable[[bytes, dict[str, Any]], Run]]] = {
    "onnx-float64": onnx_run,
    "onnx-float32": onnx_run,
    "treelite": treelite_run,
}


def compile_model(
    model: EstimatorModel, *, deadline_s: float | None = None
) -> tuple[list[Compiled], list[dict[str, Any]]]:
    """Try engines in order of their speed until one agrees with the library. Blocks; never raises for the model.

    A second engine would cost its memory again and serve nothing: the first that agrees is the fastest, but for
    native calls with many rows, which the cost of both decides.

    Args:
        model: at work. It is not changed.
        deadline_s: how many seconds it may take.

    Returns:
        What was proven, and a report with one entry for each engine tried, as JSON has it: ``engine``; ``verdict``
        (``used``, ``refused`` or ``failed``); ``reason``; ``n_rows`` compared, ``n_threshold_rows`` of them on
        thresholds, ``n_unequal`` of them with another label; ``differences`` by output and the ``tolerance``;
        ``memory_bytes``; ``seconds``; ``cost`` and ``native_cost``, each ``fixed_s`` and ``per_row_s``;
        ``left_nulls``, the columns whose nulls the library answers; ``versions``.
    """
    ends_s = time.perf_counter() + (COMPILE_S if deadline_s is None else deadline_s)
    proof = _Proof(model, ends_s)
    report: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in ways_of(model):
            found = _tried(way, proof, report)
            if found is not None:
                return [found], report
    return [], report


def load_compiled(compiled: Compiled, model: EstimatorModel) -> Predict:
    """The ``predict`` of a form, for any thread. Imports the runtime, no converter.

    Raises:
        Exception: whatever the runtime raises for data that are damaged or not its own.
    """
    return Answers(_run_of(compiled), model, compiled.note)


class _Proof:
    """The rows of a model's proof, made when the first engine needs them."""

    def __init__(self, model: EstimatorModel, ends_s: float) -> None:
        self.model = model
        self.ends_s = ends_s
        self._evidence: Evidence | NotCompiledError | None = None

    def evidence(self) -> Evidence:
        """The rows. The same error again, once they could not be made."""
        if self._evidence is None:
            left_s = self.ends_s - time.perf_counter()
            try:
                self._evidence = gather(self.model, ends_s=self.ends_s - left_s / 2)
            except NotCompiledError as exc:
                self._evidence = exc
            except Exception as exc:  # noqa: BLE001 - a model may raise anything
                self._evidence = NotCompiledError(f"no rows for a proof could be made: {_told(exc)}")
        if isinstance(self._evidence, NotCompiledError):
            raise self._evidence
        return self._evidence


def _tried(way: Way, proof: _Proof, report: list[dict[str, Any]]) -> Compiled | None:
    """Compile in one way and judge it; the report gets an entry."""
    started = time.perf_counter()
    entry = _entry(way.engine)
    report.append(entry)
    found: Compiled | None = None
    try:
        if reason := why_unsuitable(proof.model) or way.refusal:
            raise NotCompiledError(reason)  # noqa: TRY301
        _refuse_long(way.engine, proof.model, proof.ends_s - started)
        data, note = way.make()
        wanted = proof.evidence().random.chunks[0][1]
        parts = wanted.probabilities
        note |= {
            "dtypes": [wanted.predictions.dtype.str, None if parts is None else parts[0].dtype.str],
            "near": NEAR * TOLERANCE[way.engine],
        }
        found = _judged(Compiled(way.engine, data, note), proof, entry)
    except NotCompiledError as exc:
        entry |= {"verdict": "refused", "reason": str(exc)}
    except Exception as exc:  # noqa: BLE001 - converters and runtimes raise whatever they meet
        entry |= {"verdict": "failed", "reason": _told(exc)}
    entry["seconds"] = round(time.perf_counter() - started, 3)
    return found


def _judged(compiled: Compiled, proof: _Proof, entry: dict[str, Any]) -> Compiled | None:
    """Let the form pass what is asked of it, and write down how.

    Raises:
        NotCompiledError: the form must not serve, for another reason than what it answers.
    """
    model, evidence = proof.model, proof.evidence()
    least_bytes = estimated_bytes(compiled.engine, len(compiled.data))
    run, entry["memory_bytes"] = memory_of(lambda: _run_of(compiled), least_bytes=least_bytes)
    compiled, run = _free_of_company(compiled, run, proof)
    trial = _Trial(run, proof, compiled)
    left, verdict = trial.left_nulls()
    compiled = replace(compiled, note=compiled.note | {"left_nulls": left})
    reason = verdict.why_not(trial.tolerance)
    inputs = evidence.random.chunks[0][0]
    entry |= {
        "verdict": "used" if reason is None else "refused",
        "reason": reason,
        "n_rows": verdict.n_rows,
        "n_threshold_rows": evidence.edges.n_rows,
        "n_unequal": verdict.n_unequal,
        "differences": {name: finite(largest) for name, largest in verdict.differences.items()},
        "left_nulls": [model.signature.names[i] for i in left],
        "cost": cost_of(Answers(run, model, compiled.note), inputs),
        "native_cost": cost_of(model.predict, inputs),
    }
    return compiled if reason is None else None


class _Trial:
    """A form under judgement, which may leave nulls to the library."""

    def __init__(self, run: Run, proof: _Proof, compiled: Compiled) -> None:
        self.tolerance = TOLERANCE[compiled.engine]
        self._run, self._model, self._note = run, proof.model, compiled.note
        self._evidence, self._ends_s = proof.evidence(), proof.ends_s
        self._is_label = compiled.note["kind"] != "values" or np.dtype(compiled.note["dtypes"][0]).kind != "f"

    def left_nulls(self) -> tuple[list[int], Verdict]:
        """The columns whose nulls the library must answer, and what is to be said of the form that leaves them."""
        evidence, left = self._evidence, list(self._note["left_nulls"])
        verdict = self._verdict([evidence.random, evidence.edges], left)
        if not evidence.nulls or verdict.why_not(self.tolerance):
            return left, verdict
        nulls = list(evidence.nulls.values())
        if not self._is_alike(nulls, left):
            columns = [i for i in evidence.nulls if i >= 0]
            left = [i for i in columns if i in left or not self._is_alike([evidence.nulls[i]], left)]
            left = left if self._is_alike(nulls, left) else columns
        return left, self._verdict(evidence.tables, left)

    def _verdict(self, tables: list[Table], left: list[int]) -> Verdict:
        form = Answers(self._run, self._model, self._note | {"left_nulls": left})
        return judge(form, evidence=self._evidence, tables=tables, is_label=self._is_label, ends_s=self._ends_s)

    def _is_alike(self, tables: list[Table], left: list[int]) -> bool:
        try:
            return self._verdict(tables, left).why_not(self.tolerance) is None
        except NotCompiledError:
            raise
        except Exception:  # noqa: BLE001 - the runtime's own, on nulls
            return False


def _run_of(compiled: Compiled) -> Run:
    return RUNS[compiled.engine](compiled.data, compiled.note)


def _free_of_company(compiled: Compiled, run: Run, proof: _Proof) -> tuple[Compiled, Run]:
    """The form with the least padding under which the bits of a row do not depend on others.

    Raises:
        NotCompiledError: there is none.
    """
    if _is_free(compiled, run, proof):
        return compiled, run
    before = compiled.note.get("before")
    if "padding" in compiled.note or before is not None:
        for padding in PADDINGS[1:]:
            changed = {"padding": padding} if before is None else {"before": before | {"padding": padding}}
            padded = replace(compiled, note=compiled.note | changed)
            run = _run_of(padded)
            if _is_free(padded, run, proof):
                return padded, run
    msg = "the bits of a row depend on the rows beside it"
    raise NotCompiledError(msg)


def _is_free(compiled: Compiled, run: Run, proof: _Proof) -> bool:
    def first(inputs: Inputs) -> NDArray[Any]:
        """Some label, where two are near: it is the engine that is looked at, not the library."""
        n_rows = len(inputs if isinstance(inputs, np.ndarray) else next(iter(inputs.values())))
        return np.resize(proof.evidence().random.chunks[0][1].predictions[:1], (n_rows, *shape))

    shape = proof.evidence().random.chunks[0][1].predictions.shape[1:]
    return is_free_of_company(Answers(run, proof.model, compiled.note, first), proof.evidence().random)


def _refuse_long(engine: Engine, model: EstimatorModel, left_s: float) -> None:
    """Give up before a conversion that would not end in time."""
    nodes = n_nodes(model.estimator)
    needed_s = nodes / NODES_PER_S["treelite" if engine == "treelite" else "onnx"]
    if needed_s > max(left_s, 0.0):
        msg = f"its {nodes} nodes would take {needed_s:.0f} s to compile, and {max(0.0, left_s):.0f} s are left"
        raise NotCompiledError(msg)


def _entry(engine: Engine) -> dict[str, Any]:
    return {
        "engine": engine,
        "verdict": "failed",
        "reason": None,
        "n_rows": 0,
        "n_threshold_rows": 0,
        "n_unequal": 0,
        "differences": {},
        "tolerance": TOLERANCE[engine],
        "memory_bytes": None,
        "left_nulls": [],
        "cost": None,
        "native_cost": None,
        "seconds": 0.0,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _told(exc: Exception) -> str:
    return f"{type(exc).__name__}: {clip(' '.join(str(exc).split()), 200)}"
