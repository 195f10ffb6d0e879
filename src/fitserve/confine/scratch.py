"""A folder for temporary files, where there is a place for one."""

from __future__ import annotations

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
