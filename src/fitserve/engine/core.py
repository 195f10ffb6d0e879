"""Engine.infer: the straight line of one request, below the protocols."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from fitserve.errors import InvalidInputError, ModelFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.engine.executor import Executor
    from fitserve.signature import Inputs
    from fitserve.store.catalog import Catalog, LoadedModel
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

    async def infer(self, lease: LoadedModel, instances: Sequence[object], *, first_row: int | None = 0) -> Outputs:
        """Check rows against the signature, run the model on them, check what it returned.

        Raises:
            InvalidInputError: a row does not fit.
            ModelFailedError: the model raised, whatever it raised, or returned what is no prediction.
        """
        inputs = lease.model.signature.check(instances, first_row=first_row)
        n_rows = len(instances)
        # What is not known to cost the same on every row may sleep on this one.
        if lease.model.is_library_code and lease.trial.has_answered and lease.cost.expected_s(n_rows) < INLINE_S:
            outputs, seconds = _run(lease, inputs)
        else:
            outputs, seconds = await self._executor.run(lambda: _run(lease, inputs))
        lease.cost.learn(n_rows, seconds)
        self._check(outputs, n_rows)
        lease.trial.has_answered = True
        return outputs

    def _check(self, outputs: Outputs, n_rows: int) -> None:
        arrays = [outputs.predictions, *(outputs.probabilities or ())]
        for array in arrays:
            if array.ndim == 0 or len(array) != n_rows:
                msg = f"the model returned an array of shape {array.shape} for {n_rows} rows"
                raise ModelFailedError(msg)
            if self._is_nonfinite_error and array.dtype.kind == "f" and not np.isfinite(array).all():
                msg = "the model returned NaN or infinity (nonfinite = error)"
                raise ModelFailedError(msg)


def _run(lease: LoadedModel, inputs: Inputs) -> tuple[Outputs, float]:
    """Call the model; the one place where whatever it raises becomes our own error."""
    started = time.perf_counter()
    try:
        outputs = lease.model.predict(inputs)
    except InvalidInputError:
        raise
    except BaseException as exc:
        # Also SystemExit and KeyboardInterrupt: a model does not end the server.
        msg = f"the model raised {type(exc).__name__}"
        raise ModelFailedError(msg) from exc
    return outputs, time.perf_counter() - started
