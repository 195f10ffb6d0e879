"""The versions that are loaded, and which of them a request gets. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fitserve.errors import ModelNotFoundError, ModelNotReadyError
from fitserve.store.optimization import Optimization

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fitserve.formats.base import Model
    from fitserve.store.forms import Forms
    from fitserve.store.trial import Trial
    from fitserve.types import ModelRef


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LoadedModel:
    """One version, whole: everything that a reply says of the model comes from one such record.

    A request that holds it (its lease) goes on with it whatever is switched meanwhile;
    the memory goes when the last holder lets go.
    """

    name: str
    version: str
    digest: str
    size_bytes: int
    format: str
    model: Model
    loaded_at: datetime
    loaded_monotonic_s: float
    metadata: Mapping[str, Any]
    verification: Mapping[str, Any]
    forms: Forms
    trial: Trial
    optimization: Optimization = field(default_factory=Optimization)


class Catalog:
    """The loaded versions. Read and changed on the event loop only, so a switch is one assignment."""

    def __init__(self) -> None:
        self._current: LoadedModel | None = None
        self.generation = 0

    @property
    def current(self) -> LoadedModel | None:
        """The version that serves by default, None before the first."""
        return self._current

    def lease(self, ref: ModelRef) -> LoadedModel:
        """Return the version that the caller asked for, to be held for the whole request.

        Raises:
            ModelNotReadyError: nothing is loaded.
            ModelNotFoundError: another version was asked for than is loaded.
        """
        current = self._current
        if current is None:
            msg = "no model is loaded yet"
            raise ModelNotReadyError(msg)
        if ref.version is not None and ref.version != current.version:
            raise ModelNotFoundError(ref.version, [current.version])
        return current

    def switch(self, loaded: LoadedModel) -> LoadedModel | None:
        """Let ``loaded`` answer from now on; return the version that did before."""
        previous, self._current = self._current, loaded
        self.generation += 1
        return previous
