"""One request's rows, on their way through the engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.signature import Inputs
    from fitserve.store.catalog import LoadedModel
    from fitserve.types import Outputs

logger = logging.getLogger(__name__)


class Job:
    """The rows of one request for one version, and what became of them.

    Attributes:
        lease: the version, held until the reply is written.
        inputs: checked.
        n_rows: how many rows they have.
        n_requests: how many requests they come from: one, but for a table of single rows.
        extras: outputs besides predictions and probabilities that are asked for.
        deadline_s: when it is too late to begin, by ``time.perf_counter``; None if never.
        on_done: called once, on the event loop, unless the job is cancelled before.
        on_cancel: called by :meth:`cancel`; set by who has others compute what the job waits for.
        outputs: what the model gave; None while it is not done, and where ``error`` is set.
        error: why there are no outputs.
        is_cached: whether every row came from the cache; None where there is none.
        is_cancelled: nobody waits for it any more.
        values: what a protocol has made of the outputs, kept for all rows of a table.
        submitted_s: when it came to the engine,
        started_s: when the model was called for it,
        ended_s: and when it returned, all by ``time.perf_counter``.
    """

    __slots__ = (
        "deadline_s", "ended_s", "error", "extras", "inputs", "is_cached", "is_cancelled", "lease", "n_requests",
        "n_rows", "on_cancel", "on_done", "outputs", "started_s", "submitted_s", "values",
    )  # fmt: skip

    def __init__(
        self,
        lease: LoadedModel,
        inputs: Inputs,
        n_rows: int,
        extras: tuple[str, ...],
        deadline_s: float | None,
        on_done: Callable[[Job], None],
    ) -> None:
        self.lease = lease
        self.inputs = inputs
        self.n_rows = n_rows
        self.n_requests = 1
        self.extras = extras
        self.deadline_s = deadline_s
        self.on_done = on_done
        self.on_cancel: Callable[[], None] | None = None
        self.outputs: Outputs | None = None
        self.error: BaseException | None = None
        self.is_cached: bool | None = None
        self.is_cancelled = False
        self.values: Any = None
        self.submitted_s = self.started_s = self.ended_s = 0.0

    def cancel(self) -> None:
        """Let nobody wait for it: ``on_done`` is not called, and what has not begun is not computed."""
        self.is_cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def tell(self) -> None:
        """Call ``on_done``, unless nobody waits for it. Never raises: others wait for the same call."""
        if self.is_cancelled:
            return
        try:
            self.on_done(self)
        except BaseException:  # a bug of ours
            logger.exception("the callback of a job raised")
