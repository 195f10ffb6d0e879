"""One operation, run over all members of a fleet: all of them change, or none."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, ConflictError, FitserveError
from fitserve.fleet.aside import aside
from fitserve.fleet.operations import Operation, WorkerState
from fitserve.shared_state.journal import Change
from fitserve.shared_state.slot import State
from fitserve.store.assignment import ServedModel, from_json, to_json
from fitserve.store.versions import highest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.fleet.member import Fleet
    from fitserve.fleet.proposal import Proposals
    from fitserve.shared_state.journal import Journal
    from fitserve.shared_state.slot import Member
    from fitserve.store.loader import Loader

logger = logging.getLogger(__name__)

SLACK_S = 30.0
"""How long members may take beyond what loading a model may: they also serve."""

LAST_REPLIES_S = 1.0
"""How long an operation that is committed waits for the replies of requests that came before. No request begins with
the old version any more, whatever they take."""

_SHORT_S, _LONG_S = 0.002, 0.05


class Transaction:
    """Runs one operation. On the event loop of a member; what blocks is done aside.

    Args:
        operation: to be run.
        fleet: the members.
        proposals: make of it what shall serve.
        loader: has the bytes.
        journal: keeps what was changed.
        hold_s: how long the version before stays in memory.
        within_s: how long the members may take to load a version.
        tell: is told of each step.
    """

    def __init__(
        self,
        operation: Operation,
        fleet: Fleet,
        proposals: Proposals,
        loader: Loader,
        journal: Journal,
        *,
        hold_s: float,
        within_s: float,
        tell: Callable[[Operation], None],
    ) -> None:
        self.operation = operation
        self._fleet = fleet
        self._proposals = proposals
        self._loader = loader
        self._journal = journal
        self._hold_s = hold_s
        self._within_s = within_s
        self._tell = tell
        self._order = f"{operation.id}.{time.monotonic_ns()}"

    async def run(self) -> Operation:
        """Run it to its end, and return how it went. Never raises for what a model or a file does."""
        proposal: ServedModel | None = None
        try:
            self._step(state="verifying")
            present = self._present()
            proposal = await aside(partial(self._proposals.of, self.operation, present))
            self._step(from_version=present and self._answering(present), to_version=self._answering(proposal))
            if present is not None and _is_same(proposal, present):
                was_committed = present.operation == self.operation.id  # by a member that has ended since
                return self._end(self.operation.done("switched" if was_committed else "unchanged"))
            self._step(state="preparing")
            await self._ordered(proposal)
            is_other = present is None or self._answering(present) != self._answering(proposal)
            return self._end(self.operation.done("switched" if is_other else "unchanged"))
        except FitserveError as exc:
            return self._end(self.operation.failed(self._explained(exc)))
        except Exception as exc:
            logger.exception("the operation %s failed", self.operation.id)
            return self._end(self.operation.failed(FitserveError(f"it failed: {type(exc).__name__}")))
        finally:
            if proposal is not None:
                for known in proposal.versions.values():
                    self._loader.let_go(known)

    def _present(self) -> ServedModel | None:
        return from_json(*self._fleet.board.assignment()).models.get(self.operation.model)

    def _answering(self, model: ServedModel) -> str | None:
        alias = self.operation.alias
        return model.serving if alias is None else model.aliases.get(alias)

    def _explained(self, error: FitserveError) -> FitserveError:
        if not isinstance(error, ArtifactError):
            return error
        name = f"the model {self.operation.model}"
        if self.operation.version is not None:
            name = f"version {self.operation.version} of {name}"
        return error.reworded(f"{name} {error}; nothing has changed, and what served before goes on")

    # ── the members ─────────────────────────────────────────────────────────────────

    async def _ordered(self, proposal: ServedModel) -> None:
        """Have all members prepare a proposal, and commit it; or withdraw the order."""
        notes, order = self._fleet.notes, self._order
        document = {"model": asdict(proposal), "must_answer": True}
        await aside(partial(self._announce, document))
        try:
            await self._fleet.look()
            generation = None
            deadline_s = time.monotonic() + self._within_s + SLACK_S
            while generation is None:
                await self._prepared(deadline_s)
                self._step(state="committing")
                generation = await aside(partial(self._commit, proposal))
            self._fleet.catch_up()
            await self._acknowledged(generation)
        finally:
            await asyncio.shield(aside(partial(self._withdraw, order)))
            await self._fleet.look()
            del notes

    def _announce(self, document: dict[str, Any] | None) -> None:
        if document is not None:
            self._fleet.notes.put("orders", self._order, document)
        with self._fleet.committing():
            self._fleet.board.next_order()

    def _withdraw(self, order: str) -> None:
        """Take the order away, and the answers to it. Members drop what the assignment does not want."""
        notes = self._fleet.notes
        notes.remove("orders", order)
        for name in notes.names("answers"):
            if name.startswith(f"{order}."):
                notes.remove("answers", name)
        self._announce(None)

    async def _prepared(self, deadline_s: float) -> None:
        """Wait until every member is prepared.

        Raises:
            ArtifactError: one of them cannot be, or has not answered in time.
        """
        pause_s = _SHORT_S
        while True:
            workers = await aside(self._workers)
            if workers != self.operation.workers:
                self._step(workers=workers)
            for worker in workers:
                if worker.state == "failed":
                    raise ArtifactError(worker.error or "could not be prepared")
            if all(worker.state == "prepared" for worker in workers):
                return
            if time.monotonic() > deadline_s:
                late = ", ".join(str(worker.pid) for worker in workers if worker.state != "prepared")
                msg = f"was not prepared within {self._within_s + SLACK_S:g} s by process {late}"
                raise ArtifactError(msg)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONG_S)

    def _members(self) -> list[Member]:
        return [member for member in self._fleet.board.members() if member.state in {State.READY, State.LEAVING}]

    def _workers(self) -> tuple[WorkerState, ...]:
        """How far each member has come with the order. Blocks for a moment."""
        states = []
        for member in self._members():
            note = self._fleet.notes.get("answers", f"{self._order}.{member.number}")
            is_its_own = note is not None and note["pid"] == member.pid  # a slot may have had another member
            states.append(WorkerState(**note) if note is not None and is_its_own else WorkerState(member.pid))
        return tuple(states)

    def _commit(self, proposal: ServedModel) -> int | None:
        """Write the assignment and its generation; None if a member has come that is not prepared. Blocks."""
        with self._fleet.committing():
            if not all(worker.state == "prepared" for worker in self._workers()):
                return None
            assignment = from_json(*self._fleet.board.assignment())
            present = assignment.models.get(proposal.name)
            if present is not None and present.operation == self.operation.id:
                raise ConflictError("another process has done it already")
            model = self._held(proposal, present)
            generation = self._fleet.board.commit(to_json(assignment.with_model(model)))
        if self._answering(model) != (present and self._answering(present)):
            self._journal.record(self._change(present, model), highest_known=highest(model.versions))
        return generation

    def _held(self, proposal: ServedModel, present: ServedModel | None) -> ServedModel:
        """The proposal with those versions held that it takes something from."""
        now_s = time.time()
        held = {version: until_s for version, until_s in proposal.held.items() if until_s > now_s}
        if present is not None and self._hold_s:
            roles = {present.serving, *present.aliases.values()} - {proposal.serving, *proposal.aliases.values()}
            held |= dict.fromkeys(roles & proposal.versions.keys(), now_s + self._hold_s)
        held.pop(proposal.serving, None)
        return replace(proposal, held=held, operation=self.operation.id)

    def _change(self, present: ServedModel | None, model: ServedModel) -> Change:
        operation = self.operation
        return Change(
            at=datetime.now(UTC),
            who=operation.who,
            model=operation.model,
            action=operation.kind,
            alias=operation.alias,
            from_version=None if present is None else self._answering(present),
            to_version=self._answering(model),
            reason=operation.reason,
            operation=operation.id,
        )

    async def _acknowledged(self, generation: int) -> None:
        """Wait until each member serves the generation, and has answered what came before it; not for ever."""
        until_s = time.monotonic() + LAST_REPLIES_S
        while time.monotonic() < until_s:
            members = await aside(self._members)
            if all(member.generation >= generation and not member.n_old_leases for member in members):
                break
            await asyncio.sleep(_SHORT_S)
        self._step(workers=tuple(replace(worker, state="committed", progress="") for worker in self.operation.workers))

    # ── telling ─────────────────────────────────────────────────────────────────────

    def _step(self, **changes: Any) -> None:
        self.operation = replace(self.operation, **changes)
        self._tell(self.operation)

    def _end(self, operation: Operation) -> Operation:
        self.operation = operation
        return operation


def _is_same(proposal: ServedModel, present: ServedModel) -> bool:
    """Whether nothing is to be done."""
    return replace(proposal, operation=present.operation, held=present.held) == present
