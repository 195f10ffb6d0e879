"""Operations: changes of what serves, from the order to the end, as they are shown to callers. Pure.

::

    queued → verifying → preparing → committing → done
                  └──────────┴────────────┴─────→ failed      nothing has changed
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import fitserve.errors
from fitserve.errors import ArtifactError, FitserveError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind: TypeAlias = Literal["reload", "promote", "rollback", "alias"]
State: TypeAlias = Literal["queued", "verifying", "preparing", "committing", "done", "failed"]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How far one process has come.

    Attributes:
        pid: of the process.
        state: ``waiting``, ``loading``, ``prepared``, ``committed`` or ``failed``.
        progress: what it does, in words.
        error: why it failed.
    """

    pid: int
    state: str = "waiting"
    progress: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of what serves.

    Attributes:
        id: by which it is asked for.
        kind: what was ordered.
        model: the name of the model.
        version: that was asked for, with ``promote`` and ``alias``; None removes an alias.
        alias: which one is set, with ``alias``.
        reason: the caller's.
        who: ordered it.
        from_version: the version that answered before.
        to_version: the version that answers, or would; None as long as it is not known.
        state: how far it has come.
        status: once done, what it did: ``switched``, or ``unchanged``.
        error: why it failed, for the caller.
        error_class: the name of the error's class in :mod:`fitserve.errors`.
        started_at: UTC, as ISO 8601,
        ended_at: likewise.
        workers: how far each process has come.
    """

    id: str
    kind: Kind
    model: str
    version: str | None = None
    alias: str | None = None
    reason: str = ""
    who: str = ""
    from_version: str | None = None
    to_version: str | None = None
    state: State = "queued"
    status: str | None = None
    error: str | None = None
    error_class: str | None = None
    started_at: str = ""
    ended_at: str | None = None
    workers: tuple[WorkerState, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in {"done", "failed"}

    def done(self, status: str) -> Operation:
        """The same, ended well."""
        return replace(self, state="done", status=status, ended_at=now())

    def failed(self, error: FitserveError) -> Operation:
        """The same, ended without having changed anything."""
        return replace(self, state="failed", error=str(error), error_class=type(error).__name__, ended_at=now())

    @property
    def failure(self) -> FitserveError:
        """What it failed with, as an error for whoever waited."""
        kind = getattr(fitserve.errors, self.error_class or "", ArtifactError)
        if not (isinstance(kind, type) and issubclass(kind, FitserveError)):
            kind = FitserveError
        # Its class tells what the caller is told it was; whatever else it held has been left behind with its process.
        return kind.__new__(kind, self.error or "it failed")


def new_operation(kind: Kind, model: str, **fields: Any) -> Operation:
    """An operation that begins now. Ids sort by the time at which it did."""
    return Operation(
        f"op-{time.time_ns() // 10**6:011x}-{secrets.token_hex(4)}", kind, model, started_at=now(), **fields
    )


def to_note(operation: Operation) -> dict[str, Any]:
    """An operation as JSON, for another process and for :func:`of_note`."""
    return asdict(operation)


def of_note(note: Mapping[str, Any]) -> Operation:
    """An operation that :func:`to_note` has written."""
    return Operation(**{**note, "workers": tuple(WorkerState(**worker) for worker in note["workers"])})


def now() -> str:
    """The present time, in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat()
