"""Where the model lies in a folder that another program, or ``fitserve pack``, has written.

What is looked for, in this order; the first mark that is there decides, and nothing else is tried after it:

1. ``manifest.toml``: a package of fitserve;
2. ``model-settings.json``: MLServer (https://mlserver.readthedocs.io/en/latest/reference/model-settings.html);
3. ``MLmodel``: MLflow (https://mlflow.org/docs/latest/ml/model/);
4. folders named by versions, of which the highest is taken: whole numbers as TF Serving and Triton have them
   (https://www.tensorflow.org/tfx/serving/serving_config), or ``1.2.3``, ``v1.2.3``, ``2026-11-23``;
5. exactly one file that a format knows by its content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import ArtifactError, clip
from fitserve.signature import Field, Kind
from fitserve.store.manifest import MANIFEST_SUFFIX, PACKAGE_MANIFEST, PackageManifest, parse_manifest
from fitserve.store.names import formats, is_surely_model, model_stem
from fitserve.store.versions import is_numbered, version_key
from fitserve.types import Artifact

if TYPE_CHECKING:
    from fitserve.store.files import Folder

MLFLOW = "MLmodel"
MLSERVER = "model-settings.json"
TRITON = "config.pbtxt"

MARKS = (PACKAGE_MANIFEST, MLSERVER, MLFLOW)
"""Files that make the folder in which they lie one model."""

MAX_SETTINGS_BYTES = 2**20
_TRITON_NAME = re.compile(r'^[^\S\n]*+name\s*+:\s*+"([^"\n]{1,200})"', re.MULTILINE)
_BESIDE = (MANIFEST_SUFFIX, TRITON, MLSERVER)
"""Endings of files that speak of a model and are none."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where the model is, and what its surroundings call it.

    Attributes:
        main: the file that the model is loaded from, by its path below the opened folder.
        base: the folder that the model is, with a ``/`` at the end; the opened folder itself is "".
        is_folder: whether all files below ``base`` belong to the model.
        name: what the layout calls it.
        version: its version by the layout.
        fields: its inputs by the layout.
        manifest: of a package, with
        package: the folder in which that manifest lies, as ``base``.
    """

    main: str
    base: str = ""
    is_folder: bool = False
    name: str | None = None
    version: str | None = None
    fields: tuple[Field, ...] | None = None
    manifest: PackageManifest | None = None
    package: str = ""


def find_model(folder: Folder, base: str = "", *, is_told: bool = False, is_listing: bool = False) -> Found:
    """Find the one model of a folder.

    Args:
        folder: the opened one.
        base: which of the folders below it to look in, with a ``/`` at the end; "" for itself.
        is_told: ``model-settings.json`` has been read and points here.
        is_listing: of a package only see that each file is there; else its bytes are those that were packed.

    Raises:
        ArtifactError: there is none or several; what was looked for is told.
    """
    if base + PACKAGE_MANIFEST in folder:
        return _package(folder, base, is_listing=is_listing)
    if base + MLSERVER in folder and not is_told:
        return _mlserver(folder, base, is_listing=is_listing)
    if base + MLFLOW in folder:
        return Found(base + MLFLOW, base, is_folder=True)
    below = {name.removeprefix(base).partition("/")[0] for name in folder.files if name.startswith(base)}
    versions = {part for part in below if is_numbered(part) and base + part not in folder}
    if versions:
        return _versions(folder, base, max(versions, key=version_key), is_listing=is_listing)
    return _single(folder, base)


def _package(folder: Folder, base: str, *, is_listing: bool) -> Found:
    manifest = parse_manifest(folder.read(base + PACKAGE_MANIFEST), PACKAGE_MANIFEST, PackageManifest)
    names = {name.removeprefix(base): name for name in folder.files if name.startswith(base)}
    names.pop(PACKAGE_MANIFEST)
    manifest.check_files(
        {path: manifest.files.get(path, "") if is_listing else folder.digest(name) for path, name in names.items()}
    )
    if manifest.model in manifest.files:
        found = Found(base + manifest.model, base, is_folder=True)
    else:
        found = find_model(folder, f"{base}{manifest.model}/", is_listing=is_listing)
    return replace(found, name=manifest.name, version=manifest.version, manifest=manifest, package=base)


def _mlserver(folder: Folder, base: str, *, is_listing: bool) -> Found:
    settings = _settings(folder.read(base + MLSERVER))
    parameters = settings.get("parameters") or {}
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if uri is None:
        found = find_model(folder, base, is_told=True, is_listing=is_listing)
    else:
        path = _below(uri)
        name = f"{base}{path}"
        if name in folder:
            found = Found(name, base)
        else:
            found = find_model(folder, f"{name}/" if path else base, is_told=True, is_listing=is_listing)
    version = parameters.get("version") if isinstance(parameters, dict) else None
    return replace(
        found,
        name=_text(settings.get("name")) or found.name,
        version=_text(version) or found.version,
        fields=_mlserver_fields(settings.get("inputs")),
    )


def _settings(data: bytes) -> dict[str, Any]:
    try:
        settings = orjson.loads(data) if len(data) <= MAX_SETTINGS_BYTES else None
    except orjson.JSONDecodeError as exc:
        msg = f"has a {MLSERVER} that is not valid JSON: {exc}"
        raise ArtifactError(msg) from exc
    if not isinstance(settings, dict):
        msg = f"has a {MLSERVER} that is no JSON object of at most {MAX_SETTINGS_BYTES} bytes"
        raise ArtifactError(msg)
    return settings


def _below(uri: object) -> str:
    """The path below the folder that ``parameters.uri`` names; "" for the folder itself."""
    path = PurePosixPath(uri) if isinstance(uri, str) else None
    if path is None or "://" in str(uri) or path.is_absolute() or ".." in path.parts:
        msg = f"has a {MLSERVER} whose uri {clip(str(uri))!r} is no path below the folder"
        raise ArtifactError(msg)
    return "" if str(path) == "." else str(path)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mlserver_fields(inputs: object) -> tuple[Field, ...] | None:
    """The inputs by name, if each is one column; one input that is a matrix names no columns."""
    if not isinstance(inputs, list) or not inputs:
        return None
    fields = []
    for entry in inputs:
        shape, datatype = (entry.get("shape"), entry.get("datatype")) if isinstance(entry, dict) else (None, None)
        name = _text(entry.get("name")) if isinstance(entry, dict) else None
        kind = _kind(datatype)
        if name is None or kind is None or not isinstance(shape, list) or shape[1:] not in ([], [1]):
            return None
        fields.append(Field(name, kind, learnt_from=MLSERVER))
    return tuple(fields)


def _kind(datatype: object) -> Kind | None:
    """The kind of a tensor type of the Open Inference Protocol."""
    if not isinstance(datatype, str):
        return None
    if re.fullmatch(r"U?INT\d+|FP\d+", datatype):
        return "number"
    return {"BOOL": "boolean", "BYTES": "string"}.get(datatype)  # type: ignore[return-value]


def _versions(folder: Folder, base: str, version: str, *, is_listing: bool) -> Found:
    found = find_model(folder, f"{base}{version}/", is_listing=is_listing)
    name = triton_name(folder, base) or base.rstrip("/").rpartition("/")[2] or None
    return replace(found, name=found.name or name, version=found.version or folder_version(version))


def triton_name(folder: Folder, base: str = "") -> str | None:
    """The name that Triton's ``config.pbtxt`` beside folders of versions states, if there is one."""
    if base + TRITON not in folder:
        return None
    config = folder.read(base + TRITON)[:MAX_SETTINGS_BYTES].decode("utf-8", "replace")
    match = _TRITON_NAME.search(config)
    return match and match[1]


