"""The life of what a process serves: what it begins with, how it becomes a member of its fleet, and its end.

A version comes into service by the same steps at a start and in a switch: list → read → verify → load → serve.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fitserve.errors import ArtifactError
from fitserve.fleet.aside import aside
from fitserve.fleet.member import Fleet
from fitserve.fleet.notes import FileNotes, MemoryNotes
from fitserve.fleet.proposal import Proposals
from fitserve.fleet.switch import Switch
from fitserve.formats.base import hooks_of
from fitserve.shared_state.board import Board
from fitserve.shared_state.journal import Journal, where
from fitserve.store.assignment import to_json
from fitserve.store.describe import notes_of
from fitserve.store.listing import list_repository
from fitserve.store.loader import Loader
from fitserve.store.loading import LARGE_BYTES, adopt, give_back_memory, stop, stop_when_unused
from fitserve.store.origin import Origin
from fitserve.store.places import spool_of
from fitserve.store.verify import with_path
from fitserve.store.watcher import DEV_QUIET_S, QUIET_S
from fitserve.trust.policy import TrustPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.store.fetcher import Fetcher
    from fitserve.store.listing import Listing
    from fitserve.store.takeover import Optimizer
    from fitserve.store.verify import Verifier
    from fitserve.urls import SourceUrl

logger = logging.getLogger(__name__)

_FOUNDING_S = 0.05
"""How often a process looks whether another one has finished what all begin with."""


class Lifecycle:
    """Brings what lies at a path, or a live estimator, into service, and makes this process a member of its fleet.

    Attributes:
        path: where models are read from; None for one handed over in memory.
        fleet: this process and its siblings.
        switch: changes what they serve.
    """

    def __init__(  # noqa: PLR0913 - what a process is told at its start; all but four by name
        self,
        settings: Settings,
        catalog: Catalog,
        path: Path | SourceUrl | None,
        verifier: Verifier,
        *,
        optimizer: Optimizer | None = None,
        runtime_folder: Path | None = None,
        is_watching: bool = False,
        keeps_state: bool = False,
        fetcher: Fetcher | None = None,
    ) -> None:
        """Describe what is to be served; nothing is read.

        Args:
            settings: of the server.
            catalog: what is loaded is put into it.
            path: of a model or a repository of models, or its URL.
            verifier: tries artifacts.
            optimizer: compiles them.
            runtime_folder: that this process shares with its siblings; None if it has none.
            is_watching: somebody waits in front of it for changes of the file.
            keeps_state: remember aliases and choices over a restart, also where no ``state_dir`` is set.
            fetcher: of the URL.
        """
        self.path = path
        self._origin = None if path is None else Origin(path, fetcher)
        self._settings = settings
        self._catalog = catalog
        self._verifier = verifier
        self._optimizer = optimizer
        self._is_dev = is_watching
        self._watch = "notify" if is_watching else settings.watch
        is_kept = path is not None and (keeps_state or settings.state_dir is not None)
        journal = Journal(where(settings, path) if is_kept and path is not None else None)
        spool = None if runtime_folder is None else spool_of(settings)
        loader = self._loader = Loader(verifier, optimizer, spool)
        catalog.dropped = self._dropped
        board = Board.in_memory() if runtime_folder is None else Board.open(runtime_folder)
        notes = MemoryNotes() if runtime_folder is None else FileNotes(runtime_folder)
        self.fleet = Fleet(catalog, loader, board, notes)
        if optimizer is not None:
            self.fleet.on_applied = optimizer.begin
        self._proposals = (
            None if path is None else Proposals(self._scan, loader, journal, settings.keep_loaded, self._explained)
        )
        changes_of = None if path is None or self._watch == "off" else self._changes
        self.switch = Switch(settings, self.fleet, catalog, loader, journal, self._proposals, self._scan, changes_of)

    def _scan(self) -> Listing:
        assert self._origin is not None  # only what was read from a path is read again
        return list_repository(self._origin.here(or_kept=self.fleet.board.generation == 0))

    def _explained(self, error: ArtifactError, path: Path | SourceUrl) -> ArtifactError:
        return with_path(error, path, self._verifier.policy)

    def _changes(self) -> AsyncIterator[None]:
        assert self._origin is not None  # as above
        mode: Literal["poll", "notify"] = "poll" if self._watch == "poll" else "notify"
        quiet_s = DEV_QUIET_S if self._is_dev else QUIET_S
        return self._origin.changes(mode, self._settings.watch_interval_s, quiet_s=quiet_s)

    def start(self, *, is_before_fork: bool = False) -> LoadedModel:
        """Load what the fleet serves, and before all others decide what that is. Blocks.

        :meth:`join` is to follow where requests are answered.

        Args:
            is_before_fork: processes that serve will be forked from this one: engines that are at hand are loaded for
                all of them.

        Raises:
            ArtifactError: it cannot be served; the text names the path, for the operator.
            SettingsError: there is no model of the name ``default_model``.
        """
        if self._proposals is None:
            msg = "no model given: set MODEL_PATH, or run `fitserve run PATH`"
            raise ArtifactError(msg)
        while self.fleet.board.generation == 0:
            release = self.fleet.notes.try_lock("founding.lock")
            if release is None:
                time.sleep(_FOUNDING_S)
                continue
            try:
                if self.fleet.board.generation == 0:
                    self._found(self._proposals)
            finally:
                release()
        self._loader.is_before_fork = is_before_fork
        self.fleet.load_assignment()
        self._loader.is_before_fork = False
        loaded = self._catalog.current
        assert loaded is not None  # without the default model there would have been an error
        for one in self._catalog.serving():
            for note in notes_of(one):
                logger.warning("%s: %s", one.name, note)
            if not one.trial.has_answered:
                logger.warning("%s is not ready before it has answered a real row: %s", one.name, one.trial.failure)
        return loaded

    def _found(self, proposals: Proposals) -> None:
        try:
            assignment = proposals.at_start(self._settings.default_model)
        except ArtifactError as exc:
            assert self.path is not None  # there are proposals
            raise exc if str(self.path) in str(exc) else self._explained(exc, self.path) from exc
        with self.fleet.committing():
            self.fleet.board.commit(to_json(assignment))

    def adopt(self, estimator: object, *, name: str, version: str | None) -> LoadedModel:
        """Let a live estimator serve, of which a copy is made. Blocks.

        Raises:
            ArtifactError: it cannot be served.
        """
        loaded, artifact = adopt(estimator, name=name, version=version)
        if self._optimizer is not None:
            # It is live in this process already: its own bytes, and no others, may be loaded in a child.
            policy = TrustPolicy("pinned", pins=frozenset({loaded.digest}))
            self._optimizer.plan(loaded, artifact, replace(self._verifier, policy=policy))
        self._catalog.switch(loaded)
        return loaded

    def join(self) -> None:
        """Become a member of the fleet, in the process that answers requests. Blocks for a moment.

        Not before a fork. Starts a thread at most, to compile what serves.
        """
        self.fleet.join()
        self.fleet.begin()
        if self._optimizer is not None:
            self._optimizer.begin()

    async def stop(self) -> None:
        """Let the models that are in memory close what they have opened: the process is about to end."""
        for loaded in self._catalog.in_memory():
            if hooks_of(loaded.model) is not None:
                await aside(lambda loaded=loaded: stop(loaded))  # type: ignore[misc]

    def _dropped(self, loaded: LoadedModel) -> None:
        """See to what a version leaves behind, once the last request has let go of it."""
        if self._optimizer is not None:
            self._optimizer.cancel(loaded)
        stop_when_unused(loaded)
        if loaded.size_bytes >= LARGE_BYTES:
            later: Callable[[], None] = threading.Thread(target=give_back_memory, daemon=True).start
            weakref.finalize(loaded, later).atexit = False
