"""Engine.infer: the straight line of one request, below the protocols."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from fitserve.errors import InvalidInputError, ModelFailedError
from fitserve.signature import count_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.engine.executor import Executor
    from fitserve.signature import Inputs, OutputName, Table
    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.store.forms import Form
    from fitserve.types import ModelRef, Outputs

logger = logging.getLogger(__name__)

INLINE_S = 0.0003
"""A call expected to be shorter runs on the event loop: a hop to a thread costs 34 to 48 µs of CPU
and twice that in waiting, and a loop held for 0.3 ms is not noticed."""


class Engine:
    """Runs models. Used from one event loop."""

    def __init__(self, catalog: Catalog, executor: Executor, *, is_nonfinite_error: bool) -> None:
        self._catalog = catalog
        self._executor = executor
        self._is_nonfinite_error = is_nonfinite_error

    def lease(self, ref: ModelRef) -> LoadedModel:
        """Return the version to ask, to be held until its reply is written. Raises as :meth:`Catalog.lease`."""
        return self._catalog.lease(ref)

    async def infer(
        self, lease: LoadedModel, table: Table, *, asked: Sequence[OutputName] = (), first_row: int | None = 0
    ) -> Outputs:
        """Check a table against the signature, run the model on it, check what it returned.

        ``asked`` are names out of the signature's outputs. What is not a prediction or a probability
        of them is in the ``extras``.

        Raises:
            InvalidInputError: a row does not fit.
            ModelFailedError: the model raised, whatever it raised, or returned what is no prediction.
        """
        signature = lease.model.signature
        inputs = signature.check(table, first_row=first_row)
        n_rows = count_rows(table)
        extras = tuple(name for name in asked if name not in {signature.outputs[0], "predict_proba"}) if asked else ()
        # What is not known to cost the same on every row may sleep on this one.
        is_known = lease.model.is_library_code and lease.trial.has_answered and not extras
        form = lease.forms.native if extras else lease.forms.cheapest(n_rows)
        if is_known and form.cost.expected_s(n_rows) < INLINE_S:
            outputs, seconds = _run(form, inputs, extras)
        else:
            outputs, seconds = await self._executor.run(lambda: _run(form, inputs, extras))
        if not extras:  # else it cost more than the next call will
            form.cost.learn(n_rows, seconds)
        self._check(outputs, n_rows, extras)
        lease.trial.has_answered = True
        return outputs

    def _check(self, outputs: Outputs, n_rows: int, extras: Sequence[str]) -> None:
        for name in extras:
            if name not in outputs.extras:
                msg = f"the model offers {name} and did not return it"
                raise ModelFailedError(msg)
        arrays = [outputs.predictions, *(outputs.probabilities or ()), *(outputs.extras[name] for name in extras)]
        for array in arrays:
            if array.ndim == 0 or len(array) != n_rows:
                msg = f"the model returned an array of shape {array.shape} for {n_rows} rows"
                raise ModelFailedError(msg)
            if self._is_nonfinite_error and array.dtype.kind == "f" and not np.isfinite(array).all():
                msg = "the model returned NaN or infinity (nonfinite = error)"
                raise ModelFailedError(msg)


def _run(form: Form, inputs: Inputs, extras: Sequence[str]) -> tuple[Outputs, float]:
    """Call the model; the one place where whatever it raises becomes our own error."""
    started = time.perf_counter()
    try:
        outputs = form.predict(inputs, extras)
    except InvalidInputError:
        raise
    except BaseException as exc:
        # Also SystemExit and KeyboardInterrupt: a model does not end the server.
        msg = f"the model raised {type(exc).__name__}"
        raise ModelFailedError(msg) from exc
    return outputs, time.perf_counter() - started
