"""Switches: changes of what a fleet serves, each a transaction over all of its members.

Whichever member is asked runs it (:mod:`fitserve.fleet.transaction`), and any other goes on with it if that one ends
meanwhile::

    verify once in a confined child → order all members to prepare → all have → commit: one number is written
    → requests that came before have been answered → done

Whatever fails before the commit changes nothing anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fitserve.errors import ConflictError, FitserveError, ModelNotFoundError, ModelNotReadyError, VersionNotLoadedError
from fitserve.fleet.aside import aside
from fitserve.fleet.operations import Operation, new_operation, of_note, to_note
from fitserve.fleet.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fitserve.fleet.member import Fleet
    from fitserve.fleet.notes import Release
    from fitserve.fleet.operations import Kind
    from fitserve.fleet.proposal import Proposals
    from fitserve.settings import Settings
    from fitserve.shared_state.journal import Change, Journal
    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.store.listing import Listing
    from fitserve.store.loader import Loader
    from fitserve.types import ModelRef

logger = logging.getLogger(__name__)

MAX_OPERATIONS = 100
"""How many operations are remembered; the oldest are forgotten."""

RELOAD = "reload"
"""The order that somebody else leaves who wants everything to be read again: the supervisor, on SIGHUP."""

_POLL_S = 0.02

_LOCK_S = 2.0
"""How long the lock of an operation that is over is waited for."""


class Switch:
    """Begins operations and tells how they go. Used from the event loop of a member.

    Args:
        settings: times and budgets.
        fleet: the members.
        catalog: what this one has in memory.
        loader: loads versions.
        journal: history.
        proposals: what an operation comes to; None for a model that was handed over in memory.
        scan: lists the repository. Blocks.
        changes: yields whenever the repository has changed and been left alone; None if it is not watched.
    """

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        catalog: Catalog,
        loader: Loader,
        journal: Journal,
        proposals: Proposals | None,
        scan: Callable[[], Listing],
        changes: Callable[[], AsyncIterator[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._catalog = catalog
        self._loader = loader
        self._journal = journal
        self._proposals = proposals
        self._scan = scan
        self._changes = changes
        self._running: dict[str, Operation] = {}
        self._loads: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writing = asyncio.Lock()
        self._is_watching = False
        self._is_busy = False
        fleet.on_idle = self._look_after

    # ── operations ──────────────────────────────────────────────────────────────────

    async def begin(
        self,
        kind: Kind,
        model: str | None = None,
        *,
        version: str | None = None,
        alias: str | None = None,
        reason: str = "",
        who: str = "",
    ) -> Operation:
        """Begin an operation, and return it at once; it is over already where nothing was to be done.

        Args:
            kind: what to do.
            model: its name; None for the default one.
            version: to promote, or that an alias shall stand for; None removes the alias.
            alias: which one.
            reason: why, for the history.
            who: ordered it, likewise.

        Raises:
            ConflictError: an operation on the model is under way, or its model has no file.
            ModelNotFoundError: there is no such model.
        """
        if self._proposals is None:
            msg = "this model was handed over in memory: there is no file to read again"
            raise ConflictError(msg)
        if self._fleet.board.generation != self._catalog.generation:
            self._fleet.catch_up()
        name = model or self._catalog.assignment.default
        operation = new_operation(kind, name, version=version, alias=alias, reason=reason, who=who)
        present = self._catalog.assignment.models.get(name)
        if present is None and (kind != "reload" or not await self._lies_there(name)):
            raise ModelNotFoundError(name, list(self._catalog.assignment.models), kind="model")
        if kind == "promote" and present is not None and version == present.serving:
            operation = replace(operation, from_version=version, to_version=version).done("unchanged")
            await aside(partial(self._keep, operation))
            return operation
        release = await self._locked(name)
        self._running[operation.id] = operation
        await aside(partial(self._fleet.notes.put, "running", operation.id, to_note(operation)))
        self._begin(self._run(operation, release))
        return operation

    async def _locked(self, name: str) -> Release:
        """The lock of a model. An operation that is over is told of before it has given its lock back: that is awaited.

        Raises:
            ConflictError: an operation on the model is under way.
        """
        until_s = time.monotonic() + _LOCK_S
        while (release := await aside(partial(self._fleet.notes.try_lock, f"model-{name}.lock"))) is None:
            if time.monotonic() > until_s or await aside(partial(self._is_under_way, name)):
                msg = f"another operation on the model {name} is under way: wait for it"
                raise ConflictError(msg)
            await asyncio.sleep(_POLL_S / 4)
        return release

    def _is_under_way(self, name: str) -> bool:
        """Whether an operation on a model is not over yet. Blocks for a moment."""
        running = map(self._find, self._fleet.notes.names("running"))
        return any(one is not None and one.model == name and not one.is_over for one in running)

    async def _lies_there(self, name: str) -> bool:
        listing = await aside(self._scan)
        return name in listing.models and not self._is_the_one(listing)

    def _is_the_one(self, listing: Listing) -> bool:
        """Whether what lies there is one model, which keeps the name that it has here, whatever it calls itself now."""
        return listing.is_single and bool(self._catalog.assignment.models)

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps none alive
        task.add_done_callback(self._tasks.discard)

    async def _run(self, operation: Operation, release: Release) -> None:
        assert self._proposals is not None  # begin has looked
        transaction = Transaction(
            operation,
            self._fleet,
            self._proposals,
            self._loader,
            self._journal,
            hold_s=self._settings.rollback_hold_s,
            within_s=self._settings.load_timeout_s,
            tell=self._note,
        )
        try:
            ended = await transaction.run()
            async with self._writing:  # or a step that is being written would come after the end
                await aside(partial(self._keep, ended))
                self._running.pop(operation.id, None)
            self._log(ended)
        finally:
            self._running.pop(operation.id, None)
            await asyncio.shield(aside(release))

    def _note(self, operation: Operation) -> None:
        self._running[operation.id] = operation
        self._begin(self._write(operation))

    async def _write(self, operation: Operation) -> None:
        """Let the other members see how far an operation has come, unless it has gone further meanwhile."""
        async with self._writing:
            if self._running.get(operation.id) is operation:
                await aside(partial(self._fleet.notes.put, "running", operation.id, to_note(operation)))

    def _keep(self, operation: Operation) -> None:
        """Remember an operation that is over. Blocks for a moment."""
        notes = self._fleet.notes
        notes.put("operations", operation.id, to_note(operation))
        notes.remove("running", operation.id)
        for name in notes.names("operations")[:-MAX_OPERATIONS]:
            notes.remove("operations", name)

    def _log(self, operation: Operation) -> None:
        if operation.state == "failed":
            logger.error("%s of %s failed: %s", operation.kind, operation.model, operation.error)
            return
        what = f"{operation.kind} of {operation.model}"
        if operation.alias is not None:
            logger.info("%s: @%s is %s", what, operation.alias, operation.to_version or "removed")
        elif operation.status == "unchanged":
            logger.info("%s: it has not changed, version %s goes on", what, operation.to_version)
        else:
            logger.info("%s: version %s serves, before %s", what, operation.to_version, operation.from_version)

    async def operation(self, id_: str) -> Operation | None:
        """An operation by its id, as far as it has come; None if there is none, or it has been forgotten."""
        running = self._running.get(id_)
        return running or await aside(partial(self._find, id_))

    def _find(self, id_: str) -> Operation | None:
        if "/" in id_ or id_.startswith("."):
            return None
        note = self._fleet.notes.get("operations", id_) or self._fleet.notes.get("running", id_)
        return of_note(note) if note else None

    async def operations(self) -> list[Operation]:
        """All operations that are remembered, the latest first."""

        def read() -> list[Operation]:
            names = [*self._fleet.notes.names("operations"), *self._fleet.notes.names("running")]
            found = (self._find(name) for name in sorted(set(names), reverse=True))
            return [operation for operation in found if operation is not None]

        return await aside(read)

    async def wait(self, id_: str, timeout_s: float) -> Operation:
        """Wait until an operation is over, or the time is; return it as it is then.

        Raises:
            ModelNotFoundError: there is no such operation.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            operation = await self.operation(id_)
            if operation is None:
                raise FitserveError(f"there is no operation {id_}")
            if operation.is_over or time.monotonic() >= until_s:
                return operation
            await asyncio.sleep(_POLL_S / 4 if id_ in self._running else _POLL_S)

    async def history(self, model: str, limit: int = 100) -> list[Change]:
        """What was changed of a model, the latest first.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        if model not in self._catalog.assignment.models:
            raise ModelNotFoundError(model, list(self._catalog.assignment.models), kind="model")
        return await aside(partial(self._journal.history, model, limit))

    async def reload_all(self, who: str) -> None:
        """Reload every model of the repository, one after the other, those that are new among them; told in the log."""
        try:
            listing = await aside(self._scan)
        except FitserveError as exc:
            logger.error("nothing was reloaded: %s", exc)  # noqa: TRY400 - a user's mistake has no trace
            return
        there = set() if self._is_the_one(listing) else listing.models.keys()
        for name in sorted(there | self._catalog.assignment.models.keys()):
            try:
                operation = await self.begin("reload", name, who=who)
                await self.wait(operation.id, float("inf"))
            except FitserveError as exc:
                logger.error("reload of %s: %s", name, exc)  # noqa: TRY400

    # ── versions on demand ──────────────────────────────────────────────────────────

    async def load(self, ref: ModelRef) -> None:
        """Bring a version that is known into the memory of this process, because somebody asks for it.

        Raises:
            ModelNotFoundError: there is no such version.
            ModelNotReadyError: there is no room for it.
            ArtifactError: it cannot be served.
        """
        try:
            self._catalog.lease(ref)
        except VersionNotLoadedError as exc:
            key = (exc.name, exc.version)
        else:
            return
        if self._settings.models_memory_bytes == 0:
            msg = f"version {key[1]} is not in memory, and none is loaded on demand (models_memory_bytes = 0)"
            raise ModelNotReadyError(msg)
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.get_running_loop().create_task(self._load(*key))
            task.add_done_callback(lambda _: self._loads.pop(key, None))
        await asyncio.shield(task)

    async def _load(self, name: str, version: str) -> None:
        known = self._catalog.assignment.models[name].versions[version]
        loaded: LoadedModel = await aside(partial(self._loader.load, name, known), self._catalog.dropped)
        if loaded.size_bytes > self._settings.models_memory_bytes:
            self._catalog.dropped(loaded)
            msg = f"version {version} has {loaded.size_bytes} bytes: more than models_memory_bytes"
            raise ModelNotReadyError(msg)
        self._catalog.add_on_demand(loaded, self._settings.models_memory_bytes)

    # ── what any one member does for all ────────────────────────────────────────────

    def _look_after(self) -> None:
        if not self._is_busy and self._proposals is not None:
            self._is_busy = True
            self._begin(self._look_after_all())

    async def _look_after_all(self) -> None:
        try:
            if await aside(partial(self._took_over, "orders", RELOAD)):
                self._begin(self.reload_all("SIGHUP"))
            await self._resume()
            if self._changes is not None and not self._is_watching:
                release = await aside(partial(self._fleet.notes.try_lock, "watcher.lock"))
                if release is not None:
                    self._is_watching = True
                    self._begin(self._watch(release))
        finally:
            self._is_busy = False

    def _took_over(self, kind: str, name: str) -> bool:
        """Whether there was such a note, and this process is the one that removed it."""
        notes = self._fleet.notes
        if notes.get(kind, name) is None or (release := notes.try_lock(f"{name}.lock")) is None:
            return False
        try:
            is_there = notes.get(kind, name) is not None
            notes.remove(kind, name)
            return is_there
        finally:
            release()

    async def _resume(self) -> None:
        """Go on with operations whose process has ended: their locks are free, and they are not over."""
        for name in await aside(partial(self._fleet.notes.names, "running")):
            operation = await self.operation(name)
            if name in self._running or operation is None or operation.is_over:
                continue
            release = await aside(partial(self._fleet.notes.try_lock, f"model-{operation.model}.lock"))
            if release is None:
                continue
            operation = await aside(partial(self._find, name))
            if operation is None or operation.is_over:  # it has ended between the two looks
                await aside(release)
                continue
            logger.info("process of operation %s has ended: going on with it here", name)
            self._running[name] = operation
            self._begin(self._run(operation, release))

    async def _watch(self, release: Release) -> None:
        assert self._changes is not None
        try:
            async for _ in self._changes():
                await self.reload_all("watcher")
        except Exception:
            logger.exception("the repository is watched no longer")
        finally:
            self._is_watching = False
            await asyncio.shield(aside(release))

    def stop(self) -> None:
        """End what runs for ever."""
        for task in self._tasks:
            task.cancel()
