"""The versions that are loaded in this process, and which of them a request gets. Pure: no I/O, no clock."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fitserve.errors import ModelNotFoundError, ModelNotReadyError, VersionNotLoadedError
from fitserve.store.assignment import Assignment, KnownVersion, ServedModel, to_json
from fitserve.store.optimization import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableSequence
    from datetime import datetime

    from fitserve.formats.base import Model
    from fitserve.store.forms import Forms
    from fitserve.store.trial import Trial
    from fitserve.types import ModelRef


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
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
    identity: str = ""


class Catalog:
    """The loaded versions. Read and changed on the event loop only, so a switch is one assignment.

    In a fleet of several processes the generation that counts stands in shared memory. Each lease compares it with the
    generation that this process has come to: after the one write that commits a switch, no request of any process
    begins with what served before.

    Attributes:
        assignment: what this process has come to.
        dropped: is told of each version that leaves the memory of this process.
    """

    def __init__(self, dropped: Callable[[LoadedModel], None] = lambda _: None) -> None:
        self.assignment = Assignment()
        self.dropped = dropped
        self._generation = 0
        self._cells: MutableSequence[int] | memoryview[int] = [0]
        self._catch_up: Callable[[], None] = lambda: None
        self._commit: Callable[[bytes], int] = self._commit_alone
        self._loaded: dict[tuple[str, str], LoadedModel] = {}
        self._prepared: dict[tuple[str, str], LoadedModel] = {}
        self._on_demand: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self._retiring: weakref.WeakSet[LoadedModel] = weakref.WeakSet()
        self._current: LoadedModel | None = None

    def follow(self, cells: memoryview[int], catch_up: Callable[[], None], commit: Callable[[bytes], int]) -> None:
        """Let the generation that counts stand elsewhere.

        Args:
            cells: the first of them is the generation.
            catch_up: is called where it differs, and calls :meth:`apply`.
            commit: writes an assignment and returns its generation.
        """
        self._cells, self._catch_up, self._commit = cells, catch_up, commit

    @property
    def generation(self) -> int:
        """Of what this process serves."""
        return self._generation

    @property
    def current(self) -> LoadedModel | None:
        """The version that serves where nothing is asked for, None before the first."""
        if self._cells[0] != self._generation:
            self._catch_up()
        return self._current

    def lease(self, ref: ModelRef) -> LoadedModel:
        """Return the version that the caller asked for, to be held for the whole request.

        Raises:
            ModelNotReadyError: nothing is loaded.
            ModelNotFoundError: there is no such model, version or alias.
            VersionNotLoadedError: it is known, and not in memory.
        """
        if self._cells[0] != self._generation:
            self._catch_up()
        if ref.name is None and ref.version is None and ref.alias is None:
            if self._current is not None:
                return self._current
            msg = "no model is loaded yet"
            raise ModelNotReadyError(msg)
        model = self._model(ref)
        version = self._version(model, ref)
        key = (model.name, version)
        found = self._loaded.get(key)
        if found is not None:
            return found
        if key in self._on_demand:
            self._on_demand.move_to_end(key)
            return self._on_demand[key]
        raise VersionNotLoadedError(model.name, version)

    def _model(self, ref: ModelRef) -> ServedModel:
        models = self.assignment.models
        if not models:
            msg = "no model is loaded yet"
            raise ModelNotReadyError(msg)
        name = self.assignment.default if ref.name is None else ref.name
        model = models.get(name)
        if model is None:
            raise ModelNotFoundError(name, list(models), kind="model")
        return model

    def _version(self, model: ServedModel, ref: ModelRef) -> str:
        if ref.alias is not None:
            version = model.aliases.get(ref.alias)
            if version is None:
                raise ModelNotFoundError(f"@{ref.alias}", [f"@{alias}" for alias in model.aliases], kind="alias")
            if ref.version is not None and ref.version != version:
                raise ModelNotFoundError(ref.version, [version])
            return version
        if ref.version is None:
            return model.serving
        if ref.version not in model.versions:
            raise ModelNotFoundError(ref.version, list(model.versions))
        return ref.version

    def loaded(self, name: str, version: str) -> LoadedModel | None:
        """A version that is in memory, or None."""
        key = (name, version)
        return self._loaded.get(key) or self._on_demand.get(key) or self._prepared.get(key)

    def serving(self) -> Iterator[LoadedModel]:
        """What answers, of each model, where no version is asked for."""
        for model in self.assignment.models.values():
            found = self._loaded.get((model.name, model.serving))
            if found is not None:
                yield found

    def in_memory(self) -> list[LoadedModel]:
        """Everything that is in memory but for what is being prepared."""
        return [*self._loaded.values(), *self._on_demand.values()]

    # ── changes ─────────────────────────────────────────────────────────────────────

    def prepare(self, loaded: LoadedModel) -> None:
        """Keep a version for an assignment to come, which :meth:`apply` makes serve or :meth:`withdraw` drops."""
        self._prepared[loaded.name, loaded.version] = loaded

    def withdraw(self, name: str, version: str) -> None:
        """Let go of a version that was prepared and is not wanted after all."""
        dropped = self._prepared.pop((name, version), None)
        if dropped is not None:
            self.dropped(dropped)

    def missing(self, assignment: Assignment, now_s: float) -> list[tuple[ServedModel, KnownVersion]]:
        """The versions that an assignment wants in memory and that are not."""
        models = assignment.models.values()
        return [(model, known) for model in models for known in self.missing_of(model, now_s)]

    def missing_of(self, model: ServedModel, now_s: float) -> list[KnownVersion]:
        """The same of one model."""
        return [model.versions[version] for version in sorted(model.wanted(now_s)) if not self._has(model, version)]

    def _has(self, model: ServedModel, version: str) -> bool:
        found = self.loaded(model.name, version)
        identity = model.versions[version].identity
        return found is not None and (not identity or found.identity in {"", identity})

    def apply(self, assignment: Assignment, now_s: float) -> None:
        """Serve an assignment from now on, and let go of what it does not want."""
        before, now = self.assignment, {}
        for model in assignment.models.values():
            roles_lost = _lost(before.models.get(model.name), model)
            for version in model.wanted(now_s):
                key = (model.name, version)
                found = self._take(key, model.versions[version])
                if found is None:
                    continue  # a member says that it could not load it; see fleet.py
                if version in roles_lost:
                    found = self._retired(found)
                now[key] = found
        gone = [found for key, found in self._loaded.items() if key not in now]
        for found in gone:
            self._retiring.add(found)
        self._loaded = now
        self.assignment, self._generation = assignment, assignment.generation
        default = assignment.models.get(assignment.default)
        self._current = None if default is None else now.get((default.name, default.serving))
        unknown = [key for key in self._on_demand if key[1] not in _versions(assignment, key[0])]
        gone += [self._on_demand.pop(key) for key in unknown]
        for found in gone:
            self.dropped(found)

    def _retired(self, loaded: LoadedModel) -> LoadedModel:
        """A new record of a version. Only requests that came before hold the old one: the last to end is seen."""
        self._retiring.add(loaded)
        again = replace(loaded)
        weakref.finalize(loaded, _outlived, again).atexit = False
        return again

    def _take(self, key: tuple[str, str], known: KnownVersion) -> LoadedModel | None:
        for place in (self._prepared, self._loaded, self._on_demand):
            found = place.get(key)
            if found is not None and (not known.identity or found.identity in {"", known.identity}):
                if place is not self._loaded:
                    del place[key]
                return found
        return None

    def switch(self, loaded: LoadedModel) -> None:
        """Let one version serve alone, that was handed over in memory."""
        self.prepare(loaded)
        known = KnownVersion(loaded.version, None, loaded.digest, loaded.identity)
        assignment = Assignment().with_model(ServedModel(loaded.name, loaded.version, {loaded.version: known}))
        self.apply(replace(assignment, generation=self._commit(to_json(assignment))), 0.0)

    def _commit_alone(self, _: bytes) -> int:
        self._cells[0] += 1
        return self._cells[0]

    def add_on_demand(self, loaded: LoadedModel, budget_bytes: int) -> None:
        """Keep a version that was asked for, and drop those asked for longest ago that the budget has no room for."""
        self._on_demand[loaded.name, loaded.version] = loaded
        total = sum(one.size_bytes for one in self._on_demand.values())
        while total > budget_bytes and len(self._on_demand) > 1:
            _, dropped = self._on_demand.popitem(last=False)
            total -= dropped.size_bytes
            self.dropped(dropped)

    @property
    def n_old_leases(self) -> int:
        """How many versions that are out of service still compute for requests that came before."""
        return len(self._retiring)


def _outlived(_: LoadedModel) -> None:
    """Until a record is gone, the one that came of it stays: whoever waits for its end waits for both."""


def _lost(before: ServedModel | None, after: ServedModel) -> frozenset[str]:
    """The versions that answered to something before, by default or by an alias, to which others answer now."""
    if before is None:
        return frozenset()
    lost = {version for alias, version in before.aliases.items() if after.aliases.get(alias) != version}
    return frozenset(lost if after.serving == before.serving else {*lost, before.serving})


def _versions(assignment: Assignment, name: str) -> Mapping[str, KnownVersion]:
    model = assignment.models.get(name)
    return model.versions if model else {}
