"""What a model and its version are called, by the name of a file or folder."""

from __future__ import annotations

import functools
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

import fitserve.formats
from fitserve.formats.base import Format
from fitserve.plugins import discover
from fitserve.store.manifest import IDENTIFIER

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPRESSIONS = (".gz", ".bz2", ".xz", ".lzma", ".z")

UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", ".lock", "~")
"""How files end that a program is still writing, or has left behind."""

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".log", ".xml", ".parquet", ".npy", ".tar")

_VERSION = re.compile(r"^(?P<name>.+)_v(?P<version>\d.*)$", re.DOTALL)


class Named(NamedTuple):
    """A name as it is written, perhaps with characters that no model's name may have, and a version if it has one."""

    name: str
    version: str | None


def model_stem(path: PurePath) -> str:
    """The file name without the endings of model files: ``model_v1.2.3.pkl.gz`` → ``model_v1.2.3``."""
    return _endings().sub("", path.name) or path.name


def split_name(stem: str) -> Named:
    """Split ``churn_v1.2.3`` into name and version, at the last ``_v`` that a digit follows."""
    match = _VERSION.match(stem)
    if match and re.fullmatch(IDENTIFIER, match["version"]):
        return Named(match["name"], match["version"])
    return Named(stem, None)


def parse_name(stem: str) -> tuple[str, str | None]:
    """Split as :func:`split_name` does, into a name that may stand in a URL."""
    name, version = split_name(stem)
    return clean_name(name), version


def clean_name(text: str) -> str:
    """The name that a model gets where its file or folder is called ``text``."""
    if re.fullmatch(IDENTIFIER, text):
        return text
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")[:64] or "model"


def is_unfinished(name: str) -> bool:
    """Whether a file or folder is hidden, or called as those are that are being written."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED)


def is_surely_model(file_name: str) -> bool:
    """Whether a file whose content may be a model's is one, where other models lie beside it.

    A module may be part of another model, unless it has a version. Of compressed files only the names tell which are
    tables of data.
    """
    name = file_name.lower()
    if name.endswith(".py"):
        return split_name(model_stem(PurePath(file_name))).version is not None
    inner = name.removesuffix(next((ending for ending in COMPRESSIONS if name.endswith(ending)), ""))
    return inner == name or not inner.endswith(_TABLES)


@functools.cache
def formats() -> Sequence[Format]:
    """Every model format."""
    return discover(fitserve.formats, Format, "FORMAT")


@functools.cache
def _endings() -> re.Pattern[str]:
    suffixes = {suffix for known in formats() for suffix in known.suffixes} | set(COMPRESSIONS)
    return re.compile(f"({'|'.join(map(re.escape, sorted(suffixes)))})+$", re.IGNORECASE)
