"""The manifest: what stands of a model beside it, in TOML.

``NAME.manifest.toml`` beside a model file is written by its author. ``manifest.toml`` in a package is written by
``fitserve pack``: the same keys, and those that make the folder whole, above all the digest of each file.
"""

from __future__ import annotations

import math
import re
import tomllib
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from fitserve.errors import ArtifactError, clip, did_you_mean
from fitserve.signature import Field as Column
from fitserve.signature import Kind
from fitserve.types import Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST_SUFFIX = ".manifest.toml"
PACKAGE_MANIFEST = "manifest.toml"

MAX_MANIFEST_BYTES = 16 * 2**20
MAX_INPUTS = 100_000
MAX_CATEGORIES = 100_000
MAX_PACKED_FILES = 10_000
MAX_NAME = 1024
MAX_KEY_PARTS = 100

IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
"""What a model's name and version may be: they stand in URLs, headers and log lines."""


def _plain_path(path: str) -> str:
    """Refuse a path that is not plainly below the folder."""
    if not path.isprintable() or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        msg = f"{clip(path)!r} is no plain path below the folder"
        raise ValueError(msg)
    return path


def _finite(label: str | float) -> str | float:
    """Refuse NaN and infinity, which TOML can write."""
    if isinstance(label, float) and not math.isfinite(label):
        msg = "wanted a finite number"
        raise ValueError(msg)
    return label


def _plain(value: Any) -> Any:
    """Spell TOML's dates and times as JSON has them, as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else value


_Path = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_plain_path)]
_Label = Annotated[StrictStr | StrictBool | StrictInt | StrictFloat, AfterValidator(_finite)]
_Document = Annotated[dict[str, Any], AfterValidator(_plain)]
_Identifier = Annotated[str, Field(pattern=f"^{IDENTIFIER}$")]


class InputEntry(BaseModel):
    """One ``[[inputs]]`` table: a column that the model takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=MAX_NAME)
    kind: Kind = "number"
    nullable: bool = False
    categories: tuple[_Label, ...] | None = Field(default=None, min_length=1, max_length=MAX_CATEGORIES)
    closed: bool = Field(default=False, description="Any value that is no category is refused.")
    learnt_from: str = Field(default="manifest", max_length=MAX_NAME)

    @classmethod
    def of(cls, column: Column) -> Self:
        """The entry that says a field of a signature."""
        return cls(
            name=column.name,
            kind=column.kind,
            nullable=column.is_nullable,
            categories=column.categories,
            closed=column.is_closed,
            learnt_from=column.learnt_from[:MAX_NAME],
        )

    def column(self) -> Column:
        """The field of a signature that this says."""
        return Column(self.name, self.kind, self.nullable, self.categories, self.closed, self.learnt_from)