def folder_version(name: str) -> str:
    """The version that a folder's name states: ``0003`` is 3, ``v1.2.3`` is 1.2.3."""
    version = name.removeprefix("v").removeprefix("V")
    return version.lstrip("0") or "0" if version.isdigit() else version


def is_model(data: bytes, file_name: str) -> bool:
    """Whether a format knows a file by its beginning and end, as :meth:`~fitserve.store.files.Folder.ends` gives them.

    Files that speak of a model, as manifests do, are none.
    """
    if file_name.endswith(_BESIDE) or not data:
        return False
    probe = Artifact(name="model", version="0", digest="", data=data, file_name=file_name)
    return any(known.matches(probe) for known in formats())


def is_sure(folder: Folder, name: str) -> bool:
    """Whether a file is a model also where others are, as :func:`~fitserve.store.names.is_surely_model` has it."""
    return is_surely_model(name.rpartition("/")[2]) or manifest_beside(name) in folder


def manifest_beside(name: str) -> str:
    """The place of the manifest of the model file at ``name``."""
    path = PurePosixPath(name)
    return str(path.with_name(model_stem(path) + MANIFEST_SUFFIX))


def _single(folder: Folder, base: str) -> Found:
    here = [name for name in folder.files if name.startswith(base) and "/" not in name.removeprefix(base)]
    models = [name for name in here if is_model(folder.ends(name), name.removeprefix(base))]
    if len(models) > 1:  # modules beside a model are its own
        models = [name for name in models if is_sure(folder, name)] or models
    if len(models) == 1:
        return Found(models[0], base)
    if models:
        names = ", ".join(name.removeprefix(base) for name in models)
        msg = f"is a folder with several model files: {clip(names, 300)}: give the path of one of them"
        raise ArtifactError(msg)
    came = ", ".join(name.removeprefix(base) for name in folder.files if name.startswith(base))
    raise ArtifactError(nothing_found(came))


def nothing_found(came: str) -> str:
    """What is told of a folder without a model."""
    return (
        f"is a folder in which no model was found: looked for {PACKAGE_MANIFEST} (fitserve), {MLSERVER} (MLServer), "
        f"{MLFLOW} (MLflow), folders named 1, 2, … (TF Serving, Triton) or 1.2.3 and one model file; "
        f"came: {clip(came, 200) or 'nothing'}"
    )
