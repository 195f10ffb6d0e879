"""From the path that the operator gives to an artifact: its bytes, read once, its name and version, its manifest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ArtifactNotFoundError, clip
from fitserve.formats import identify
from fitserve.store.files import Folder, open_path
from fitserve.store.golden import parse_golden
from fitserve.store.layouts import find_model, manifest_beside
from fitserve.store.manifest import IDENTIFIER, MANIFEST_SUFFIX, Manifest, parse_manifest
from fitserve.store.names import Named, clean_name, model_stem, parse_name, split_name
from fitserve.types import Artifact, Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.store.layouts import Found

__all__ = ["IDENTIFIER", "MANIFEST_SUFFIX", "digest_of", "digest_version", "model_stem", "parse_name", "read_artifact"]

SIGNATURE_SUFFIX = ".sig"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a repository a model lies, and what that says of it where the model itself says nothing.

    Attributes:
        root: the folder of the repository: no link below it may lead out. None for a path that the operator gave.
        name: by the folder that it or its versions are in; any text.
        version: by the folder that it is.
        is_only: the repository is this one model: its signature may also lie beside the folder of the repository.
    """

    root: Path | None = None
    name: str | None = None
    version: str | None = None
    is_only: bool = False


def read_artifact(path: Path, *, takes_external: bool = False, place: Place | None = None) -> Artifact:
    """Read a model once, with what its surroundings say of it.

    Of a folder, :func:`~fitserve.store.layouts.find_model` tells where the model is. A package's files are checked
    against the digests in its manifest.

    Args:
        path: of a file or a folder; links in it are followed.
        takes_external: where the one model file of a folder is in ONNX, take with it those files below the folder
            that it names, its external data. Nobody has vouched for them: for packing only.
        place: of the path in a repository.

    Raises:
        ArtifactNotFoundError: there is nothing at ``path``.
        ArtifactError: it is no regular file or model folder, is empty, cannot be read, has a link that leads out, or
            its manifest is wrong.
    """
    artifact = _read(path, place, takes_external=takes_external)
    signature = _signature(path, place)
    if signature is None and place and place.root and place.is_only:
        signature = _signature(place.root, None)
    return artifact if signature is None else replace(artifact, signature=signature)


def _read(path: Path, place: Place | None, *, takes_external: bool) -> Artifact:
    opened = open_path(path, place.root if place else None)
    if isinstance(opened, bytes):
        manifest = manifest_at(path.with_name(model_stem(path) + MANIFEST_SUFFIX), place)
        return _file(opened, path.name, named_file(path.name, manifest, place), manifest)
    with opened as folder:
        found = placed(find_model(folder), place)
        if found.is_folder:
            return _whole(folder, found, own_name(path))
        artifact = _one_of(folder, found, own_name(path))
        return _with_external(folder, found, artifact) if takes_external else artifact


def _signature(path: Path, place: Place | None) -> bytes | None:
    """The file that ends with ``.sig`` beside a model, or beside its folder."""
    beside = Path(f"{path.absolute()}{SIGNATURE_SUFFIX}")
    try:
        opened = open_path(beside, place.root.absolute() if place and place.root else None)
    except ArtifactNotFoundError:
        return None
    except ArtifactError as exc:
        msg = f"has a signature {beside.name} that {exc}"
        raise ArtifactError(msg) from exc
    if not isinstance(opened, bytes):
        with opened:
            return None  # a folder of that name is something else
    return opened


def own_name(path: Path) -> str:
    """What a folder is called, also where its path does not say so."""
    return path.name if path.name not in {"", ".."} else path.resolve().name


def placed(found: Found, place: Place | None) -> Found:
    """The same with what its place in a repository says, where its own layout says nothing."""
    if place is None:
        return found
    return replace(found, name=found.name or place.name, version=found.version or place.version)


def named_file(file_name: str, manifest: Manifest, place: Place | None = None) -> Named:
    """What a model that is one file is called: the manifest says it, else its folder in a repository, else its name."""
    own = split_name(model_stem(PurePath(file_name)))
    above = split_name(place.name) if place is not None and place.name is not None else own
    return Named(manifest.name or above.name, manifest.version or own.version or above.version)


def named_found(folder: Folder, found: Found, called: str) -> Named:
    """What a model in a folder is called; no version if nobody states one, so that it is made of the digest.

    Raises:
        ArtifactError: the layout states a version that cannot stand in a header, or a manifest beside it is wrong.
    """
    stated = split_name(found.name or called)
    if found.is_folder:
        return Named(stated.name, _checked(found.version) or stated.version)
    manifest = _manifest_in(folder, found)
    own = named_file(found.main.rpartition("/")[2], manifest)
    if found.version is None and found.name is None:
        return own
    stem = split_name(model_stem(PurePath(found.main)))
    return Named(
        manifest.name or stated.name,
        manifest.version or _checked(found.version) or stated.version or stem.version,
    )


