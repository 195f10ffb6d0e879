"""Has anything changed at a path? Told by names, sizes and times, without opening a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.store.files import MAX_DEPTH
from fitserve.store.level import state_of
from fitserve.store.manifest import MANIFEST_SUFFIX
from fitserve.store.names import is_unfinished, model_stem
from fitserve.store.repository import SIGNATURE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES = 200_000
"""Files that are looked at below one folder: about a second. A change beyond them is not noticed."""


def fingerprint(path: Path) -> str:
    """A text that changes when anything does that is served from a path. Blocks; never raises.

    Of a file, it is made of the file, its manifest and its signature; of a folder, of all files below it and its
    signature. Hidden files and those that are being written by their name (``.part``) are passed over: they count
    when they get their final name. Files are told apart by name, size, inode and times, so that a file renamed into
    place counts, whatever its age.
    """
    lines = hashlib.sha256()
    for name, found in _files(path):
        lines.update(f"{name}\0{found}\n".encode("utf-8", "surrogateescape"))
    return lines.hexdigest()


def watched_beside(path: Path) -> tuple[Path, ...]:
    """What belongs to a model at a path and lies beside it: its manifest, where it is a file, and its signature."""
    return path.with_name(model_stem(path) + MANIFEST_SUFFIX), Path(f"{path}{SIGNATURE_SUFFIX}")


def _files(path: Path) -> Iterator[tuple[str, object]]:
    path = path.absolute()
    for beside in (path, *watched_beside(path)):
        try:
            status = beside.stat()
        except OSError:
            continue
        # Of a folder only which one it is: its times change with the hidden files in it.
        yield beside.name, (status.st_dev, status.st_ino) if beside.is_dir() else state_of(status)
    left = MAX_FILES
    for found in _below(str(path), "", 0):
        yield found
        left -= 1
        if not left:
            return


def _below(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    """What lies below a folder, in order of the names; nothing if it is none, or has just gone."""
    try:
        with os.scandir(folder) as entries:
            there = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in there:
        if is_unfinished(entry.name):
            continue
        name = prefix + entry.name
        try:
            if not entry.is_dir(follow_symlinks=False):
                yield name, state_of(entry.stat())
                continue
        except OSError:
            yield name, None  # a link to nothing
            continue
        yield f"{name}/", None
        if depth < MAX_DEPTH:
            yield from _below(entry.path, f"{name}/", depth + 1)
