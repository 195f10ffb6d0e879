"""This process as a member of its fleet: it follows the assignment, and prepares what a switch orders.

Members share a board and notes. The event loop of each looks at the board every :data:`TICK_S`, and each request
compares the generation (:class:`~fitserve.store.catalog.Catalog`), so that a commit counts at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, FitserveError
from fitserve.fleet.aside import aside
from fitserve.fleet.warm_up import shapes_of, warm_up
from fitserve.shared_state.slot import State
from fitserve.store.assignment import KnownVersion, ServedModel, from_json, model_of
from fitserve.store.loader import PREPARE_ENGINES_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fitserve.fleet.notes import Notes
    from fitserve.shared_state.board import Board
    from fitserve.shared_state.slot import Slot
    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.store.loader import Loader

logger = logging.getLogger(__name__)

TICK_S = 0.02
"""How often a member looks at the board: reading one number of mapped memory."""

LOOK_S = 0.5
"""How often it looks for notes that nobody has announced."""

COMMIT_LOCK = "commit.lock"

_LOCK_S = 10.0


class Fleet:
    """This process and its siblings. Used from one event loop, but for what is said to block.

    Attributes:
        board: numbers that all members see.
        notes: orders, answers and operations.
        slot: this process on the board, once it answers requests.
        on_idle: called every :data:`LOOK_S`, for what any one member has to do for all.
        on_applied: called when this process serves another assignment.
    """

    def __init__(self, catalog: Catalog, loader: Loader, board: Board, notes: Notes) -> None:
        self.board = board
        self.notes = notes
        self.slot: Slot | None = None
        self.on_idle: Callable[[], None] = lambda: None
        self.on_applied: Callable[[], None] = lambda: None
        self._catalog = catalog
        self._loader = loader
        self._orders: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, list[tuple[str, str]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen_orders = 0
        self._looked_s = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._is_looking = False
        catalog.follow(board.cells, self.catch_up, board.commit)

    # ── the assignment ──────────────────────────────────────────────────────────────

    def load_assignment(self) -> None:
        """Load what the board assigns and is not in memory, until that is what counts. Blocks: at a start.

        Raises:
            ArtifactError: a version that serves cannot be loaded.
        """
        while True:
            assignment = from_json(*self.board.assignment())
            for model, known in self._catalog.missing(assignment, time.time()):
                try:
                    self._catalog.prepare(self._loader.load(model.name, known))
                except ArtifactError as exc:
                    if known.version == model.serving:
                        msg = f"version {known.version} of the model {model.name} {exc}"
                        raise exc.reworded(msg) from exc
                    logger.error("version %s of the model %s %s", known.version, model.name, exc)  # noqa: TRY400
            if self.board.generation == assignment.generation:
                self._catalog.apply(assignment, time.time())
                return

    def join(self) -> None:
        """Become a member that takes requests: only with what the fleet serves at this moment. Blocks for a moment."""
        if self.slot is not None:
            return
        slot = self.board.join()
        while True:
            self.load_assignment()
            with self.committing():
                if self.board.generation == self._catalog.generation:
                    slot.generation, slot.state = self._catalog.generation, State.READY
                    break
        self.slot = slot
        self._seen_orders = -1  # what was ordered before concerns it too

    def committing(self) -> _Held:
        """Hold the lock of whoever commits. Blocks for as long as another one writes."""
        return _Held(self.notes)

    def catch_up(self) -> None:
        """Serve what the board assigns now: two reads of mapped memory, and no loading."""
        assignment = from_json(*self.board.assignment())
        for model, known in self._catalog.missing(assignment, time.time()):
            if known.version in {model.serving, *model.aliases.values()}:
                logger.error("version %s of the model %s serves and is not in memory here", known.version, model.name)
                self._begin(self._load_late(model.name, known))
        self._catalog.apply(assignment, time.time())
        self._report()
        self._expire_later()
        self.on_applied()

    async def _load_late(self, name: str, known: KnownVersion) -> None:
        try:
            loaded = await aside(partial(self._loader.load, name, known))
        except FitserveError as exc:
            logger.error("version %s of the model %s %s", known.version, name, exc)  # noqa: TRY400 - told, not traced
            return
        self._catalog.prepare(loaded)
        self._catalog.apply(self._catalog.assignment, time.time())

    def _report(self) -> None:
        if self.slot is not None:
            self.slot.n_old_leases = self._catalog.n_old_leases
            self.slot.generation = self._catalog.generation

    def _expire_later(self) -> None:
        """Let go of the versions that are held, when their time is over."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now_s = time.time()
        untils = [s for model in self._catalog.assignment.models.values() for s in model.held.values() if s > now_s]
        if untils:
            delay_s = max(0.0, min(untils) - now_s) + TICK_S
            self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._catalog.apply(self._catalog.assignment, time.time())
        self._expire_later()

    # ── looking ─────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Begin to look at the board. On the event loop that answers requests."""
        self._tick(asyncio.get_running_loop())

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(TICK_S, self._tick, loop)
        if self.slot is None:
            return
        self.slot.beat()
        if self.board.generation != self._catalog.generation:
            self.catch_up()
        elif self.slot.n_old_leases:
            self._report()
        now_s = time.monotonic()
        if self.board.order_seq != self._seen_orders or now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            self._begin(self.look())
            self.on_idle()

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def look(self) -> None:
        """Take up the orders that are new, and drop what was prepared for those that are gone."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            self._seen_orders = self.board.order_seq
            names = set(await aside(partial(self.notes.names, "orders")))
            for name in self._orders.keys() - names:
                await self._forget(name)
            for name in sorted(names - self._orders.keys()):
                order = await aside(partial(self.notes.get, "orders", name))
                if order:
                    self._orders[name] = self._begin(self._prepare(name, order))
        finally:
            self._is_looking = False

    async def _forget(self, name: str) -> None:
        """An order is over: committed, or withdrawn. What it had loaded stays only if it is wanted now."""
        task = self._orders.pop(name)
        task.cancel()
        if self.board.generation != self._catalog.generation:
            self.catch_up()
        for key in self._wanted.pop(name, []):
            self._catalog.withdraw(*key)

    async def _prepare(self, name: str, order: dict[str, Any]) -> None:
        """Load the versions that an order wants in memory, and answer it."""
        model = model_of(order["model"])
        missing = self._catalog.missing_of(model, time.time())
        self._wanted[name] = [(model.name, known.version) for known in missing]
        for known in missing:
            await self._answer(name, "loading", f"loading version {known.version}")
            failure = await self._load(model, known, must_answer=order["must_answer"])
            if failure is not None:
                await self._answer(name, "failed", error=failure)
                return
        await self._answer(name, "prepared", "loaded" if missing else "in memory")

    async def _load(self, model: ServedModel, known: KnownVersion, *, must_answer: bool) -> str | None:
        """Load a version for an assignment to come; return why it could not be."""
        current = self._catalog.loaded(model.name, model.previous or model.serving)
        shapes = shapes_of(current)

        def load() -> LoadedModel:
            loaded = self._loader.load(model.name, known, engines_within_s=PREPARE_ENGINES_S)
            warm_up(loaded, shapes)
            return loaded

        try:
            loaded = await aside(load, self._catalog.dropped)
        except ArtifactError as exc:
            return str(exc)
        except Exception as exc:
            logger.warning("version %s of the model %s could not be loaded", known.version, model.name, exc_info=True)
            return f"raised {type(exc).__name__} while it was loaded"
        if must_answer and not loaded.trial.has_answered and (current is None or current.trial.has_answered):
            self._catalog.dropped(loaded)
            return f"is not served: {loaded.trial.failure}"
        self._catalog.prepare(loaded)
        return None

    async def _answer(self, order: str, state: str, progress: str = "", error: str | None = None) -> None:
        number = self.slot.number if self.slot is not None else 0
        note = {"pid": os.getpid(), "state": state, "progress": progress, "error": error}
        await aside(partial(self.notes.put, "answers", f"{order}.{number}", note))

    def leave(self) -> None:
        """Be no member any more: nobody waits for this process."""
        if self.slot is not None:
            self.slot.leave()
            self.slot = None


class _Held:
    """The commit lock, held within a ``with``. Blocks."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._release: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        deadline = time.monotonic() + _LOCK_S
        while (release := self._notes.try_lock(COMMIT_LOCK)) is None:
            if time.monotonic() > deadline:
                msg = f"another process has been writing the assignment for {_LOCK_S:g} s"
                raise TimeoutError(msg)
            time.sleep(0.001)
        self._release = release

    def __exit__(self, *_: object) -> None:
        self._release()
