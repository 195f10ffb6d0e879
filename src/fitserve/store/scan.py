"""A folder of models looked through: what may be served, and what is not."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ArtifactNotFoundError, clip
from fitserve.store.files import Folder
from fitserve.store.layouts import (
    MARKS,
    find_model,
    folder_version,
    is_model,
    is_sure,
    manifest_beside,
    nothing_found,
    triton_name,
)
from fitserve.store.level import Level, digest_of_file
from fitserve.store.manifest import Manifest, parse_manifest
from fitserve.store.names import clean_name, model_stem, split_name
from fitserve.store.repository import Place, digest_of, digest_version, named_file, named_found, own_name, placed
from fitserve.store.versions import is_numbered, version_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.store.layouts import Found
    from fitserve.store.names import Named

MOST_TOLD = 5
"""How many of the entries that cannot be served an error names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model that lies in a repository.

    Attributes:
        name: of the model.
        version: of it.
        path: of its file or folder.
        is_labelled: somebody has given it this version; else it is made of the digest.
        place: what its place says of it. None takes name and version from here, whatever the files say.
    """

    name: str
    version: str
    path: Path
    is_labelled: bool = True
    place: Place | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Unit:
    """A version that was found, before it is compared with the others."""

    path: str
    place: Place
    named: Named
    digest: str | None  # where nobody states a version
    is_sure: bool = True

    def entry(self, root: Path) -> Entry:
        """The same as it is served."""
        version = self.named.version or digest_version(self.digest or "")
        return Entry(clean_name(self.named.name), version, root / self.path, self.digest is None, self.place)


def scan_folder(root: Path, descriptor: int) -> tuple[dict[str, dict[str, Entry]], tuple[tuple[str, str], ...], bool]:
    """Look through an open folder.

    Returns:
        The models by name, the versions of each from the lowest to the highest; what is skipped and why; whether the
        folder is one model.

    Raises:
        ArtifactError: it is one model that cannot be served, or there is none.
    """
    return _Scan(root, descriptor).result()


class _Scan:
    """One walk through a folder."""

    def __init__(self, root: Path, descriptor: int) -> None:
        self._root = root
        self._descriptor = descriptor
        self._units: list[Unit] = []
        self._skipped: list[tuple[str, str]] = []

    def result(self) -> tuple[dict[str, dict[str, Entry]], tuple[tuple[str, str], ...], bool]:
        with self._level("") as top:
            if any(mark in top for mark in MARKS):
                unit = self._unit("", Place())
                entry = unit.entry(self._root)
                return {entry.name: {entry.version: entry}}, (), True
            is_single = self._versions(top, "", Place(self._root, own_name(self._root), is_only=True))
            if not is_single:
                self._files(top, "", Place(self._root))
                less = self._sub_folders(top) + self._doubts()
                is_single = len(self._units) == 1 and self._units[0].path in top
                if is_single:
                    self._units = [replace(self._units[0], place=Place(self._root, is_only=True))]
                else:
                    self._skipped += less
            came = ", ".join([*top.files, *(f"{name}/" for name in top.folders)])
        models = _models(self._units, self._root, self._skipped)
        skipped = tuple(sorted(self._skipped))
        if not models:
            reasons = "".join(f"; {place} {why}" for place, why in skipped[:MOST_TOLD])
            raise ArtifactNotFoundError(nothing_found(came) + reasons)
        return models, skipped, is_single

    def _level(self, below: str) -> Level:
        level = Level(os.dup(self._descriptor), below)
        self._skipped += [(_join(below, name), why) for name, why in level.refused.items()]
        return level

    def _skip(self, path: str, error: ArtifactError | OSError) -> None:
        why = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        self._skipped.append((path, why))

    def _sub_folders(self, top: Level) -> list[tuple[str, str]]:
        """Look into each folder; return those that hold nothing of a model."""
        empty = []
        for name in top.folders:
            place = Place(self._root, name)
            n_known = len(self._units) + len(self._skipped)
            try:
                with self._level(name) as level:
                    if any(mark in level for mark in MARKS):
                        self._units.append(self._unit(name, Place(self._root)))
                    elif not self._versions(level, name, place):
                        self._files(level, name, place)
            except (ArtifactError, OSError) as exc:
                self._skip(name, exc)
            if n_known == len(self._units) + len(self._skipped):
                empty.append((name, "holds no model: wanted folders of versions, or files that are versions of it"))
        return empty

    def _versions(self, level: Level, below: str, place: Place) -> bool:
        """Take the folders of versions, if there are any; what lies beside them is no model."""
        versions = [name for name in level.folders if is_numbered(name)]
        if not versions:
            return False
        name = triton_name(level) or place.name
        for version in versions:
            path = _join(below, version)
            try:
                self._units.append(self._unit(path, replace(place, name=name, version=folder_version(version))))
            except (ArtifactError, OSError) as exc:
                self._skip(path, exc)
        beside = [file for file in level.files if self._is_model(level, below, file)]
        beside += [folder for folder in level.folders if folder not in set(versions)]
        self._skipped += [(_join(below, one), "lies beside folders of versions, and is none") for one in beside]
        return True

    def _files(self, level: Level, below: str, place: Place) -> None:
        """Take the model files of a folder; below the top they must be versions of one model."""
        units, stems = [], {}
        for name in level.files:
            if self._is_model(level, below, name):
                try:
                    manifest = _manifest(level, name)
                    named = named_file(name, manifest, place)
                    digest = None if named.version else digest_of_file(level, name)
                except ArtifactError as exc:
                    self._skip(_join(below, name), exc)
                    continue
                units.append(Unit(_join(below, name), place, named, digest, is_sure(level, name)))
                if manifest.name is None and units[-1].is_sure:
                    stems[split_name(model_stem(PurePath(name))).name] = name
        if below and len(stems) > 1:
            msg = f"holds several models ({clip(', '.join(stems.values()), 200)}): give each a folder of its own"
            self._skipped.append((below, msg))
        else:
            self._units += units

    def _is_model(self, level: Level, below: str, name: str) -> bool:
        try:
            data = level.ends(name)
        except ArtifactError as exc:
            self._skip(_join(below, name), exc)
            return False
        if not data and model_stem(PurePath(name)) != name and not name.endswith(".py"):
            self._skipped.append((_join(below, name), "is empty: it is being written, or was cut off"))
        return is_model(data, name)

    def _unit(self, below: str, place: Place) -> Unit:
        """A version that is a folder."""
        with Folder(os.dup(self._descriptor), below) as folder:
            found = placed(find_model(folder, is_listing=True), place)
            named = named_found(folder, found, PurePath(below).name or own_name(self._root))
            if not folder.ends(found.main):
                msg = f"has a model file {clip(found.main, 200)} that is empty"
                raise ArtifactError(msg)
            return Unit(below, place, named, None if named.version else _digest(folder, found))

    def _doubts(self) -> list[tuple[str, str]]:
        """Take away what may be a model if it stands alone, and stands beside others; return it."""
        unsure = [unit for unit in self._units if not unit.is_sure]
        if len(self._units) == 1 or not unsure:
            return []
        self._units = [unit for unit in self._units if unit.is_sure]
        why = "may be a part of a model, or a table: if it is a model, give it a version or a manifest"
        return [(unit.path, why) for unit in unsure]


def _models(units: Sequence[Unit], root: Path, skipped: list[tuple[str, str]]) -> dict[str, dict[str, Entry]]:
    """Put versions in order; those that cannot be told from each other are added to ``skipped``, all of them."""
    raw_names: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        raw_names[clean_name(unit.named.name)].add(unit.named.name)
    found: dict[str, dict[str, list[tuple[Unit, Entry]]]] = defaultdict(lambda: defaultdict(list))
    for unit in sorted(units, key=lambda unit: unit.path):
        entry, raw = unit.entry(root), unit.named.name
        if raw != entry.name and len(raw_names[entry.name]) > 1:
            skipped.append((unit.path, f"would be called {entry.name}, as another is: rename it"))
        else:
            found[entry.name][entry.version].append((unit, entry))
    models: dict[str, dict[str, Entry]] = {}
    for name in sorted(found):
        versions = {}
        for version in sorted(found[name], key=version_key):
            same = found[name][version]
            if len(same) == 1 or not same[0][1].is_labelled:
                versions[version] = same[0][1]
                skipped += [(unit.path, f"has the same bytes as {same[0][0].path}") for unit, _ in same[1:]]
            else:
                paths = clip(", ".join(unit.path for unit, _ in same), 300)
                skipped += [(unit.path, f"is not the only version {version} of {name}: {paths}") for unit, _ in same]
        if versions:
            models[name] = versions
    return models


def _manifest(level: Level, file_name: str) -> Manifest:
    beside = manifest_beside(file_name)
    if beside not in level:
        return Manifest()
    data = level.read(beside)
    level.forget(beside)
    return parse_manifest(data, beside, Manifest)


def _digest(folder: Folder, found: Found) -> str:
    """The digest that :func:`~fitserve.store.repository.read_artifact` will find, if a package is whole."""
    if not found.is_folder:
        return digest_of_file(folder, found.main)
    base = found.package if found.manifest else found.base
    digests = found.manifest.files if found.manifest else {}
    names = {name.removeprefix(base): name for name in folder.files if name.startswith(base)}
    return digest_of({path: digests.get(path) or digest_of_file(folder, name) for path, name in names.items()})


def _join(below: str, name: str) -> str:
    return f"{below}/{name}" if below else name
