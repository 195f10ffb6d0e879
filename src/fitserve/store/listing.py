"""What lies at the configured path: which models, and which versions of each. No model file is read whole.

The path is a *single* model, as :func:`~fitserve.store.repository.read_artifact` reads it: a file, a folder of another
program (a package, MLServer, MLflow), folders of versions (then it has several), a folder with one model file. Or it is
a *repository*. Its models are

- sub-folders, each of which is one model: ``NAME/VERSION/…``, or ``NAME/`` with what a single model may be, or several
  files that are its versions;
- files: ``NAME_v1.2.3.joblib``.

What cannot be served is skipped and told, and hides nothing else. A name that a manifest or a layout states counts more
than that of the folder, which counts more than that of the file in it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError, clip, did_you_mean
from fitserve.store.level import digest_of_open
from fitserve.store.manifest import MANIFEST_SUFFIX
from fitserve.store.names import model_stem
from fitserve.store.repository import Place, manifest_at, named_file, read_artifact
from fitserve.store.scan import Entry, Unit, scan_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fitserve.types import Artifact

__all__ = ["Entry", "Listing", "list_repository", "read_entry"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies at a path.

    Attributes:
        models: by name, in order; the versions of each from the lowest to the highest. At least one of one.
        skipped: what is not served, by its path below the one that was listed, and why.
        is_single: the path is one model, not a folder of models.
    """

    models: Mapping[str, Mapping[str, Entry]]
    skipped: tuple[tuple[str, str], ...]
    is_single: bool

    def default(self, wanted: str) -> str:
        """The model that serves where none is named: the wanted one, else the first by name.

        Raises:
            SettingsError: there is none of the wanted name.
        """
        if not wanted:
            return next(iter(self.models))
        if wanted not in self.models:
            hint = did_you_mean(wanted, self.models)
            there = f"there are: {clip(', '.join(self.models), 300)}"
            msg = f"default_model = {wanted} is no model that is there; {f'{hint}; ' if hint else ''}{there}"
            raise SettingsError(msg)
        return wanted


def list_repository(path: Path) -> Listing:
    """List the models and versions at a path. Blocks; thread-safe.

    Heads of files are read, manifests, and the whole of those that nobody has given a version: their digests are
    remembered as long as the files do not change.

    Raises:
        ArtifactNotFoundError: there is nothing, or no model in it; what was looked for is told.
        ArtifactError: it is one model, and that cannot be served; or it cannot be read. No path in the text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                return Listing(*scan_folder(path, descriptor))
            entry = _file_entry(path, descriptor)
            return Listing({entry.name: {entry.version: entry}}, (), is_single=True)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        msg = "does not exist"
        raise ArtifactNotFoundError(msg) from None
    except OSError as exc:
        msg = f"cannot be read: {exc.strerror}"
        raise ArtifactError(msg) from exc


def read_entry(entry: Entry) -> Artifact:
    """Read an entry of a listing, as :func:`~fitserve.store.repository.read_artifact` reads its path. Blocks.

    Returns:
        The artifact under the name and version of the entry.

    Raises:
        ArtifactNotFoundError: it is not there any more.
        ArtifactError: it cannot be read, or is another version than when it was listed.
    """
    artifact = read_artifact(entry.path, place=entry.place)
    came = artifact.name, artifact.version
    if entry.place is not None and came != (entry.name, entry.version):
        msg = f"has become {came[0]} {came[1]} since it was listed as {entry.name} {entry.version}: try again"
        raise ArtifactError(msg)
    return replace(artifact, name=entry.name, version=entry.version)


def _file_entry(path: Path, descriptor: int) -> Entry:
    """A path that is a file."""
    named = named_file(path.name, manifest_at(path.with_name(model_stem(path) + MANIFEST_SUFFIX), None))
    digest = None if named.version else digest_of_open(descriptor)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        msg = "is empty" if stat.S_ISREG(status.st_mode) else "is no regular file"
        raise ArtifactError(msg)
    return Unit("", Place(), named, digest).entry(path)