class Manifest(BaseModel):
    """What the author of ``model.joblib`` says in ``model.manifest.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Identifier | None = None
    version: _Identifier | None = None
    format: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] | None = None
    example: _Document | None = Field(default=None, description="A valid row, by feature name.")
    classes: tuple[_Label, ...] | None = Field(default=None, min_length=2, max_length=MAX_CATEGORIES)
    inputs: tuple[InputEntry, ...] | None = Field(default=None, min_length=1, max_length=MAX_INPUTS)
    metadata: _Document = Field(default_factory=dict)

    def declared(self, libraries: Mapping[str, str] | None = None) -> Declared:
        """What it says of the inputs and outputs."""
        return Declared(
            format=self.format,
            fields=None if self.inputs is None else tuple(entry.column() for entry in self.inputs),
            example=self.example,
            classes=self.classes,
            libraries=libraries or {},
        )


class PackageManifest(Manifest):
    """``manifest.toml`` of a package.

    Attributes:
        model: the model's file, or its folder where it is one (MLflow), below the package.
        engines: the compiled engines that lie below ``engines/``, which has an index that tells the rest.
        files: sha256 in hex of every file of the package but the manifest itself, by path.
    """

    schema_version: Literal[1] = Field(alias="schema")
    model: _Path
    golden: _Path | None = None
    engines: tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")], ...] = Field(default=(), max_length=16)
    packed_at: datetime | None = None
    libraries: dict[str, Annotated[str, Field(max_length=64)]] = Field(default_factory=dict, max_length=1000)
    files: dict[_Path, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        min_length=1, max_length=MAX_PACKED_FILES
    )

    def toml(self) -> str:
        """The manifest as it is written: simple keys first, then the tables."""
        import tomli_w

        document = self.model_dump(mode="python", by_alias=True, exclude_none=True)
        document["inputs"] = [
            entry.model_dump(exclude_none=True, exclude_defaults=True) | {"learnt_from": entry.learnt_from}
            for entry in self.inputs or ()
        ]
        filled = {key: value for key, value in document.items() if value not in ({}, [], ())}
        order = ("schema", "name", "version", "format", "model", "golden", "engines", "packed_at")
        return tomli_w.dumps({key: filled[key] for key in (*order, *filled) if key in filled})

    def check_files(self, found: Mapping[str, str]) -> None:
        """See that every file is there, is the one that was packed, and that there is no other.

        Args:
            found: sha256 in hex of each file of the package but the manifest, by path.

        Raises:
            ArtifactError: the first, in order of the path, that is not so.
        """
        for path in sorted(self.files.keys() | found.keys()):
            if path not in found:
                msg = f"lacks the file {clip(path, 200)}, which was packed: pack it again, or copy all of it"
                raise ArtifactError(msg)
            if path not in self.files:
                msg = f"has a file {clip(path, 200)} that was not packed: take it out, or pack it again"
                raise ArtifactError(msg)
            if found[path] != self.files[path]:
                msg = (
                    f"has a file {clip(path, 200)} that has changed since it was packed: "
                    f"wanted sha256:{self.files[path]}, came sha256:{found[path]}"
                )
                raise ArtifactError(msg)


_LONG_KEY = re.compile(rb"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % MAX_KEY_PARTS)
"""A dotted key of many parts: tomllib takes time and memory with the square of their number."""

M = TypeVar("M", bound=Manifest)


def parse_manifest(data: bytes, file_name: str, kind: type[M]) -> M:
    """Read a manifest.

    Raises:
        ArtifactError: it is too large, no TOML, has an unknown key (with a did-you-mean) or a wrong value.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        msg = f"has a manifest {file_name} of {len(data)} bytes, more than the limit of {MAX_MANIFEST_BYTES}"
        raise ArtifactError(msg)
    if _LONG_KEY.search(data):
        msg = f"has a manifest {file_name} with a key of more than {MAX_KEY_PARTS} parts"
        raise ArtifactError(msg)
    try:
        return kind.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as exc:
        problems = "; ".join(_explain(dict(error), kind) for error in exc.errors(include_url=False)[:10])
        msg = f"has a manifest {file_name} that is wrong: {problems}"
        raise ArtifactError(msg) from exc
    except (ValueError, RecursionError) as exc:  # of TOML, of UTF-8, and of a number of thousands of digits
        msg = f"has a manifest {file_name} that is not valid TOML: {exc}"
        raise ArtifactError(msg) from exc


def _explain(error: dict[str, Any], kind: type[Manifest]) -> str:
    place = error["loc"]
    name = clip(".".join(map(str, place)))
    if error["type"] == "extra_forbidden":
        known = InputEntry.model_fields if place[0] == "inputs" else kind.model_fields
        hint = did_you_mean(str(place[-1]), known)
        return f"unknown key {name!r}" + (f"; {hint}" if hint else "")
    if error["type"] == "string_pattern_mismatch" and re.fullmatch("name|version", name):
        return f"{name}: wanted letters, digits and . _ + -, at most 64, beginning with a letter or digit"
    if error["type"] == "missing":
        return f"the key {name!r} is missing"
    return f"{name}: {str(error['msg']).removeprefix('Value error, ')}"
