"""Which version of a model shall serve: what an operation asks for, made of what lies in the repository. Blocks."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ConflictError, ModelNotFoundError, SettingsError
from fitserve.store.assignment import Assignment, KnownVersion, ServedModel
from fitserve.store.names import model_stem, parse_name
from fitserve.store.versions import highest, version_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from fitserve.fleet.operations import Operation
    from fitserve.shared_state.journal import Journal
    from fitserve.store.listing import Entry, Listing
    from fitserve.store.loader import Loader

logger = logging.getLogger(__name__)

_LATEST = re.compile(r"latest:(\d{1,4})")


class Proposals:
    """Makes proposals: a :class:`ServedModel` with every version that it wants in memory read, verified and spooled.

    Args:
        scan: lists the repository.
        loader: reads and verifies versions.
        journal: knows choices and aliases.
        keep_loaded: the setting.
        explained: an error of a version in the operator's words, with its path.
    """

    def __init__(
        self,
        scan: Callable[[], Listing],
        loader: Loader,
        journal: Journal,
        keep_loaded: Sequence[str],
        explained: Callable[[ArtifactError, Path], ArtifactError],
    ) -> None:
        self._scan = scan
        self._loader = loader
        self._journal = journal
        self._keep_loaded = keep_loaded
        self._explained = explained
        check_policy(keep_loaded)

    def at_start(self, default_model: str) -> Assignment:
        """What a server begins with: of each model the version that was chosen by hand, else the highest.

        A model of several that cannot be served is passed over and told in the log, unless it is the default one.

        Raises:
            ArtifactError: the default model cannot be served.
            SettingsError: there is no model of the name ``default_model``.
        """
        listing = self._scan()
        for place, why in listing.skipped:
            logger.warning("%s is passed over: %s", place, why)
        default = listing.default(default_model)
        assignment = Assignment(default=default)
        for name, entries in listing.models.items():
            try:
                assignment = assignment.with_model(self._begin(name, entries))
            except ArtifactError as exc:
                told = self._explained(exc, entries[self._first(name, entries)].path)
                if name == default:
                    raise told from exc
                logger.error("the model %s is not served: %s", name, told)  # noqa: TRY400 - told, not traced
        return assignment

    def _first(self, name: str, entries: Mapping[str, Entry]) -> str:
        """The version that a model begins with."""
        choice = self._journal.choice(name)
        return choice.version if choice is not None and choice.version in entries else highest(entries)

    def _begin(self, name: str, entries: Mapping[str, Entry]) -> ServedModel:
        versions = _listed(entries)
        known = self._read(name, entries[self._first(name, entries)], versions, {})
        aliases = {alias: to for alias, to in self._journal.aliases(name).items() if to in versions}
        return self._with_kept(ServedModel(name, known.version, _sorted(versions), aliases), entries, {})

    def of(self, operation: Operation, present: ServedModel | None) -> ServedModel:
        """What an operation asks for, given what serves.

        Raises:
            ModelNotFoundError: there is no such model or version.
            ConflictError: there is nothing to roll back to.
            ArtifactError: the version cannot be served; the text follows its name.
        """
        if operation.kind == "reload":
            return self._reload(operation.model, present)
        if present is None:
            raise ModelNotFoundError(operation.model, [], kind="model")
        if operation.kind == "rollback":
            if present.previous is None or present.previous not in present.versions:
                msg = f"the model {present.name} has served no other version: there is nothing to roll back to"
                raise ConflictError(msg)
            return self._promoted(self._ensured(present, present.previous), present.previous)
        if operation.kind == "alias" and operation.version is None:
            aliases = {alias: to for alias, to in present.aliases.items() if alias != operation.alias}
            return replace(present, aliases=aliases)
        assert operation.version is not None  # begin() has looked
        model, version = self._with_version(present, operation.version)
        if operation.kind == "alias":
            assert operation.alias is not None
            return replace(model, aliases={**model.aliases, operation.alias: version})
        return self._promoted(model, version)

    def _promoted(self, model: ServedModel, version: str) -> ServedModel:
        if version == model.serving:
            return model
        return replace(model, serving=version, previous=model.serving)

    def _with_version(self, present: ServedModel, version: str) -> tuple[ServedModel, str]:
        known = present.versions.get(version)
        if known is not None and known.identity:
            return self._ensured(present, version), version
        entries = self._scan().models.get(present.name, {})
        versions = {**_listed(entries), **present.versions}
        if version not in entries:
            raise ModelNotFoundError(version, list(versions))
        known = self._read(present.name, entries[version], versions, present.versions)
        return replace(present, versions=_sorted(versions)), known.version

    def _ensured(self, present: ServedModel, version: str) -> ServedModel:
        """See to it that the bytes of a version that was verified once can be loaded by every process."""
        known = present.versions[version]
        try:
            self._loader.ensure(present.name, known)
        except ArtifactError as exc:  # whoever has it in memory needs no bytes
            logger.debug("the bytes of %s %s: it %s", present.name, version, exc)
        return present

    def _reload(self, name: str, present: ServedModel | None) -> ServedModel:
        listing = self._scan()
        entries = listing.models.get(name)
        if entries is None and present is not None and listing.is_single:
            (entries,) = listing.models.values()  # it calls itself otherwise now, and is the same one to callers
        if entries is None:
            if present is None:
                raise ModelNotFoundError(name, list(listing.models), kind="model")
            reasons = "; ".join(f"{place}: {why}" for place, why in listing.skipped)
            raise ArtifactError(f"is not there any more{f' ({reasons})' if reasons else ''}")
        if present is None:
            return self._begin(name, entries)
        _refuse_broken(name, listing, entries)
        versions = {**_listed(entries), **_still_needed(present)}
        wanted = self._wanted(name, entries, present)
        target = self._read(name, entries[wanted], versions, present.versions).version if wanted in entries else wanted
        model = replace(present, versions=_sorted(versions))
        return self._with_kept(self._promoted(model, target), entries, present.versions)

    def _wanted(self, name: str, entries: Mapping[str, Entry], present: ServedModel) -> str:
        """The version that a reload is to: the highest, unless a choice by hand has known it and taken another."""
        top = highest(entries)
        choice = self._journal.choice(name)
        if choice is None or len(entries) == 1:
            return top
        is_there = choice.version in entries or choice.version in _still_needed(present)
        was_known = top in present.versions or version_key(top) <= version_key(choice.highest_known)
        return choice.version if is_there and was_known else top

    def _read(
        self, name: str, entry: Entry, versions: dict[str, KnownVersion], before: Mapping[str, KnownVersion]
    ) -> KnownVersion:
        """Read and verify a version, and put it among the others by the label of its bytes."""
        artifact, known = self._loader.read(name, entry, before)
        same = before.get(known.version)
        if same is not None and known.identity == same.identity:
            known = replace(known, is_kept=same.is_kept)
        else:
            self._loader.verify(artifact, known)
        if known.version != entry.version and entry.version not in before:
            del versions[entry.version]
        versions[known.version] = known
        return known

    def _with_kept(
        self, model: ServedModel, entries: Mapping[str, Entry], before: Mapping[str, KnownVersion]
    ) -> ServedModel:
        """The same, with the versions that the policy keeps in memory verified too; one that fails is not kept."""
        versions, kept = dict(model.versions), set()
        to_keep = kept_versions(model.name, list(entries), self._keep_loaded)
        for version in sorted(to_keep | (set(model.aliases.values()) & entries.keys())):
            try:
                # Under its label, which it has not if other bytes came under this version before.
                label = self._read(model.name, entries[version], versions, {**before, **versions}).version
            except ArtifactError as exc:
                logger.error("version %s of the model %s is not kept: it %s", version, model.name, exc)  # noqa: TRY400
            else:
                kept |= {label} if version in to_keep else set()
        for label, known in versions.items():
            versions[label] = replace(known, is_kept=label in kept and bool(known.identity))
        aliases = {alias: to for alias, to in model.aliases.items() if to in versions and versions[to].identity}
        return replace(model, versions=_sorted(versions), aliases=aliases)


def check_policy(keep_loaded: Sequence[str]) -> None:
    """Refuse a policy that says nothing.

    Raises:
        SettingsError: a part of it is of no known form.
    """
    for part in keep_loaded:
        if (
            part not in {"serving", "all"}
            and not _LATEST.fullmatch(part)
            and not re.fullmatch(r"[^@\s]+@[^@\s]+", part)
        ):
            msg = f"keep_loaded: {part!r} is neither serving, nor latest:N, nor all, nor NAME@VERSION"
            raise SettingsError(msg)


def kept_versions(name: str, versions: Sequence[str], keep_loaded: Iterable[str]) -> set[str]:
    """The versions of a model, given ascending, that a policy keeps in memory."""
    kept: set[str] = set()
    for part in keep_loaded:
        if part == "all":
            kept |= set(versions)
        elif match := _LATEST.fullmatch(part):
            n = int(match[1])
            kept |= set(versions[-n:]) if n else set()
        elif part != "serving":
            model, _, version = part.partition("@")
            kept |= {version} & set(versions) if model == name else set()
    return kept


def _refuse_broken(name: str, listing: Listing, entries: Mapping[str, Entry]) -> None:
    """Refuse to pass over a version that would be the highest of a model: somebody has just put it there.

    Raises:
        ArtifactError: there is one that cannot be served.
    """
    top = version_key(highest(entries))
    for place, why in listing.skipped:
        first, _, rest = place.partition("/")
        called, version = parse_name(model_stem(PurePath(first)))
        if rest and version is None:
            version = rest.partition("/")[0].removeprefix("v")
        if called == name and version is not None and version_key(version) > top:
            raise ArtifactError(f"has a version at {place} that {why}")


def _listed(entries: Mapping[str, Entry]) -> dict[str, KnownVersion]:
    return {version: KnownVersion(version, str(entry.path)) for version, entry in entries.items()}


def _still_needed(present: ServedModel) -> dict[str, KnownVersion]:
    """The versions that have been verified and served, or may be again: they stay known though others lie there now."""
    names = {present.serving, present.previous, *present.aliases.values(), *present.held}
    return {label: known for label, known in present.versions.items() if label in names}


def _sorted(versions: Mapping[str, KnownVersion]) -> dict[str, KnownVersion]:
    return dict(sorted(versions.items(), key=lambda item: version_key(item[0])))
