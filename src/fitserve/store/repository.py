"""From the path that the operator gives to an artifact: its bytes, read once, its name and version, its manifest."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ArtifactNotFoundError, clip
from fitserve.formats import identify
from fitserve.store.files import Folder, open_path
from fitserve.store.golden import parse_golden
from fitserve.store.layouts import find_model, formats
from fitserve.store.manifest import IDENTIFIER, MANIFEST_SUFFIX, Manifest, parse_manifest
from fitserve.types import Artifact, Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.store.layouts import Found

__all__ = ["IDENTIFIER", "MANIFEST_SUFFIX", "digest_of", "digest_version", "model_stem", "parse_name", "read_artifact"]

SIGNATURE_SUFFIX = ".sig"
COMPRESSIONS = (".gz", ".bz2", ".xz", ".lzma", ".z")
_VERSION = re.compile(r"^(?P<name>.+)_v(?P<version>\d.*)$", re.DOTALL)


def read_artifact(path: Path, *, takes_external: bool = False) -> Artifact:
    """Read a model once, with what its surroundings say of it.

    Of a folder, :func:`~fitserve.store.layouts.find_model` tells where the model is. A package's files are checked
    against the digests in its manifest.

    Args:
        path: of a file or a folder; links in it are followed.
        takes_external: where the one model file of a folder is in ONNX, take with it those files below the folder
            that it names, its external data. Nobody has vouched for them: for packing only.

    Raises:
        ArtifactNotFoundError: there is nothing at ``path``.
        ArtifactError: it is no regular file or model folder, is empty, cannot be read, has a link that leads out, or
            its manifest is wrong.
    """
    artifact = _read(path, takes_external=takes_external)
    signature = _signature(path)
    return artifact if signature is None else replace(artifact, signature=signature)


def _read(path: Path, *, takes_external: bool) -> Artifact:
    opened = open_path(path)
    if isinstance(opened, bytes):
        stem = model_stem(path)
        return _file(opened, path.name, stem, _beside(path.with_name(stem + MANIFEST_SUFFIX)))
    with opened as folder:
        found = find_model(folder)
        own_name = path.name if path.name not in {"", ".."} else path.resolve().name
        if found.is_folder:
            return _whole(folder, found, own_name)
        artifact = _one_of(folder, found, own_name)
        return _with_external(folder, found, artifact) if takes_external else artifact


def _signature(path: Path) -> bytes | None:
    """The file that ends with ``.sig`` beside a model, or beside its folder."""
    beside = Path(f"{path.absolute()}{SIGNATURE_SUFFIX}")
    try:
        opened = open_path(beside)
    except ArtifactNotFoundError:
        return None
    except ArtifactError as exc:
        msg = f"has a signature {beside.name} that {exc}"
        raise ArtifactError(msg) from exc
    if not isinstance(opened, bytes):
        with opened:
            return None  # a folder of that name is something else
    return opened


def _file(data: bytes, file_name: str, stem: str, manifest: Manifest) -> Artifact:
    """A model that is one file."""
    if not data:
        msg = "is empty"
        raise ArtifactError(msg)
    digest = hashlib.sha256(data).hexdigest()
    name, version = parse_name(stem)
    return Artifact(
        name=manifest.name or name,
        version=manifest.version or version or digest_version(digest),
        digest=digest,
        data=data,
        file_name=file_name,
        declared=manifest.declared(),
        metadata=manifest.metadata,
    )


def _one_of(folder: Folder, found: Found, own_name: str) -> Artifact:
    """A model that is one file in a folder: as if the path of the file had been given, but for what the layout says."""
    path = Path(found.main)
    beside = str(path.with_name(model_stem(path) + MANIFEST_SUFFIX))
    manifest = parse_manifest(folder.read(beside), beside, Manifest) if beside in folder else Manifest()
    artifact = _file(folder.read(found.main), path.name, model_stem(path), manifest)
    if found.version is None and found.name is None:
        return _with_fields(artifact, found)
    name, version = parse_name(found.name or own_name)
    artifact = replace(
        artifact,
        name=manifest.name or name,
        version=manifest.version or _checked(found.version) or version or artifact.version,
    )
    return _with_fields(artifact, found)


def _with_external(folder: Folder, found: Found, artifact: Artifact) -> Artifact:
    """A model in ONNX with the files that its bytes name; one of another format as it is."""
    if identify(artifact).name != "onnx":
        return artifact
    prefix = found.main[: -len(artifact.file_name)]
    others = [name for name in folder.files if name.startswith(prefix) and name != found.main]
    named = [name for name in others if name.removeprefix(prefix).encode() in artifact.data]
    external = {name.removeprefix(prefix): folder.read(name) for name in named}
    return replace(artifact, files={artifact.file_name: artifact.data, **external}) if external else artifact


def _whole(folder: Folder, found: Found, own_name: str) -> Artifact:
    """A model that is a folder."""
    files = {name.removeprefix(found.base): folder.read(name) for name in folder.files if name.startswith(found.base)}
    manifest = found.manifest or Manifest()
    base = found.package if found.manifest else found.base
    digest = digest_of({name.removeprefix(base): folder.digest(name) for name in folder.files if name.startswith(base)})
    name, version = parse_name(found.name or own_name)
    data = files[found.main.removeprefix(found.base)]
    if not data:
        msg = f"has a model file {clip(found.main, 200)} that is empty"
        raise ArtifactError(msg)
    golden = found.manifest.golden if found.manifest else None
    if golden is not None and found.package + golden not in folder:
        msg = f"has a manifest that names golden samples {clip(golden, 200)} which are not there"
        raise ArtifactError(msg)
    artifact = Artifact(
        name=name,
        version=_checked(found.version) or version or digest_version(digest),
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


def model_stem(path: Path) -> str:
    """The file name without the endings of model files: ``model_v1.2.3.pkl.gz`` → ``model_v1.2.3``."""
    return _endings().sub("", path.name) or path.name


@functools.cache
def _endings() -> re.Pattern[str]:
    suffixes = {suffix for known in formats() for suffix in known.suffixes} | set(COMPRESSIONS)
    return re.compile(f"({'|'.join(map(re.escape, sorted(suffixes)))})+$", re.IGNORECASE)


def parse_name(stem: str) -> tuple[str, str | None]:
    """Split ``churn_v1.2.3`` into name and version, at the last ``_v`` that a digit follows."""
    match = _VERSION.match(stem)
    if match and re.fullmatch(IDENTIFIER, match["version"]):
        return _identifier(match["name"]), match["version"]
    return _identifier(stem), None


def digest_of(digests: Mapping[str, str]) -> str:
    """The digest of a folder, in hex: sha256 of the sorted lines ``sha256  path`` of its files.

    The same as ``find * -type f | xargs sha256sum | LC_ALL=C sort | sha256sum`` in the folder, for plain names.
    """
    lines = sorted(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_version(digest: str) -> str:
    """The version of bytes that nobody gave one: the same bytes, the same version."""
    return f"sha256-{digest[:12]}"


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:64] or "model"


def _beside(path: Path) -> Manifest:
    """The manifest beside a model file; an empty one if there is none."""
    try:
        opened = open_path(path)
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
