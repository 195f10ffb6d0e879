"""What lies on disk: a model file, its name and version, the manifest beside it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fitserve.errors import ArtifactError, ArtifactNotFoundError, did_you_mean
from fitserve.types import Artifact, Declared

if TYPE_CHECKING:
    from pathlib import Path

MAX_ARTIFACT_BYTES = 16 * 2**30
MANIFEST_SUFFIX = ".manifest.toml"

IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
"""What a model's name and version may be: they stand in URLs, headers and log lines."""

_SUFFIXES = re.compile(r"(\.(joblib|pkl|pickle|gz|bz2|xz|lzma|z))+$", re.IGNORECASE)
_VERSION = re.compile(r"^(?P<name>.+)_v(?P<version>\d.*)$", re.DOTALL)


class Manifest(BaseModel):
    """What the author of ``model.joblib`` says in ``model.manifest.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, pattern=f"^{IDENTIFIER}$")
    version: str | None = Field(default=None, pattern=f"^{IDENTIFIER}$")
    example: dict[str, Any] | None = Field(default=None, description="A valid row, by feature name.")
    metadata: dict[str, Any] = Field(default_factory=dict)


def read_artifact(path: Path) -> Artifact:
    """Read a model file once, with its manifest if there is one.

    Raises:
        ArtifactNotFoundError: there is no such file.
        ArtifactError: it is no regular file, is empty, cannot be read, or its manifest is wrong.
    """
    data = _read(path)
    if not data:
        msg = "is empty"
        raise ArtifactError(msg)
    digest = hashlib.sha256(data).hexdigest()
    stem = model_stem(path)
    name, version = parse_name(stem)
    manifest = _read_manifest(path.with_name(stem + MANIFEST_SUFFIX))
    return Artifact(
        name=manifest.name or name,
        version=manifest.version or version or digest_version(digest),
        digest=digest,
        data=data,
        file_name=path.name,
        declared=Declared(example=manifest.example),
        metadata=manifest.metadata,
    )


def model_stem(path: Path) -> str:
    """The file name without the endings of model files: ``model_v1.2.3.pkl.gz`` → ``model_v1.2.3``."""
    return _SUFFIXES.sub("", path.name) or path.name


def parse_name(stem: str) -> tuple[str, str | None]:
    """Split ``churn_v1.2.3`` into name and version, at the last ``_v`` that a digit follows."""
    match = _VERSION.match(stem)
    if match and re.fullmatch(IDENTIFIER, match["version"]):
        return _identifier(match["name"]), match["version"]
    return _identifier(stem), None


def digest_version(digest: str) -> str:
    """The version of bytes that nobody gave one: the same bytes, the same version."""
    return f"sha256-{digest[:12]}"


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:64] or "model"


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                msg = "is no regular file"
                raise ArtifactError(msg)
            if status.st_size > MAX_ARTIFACT_BYTES:
                msg = f"has {status.st_size} bytes, more than the limit of {MAX_ARTIFACT_BYTES}"
                raise ArtifactError(msg)
            return file.read()
    except FileNotFoundError:
        msg = "does not exist"
        raise ArtifactNotFoundError(msg) from None
    except IsADirectoryError:
        msg = "is a folder; give the path of a model file"
        raise ArtifactError(msg) from None
    except OSError as exc:
        msg = f"cannot be read: {exc.strerror}"
        raise ArtifactError(msg) from exc


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Manifest()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        msg = f"has a manifest {path.name} that is not valid TOML: {exc}"
        raise ArtifactError(msg) from exc
    except ValidationError as exc:
        problems = "; ".join(_explain(dict(error)) for error in exc.errors())
        msg = f"has a manifest {path.name} that is wrong: {problems}"
        raise ArtifactError(msg) from exc
    except OSError as exc:
        msg = f"has a manifest {path.name} that cannot be read: {exc.strerror}"
        raise ArtifactError(msg) from exc


def _explain(error: dict[str, Any]) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(name, Manifest.model_fields)
        return f"unknown key {name!r}" + (f"; {hint}" if hint else "")
    if error["type"] == "string_pattern_mismatch":
        return f"{name}: wanted letters, digits and . _ + -, at most 64, beginning with a letter or digit"
    return f"{name}: {error['msg']}"
