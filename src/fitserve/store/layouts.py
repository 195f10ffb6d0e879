"""Where the model lies in a folder that another program, or ``fitserve pack``, has written.

What is looked for, in this order; the first mark that is there decides, and nothing else is tried after it:

1. ``manifest.toml``: a package of fitserve;
2. ``model-settings.json``: MLServer (https://mlserver.readthedocs.io/en/latest/reference/model-settings.html);
3. ``MLmodel``: MLflow (https://mlflow.org/docs/latest/ml/model/);
4. folders named by whole numbers: versions as TF Serving and Triton have them, the highest of which is taken
   (https://www.tensorflow.org/tfx/serving/serving_config);
5. exactly one file that a format knows by its content.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

import fitserve.formats
from fitserve.errors import ArtifactError, clip
from fitserve.formats.base import Format
from fitserve.plugins import discover
from fitserve.signature import Field, Kind
from fitserve.store.manifest import MANIFEST_SUFFIX, PACKAGE_MANIFEST, PackageManifest, parse_manifest
from fitserve.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.store.files import Folder

MLFLOW = "MLmodel"
MLSERVER = "model-settings.json"
TRITON = "config.pbtxt"

MAX_SETTINGS_BYTES = 2**20
_VERSION = re.compile(r"0*([1-9]\d{0,18})|0+")
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


def find_model(folder: Folder, base: str = "", *, is_told: bool = False) -> Found:
    """Find the one model of a folder.

    Args:
        folder: the opened one.
        base: which of the folders below it to look in, with a ``/`` at the end; "" for itself.
        is_told: ``model-settings.json`` has been read and points here.

    Raises:
        ArtifactError: there is none or several; what was looked for is told.
    """
    if base + PACKAGE_MANIFEST in folder:
        return _package(folder, base)
    if base + MLSERVER in folder and not is_told:
        return _mlserver(folder, base)
    if base + MLFLOW in folder:
        return Found(base + MLFLOW, base, is_folder=True)
    below = {name.removeprefix(base).partition("/")[0] for name in folder.files if name.startswith(base)}
    versions = {part for part in below if _VERSION.fullmatch(part) and base + part not in folder}
    if versions:
        return _versions(folder, base, max(versions, key=int))
    return _single(folder, base)


def _package(folder: Folder, base: str) -> Found:
    manifest = parse_manifest(folder.read(base + PACKAGE_MANIFEST), PACKAGE_MANIFEST, PackageManifest)
    manifest.check_files(
        {
            name.removeprefix(base): folder.digest(name)
            for name in folder.files
            if name.startswith(base) and name != base + PACKAGE_MANIFEST
        }
    )
    if manifest.model in manifest.files:
        found = Found(base + manifest.model, base, is_folder=True)
    else:
        found = find_model(folder, f"{base}{manifest.model}/")
    return replace(found, name=manifest.name, version=manifest.version, manifest=manifest, package=base)


def _mlserver(folder: Folder, base: str) -> Found:
    settings = _settings(folder.read(base + MLSERVER))
    parameters = settings.get("parameters") or {}
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if uri is None:
        found = find_model(folder, base, is_told=True)
    else:
        path = _below(uri)
        name = f"{base}{path}"
        found = Found(name, base) if name in folder else find_model(folder, f"{name}/" if path else base, is_told=True)
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


def _versions(folder: Folder, base: str, version: str) -> Found:
    found = find_model(folder, f"{base}{version}/")
    name = base.rstrip("/").rpartition("/")[2] or None
    if base + TRITON in folder:
        config = folder.read(base + TRITON)[:MAX_SETTINGS_BYTES].decode("utf-8", "replace")
        if match := _TRITON_NAME.search(config):
            name = match[1]
    return replace(found, name=found.name or name, version=found.version or str(int(version)))


def _single(folder: Folder, base: str) -> Found:
    here = [name for name in folder.files if name.startswith(base) and "/" not in name.removeprefix(base)]
    models = [name for name in here if not name.endswith(_BESIDE) and _is_model(folder, name)]
    if len(models) > 1:  # modules beside a model are its own
        models = [name for name in models if not name.endswith(".py")] or models
    if len(models) == 1:
        return Found(models[0], base)
    if models:
        names = ", ".join(name.removeprefix(base) for name in models)
        msg = f"is a folder with several model files: {clip(names, 300)}: give the path of one of them"
        raise ArtifactError(msg)
    came = ", ".join(name.removeprefix(base) for name in folder.files if name.startswith(base))
    msg = (
        f"is a folder in which no model was found: looked for {PACKAGE_MANIFEST} (fitserve), {MLSERVER} (MLServer), "
        f"{MLFLOW} (MLflow), folders named 1, 2, … (TF Serving, Triton) and one model file; "
        f"came: {clip(came, 200) or 'nothing'}"
    )
    raise ArtifactError(msg)


def _is_model(folder: Folder, name: str) -> bool:
    """Whether a format knows the file by its content; the bytes of any other are let go."""
    data = folder.read(name)
    probe = Artifact(name="model", version="0", digest="", data=data, file_name=name.rpartition("/")[2])
    if data and any(known.matches(probe) for known in formats()):
        return True
    folder.forget(name)
    return False


@functools.cache
def formats() -> Sequence[Format]:
    """Every model format."""
    return discover(fitserve.formats, Format, "FORMAT")
