"""Compiled engines as files: what the compiling child hands over, the cache keeps and a package holds.

A folder of engines has a file for each and ``engines.json``, which tells the digest of each, the versions
that they were made with, and the report of their proof.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fitserve.errors import ArtifactError, clip
from fitserve.optimize.base import Compiled, Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX = "engines.json"
MAX_INDEX_BYTES = 4 * 2**20

COMPILER = "1"
"""Raised when what is compiled, or how it is proven, changes: engines of another one are compiled anew."""

LIBRARIES = (
    "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "skl2onnx", "treelite", "xgboost", "lightgbm",
)  # fmt: skip
"""Distributions whose version may change what an engine answers, or what it must answer."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one model that have been proven, and the report on all that were tried."""

    compiled: tuple[Compiled, ...]
    report: tuple[dict[str, Any], ...]
    versions: Mapping[str, str]

    def files(self) -> dict[str, bytes]:
        """The content of each file of the folder, by name."""
        files = {f"{one.engine}.bin": one.data for one in self.compiled}
        index = {
            "schema": 1,
            "versions": dict(self.versions),
            "engines": [
                {"engine": one.engine, "sha256": hashlib.sha256(one.data).hexdigest(), "note": one.note}
                for one in self.compiled
            ],
            "report": list(self.report),
        }
        return {**files, INDEX: orjson.dumps(index, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)}

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Self:
        """Read a folder of engines.

        Raises:
            ArtifactError: it is none, or a file is not the one that was written.
        """
        index = _index(files)
        compiled = []
        for entry in index.engines:
            data = files.get(f"{entry.engine}.bin")
            if data is None or hashlib.sha256(data).hexdigest() != entry.sha256:
                msg = f"has an engine {entry.engine} that is not the one that was compiled"
                raise ArtifactError(msg)
            compiled.append(Compiled(entry.engine, data, entry.note))
        return cls(tuple(compiled), tuple(index.report), index.versions)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    engine: Engine
    sha256: str
    note: dict[str, Any]


class _Index(BaseModel):
    """``engines.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    versions: dict[str, str]
    engines: list[_Entry] = Field(max_length=16)
    report: list[dict[str, Any]] = Field(max_length=64)


def _index(files: Mapping[str, bytes]) -> _Index:
    data = files.get(INDEX, b"")
    try:
        if len(data) > MAX_INDEX_BYTES:
            msg = f"{len(data)} bytes, at most {MAX_INDEX_BYTES}"
            raise ValueError(msg)  # noqa: TRY301 - told as any other fault of it
        return _Index.model_validate(orjson.loads(data))
    except (ValidationError, ValueError) as exc:
        msg = f"has compiled engines whose {INDEX} is wrong: {clip(str(exc), 200)}"
        raise ArtifactError(msg) from exc


def versions_here() -> dict[str, str]:
    """What engines made here depend on besides the model: versions by distribution name, and the machine."""
    found = {"compiler": COMPILER, "python": platform.python_version(), "machine": _machine()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _machine() -> str:
    """The processor: its instructions decide how sums are rounded."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
        return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
    return platform.machine()
