"""The engines of one version in a serving process: compared once more, measured, and the best of them chosen."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.estimators.model import EstimatorModel
from fitserve.store.cost import Cost
from fitserve.store.forms import Form
from fitserve.store.made_rows import scatter, scattered_rows, self_made_rows
from fitserve.store.trial import measured_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.optimize.base import Compiled
    from fitserve.signature import Inputs
    from fitserve.store.catalog import LoadedModel
    from fitserve.store.engines_memory import Room
    from fitserve.store.trial import Predict
    from fitserve.types import Outputs

CHECK_ROWS = 16
"""Rows of each kind on which an engine is compared once more in the serving process: it was proven on thousands."""

TOLERANCE = 1e-4
"""What numbers may differ by there: enough for any engine that was proven, and nothing that is damaged is within."""

COMPARED_ROWS = (1, 64, 1000)
"""Sizes of a call for which the fastest form is kept: an engine that is never the fastest only takes memory."""

WORTH = 0.9
"""An engine must take at most this part of the native time: less gain is within what measuring is off by."""

TIMED_CELLS = 2**16
"""Numbers in the rows that are measured: of a wide model fewer rows are made, and repeated."""

GAIN_S, GAIN_PER_ROW_S = 5e-6, 5e-7
"""And it must save at least so much of a call and of each row, a tenth to a half of what reading and answering them
takes: its runtime takes tens of MiB of memory. A logistic regression in its plain form has nothing to gain."""


class Candidates:
    """The engines of one version in this process, measured on the same rows as the native call.

    Attributes:
        wants_sharing: there is no room for one of them in this process alone, and there is where processes share it.
    """

    def __init__(self, loaded: LoadedModel, room: Room) -> None:
        """Let the library answer the rows on which engines are compared, and measure it. Blocks.

        Args:
            loaded: the version.
            room: the memory for its engines.
        """
        self._loaded = loaded
        self._room = room
        self.wants_sharing = False
        model = loaded.model
        assert isinstance(model, EstimatorModel)  # why_not_compiled has looked
        self._model = model
        rows = [*self_made_rows(model.signature)[:CHECK_ROWS], *scattered_rows(model, CHECK_ROWS)]
        self._inputs = model.signature.check(rows)
        self._expected = model.predict(self._inputs)
        self._timed_rows = _timed_rows(model, rows)
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
        if (lack := self._no_room(needs)) is not None:
            entry["reason"] = lack
            return None
        model = self._model
        try:
            predict = load_compiled(compiled, model)
            if not is_same(self._expected, predict(self._inputs, ())):
                return "it answers otherwise in this process than the library does"
            cost = measured_cost(predict, model.signature, self._timed_rows)
        except Exception as exc:  # noqa: BLE001 - native code that reads a file may raise anything
            return f"it raised {type(exc).__name__} in this process"
        self._room = self._room.less(needs)
        self._forms.append(Form(compiled.engine, with_native_errors(predict, model.predict), cost, needs))
        return None

    def _no_room(self, needs: int) -> str | None:
        """Why an engine may not take so much memory; None if it may."""
        if needs <= self._room.here_bytes:
            return None
        if needs > self._room.shared_bytes:
            return f"needs {needs} bytes, of optimize_memory_bytes are {self._room.shared_bytes} left"
        self.wants_sharing = True
        return (
            f"needs {needs} bytes, and {self._room.here_bytes} are left for what each process holds by itself: "
            "it serves in workers that are started with it in the memory that they share"
        )

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


def _timed_rows(model: EstimatorModel, answered: Sequence[Any]) -> Sequence[Any]:
    """Rows to measure with: many different ones, which take a tree's many branches, if the model answers them all.

    Args:
        model: that is measured.
        answered: rows that it is known to answer. Those with a null are left out where others are there: their
            answers an engine may leave to the library, which would be measured instead.
    """
    signature = model.signature
    many = list(scatter(signature, min(COMPARED_ROWS[-1], TIMED_CELLS // len(signature.inputs))))
    with contextlib.suppress(Exception):  # it may refuse one of them, a logarithm the negative ones
        if many:
            clear = _clear(model.predict(signature.check(many)))
            return [row for row, is_clear in zip(many, clear, strict=True) if is_clear] or many
    return [row for row in answered if not _has_null(row)] or answered


def _clear(outputs: Outputs) -> NDArray[Any]:
    """Whether each row has one class that is clearly the first: of others an engine asks the library.

    Rows that lie anywhere have ties where data have few: a forest of a hundred trees votes 50 to 50.
    """
    clear = np.ones(len(outputs.predictions), dtype=bool)
    for part in outputs.probabilities or ():
        if part.ndim == 2 and part.shape[1] > 1:  # noqa: PLR2004 - a table
            top = np.partition(part, -2, axis=1)[:, -2:]
            clear &= top[:, 1] - top[:, 0] > TOLERANCE
    return clear


def _has_null(row: Any) -> bool:
    return None in (row.values() if isinstance(row, dict) else row)


def gain_in_words(form: Form, native: Form) -> str:
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