def _manifest_in(folder: Folder, found: Found) -> Manifest:
    beside = manifest_beside(found.main)
    return parse_manifest(folder.read(beside), beside, Manifest) if beside in folder else Manifest()


def _file(data: bytes, file_name: str, named: Named, manifest: Manifest) -> Artifact:
    """A model that is one file."""
    if not data:
        msg = "is empty"
        raise ArtifactError(msg)
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(
        name=clean_name(named.name),
        version=named.version or digest_version(digest),
        digest=digest,
        data=data,
        file_name=file_name,
        declared=manifest.declared(),
        metadata=manifest.metadata,
    )


def _one_of(folder: Folder, found: Found, called: str) -> Artifact:
    """A model that is one file in a folder: as if the path of the file had been given, but for what the layout says."""
    named = named_found(folder, found, called)
    file_name = found.main.rpartition("/")[2]
    return _with_fields(_file(folder.read(found.main), file_name, named, _manifest_in(folder, found)), found)


def _with_external(folder: Folder, found: Found, artifact: Artifact) -> Artifact:
    """A model in ONNX with the files that its bytes name; one of another format as it is."""
    if identify(artifact).name != "onnx":
        return artifact
    prefix = found.main[: -len(artifact.file_name)]
    others = [name for name in folder.files if name.startswith(prefix) and name != found.main]
    named = [name for name in others if name.removeprefix(prefix).encode() in artifact.data]
    external = {name.removeprefix(prefix): folder.read(name) for name in named}
    return replace(artifact, files={artifact.file_name: artifact.data, **external}) if external else artifact


def _whole(folder: Folder, found: Found, called: str) -> Artifact:
    """A model that is a folder."""
    files = {name.removeprefix(found.base): folder.read(name) for name in folder.files if name.startswith(found.base)}
    manifest = found.manifest or Manifest()
    base = found.package if found.manifest else found.base
    digest = digest_of({name.removeprefix(base): folder.digest(name) for name in folder.files if name.startswith(base)})
    named = named_found(folder, found, called)
    data = files[found.main.removeprefix(found.base)]
    if not data:
        msg = f"has a model file {clip(found.main, 200)} that is empty"
        raise ArtifactError(msg)
    golden = found.manifest.golden if found.manifest else None
    if golden is not None and found.package + golden not in folder:
        msg = f"has a manifest that names golden samples {clip(golden, 200)} which are not there"
        raise ArtifactError(msg)
    artifact = Artifact(
        name=clean_name(named.name),
        version=named.version or digest_version(digest),
        digest=digest,
        data=data,
        file_name=found.main.rpartition("/")[2],
        files=files,
        declared=manifest.declared(found.manifest.libraries if found.manifest else None),
        golden=None if golden is None else parse_golden(folder.read(found.package + golden)),
        metadata=manifest.metadata,
    )
    return _with_fields(artifact, found)


def _with_fields(artifact: Artifact, found: Found) -> Artifact:
    if found.fields is None:
        return artifact
    declared: Declared = replace(artifact.declared, mlflow_fields=found.fields)
    return replace(artifact, declared=declared)


def _checked(version: str | None) -> str | None:
    """The version that a layout states, if it may stand in a header."""
    if version is not None and not re.fullmatch(IDENTIFIER, version):
        msg = f"states the version {clip(version)!r}: wanted letters, digits and . _ + -, at most 64"
        raise ArtifactError(msg)
    return version


def digest_of(digests: Mapping[str, str]) -> str:
    """The digest of a folder, in hex: sha256 of the sorted lines ``sha256  path`` of its files.

    The same as ``find * -type f | xargs sha256sum | LC_ALL=C sort | sha256sum`` in the folder, for plain names.
    """
    lines = sorted(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_version(digest: str) -> str:
    """The version of bytes that nobody gave one: the same bytes, the same version."""
    return f"sha256-{digest[:12]}"


def manifest_at(path: Path, place: Place | None) -> Manifest:
    """The manifest beside a model file; an empty one if there is none."""
    try:
        opened = open_path(path, place.root if place else None)
    except ArtifactNotFoundError:
        return Manifest()
    except ArtifactError as exc:
        msg = f"has a manifest {path.name} that {exc}"
        raise ArtifactError(msg) from exc
    if isinstance(opened, Folder):
        with opened:
            msg = f"has a manifest {path.name} that is a folder"
            raise ArtifactError(msg)
    return parse_manifest(opened, path.name, Manifest)
