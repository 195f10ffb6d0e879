"""A folder for temporary files, where there is a place for one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder that is made in it is private
"""Where files can be made in a container whose file system is read-only."""


def make_scratch(prefix: str) -> Path | None:
    """Make a private folder; None on a machine where nothing can be written. Who makes it removes it."""
    for place in (None, SHARED_MEMORY):
        try:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError:
            continue
    return None


def remove_scratch(folder: Path) -> None:
    """Remove a folder that hostile code has filled and can no longer reach; what cannot be removed stays.

    Never raises. :func:`shutil.rmtree` gives up on folders without rights, and ends with a RecursionError
    on a thousand within each other: each is moved up here before it is looked into, so that no path is long.
    """
    n_moved = 0
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            place.chmod(0o700)
            with os.scandir(place) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108 - a link is removed, not what it leads to
                        continue
                    n_moved += 1
                    os.chmod(entry.path, 0o700)  # noqa: PTH101 - a folder can only be moved by whoever may write in it
                    below = folder.with_name(f"{folder.name}.{n_moved}")
                    os.rename(entry.path, below)  # noqa: PTH104
                    waiting.append(below)
            place.rmdir()
        except OSError:
            continue
